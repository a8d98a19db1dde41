import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { ConfigError, RequestError } from '../base/errors.ts';
import { ChatTemplate } from './chat-template.ts';
import { readSpecialTokenIds } from './special-tokens.ts';
import { Tokenizer } from './tokenizer.ts';

const folder = new URL('../../models/storyteller-7m/', import.meta.url);
const bundled = new Map(
  readdirSync(folder)
    .filter((name) => /^(tokenizer|generation_|config).*\.json$/.test(name))
    .map((name) => [name, readFileSync(new URL(name, folder), 'utf8')]),
);

function load(assets: ReadonlyMap<string, string>): Tokenizer {
  return Tokenizer.fromAssets(assets, 'model')!;
}

/** The bundled files with keys of some of them replaced. */
function changed(changes: Record<string, object>): Map<string, string> {
  const assets = new Map(bundled);
  for (const [name, change] of Object.entries(changes))
    assets.set(name, JSON.stringify({ ...JSON.parse(assets.get(name) ?? '{}'), ...change }));
  return assets;
}

// Made with the Rust library (tokenizers 0.23.3 of PyPI) from the same tokenizer.json.
const pinned: [string, number[]][] = [
  ['', []],
  ['   fox', [223, 223, 1439]],
  ['a\u0085b', [67, 129, 230, 68]],
  ['x\ufeff y', [90, 174, 122, 126, 321]],
  ["\ufeff's", [174, 122, 126, 9, 85]],
  ['👨‍👩‍👧', [175, 256, 242, 104, 161, 225, 238, 175, 256, 242, 105, 161, 225, 238, 175, 256, 242, 103]],
  ['e\u0301a\u0308', [71, 139, 226, 67, 139, 233]],
  ['中文', [163, 119, 258, 165, 247, 232]],
  ['مرحبا', [152, 230, 151, 112, 151, 258, 151, 104, 151, 103]],
  ['one\n\n\ntwo', [390, 201, 201, 201, 86, 89, 81]],
  ['<|im_end|>ok<|im_start|>', [2, 1160, 1]],
  ['<|im_end|', [30, 94, 467, 65, 71, 266, 94]],
  ["it's we'LL", [272, 535, 720, 9, 46, 46]],
  ['\u00a0\u3000x', [129, 257, 162, 225, 225, 90]],
  [`${' '.repeat(20)}z`, [...new Array<number>(19).fill(223), 3635]],
];

describe('the bundled tokenizer', () => {
  const tokenizer = load(bundled);

  test.each(pinned)('encodes %j as the Rust library does', (text, ids) => {
    expect(tokenizer.encode(text)).toEqual(ids);
    expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe(text);
  });

  test('encodes its golden prompts, chats through the template', () => {
    interface Golden {
      kind: string;
      prompt: string;
      rendered: string;
      prompt_token_ids: number[];
    }
    const goldens: Golden[] = JSON.parse(readFileSync(new URL('golden.json', folder), 'utf8'));
    const template = ChatTemplate.fromAssets(bundled, 'model');
    for (const golden of goldens) {
      const isChat = golden.kind === 'chat';
      const text = isChat ? template.render([{ role: 'user', content: golden.prompt }]) : golden.prompt;
      if (isChat) expect(text).toBe(golden.rendered);
      expect(tokenizer.encode(text, { addSpecialTokens: !isChat })).toEqual(golden.prompt_token_ids);
    }
  });

  test('knows its ids', () => {
    expect(tokenizer.vocabSize).toBe(4096);
    expect(tokenizer.eosTokenIds).toEqual([2, 0]);
    expect(tokenizer.bosTokenId).toBeUndefined();
    expect(tokenizer.padTokenId).toBe(0);
    expect(tokenizer.tokenToId('<|im_end|>')).toBe(2);
    expect(tokenizer.idToToken(2)).toBe('<|im_end|>');
    expect(tokenizer.idToToken(4096)).toBeUndefined();
    expect(tokenizer.isSpecial(2)).toBe(true);
    expect(tokenizer.isSpecial(1439)).toBe(false);
  });

  test('reads special tokens as characters when they are not allowed', () => {
    // As the Rust library with encode_special_tokens.
    expect(tokenizer.encode('a<|im_end|>b', { allowSpecial: false })).toEqual([
      67, 30, 94, 467, 65, 71, 266, 94, 32, 68,
    ]);
    expect(tokenizer.encode('no such', { allowSpecial: false })).toEqual(tokenizer.encode('no such'));
  });

  test('skips special tokens and drops ids that are not in the vocabulary', () => {
    expect(tokenizer.decode([1, 1160, 2])).toBe('ok');
    expect(tokenizer.decode([1160, 99999, -1])).toBe('ok');
    expect(tokenizer.decode([])).toBe('');
    expect(tokenizer.decode([2])).toBe('');
  });

  test('reads a lone surrogate as U+FFFD', () => {
    expect(tokenizer.decode(tokenizer.encode('a\ud83db\udc00'))).toBe('a\ufffdb\ufffd');
  });

  test('keeps the spaces that clean_up_tokenization_spaces would take', () => {
    const cleaning = load(changed({ 'tokenizer_config.json': { clean_up_tokenization_spaces: true } }));
    expect(cleaning.decode(cleaning.encode("Yes , I do n't ."))).toBe("Yes , I do n't .");
  });
});

