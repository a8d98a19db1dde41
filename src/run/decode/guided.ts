// Guided decoding: what a request's grammar allows next, as a mask over the vocabulary. xgrammar does the work.
import { RequestError, show } from '../../base/errors.ts';
import { MaskCache, type MaskState } from './mask-cache.ts';
import type { GuidedDecodingParams } from './sampling-params.ts';
import { type CompiledGrammar, type GrammarCompiler, type GrammarMatcher, loadXGrammar } from './xgrammar.ts';

/** The vocabulary as the model's tokenizer spells it: TensorRT-LLM's GuidedDecodingConfig in camelCase. */
export interface GuidedDecodingConfig {
  /** Text of each token id. */
  readonly encodedVocab: readonly string[];
  /** How bytes are spelled: as they are, as `<0x0A>`, or in GPT-2's letters. */
  readonly vocabType: 'raw' | 'byte_fallback' | 'byte_level';
  /** Tokens that end a text. */
  readonly stopTokenIds: readonly number[];
}

/** White space between two parts of a JSON text at most: small models would never stop. */
const maxWhitespace = 2;
/**
 * Control characters that are not white space, as each kind of vocabulary spells them. JSON forbids them in texts, xgrammar 0.1.27 lets them pass where a schema bounds a text's
 * length: tokens with them spell nothing here, so no grammar ever allows them.
 */
const controls = {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  raw: /[\u0000-\u0008\u000b\u000c\u000e-\u001f]/,
  byte_fallback: /^<0x(?:0[0-8BCEF]|1[0-9A-F])>$/,
  byte_level: /[\u0100-\u0108\u010b\u010c\u010e-\u011f]/,
} as const;
/** Compiled grammars that are kept. */
const maxGrammars = 256;

/** What one sequence may say next. */
export class Guide {
  readonly #matcher: GrammarMatcher;
  readonly #cache: MaskCache;
  #state: MaskState | undefined;
  /** A bit a token. */
  #allowed: Int32Array | undefined;

  /** `state`: where the masks of the grammar's texts are kept, from their beginning. */
  constructor(matcher: GrammarMatcher, cache: MaskCache, state: MaskState) {
    this.#matcher = matcher;
    this.#cache = cache;
    this.#state = state;
  }

  /** The text is complete, and its end was said. */
  get terminated(): boolean {
    return this.#matcher.isTerminated();
  }

