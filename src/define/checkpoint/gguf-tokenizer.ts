// tokenizer.json, tokenizer_config.json and generation_config.json made from a GGUF's `tokenizer.*` metadata: byte-level BPE ("gpt2") as it is,
// SentencePiece BPE ("llama", Gemma's too) with merges derived from its scores.
import { CheckpointError, nearest } from '../../base/errors.ts';
import type { GgufSource, GgufValue } from './gguf.ts';
import { kindOf } from './json.ts';
import { type PreTokenizer, preTokenizers } from './pretokenizers.ts';

/** `tokenizer.ggml.token_type`. */
const types = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** Tokens that end a turn, whatever they are called: generation stops at them, as llama.cpp does. */
const endOfTurn = new Set([
  '<|eot_id|>',
  '<|im_end|>',
  '<|end|>',
  '<end_of_turn>',
  '<|endoftext|>',
  '<|eom_id|>',
  '<EOT>',
  '_<EOT>',
  '<|end_of_text|>',
  '<end_of_utterance>',
  '<｜end▁of▁sentence｜>',
]);

interface Vocabulary {
  readonly tokens: readonly string[];
  readonly kinds: readonly number[];
  readonly special: { readonly [name in 'bos' | 'eos' | 'unknown' | 'padding' | 'eot' | 'eom']: number | undefined };
  readonly addBos: boolean;
  readonly addEos: boolean;
}

function refuse(file: GgufSource, key: string, expected: string, got: string): never {
  throw new CheckpointError('bad tokenizer', {
    where: `${file.label}: ${key}`,
    expected,
    got,
    remedy: 'Convert the model again with a recent llama.cpp, or use its safetensors checkpoint',
  });
}

function list<Item extends GgufValue>(
  file: GgufSource,
  key: string,
  type: 'string' | 'number',
  length?: number,
): readonly Item[] | undefined {
  const value = file.metadata.get(key);
  if (value === undefined) return undefined;
  const isList = Array.isArray(value) && value.every((item) => typeof item === type);
  if (!isList || (length !== undefined && value.length !== length)) {
    refuse(
      file,
      key,
      `an array of ${length ?? 'any number of'} ${type}s`,
      Array.isArray(value) ? `${value.length} items` : kindOf(String(value)),
    );
  }
  return value as readonly Item[];
}

function flag(file: GgufSource, key: string, fallback: boolean): boolean {
  const value = file.metadata.get(key);
  return typeof value === 'boolean' ? value : fallback;
}

function readVocabulary(file: GgufSource, tokens: readonly string[], addBos: boolean): Vocabulary {
  const count = tokens.length;
  const kinds =
    list<number>(file, 'tokenizer.ggml.token_type', 'number', count) ??
    tokens.map((token) => (/^<0x[0-9A-F]{2}>$/.test(token) ? types.byte : types.normal));
  const id = (name: string): number | undefined => {
    const value = file.metadata.get(`tokenizer.ggml.${name}_token_id`);
    // Writers put -1 or 2^32 - 1 where a model has no such token.
    return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < count ? value : undefined;
  };
  const unknown = id('unknown') ?? (kinds.includes(types.unknown) ? kinds.indexOf(types.unknown) : undefined);
  return {
    tokens,
    kinds,
    special: { bos: id('bos'), eos: id('eos'), unknown, padding: id('padding'), eot: id('eot'), eom: id('eom') },
    addBos: flag(file, 'tokenizer.ggml.add_bos_token', addBos),
    addEos: flag(file, 'tokenizer.ggml.add_eos_token', false),
  };
}

/** Tokens matched in the text before anything else. */
function addedTokens({ tokens, kinds, special }: Vocabulary, eatsSpace: (token: string) => boolean): unknown[] {
  const always = new Set([special.bos, special.eos, special.unknown, special.padding].filter((id) => id !== undefined));
  const added: unknown[] = [];
  tokens.forEach((content, id) => {
    const kind = kinds[id];
    const isSpecial = kind === types.control || kind === types.unknown || always.has(id) || endOfTurn.has(content);
    if ((!isSpecial && kind !== types.userDefined) || content === '') return;
    added.push({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: isSpecial && eatsSpace(content),
      normalized: false,
      special: isSpecial,
    });
  });
  return added;
}