describe('begin and end tokens', () => {
  const post = (single: object[]): object => ({
    post_processor: { type: 'TemplateProcessing', single, pair: single, special_tokens: {} },
  });
  const bos = { SpecialToken: { id: '<|im_start|>', type_id: 0 } };
  const sequence = { Sequence: { id: 'A', type_id: 0 } };

  test('come from the post-processor, and only when asked for', () => {
    const tokenizer = load(changed({ 'tokenizer.json': post([bos, sequence, bos]) }));
    expect(tokenizer.encode('ok')).toEqual([1, 1160, 1]);
    expect(tokenizer.encode('')).toEqual([1, 1]);
    expect(tokenizer.encode('ok', { addSpecialTokens: false })).toEqual([1160]);
  });

  test('come from add_bos_token and add_eos_token where these are stated', () => {
    const tokens = { bos_token: { content: '<|im_start|>' } };
    const on = { ...tokens, add_bos_token: true, add_eos_token: true };
    expect(load(changed({ 'tokenizer_config.json': on })).encode('ok')).toEqual([1, 1160, 2]);
    const both = changed({ 'tokenizer_config.json': on, 'tokenizer.json': post([bos, sequence]) });
    expect(load(both).encode('ok')).toEqual([1, 1160, 2]);
    const off = { ...tokens, add_bos_token: false };
    expect(
      load(changed({ 'tokenizer_config.json': off, 'tokenizer.json': post([bos, sequence]) })).encode('ok'),
    ).toEqual([1160]);
  });

  test('ids are merged from all files, the tokenizer first; -1 and null mean none', () => {
    const assets = new Map([
      ['tokenizer_config.json', '{"eos_token": {"content": "<end>"}, "bos_token": null}'],
      ['special_tokens_map.json', '{"bos_token": "<not this>", "pad_token": "<pad>"}'],
      ['generation_config.json', '{"eos_token_id": [7, 9], "bos_token_id": -1}'],
      ['config.json', '{"eos_token_id": 9, "text_config": {"eos_token_id": 11, "bos_token_id": 3}}'],
    ]);
    const ids = readSpecialTokenIds(assets, 'model', (token) => ({ '<end>': 5, '<pad>': 0 })[token]);
    expect(ids).toEqual({ bosTokenId: 3, eosTokenIds: [5, 7, 9, 11], padTokenId: 0 });
    expect(readSpecialTokenIds(assets, 'model').eosTokenIds).toEqual([7, 9, 11]);
  });

  test('a token that only tokenizer_config.json adds is known', () => {
    const added = { added_tokens_decoder: { 4100: { content: '<tool>', special: true } } };
    const tokenizer = load(changed({ 'tokenizer_config.json': added }));
    expect(tokenizer.encode('ok<tool>')).toEqual([1160, 4100]);
    expect(tokenizer.vocabSize).toBe(4101);
    expect(tokenizer.isSpecial(4100)).toBe(true);
  });
});

