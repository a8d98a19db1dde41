import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Detokenizer, type TokenDecoder } from './detokenizer.ts';
import { Tokenizer } from './tokenizer.ts';

function load(json: object): Tokenizer {
  return Tokenizer.fromAssets(new Map([['tokenizer.json', JSON.stringify(json)]]), 'model')!;
}

const bundledPath = new URL('../../models/storyteller-7m/tokenizer.json', import.meta.url);
const bundled = Tokenizer.fromAssets(new Map([['tokenizer.json', readFileSync(bundledPath, 'utf8')]]), 'model')!;

const ids = (tokens: readonly string[]): Record<string, number> =>
  Object.fromEntries(tokens.map((token, id) => [token, id]));
const special = { id: 0, content: '<end>', special: true };

/** In the manner of SentencePiece: marks for spaces, one token a byte, the text's first space taken away. */
const byteFallback = load({
  added_tokens: [special],
  model: {
    type: 'BPE',
    byte_fallback: true,
    unk_token: '<unk>',
    fuse_unk: true,
    merges: [],
    vocab: ids([
      '<end>',
      '<unk>',
      ...Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`),
      ...['▁', '▁Hello', '▁fox', 'es', '▁▁', 'é', '中', '�', '▁,', 'a'],
    ]),
  },
  normalizer: {
    type: 'Sequence',
    normalizers: [
      { type: 'Prepend', prepend: '▁' },
      { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
    ],
  },
  decoder: {
    type: 'Sequence',
    decoders: [
      { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
      { type: 'ByteFallback' },
      { type: 'Fuse' },
      { type: 'Strip', content: ' ', start: 1, stop: 0 },
    ],
  },
});

/** In the manner of BERT: `##` continues a word. */
const wordPiece = load({
  added_tokens: [special],
  model: {
    type: 'WordPiece',
    unk_token: '[UNK]',
    continuing_subword_prefix: '##',
    vocab: ids(['<end>', '[UNK]', 'the', 'fox', '##es', 'run', '.']),
  },
  pre_tokenizer: { type: 'BertPreTokenizer' },
  decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
});

const metaspace = load({
  added_tokens: [special],
  model: {
    type: 'Unigram',
    unk_id: 1,
    vocab: [
      ['<end>', 0],
      ['<unk>', 0],
      ['▁', -2],
      ['▁the', -3],
      ['s', -3],
      ['▁fox', -3],
    ],
  },
  pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always' },
  decoder: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always' },
});

function deltas(tokenizer: TokenDecoder, tokenIds: readonly number[], skipSpecialTokens = true): string[] {
  const stream = new Detokenizer(tokenizer, { skipSpecialTokens });
  return [...tokenIds.map((id) => stream.push([id])), stream.flush()];
}

const emoji = ['👨‍👩‍👧‍👦', '👍🏽', '🇩🇪', '🏳️‍🌈', 'e\u0301', '中文', 'مرحبا', ' 日本 語', 'नमस्ते'];

describe('the deltas together are the whole text', () => {
  const cases: [string, Tokenizer, number][] = [
    ['byte-level, 3,000 random lists', bundled, 4200],
    ['SentencePiece with byte fallback', byteFallback, 270],
    ['WordPiece', wordPiece, 8],
    ['Metaspace', metaspace, 7],
  ];
  test.each(cases)('%s', (_, tokenizer, limit) => {
    // Small ids are bytes in the first two, so that half of the lists are mostly broken UTF-8.
    const id = fc.oneof(fc.nat({ max: limit }), fc.nat({ max: Math.min(limit, 260) }));
    const property = fc.property(fc.array(id, { maxLength: 60 }), fc.boolean(), (list, skip) => {
      expect(deltas(tokenizer, list, skip).join('')).toBe(tokenizer.decode(list, { skipSpecialTokens: skip }));
    });
    fc.assert(property, { numRuns: 3000, seed: 11 });
  });

  test('text that goes in comes out, with no U+FFFD on the way', () => {
    const piece = fc.oneof(fc.constantFrom(...emoji), fc.string({ unit: 'grapheme', maxLength: 8 }));
    const text = fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join(' '));
    const property = fc.property(text, (original) => {
      fc.pre(!/\ufffd|\p{Surrogate}/u.test(original));
      for (const tokenizer of [bundled, byteFallback]) {
        const parts = deltas(tokenizer, tokenizer.encode(original));
        expect(parts.join('')).toBe(original);
        for (const part of parts) expect(part).not.toMatch(/\ufffd|\p{Surrogate}/u);
      }
    });
    fc.assert(property, { numRuns: 500, seed: 5 });
  });
});

describe('a character is never split', () => {
  test.each(emoji)('%s, whose bytes are tokens of their own', (text) => {
    for (const tokenizer of [bundled, byteFallback]) {
      const tokenIds = tokenizer.encode(text);
      const parts = deltas(tokenizer, tokenIds);
      expect(parts.join('')).toBe(text);
      expect(parts.join('|')).not.toContain('\ufffd');
      expect(parts.at(-1)).toBe('');
    }
  });

  test('bytes that never become a character come out as U+FFFD as soon as that is certain', () => {
    const byte = (value: number): number => byteFallback.tokenToId(`<0x${value.toString(16).toUpperCase()}>`)!;
    const stream = new Detokenizer(byteFallback);
    expect(stream.push([byte(0xf0), byte(0x9f)])).toBe('');
    expect(stream.push([byteFallback.tokenToId('a')!])).toBe('\ufffda');
    expect(stream.push([byte(0xe4)])).toBe('');
    expect(stream.flush()).toBe('\ufffd');
  });

  test('a U+FFFD of the model waits for the next token only', () => {
    const stream = new Detokenizer(byteFallback);
    const [mark, a] = [byteFallback.tokenToId('�')!, byteFallback.tokenToId('a')!];
    expect(stream.push([a, mark])).toBe('a');
    expect(stream.push([a])).toBe('\ufffda');
  });
});

describe('spaces', () => {
  const [hello, fox, es] = ['▁Hello', '▁fox', 'es'].map((token) => byteFallback.tokenToId(token)!) as [
    number,
    number,
    number,
  ];

  test('only the first of the text is dropped', () => {
    expect(deltas(byteFallback, [hello, fox, es, hello])).toEqual(['Hello', ' fox', 'es', ' Hello', '']);
  });

  test('a skipped special token does not make a new beginning', () => {
    expect(deltas(byteFallback, [hello, 0, fox])).toEqual(['Hello', '', ' fox', '']);
    expect(deltas(byteFallback, [0, hello, 0, fox], false)).toEqual(['<end>', ' Hello', '<end>', ' fox', '']);
  });

  test('a list of tokens at once gives the same as one by one', () => {
    const stream = new Detokenizer(byteFallback);
    expect(stream.push([hello, fox]) + stream.push([es]) + stream.flush()).toBe('Hello foxes');
  });
});

describe('the cost per token does not grow', () => {
  /** Counts the ids that reach the decoder. */
  function counting(tokenizer: Tokenizer): { decoder: TokenDecoder; decoded: () => number } {
    let decoded = 0;
    const decoder: TokenDecoder = {
      decode: (list, options) => {
        const array = [...list];
        decoded += array.length;
        return tokenizer.decode(array, options);
      },
      idToToken: (id) => tokenizer.idToToken(id),
      isSpecial: (id) => tokenizer.isSpecial(id),
    };
    return { decoder, decoded: () => decoded };
  }

  test.each([
    ['plain text', bundled, bundled.encode('Once upon a time there was a fox. '.repeat(200))],
    ['emoji', bundled, bundled.encode('👨‍👩‍👧‍👦'.repeat(200))],
    ['nothing but continuation bytes', byteFallback, new Array<number>(4000).fill(2 + 0x80)],
    ['nothing but lead bytes', byteFallback, new Array<number>(4000).fill(2 + 0xf0)],
    ['nothing but U+FFFD', byteFallback, new Array<number>(4000).fill(byteFallback.tokenToId('�')!)],
  ])('%s', (_, tokenizer, list) => {
    const { decoder, decoded } = counting(tokenizer);
    const text = deltas(decoder, list).join('');
    expect(text).toBe(tokenizer.decode(list));
    expect(decoded() / list.length).toBeLessThan(24);
  });
});