  /** Finds out what is allowed next. It takes its time, and needs no logits: it is done while the device computes them. */
  async prepare(): Promise<void> {
    if (this.terminated) this.#allowed = undefined;
    else if (this.#state?.mask !== undefined) this.#allowed = this.#state.mask;
    else {
      this.#allowed = await this.#matcher.getNextTokenBitmask();
      if (this.#state !== undefined) this.#cache.keep(this.#state, this.#allowed);
    }
  }

  /** Excludes all tokens that are not allowed, as `prepare` found. */
  mask(logits: Float32Array): void {
    const allowed = this.#allowed;
    if (allowed === undefined) return;
    for (let start = 0; start < logits.length; start += 32) {
      const word = allowed[start >> 5]!;
      if (word === -1) continue;
      const end = Math.min(start + 32, logits.length);
      if (word === 0) logits.fill(Number.NEGATIVE_INFINITY, start, end);
      else
        for (let token = start; token < end; token++)
          if (((word >>> (token & 31)) & 1) === 0) logits[token] = Number.NEGATIVE_INFINITY;
    }
  }

  accept(token: number): void {
    if (this.terminated) return;
    this.#matcher.acceptToken(token);
    this.#state = this.#state === undefined ? undefined : this.#cache.after(this.#state, token);
  }

  [Symbol.dispose](): void {
    this.#matcher.dispose();
  }
}

/** Makes guides, and keeps the grammars they were made from. */
export class GuideMaker {
  readonly #config: () => GuidedDecodingConfig;
  readonly #grammars = new Map<
    string,
    { readonly grammar: CompiledGrammar; readonly states: Map<string, MaskState> }
  >();
  readonly #masks = new MaskCache();
  #compiler: GrammarCompiler | undefined;
  #matchers: typeof GrammarMatcher | undefined;
  #said: string[] = [];

  /** `config` is asked for when the first grammar comes. */
  constructor(config: () => GuidedDecodingConfig) {
    this.#config = config;
  }

  /** A guide from the text's beginning, which one of `ends` ends; when there are none, the tokenizer's own. Throws RequestError when the grammar is none. */
  async guide(params: GuidedDecodingParams, ends: readonly number[]): Promise<Guide> {
    const key = JSON.stringify(params);
    const stopTokenIds = ends.length > 0 ? ends : this.#config().stopTokenIds;
    try {
      let known = this.#grammars.get(key);
      if (known === undefined) {
        known = { grammar: await this.#compile(params), states: new Map() };
        if (this.#grammars.size >= maxGrammars) this.#forget();
        this.#grammars.set(key, known);
      }
      // Which tokens end a text is part of what is allowed.
      const stops = stopTokenIds.join();
      const state = known.states.get(stops) ?? this.#masks.root();
      known.states.set(stops, state);
      const matcher = await this.#matchers!.createGrammarMatcher(known.grammar, [...stopTokenIds]);
      return new Guide(matcher, this.#masks, state);
    } catch (cause) {
      if (cause instanceof RequestError) throw cause;
      const reason = this.#said.find((line) => line.includes('[FATAL]'))?.replace(/^.*?\.(?:cc|h):\d+: /, '');
      // An error leaves the library's stack as it was: what follows gets a fresh instance. Guides at work keep theirs.
      this.#compiler = undefined;
      this.#forget();
      throw new RequestError(`not a grammar: ${reason ?? (cause instanceof Error ? cause.message : String(cause))}`, {
        where: 'samplingParams.guidedDecoding',
        cause,
      });
    }
  }

  /** All grammars go at once, and their masks with them: what is at work keeps its own. */
  #forget(): void {
    this.#grammars.clear();
    this.#masks.clear();
  }

  async #compile({ json, jsonObject, regex, grammar, structuralTag }: GuidedDecodingParams): Promise<CompiledGrammar> {
    const compiler = await this.#open();
    if (json !== undefined)
      return await compiler.compileJSONSchema(parsed(json, 'json'), true, undefined, undefined, true, maxWhitespace);
    if (jsonObject) return await compiler.compileBuiltinJSONGrammar();
    if (grammar !== undefined) return await compiler.compileGrammar(grammar);
    const tag =
      regex === undefined
        ? parsed(structuralTag!, 'structuralTag')
        : JSON.stringify({ type: 'structural_tag', format: { type: 'regex', pattern: regex } });
    return await compiler.compileStructuralTag(JSON.parse(tag));
  }

  async #open(): Promise<GrammarCompiler> {
    if (this.#compiler !== undefined) return this.#compiler;
    this.#said = [];
    const { TokenizerInfo, GrammarCompiler, GrammarMatcher } = loadXGrammar((line) => this.#said.push(line));
    const { encodedVocab, vocabType, stopTokenIds } = this.#config();
    const control = controls[vocabType];
    const vocab = encodedVocab.map((token) => (control.test(token) ? '' : token));
    const info = await TokenizerInfo.createTokenizerInfo(vocab, vocabType, false, vocab.length, [...stopTokenIds]);
    this.#matchers = GrammarMatcher;
    this.#compiler = await GrammarCompiler.createGrammarCompiler(info);
    return this.#compiler;
  }
}

/** JSON text of a value that may be given as text. */
function parsed(value: unknown, field: string): string {
  if (typeof value !== 'string') return JSON.stringify(value);
  try {
    JSON.parse(value);
    return value;
  } catch (cause) {
    throw new RequestError('not JSON', {
      where: `samplingParams.guidedDecoding.${field}`,
      got: show(value),
      cause,
    });
  }
}
