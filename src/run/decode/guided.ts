// Guided decoding: what a request's grammar allows next, as a mask over the vocabulary. xgrammar does the work.
import { RequestError, show } from '../../base/errors.ts';
import { jsonGrammar } from './json-grammar.ts';
import { MaskCache, type MaskState } from './mask-cache.ts';
import type { GuidedDecodingParams } from './sampling-params.ts';
import { Speller } from './speller.ts';
import { Utf8Rules } from './utf8.ts';
import {
  type CompiledGrammar,
  type Grammar,
  type GrammarCompiler,
  type GrammarMatcher,
  loadXGrammar,
} from './xgrammar.ts';

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
 * Control characters that are not white space and bytes that UTF-8 never has, as each kind of vocabulary spells them. xgrammar 0.1.27 lets both pass: tokens with them spell nothing here, so
 * no grammar ever allows them.
 */
const neverInText = {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  raw: /[\u0000-\u0008\u000b\u000c\u000e-\u001f]/,
  byte_fallback: /^<0x(?:0[0-8BCEF]|1[0-9A-F]|C[01]|F[5-9A-F])>$/,
  byte_level: /[\u0100-\u0108\u010b\u010c\u010e-\u011f\u00c0\u00c1\u00f5-\u00ff]/,
} as const;
/** Compiled grammars that are kept, and matchers of each that wait to be used again: a new one leaves memory behind in the library. */
const maxGrammars = 256;
const maxMatchers = 64;

/** What the guides of one grammar share. */
interface Shared {
  readonly cache: MaskCache;
  readonly speller: Speller;
  readonly utf8: Utf8Rules;
  /** Where the masks of the grammar's texts are kept, from their beginning. */
  readonly root: MaskState;
  readonly ends: ReadonlySet<number>;
  readonly matchers: GrammarMatcher[];
}

/** What one sequence may say next. */
export class Guide {
  readonly #matcher: GrammarMatcher;
  readonly #shared: Shared;
  #state: MaskState | undefined;
  /** Said, but the matcher has not been told: it is when it is asked something, which is while the device computes. */
  readonly #untold: number[] = [];
  /** For the next token, and for those after each of the proposed ones. */
  #allowed: (Int32Array | undefined)[] = [];
  #terminated = false;
  /** Where in a character the text ends, see `Utf8Rules`. */
  #opening = 0;

  constructor(matcher: GrammarMatcher, shared: Shared) {
    this.#matcher = matcher;
    this.#shared = shared;
    this.#state = shared.root;
  }

  /** The text is complete, and its end was said. */
  get terminated(): boolean {
    return this.#terminated;
  }