/** Puts the beginning- and end-of-text tokens around a text, where the model wants them. */
function template({ tokens, special, addBos, addEos }: Vocabulary): unknown {
  const bos = addBos ? special.bos : undefined;
  const eos = addEos ? special.eos : undefined;
  if (bos === undefined && eos === undefined) return null;
  const token = (id: number | undefined, type: number): unknown[] =>
    id === undefined ? [] : [{ SpecialToken: { id: tokens[id], type_id: type } }];
  const around = (name: string, type: number): unknown[] => [
    ...token(bos, type),
    { Sequence: { id: name, type_id: type } },
    ...token(eos, type),
  ];
  const used = [bos, eos].filter((id) => id !== undefined);
  return {
    type: 'TemplateProcessing',
    single: around('A', 0),
    pair: [...around('A', 0), ...around('B', 1)],
    special_tokens: Object.fromEntries(
      used.map((id) => [tokens[id], { id: tokens[id], ids: [id], tokens: [tokens[id]] }]),
    ),
  };
}

const vocabOf = (tokens: readonly string[]): Record<string, number> =>
  Object.fromEntries(tokens.map((token, id) => [token, id]));

function byteLevelJson(file: GgufSource, vocabulary: Vocabulary, pre: PreTokenizer): unknown {
  const merges =
    list<string>(file, 'tokenizer.ggml.merges', 'string') ??
    refuse(file, 'tokenizer.ggml.merges', 'the merges of the vocabulary', 'nothing');
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
  const splits = pre.patterns.map((Regex) => ({
    type: 'Split',
    pattern: { Regex },
    behavior: 'Isolated',
    invert: false,
  }));
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: addedTokens(vocabulary, () => false),
    normalizer: pre.composed === true ? { type: 'NFC' } : null,
    pre_tokenizer: { type: 'Sequence', pretokenizers: [...splits, byteLevel] },
    post_processor: template(vocabulary),
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: pre.ignoreMerges === true,
      vocab: vocabOf(vocabulary.tokens),
      merges: merges.map((merge) => {
        const space = merge.indexOf(' ', 1);
        return [merge.slice(0, space), merge.slice(space + 1)];
      }),
    },
  };
}

/**
 * Merges that make every token of a SentencePiece vocabulary from two others, best score first; of equal scores those with the longer parts
 * first (as transformers' converter orders them). Only normal tokens are made: control and byte tokens never come out of text.
 */
export function mergesFromScores(
  tokens: readonly string[],
  kinds: readonly number[],
  scores: readonly number[],
): [string, string][] {
  const ids = new Map<string, number>();
  tokens.forEach((token, id) => {
    if (kinds[id] === types.normal || kinds[id] === types.userDefined) ids.set(token, id);
  });
  const merges: { left: string; right: string; score: number; leftId: number; rightId: number }[] = [];
  for (const [token, id] of ids) {
    if (kinds[id] !== types.normal || token.length < 2) continue;
    for (let at = 1; at < token.length; at++) {
      const left = token.slice(0, at);
      const right = token.slice(at);
      const leftId = ids.get(left);
      const rightId = leftId === undefined ? undefined : ids.get(right);
      if (leftId !== undefined && rightId !== undefined)
        merges.push({ left, right, score: scores[id]!, leftId, rightId });
    }
  }
  const length = (text: string): number => [...text].length;
  merges.sort(
    (a, b) =>
      b.score - a.score ||
      length(b.left) - length(a.left) ||
      length(b.right) - length(a.right) ||
      a.leftId - b.leftId ||
      a.rightId - b.rightId,
  );
  return merges.map(({ left, right }) => [left, right]);
}

function sentencePieceJson(file: GgufSource, vocabulary: Vocabulary): unknown {
  const { tokens, kinds, special } = vocabulary;
  const scores = list<number>(file, 'tokenizer.ggml.scores', 'number', tokens.length);
  if (scores === undefined) refuse(file, 'tokenizer.ggml.scores', `${tokens.length} scores`, 'nothing');
  const prefix = flag(file, 'tokenizer.ggml.add_space_prefix', true);
  const replace = { type: 'Replace', pattern: { String: ' ' }, content: '▁' };
  const normalizers = prefix ? [{ type: 'Prepend', prepend: '▁' }, replace] : [replace];
  const decoders = [
    { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
    { type: 'ByteFallback' },
    { type: 'Fuse' },
  ];
  // Phi-3 was trained with the spaces after its special tokens taken away; GGUF has no field for that, llama.cpp knows it by the model.
  const phi3 = file.metadata.get('general.architecture') === 'phi3';
  const keeps = new Set(['<unk>', '<s>', '<|endoftext|>']);
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: addedTokens(vocabulary, (token) => phi3 && !keeps.has(token)),
    normalizer: { type: 'Sequence', normalizers },
    pre_tokenizer: null,
    post_processor: template(vocabulary),
    decoder: {
      type: 'Sequence',
      decoders: prefix ? [...decoders, { type: 'Strip', content: ' ', start: 1, stop: 0 }] : decoders,
    },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: special.unknown === undefined ? null : tokens[special.unknown],
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: kinds.includes(types.byte),
      ignore_merges: false,
      vocab: vocabOf(tokens),
      merges: mergesFromScores(tokens, kinds, scores),
    },
  };
}

