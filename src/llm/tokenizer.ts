// Text ↔ token ids for one model: wraps @huggingface/tokenizers and adds what a tokenizer.json alone does not say (special ids, add_bos_token).
import { Tokenizer as Library } from '@huggingface/tokenizers';
import { ConfigError, RequestError, show } from '../base/errors.ts';
import {
  type Assets,
  isObject,
  type JsonObject,
  readJsonAsset,
  readSpecialTokenIds,
  readSpecialTokenTexts,
  type SpecialTokenTexts,
} from './special-tokens.ts';
import { type RewrittenTokenizer, rewriteTokenizer } from './tokenizer-rewrites.ts';

/** Options of `Tokenizer.encode`. */
export interface EncodeOptions {
  /** Adds the begin and end tokens that the model was trained with. Default true; false for a rendered chat template, which writes its own. */
  readonly addSpecialTokens?: boolean;
  /** Whether special tokens spelled out in the text become their ids. Default true; false reads them as plain characters (untrusted text). */
  readonly allowSpecial?: boolean;
}

/** Options of `Tokenizer.decode`. */
export interface DecodeOptions {
  /** Leaves special tokens out of the text. Default true. */
  readonly skipSpecialTokens?: boolean;
}

/** The part of the library that is used here. */
interface Codec {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  decode(ids: number[], options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean }): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
}

/** Tokens that a post-processor puts around every text. */
interface Frame {
  readonly before: readonly number[];
  readonly after: readonly number[];
}

/** Finds what the post-processor adds by encoding a probe with and without it. */
function probeFrame(codec: Codec): Frame {
  for (const probe of ['a', '0', ' ', '.']) {
    const bare = codec.encode(probe, { add_special_tokens: false }).ids;
    if (bare.length === 0) continue;
    const full = codec.encode(probe, { add_special_tokens: true }).ids;
    const start = full.findIndex((_, at) => bare.every((id, i) => full[at + i] === id));
    if (start >= 0) return { before: full.slice(0, start), after: full.slice(start + bare.length) };
  }
  return { before: [], after: [] };
}

/** `add_bos_token` / `add_eos_token`, where the file states them, have the last word over the post-processor (as in transformers). */
function applyFlags(frame: Frame, config: JsonObject, bos: number | undefined, eos: number | undefined): Frame {
  let { before, after } = frame;
  if (bos !== undefined && config.add_bos_token === true && before[0] !== bos) before = [bos, ...before];
  if (bos !== undefined && config.add_bos_token === false) before = before.filter((id) => id !== bos);
  if (eos !== undefined && config.add_eos_token === true && after.at(-1) !== eos) after = [...after, eos];
  if (eos !== undefined && config.add_eos_token === false) after = after.filter((id) => id !== eos);
  return { before, after };
}

/** A model's tokenizer. Immutable; safe to share between requests. */
export class Tokenizer {
  readonly #codec: Codec;
  /** The same tokenizer blind to special tokens, built when a text with one is first encoded with `allowSpecial: false`. */
  #plainCodec: Codec | undefined;
  readonly #source: RewrittenTokenizer;
  readonly #special: ReadonlySet<number>;
  readonly #frame: Frame;
  /** Special tokens by their Hugging Face names, as chat templates want them. */
  readonly specialTokens: SpecialTokenTexts;
  readonly bosTokenId: number | undefined;
  /** Every id that ends a generation: the tokenizer's own, then those of generation_config.json and config.json. */
  readonly eosTokenIds: readonly number[];
  readonly padTokenId: number | undefined;

  private constructor(source: RewrittenTokenizer, assets: Assets, label: string) {
    this.#source = source;
    const { codec, frame } = open(source.json, `${label}/tokenizer.json`);
    this.#codec = codec;
    this.#special = new Set(source.json.added_tokens.filter((token) => token.special).map((token) => Number(token.id)));
    this.specialTokens = readSpecialTokenTexts(assets, label);
    const ids = readSpecialTokenIds(assets, label, (token) => this.tokenToId(token));
    this.bosTokenId = ids.bosTokenId;
    this.eosTokenIds = ids.eosTokenIds;
    this.padTokenId = ids.padTokenId;
    const config = readJsonAsset(assets, 'tokenizer_config.json', label) ?? {};
    const eosText = this.specialTokens.eos_token;
    const eos = eosText === undefined ? undefined : this.tokenToId(eosText);
    this.#frame = applyFlags(frame, config, this.bosTokenId, eos);
  }