  /** Finds out what is allowed next, and after each of these tokens if they come. It takes its time, and needs no logits: it is done while the device computes them. */
  async prepare(drafts: Int32Array): Promise<void> {
    this.#allowed = [];
    if (this.#terminated) return;
    let state = this.#state;
    let numTold = 0;
    for (let i = 0; ; i++) {
      let mask = state?.mask;
      if (mask === undefined) {
        this.#tell();
        let possible = true;
        for (; possible && numTold < i; numTold += possible ? 1 : 0)
          possible = this.#matcher.acceptToken(drafts[numTold]!);
        // What follows a token that may not come does not matter.
        if (!possible || this.#matcher.isTerminated()) break;
        mask = await this.#matcher.getNextTokenBitmask();
        this.#shared.utf8.apply(mask, i === 0 ? this.#opening : this.#shared.utf8.after(drafts[i - 1]!));
        if (state !== undefined) this.#shared.cache.keep(state, mask);
      }
      this.#allowed.push(mask);
      if (i === drafts.length) break;
      const draft = drafts[i]!;
      if (((mask[draft >> 5]! >>> (draft & 31)) & 1) === 0) break;
      state = state === undefined ? undefined : this.#shared.cache.after(state, draft);
    }
    if (numTold > 0) this.#matcher.rollBack(numTold);
  }

  /** What is allowed after the `ahead`th proposed token, a bit a token; undefined: anything. */
  allowed(ahead: number): Int32Array | undefined {
    return this.#allowed[ahead];
  }

  /** Tokens that spell what can only come now, as far as that was spelled before in this way or is spelled by the longest tokens; none when several texts are possible. */
  forced(most: number): number[] {
    const tokens: number[] = [];
    if (this.#terminated) return tokens;
    for (let state = this.#state; state !== undefined && tokens.length < most; ) {
      if (state === this.#state) state.forced ??= this.#spell();
      const { forced = [] } = state;
      if (forced.length === 0) break;
      tokens.push(forced[0]!);
      const next = state.next.get(forced[0]!);
      if (next?.forced === undefined) {
        tokens.push(...forced.slice(1, 1 + most - tokens.length));
        break;
      }
      state = next;
    }
    return tokens;
  }

  accept(token: number): void {
    if (this.#terminated) return;
    this.#terminated = this.#shared.ends.has(token);
    this.#untold.push(token);
    this.#opening = this.#shared.utf8.after(token);
    const state = this.#state;
    const next = state === undefined ? undefined : this.#shared.cache.after(state, token);
    // The spelling that was chosen is the one to propose to the next text.
    if (state?.forced !== undefined && state.forced.length > 0) {
      if (state.forced[0] !== token) state.forced = [token];
      else if (next !== undefined && state.forced.length > 1) next.forced ??= state.forced.slice(1);
    }
    this.#state = next;
  }

  [Symbol.dispose](): void {
    const { matchers } = this.#shared;
    if (matchers.length >= maxMatchers) this.#matcher.dispose();
    else {
      this.#matcher.reset();
      matchers.push(this.#matcher);
    }
  }

  #tell(): void {
    for (const token of this.#untold.splice(0)) this.#matcher.acceptToken(token);
  }

  #spell(): readonly number[] {
    this.#tell();
    if (this.#matcher.isTerminated()) return [];
    return this.#shared.speller.spell(this.#matcher.findJumpForwardString());
  }
}

/** Makes guides, and keeps the grammars they were made from. */
export class GuideMaker {
  readonly #config: () => GuidedDecodingConfig;
  readonly #grammars = new Map<string, { readonly grammar: CompiledGrammar; readonly byEnds: Map<string, Shared> }>();
  readonly #masks = new MaskCache();
  #compiler: GrammarCompiler | undefined;
  #matchers: typeof GrammarMatcher | undefined;
  #grammarsOf: typeof Grammar | undefined;
  #speller: Speller | undefined;
  #utf8: Utf8Rules | undefined;
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
        known = { grammar: await this.#compile(params), byEnds: new Map() };
        if (this.#grammars.size >= maxGrammars) this.#forget();
        this.#grammars.set(key, known);
      }
      // Which tokens end a text is part of what is allowed.
      const stops = stopTokenIds.join();
      let shared = known.byEnds.get(stops);
      if (shared === undefined) {
        const speller = (this.#speller ??= new Speller(this.#config()));
        const utf8 = (this.#utf8 ??= new Utf8Rules(this.#config()));
        const root = this.#masks.root();
        shared = { cache: this.#masks, speller, utf8, root, ends: new Set(stopTokenIds), matchers: [] };
        known.byEnds.set(stops, shared);
      }
      const matcher =
        shared.matchers.pop() ?? (await this.#matchers!.createGrammarMatcher(known.grammar, [...stopTokenIds]));
      return new Guide(matcher, shared);
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
      return await compiler.compileGrammar(await jsonGrammar(this.#grammarsOf!, parsed(json, 'json'), maxWhitespace));
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
    const { Grammar, TokenizerInfo, GrammarCompiler, GrammarMatcher } = loadXGrammar((line) => this.#said.push(line));
    const { encodedVocab, vocabType, stopTokenIds } = this.#config();
    const invalid = neverInText[vocabType];
    const vocab = encodedVocab.map((token) => (invalid.test(token) ? '' : token));
    const info = await TokenizerInfo.createTokenizerInfo(vocab, vocabType, false, vocab.length, [...stopTokenIds]);
    this.#grammarsOf = Grammar;
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
