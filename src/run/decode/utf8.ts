// What UTF-8 forbids and xgrammar 0.1.27 lets pass: after some first bytes of a character only a part of the continuation bytes may come (Unicode 15, table 3-7), else the bytes would be a
// surrogate, a longer spelling of a shorter character, or beyond Unicode. A vocabulary of whole characters has nothing to forbid; one of bytes can split a character over tokens.
import type { GuidedDecodingConfig } from './guided.ts';
import { bytesOfLetters, fallbackByte } from './token-bytes.ts';

/** First bytes, and the continuation bytes that may not follow them. */
const openings = [
  { lead: 0xe0, from: 0x80, to: 0x9f },
  { lead: 0xed, from: 0xa0, to: 0xbf },
  { lead: 0xf0, from: 0x80, to: 0x8f },
  { lead: 0xf4, from: 0x90, to: 0xbf },
] as const;

/** The first and last byte of a token; undefined when it is whole characters. */
function edges(token: string, kind: GuidedDecodingConfig['vocabType']): readonly [number, number] | undefined {
  if (token === '' || kind === 'raw') return undefined;
  if (kind === 'byte_fallback') {
    const byte = fallbackByte(token);
    return byte === undefined ? undefined : [byte, byte];
  }
  const bytes = bytesOfLetters(token);
  return bytes === undefined ? undefined : [bytes[0]!, bytes.at(-1)!];
}

/** Which tokens end in an opening, and which may not come then. */
export class Utf8Rules {
  /** By token: 0, or the number of the opening it ends in. */
  readonly #ends: Uint8Array;
  /** By opening: a bit a token. */
  readonly #forbidden: readonly Int32Array[];

  constructor({ encodedVocab, vocabType }: Pick<GuidedDecodingConfig, 'encodedVocab' | 'vocabType'>) {
    this.#ends = new Uint8Array(encodedVocab.length);
    this.#forbidden = [undefined, ...openings].map(() => new Int32Array(Math.ceil(encodedVocab.length / 32)));
    encodedVocab.forEach((token, id) => {
      const [first, last] = edges(token, vocabType) ?? [];
      if (first === undefined || last === undefined) return;
      this.#ends[id] = openings.findIndex(({ lead }) => lead === last) + 1;
      for (const [at, { from, to }] of openings.entries())
        if (first >= from && first <= to) this.#forbidden[at + 1]![id >> 5]! |= 1 << (id & 31);
    });
  }

  /** The opening that a token ends in; 0: none. */
  after(token: number): number {
    return this.#ends[token] ?? 0;
  }

  /** Takes from the mask what may not come after an opening. */
  apply(mask: Int32Array, opening: number): void {
    if (opening === 0) return;
    const forbidden = this.#forbidden[opening]!;
    for (let i = 0; i < Math.min(mask.length, forbidden.length); i++) mask[i]! &= ~forbidden[i]!;
  }
}
