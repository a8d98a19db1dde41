// tokenizer.json → the form in which the JavaScript tokenizer library and the Rust one (https://github.com/huggingface/tokenizers, which defines the
// format) agree. Each rewrite states one difference; nothing here knows a model.
import { ConfigError, show } from '../base/errors.ts';
import { rewritePreTokenizer } from './pre-tokenizer-rewrites.ts';
import { isObject, type JsonObject } from './special-tokens.ts';

/** Larger ids than any vocabulary has are damage; they would make the library's id table enormous. */
const maxTokenId = 2 ** 24;

function rewriteDecoder(step: unknown): unknown {
  if (!isObject(step)) return step ?? null;
  if (step.type === 'Sequence' && Array.isArray(step.decoders))
    return { ...step, decoders: step.decoders.map(rewriteDecoder) };
  // Where nothing was prepended nothing is taken away; the library's Metaspace always drops a leading space.
  if (step.type === 'Metaspace' && step.prepend_scheme === 'never')
    return { type: 'Replace', pattern: { String: step.replacement ?? '\u2581' }, content: ' ' };
  return step;
}

/** Tokens that tokenizer_config.json adds to (or marks special in) what tokenizer.json says, as transformers does when it loads both. */
function mergeAddedTokens(
  own: readonly JsonObject[],
  config: JsonObject,
  specialTexts: ReadonlySet<string>,
): JsonObject[] {
  const merged = own.map((token) => (specialTexts.has(String(token.content)) ? { ...token, special: true } : token));
  const ids = new Set(own.map((token) => token.id));
  for (const [key, token] of Object.entries(isObject(config.added_tokens_decoder) ? config.added_tokens_decoder : {})) {
    const id = Number(key);
    if (!isObject(token) || typeof token.content !== 'string' || !isTokenId(id) || ids.has(id)) continue;
    merged.push({ ...token, id, special: token.special === true || specialTexts.has(token.content) });
  }
  return merged;
}

function isTokenId(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < maxTokenId;
}

/** The largest id of the model's vocabulary; throws ConfigError unless tokens map to ids. */
function largestVocabId(vocab: unknown, where: string): number {
  if (Array.isArray(vocab)) {
    const bad = vocab.findIndex(
      (entry) => !Array.isArray(entry) || typeof entry[0] !== 'string' || typeof entry[1] !== 'number',
    );
    if (bad < 0) return vocab.length - 1;
    throw new ConfigError(`entry ${bad} of model.vocab is wrong`, {
      where,
      expected: '[token, score]',
      got: show(vocab[bad]),
    });
  }
  if (!isObject(vocab))
    throw new ConfigError('model.vocab is missing', { where, expected: 'tokens with ids', got: show(vocab) });
  let largest = -1;
  for (const [token, id] of Object.entries(vocab)) {
    if (!isTokenId(id))
      throw new ConfigError(`model.vocab gives ${show(token)} a wrong id`, {
        where,
        expected: 'a token id',
        got: show(id),
      });
    if (id > largest) largest = id;
  }
  return largest;
}

function checkMerges(model: JsonObject, where: string): void {
  if (model.type !== 'BPE') return;
  const merges = model.merges;
  const isPair = (merge: unknown): boolean =>
    typeof merge === 'string' ? merge.includes(' ') : Array.isArray(merge) && merge.length === 2;
  if (!Array.isArray(merges) || !merges.every(isPair))
    throw new ConfigError('model.merges is wrong', { where, expected: 'a list of pairs of tokens', got: show(merges) });
}

/** Looks for values that the library takes without a word: a pattern that matches nothing, and pieces of no length, on which it never ends. */
function checkSteps(value: unknown, path: string, where: string): void {
  if (Array.isArray(value)) for (const [i, step] of value.entries()) checkSteps(step, `${path}[${i}]`, where);
  if (!isObject(value)) return;
  if (value.type === 'FixedLength' && !(Number.isInteger(value.length) && Number(value.length) > 0))
    throw new ConfigError(`${path}.length is wrong`, {
      where,
      expected: 'a whole number above 0',
      got: show(value.length),
    });
  const isPattern = (pattern: unknown): boolean =>
    isObject(pattern) && (typeof pattern.Regex === 'string' || typeof pattern.String === 'string');
  if ((value.type === 'Split' || value.type === 'Replace') && !isPattern(value.pattern))
    throw new ConfigError(`${path}.pattern is wrong`, {
      where,
      expected: '{String} or {Regex}',
      got: show(value.pattern),
    });
  for (const key of ['normalizers', 'pretokenizers', 'decoders']) checkSteps(value[key], `${path}.${key}`, where);
}

export interface RewrittenTokenizer {
  readonly json: JsonObject & { readonly added_tokens: readonly JsonObject[] };
  /** One more than the largest token id. */
  readonly vocabSize: number;
}

/** Checks the structure of tokenizer.json and rewrites it; throws ConfigError naming `where` and the part at fault. */
export function rewriteTokenizer(
  json: JsonObject,
  config: JsonObject,
  specialTexts: ReadonlySet<string>,
  where: string,
): RewrittenTokenizer {
  if (!isObject(json.model))
    throw new ConfigError('has no model', { where, expected: 'an object', got: show(json.model) });
  checkMerges(json.model, where);
  for (const step of ['normalizer', 'pre_tokenizer', 'decoder']) checkSteps(json[step], step, where);
  const listed: unknown = json.added_tokens ?? [];
  const valid = (token: unknown): token is JsonObject =>
    isObject(token) && typeof token.content === 'string' && token.content !== '' && isTokenId(token.id);
  if (!Array.isArray(listed) || !listed.every(valid))
    throw new ConfigError('added_tokens is wrong', {
      where,
      expected: 'a list of {id, content, …}',
      got: show(listed),
    });
  const addedTokens = mergeAddedTokens(listed, config, specialTexts);
  const largest = addedTokens.reduce(
    (max, token) => Math.max(max, Number(token.id)),
    largestVocabId(json.model.vocab, where),
  );
  return {
    vocabSize: largest + 1,
    json: {
      ...json,
      normalizer: json.normalizer ?? null,
      pre_tokenizer: rewritePreTokenizer(json.pre_tokenizer),
      post_processor: json.post_processor ?? null,
      decoder: rewriteDecoder(json.decoder),
      added_tokens: addedTokens,
    },
  };
}
