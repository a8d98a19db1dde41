import { expect, it } from 'vitest';
import { Utf8Rules } from './utf8.ts';

const hex = (byte: number): string => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;

it('after an opening only what completes a character of Unicode may come', () => {
  const rules = new Utf8Rules({
    encodedVocab: Array.from({ length: 256 }, (_, byte) => hex(byte)),
    vocabType: 'byte_fallback',
  });
  const decoder = new TextDecoder('utf-8', { fatal: true });
  for (let lead = 0; lead < 256; lead++) {
    const opening = rules.after(lead);
    const mask = new Int32Array(8).fill(-1);
    rules.apply(mask, opening);
    const length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (opening === 0) expect(mask).toEqual(new Int32Array(8).fill(-1));
    if (lead < 0xc2 || lead > 0xf4) continue;
    for (let next = 0x80; next < 0xc0; next++) {
      const bytes = Uint8Array.from({ length }, (_, i) => [lead, next][i] ?? 0x80);
      let valid = true;
      try {
        decoder.decode(bytes);
      } catch {
        valid = false;
      }
      expect(((mask[next >> 5]! >>> (next & 31)) & 1) === 1, `${hex(lead)}${hex(next)}`).toBe(valid);
    }
  }
});

it('tokens of letters count by their bytes', () => {
  // 'Ġ' is a space, 'í' the byte ED, 'ķ' 95 and 'ł' A0 in GPT-2's letters.
  const rules = new Utf8Rules({ encodedVocab: ['Ġí', 'ķĺ', 'ł', 'a'], vocabType: 'byte_level' });
  const mask = Int32Array.of(0b1111);
  rules.apply(mask, rules.after(0));
  expect(mask[0]).toBe(0b1011);
  expect(rules.after(1)).toBe(0);
});