function preTokenizerOf(file: GgufSource): PreTokenizer {
  const name = file.metadata.get('tokenizer.ggml.pre') ?? 'default';
  const pre = typeof name === 'string' ? preTokenizers.get(name) : undefined;
  if (pre !== undefined) return pre;
  const near = nearest(String(name).slice(0, 60), preTokenizers.keys()).join(', ');
  return refuse(file, 'tokenizer.ggml.pre', `a pre-tokenizer that is known (nearest: ${near})`, kindOf(name));
}

function tokenizerConfig(file: GgufSource, { tokens, special, addBos, addEos }: Vocabulary): unknown {
  const chat = file.metadata.get('tokenizer.chat_template');
  const named = {
    bos_token: special.bos,
    eos_token: special.eos,
    unk_token: special.unknown,
    pad_token: special.padding,
  };
  return {
    tokenizer_class: 'PreTrainedTokenizerFast',
    ...Object.fromEntries(Object.entries(named).map(([name, id]) => [name, id === undefined ? null : tokens[id]])),
    add_bos_token: addBos,
    add_eos_token: addEos,
    clean_up_tokenization_spaces: false,
    ...(typeof chat === 'string' ? { chat_template: chat } : {}),
  };
}

function generationConfig({ tokens, kinds, special }: Vocabulary): unknown {
  const ends = new Set([special.eos, special.eot, special.eom].filter((id) => id !== undefined));
  tokens.forEach((token, id) => {
    if (endOfTurn.has(token) && kinds[id] !== types.unused) ends.add(id);
  });
  return {
    ...(special.bos === undefined ? {} : { bos_token_id: special.bos }),
    ...(ends.size === 0 ? {} : { eos_token_id: ends.size === 1 ? [...ends][0] : [...ends] }),
    ...(special.padding === undefined ? {} : { pad_token_id: special.padding }),
  };
}

/** Ids that a file without a vocabulary may still state. */
function bareGenerationConfig(file: GgufSource): unknown {
  const names = { bos_token_id: 'bos', eos_token_id: 'eos', pad_token_id: 'padding' };
  const ids = Object.entries(names).map(
    ([name, key]) => [name, file.metadata.get(`tokenizer.ggml.${key}_token_id`)] as const,
  );
  return Object.fromEntries(ids.filter(([, id]) => typeof id === 'number' && id >= 0));
}

/**
 * The text files that a Hugging Face folder of the model would hold. A GGUF without a vocabulary gives only generation_config.json: such a model
 * works from token ids. Throws CheckpointError when the tokenizer is of a kind that is not known, or its lists do not fit together.
 */
export function ggufAssets(file: GgufSource): Map<string, string> {
  const json = (value: unknown): string => JSON.stringify(value);
  const model = file.metadata.get('tokenizer.ggml.model');
  const tokens = list<string>(file, 'tokenizer.ggml.tokens', 'string');
  if (model === undefined || model === 'no_vocab' || tokens === undefined || tokens.length === 0) {
    return new Map([['generation_config.json', json(bareGenerationConfig(file))]]);
  }
  if (model !== 'gpt2' && model !== 'llama')
    refuse(file, 'tokenizer.ggml.model', 'gpt2 (byte-level BPE) or llama (SentencePiece BPE)', kindOf(model));
  const pre = model === 'gpt2' ? preTokenizerOf(file) : undefined;
  const vocabulary = readVocabulary(file, tokens, pre === undefined || pre.addBos === true);
  const tokenizer = pre === undefined ? sentencePieceJson(file, vocabulary) : byteLevelJson(file, vocabulary, pre);
  return new Map([
    ['tokenizer.json', json(tokenizer)],
    ['tokenizer_config.json', json(tokenizerConfig(file, vocabulary))],
    ['generation_config.json', json(generationConfig(vocabulary))],
  ]);
}
