import { describe, expect, test } from 'vitest';
import { Tokenizer } from './tokenizer.ts';

/** The pieces that a pre-tokenizer makes, read off a tokenizer that has no merges but keeps each whole piece as a token. */
function pieces(preTokenizer: object, text: string, expected: readonly string[]): string[] {
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, use_regex: false };
  const steps = JSON.stringify(preTokenizer).includes('ByteLevel') ? [preTokenizer] : [preTokenizer, byteLevel];
  const spell = (piece: string): string =>
    piece.replaceAll(' ', 'Ġ').replaceAll('\n', 'Ċ').replaceAll('½', 'Â½').replaceAll('😀', 'ðŁĺĢ');
  const tokens = [...new Set(expected.map(spell))];
  const model = {
    type: 'BPE',
    ignore_merges: true,
    unk_token: null,
    merges: [],
    vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
  };
  const json = { model, pre_tokenizer: { type: 'Sequence', pretokenizers: steps }, decoder: { type: 'ByteLevel' } };
  const tokenizer = Tokenizer.fromAssets(new Map([['tokenizer.json', JSON.stringify(json)]]), 'model')!;
  return tokenizer.encode(text).map((id) => tokenizer.decode([id]));
}

const split = (behavior: string, invert = false): object => ({
  type: 'Split',
  pattern: { String: '-' },
  behavior,
  invert,
});

// The expected pieces are those of the Rust library (tokenizers 0.23.3 of PyPI, pre_tokenize_str).
describe('splits', () => {
  const text = 'the-final--countdown';
  test.each<[string, string[]]>([
    ['Removed', ['the', 'final', 'countdown']],
    ['Isolated', ['the', '-', 'final', '-', '-', 'countdown']],
    ['Contiguous', ['the', '-', 'final', '--', 'countdown']],
    ['MergedWithPrevious', ['the-', 'final-', '-', 'countdown']],
    ['MergedWithNext', ['the', '-final', '-', '-countdown']],
  ])('%s', (behavior, expected) => {
    expect(pieces(split(behavior), text, expected)).toEqual(expected);
  });

  test('inverted', () => {
    const isolated = ['the', '-', 'final', '-', '-', 'countdown'];
    expect(pieces(split('Isolated', true), text, isolated)).toEqual(isolated);
    expect(pieces(split('Removed', true), text, ['-'])).toEqual(['-', '-', '-']);
  });

  test('a long rest without a separator takes linear time', () => {
    const rest = 'x'.repeat(200_000);
    expect(pieces(split('MergedWithPrevious'), `a-${rest}`, ['a-', rest])).toEqual(['a-', rest]);
  });
});

test.each<[string, object, string, string[]]>([
  ['digits one by one, of any kind', { type: 'Digits', individual_digits: true }, 'a12½', ['a', '1', '2', '½']],
  ['digits together', { type: 'Digits', individual_digits: false }, 'a12b3', ['a', '12', 'b', '3']],
  ['punctuation', { type: 'Punctuation' }, 'a!?$b', ['a', '!', '?', '$', 'b']],
  ['punctuation, contiguous', { type: 'Punctuation', behavior: 'Contiguous' }, 'a!?$b', ['a', '!?$', 'b']],
  ['words with their space', { type: 'ByteLevel', add_prefix_space: false }, "a b's  c", ['a', ' b', "'s", ' ', ' c']],
  ['words, a space put first', { type: 'ByteLevel', add_prefix_space: true }, 'a b', [' a', ' b']],
  ['a space that is there already', { type: 'ByteLevel', add_prefix_space: true }, ' a', [' a']],
])('%s', (_, step, text, expected) => {
  expect(pieces(step, text, expected)).toEqual(expected);
});

test('a prefix space does not come between the halves of a surrogate pair', () => {
  const step = { type: 'ByteLevel', add_prefix_space: true };
  expect(pieces(step, 'a\n😀', [' a', '\n', '😀'])).toEqual([' a', '\n', '😀']);
});