describe('Metaspace', () => {
  const vocab = ['<unk>', '▁', 'a', 'b', '▁a', '▁▁', 'ab', '▁b'];
  const model = {
    type: 'BPE',
    unk_token: '<unk>',
    vocab: Object.fromEntries(vocab.map((token, id) => [token, id])),
    merges: ['▁ ▁', '▁ a', 'a b', '▁ b'],
  };
  const build = (prepend: string): Tokenizer => {
    const metaspace = { type: 'Metaspace', replacement: '▁', prepend_scheme: prepend };
    return load(new Map([['tokenizer.json', JSON.stringify({ model, pre_tokenizer: metaspace, decoder: metaspace })]]));
  };

  test('cuts before every mark and takes back only what it prepended', () => {
    // '▁▁' cannot be used: the marks are in different pieces.
    expect(build('always').encode('a  b')).toEqual([4, 1, 7]);
    expect(build('always').decode([4, 1, 7])).toBe('a  b');
    expect(build('never').encode(' a')).toEqual([4]);
    expect(build('never').decode([4, 7])).toBe(' a b');
  });

  test('an unknown character becomes the unknown token, or is refused where there is none', () => {
    expect(build('never').encode('z')).toEqual([0]);
    const { unk_token: _, ...without } = model;
    const unigram = {
      type: 'Unigram',
      unk_id: 0,
      vocab: [
        ['<unk>', 0],
        ['a', -1],
      ],
    };
    expect(load(new Map([['tokenizer.json', JSON.stringify({ model: unigram })]])).encode('a')).toEqual([1]);
    expect(load(new Map([['tokenizer.json', JSON.stringify({ model: without })]])).encode('az')).toEqual([2]);
    const wordPiece = { type: 'WordPiece', vocab: { a: 0 }, unk_token: '[UNK]', continuing_subword_prefix: '##' };
    const strict = load(new Map([['tokenizer.json', JSON.stringify({ model: wordPiece })]]));
    expect(() => strict.encode('z')).toThrow(RequestError);
  });
});

describe('damaged files', () => {
  test('no tokenizer.json, no tokenizer', () => {
    expect(Tokenizer.fromAssets(new Map(), 'model')).toBeUndefined();
  });

  test.each([
    ['cut short', '{"model": {'],
    ['not an object', '[1]'],
    ['empty', '{}'],
    ['no vocabulary', '{"model": {"type": "BPE", "merges": []}}'],
    ['an id that is no id', '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}'],
    ['an absurd id', '{"model": {"type": "BPE", "vocab": {"a": 1e15}, "merges": []}}'],
    ['no merges', '{"model": {"type": "BPE", "vocab": {"a": 0}}}'],
    ['bad merges', '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [3]}}'],
    ['bad scores', '{"model": {"type": "Unigram", "vocab": [["a", "b"]]}}'],
    ['bad added tokens', '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": [{"id": 1}]}'],
    ['an unknown model', '{"model": {"type": "Fancy", "vocab": 3}}'],
    [
      'pieces of no length',
      '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "pre_tokenizer": {"type": "FixedLength", "length": 0}}',
    ],
    [
      'no pattern',
      '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "decoder": {"type": "Sequence", "decoders": [{"type": "Replace"}]}}',
    ],
    [
      'a pattern that is no regular expression',
      '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(("}}}',
    ],
    ['an unknown decoder', '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "decoder": {"type": "Fancy"}}'],
  ])('%s: ConfigError that names the file', (_, text) => {
    const build = (): unknown => Tokenizer.fromAssets(new Map([['tokenizer.json', text]]), 'model');
    expect(build).toThrow(ConfigError);
    expect(build).toThrow(/model\/tokenizer\.json/);
  });

  test('a wrong eos_token_id is refused', () => {
    expect(() => load(changed({ 'generation_config.json': { eos_token_id: 'two' } }))).toThrow(/eos_token_id/);
    expect(() => load(new Map([...bundled, ['tokenizer_config.json', '{']]))).toThrow(ConfigError);
  });
});