  /**
   * Builds the tokenizer from a model's files (`tokenizer.json`, and when present `tokenizer_config.json`, `special_tokens_map.json`,
   * `generation_config.json`, `config.json`). `label` names the model in errors. Undefined when there is no tokenizer.json; throws ConfigError when a
   * file is damaged or asks for a part that is not supported.
   */
  static fromAssets(assets: Assets, label: string): Tokenizer | undefined {
    const json = readJsonAsset(assets, 'tokenizer.json', label);
    if (json === undefined) return undefined;
    const texts = readSpecialTokenTexts(assets, label);
    const { additional_special_tokens: additional, ...named } = texts;
    const config = readJsonAsset(assets, 'tokenizer_config.json', label) ?? {};
    const special = new Set([...additional, ...Object.values(named).filter((text) => typeof text === 'string')]);
    return new Tokenizer(rewriteTokenizer(json, config, special, `${label}/tokenizer.json`), assets, label);
  }

  /** One more than the largest token id that the tokenizer knows; the model's embedding may have more rows. */
  get vocabSize(): number {
    return this.#source.vocabSize;
  }

  /** Token ids of `text`. Lone surrogates are read as U+FFFD, as UTF-8 cannot say them. Throws RequestError when the vocabulary cannot spell the text. */
  encode(text: string, options: EncodeOptions = {}): number[] {
    const wellFormed = text.replace(/\p{Surrogate}/gu, '\ufffd');
    let ids = this.#codec.encode(wellFormed, { add_special_tokens: false }).ids;
    if (options.allowSpecial === false && ids.some((id) => this.#special.has(id)))
      ids = this.#plain().encode(wellFormed, { add_special_tokens: false }).ids;
    // A vocabulary without an unknown token leaves holes where it has no piece.
    if (ids.some((id) => typeof id !== 'number'))
      throw new RequestError('the tokenizer has no token for a part of the text', { where: 'prompt', got: show(text) });
    if (options.addSpecialTokens === false) return ids;
    return [...this.#frame.before, ...ids, ...this.#frame.after];
  }

  /**
   * Text of `ids`; ids outside the vocabulary are left out. Bytes that are not UTF-8 become U+FFFD. The text is what the tokens spell:
   * `clean_up_tokenization_spaces` is not applied, since it would change what the model wrote and what was already streamed.
   */
  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    const skip = options.skipSpecialTokens ?? true;
    const known = Array.from(ids).filter((id) => this.idToToken(id) !== undefined && !(skip && this.#special.has(id)));
    if (known.length === 0) return '';
    return this.#codec.decode(known, { skip_special_tokens: false, clean_up_tokenization_spaces: false });
  }

  /** The vocabulary's spelling of a token (byte-level and SentencePiece marks included); undefined for an unknown id. */
  idToToken(id: number): string | undefined {
    return this.#codec.id_to_token(id);
  }

  /** The id of a token in the vocabulary's spelling; undefined for an unknown one. */
  tokenToId(token: string): number | undefined {
    return this.#codec.token_to_id(token);
  }

  /** True for control tokens such as end-of-turn, which are not part of the text. */
  isSpecial(id: number): boolean {
    return this.#special.has(id);
  }

  #plain(): Codec {
    const { json } = this.#source;
    const added_tokens = json.added_tokens.filter((token) => !token.special);
    this.#plainCodec ??= open({ ...json, added_tokens }, 'tokenizer.json').codec;
    return this.#plainCodec;
  }
}

/** Builds the library's tokenizer and tries it once in both directions, so that a damaged part is found when the model is loaded. */
function open(json: JsonObject, where: string): { codec: Codec; frame: Frame } {
  try {
    // The second argument stands for tokenizer_config.json. Its lower-casing and space-removing flags belong to the slow tokenizers; in a tokenizer.json
    // the normalizer already does that work, so the flags are kept from the library.
    const codec: Codec = new Library(json, { clean_up_tokenization_spaces: false });
    const frame = probeFrame(codec);
    codec.decode([0], { skip_special_tokens: false, clean_up_tokenization_spaces: false });
    return { codec, frame };
  } catch (cause) {
    const type = isObject(json.model) ? show(json.model.type) : 'none';
    throw new ConfigError(`damaged or not supported (${cause instanceof Error ? cause.message : show(cause)})`, {
      where,
      expected: 'a tokenizer.json as the Hugging Face tokenizers library writes it',
      got: `a model of type ${type}`,
      remedy: 'Fetch the file again, or use token ids with skipTokenizerInit',
      cause,
    });
  }
}
