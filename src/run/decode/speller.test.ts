// Texts as tokens, in each spelling of bytes that vocabularies have.
import { expect, it } from 'vitest';
import { Speller } from './speller.ts';

it('takes the longest token first, and stops where no token goes on', () => {
  const speller = new Speller({ encodedVocab: ['', '"', '"na', 'na', 'n', 'me', 'me":'], vocabType: 'raw' });
  expect(speller.spell('"name":')).toEqual([2, 6]);
  expect(speller.spell('name?"')).toEqual([3, 5]);
  expect(speller.spell('')).toEqual([]);
});

it("spells bytes in GPT-2's letters, and spaces as sentencepiece does", () => {
  const bytes = new Speller({ encodedVocab: ['Ġa', 'Ċ', 'Ã', '©', 'é', '¡'], vocabType: 'byte_level' });
  expect(bytes.spell(' a\né')).toEqual([0, 1, 2, 3]);
  const pieces = new Speller({ encodedVocab: ['▁a', '▁', 'b'], vocabType: 'byte_fallback' });
  expect(pieces.spell(' a b')).toEqual([0, 1, 2]);
});
