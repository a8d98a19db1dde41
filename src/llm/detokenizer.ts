// Token ids → text as they come, for streaming. A character whose bytes are still incomplete is held back, so nothing that was sent has to be taken back.
import type { Tokenizer } from './tokenizer.ts';

export interface DetokenizerOptions {
  /** Leaves special tokens out of the text. Default true. */
  readonly skipSpecialTokens?: boolean;
}

/** What the detokenizer needs of a tokenizer. */
export type TokenDecoder = Pick<Tokenizer, 'decode' | 'idToToken' | 'isSpecial'>;

const replacement = '\ufffd';
/** Tokens to hold before looking for a cut inside a run of undecodable bytes. */
const longRun = 16;
/** A UTF-8 character has at most four bytes, so a cut this many tokens back lies before any that is still open. */
const openTokens = 4;

/**
 * Incremental detokenisation of one sequence. The concatenation of all deltas equals `tokenizer.decode` of all ids with the same options.
 *
 * The window holds the tokens since the last but one safe cut: the tokens before the cut give the decoder its context (SentencePiece drops a space at the
 * start of a text only), those after it are decoded again until they end in a whole character. The cost per token does not grow with the text. The
 * technique is that of the prefix and read offsets of Text Generation Inference and vLLM.
 */
export class Detokenizer {
  readonly #tokenizer: TokenDecoder;
  readonly #skipSpecialTokens: boolean;
  #window: number[] = [];
  /** Tokens of the window that are only context. */
  #contextTokens = 0;
  /** UTF-16 units of the window's text that were already given out. */
  #given = 0;

  constructor(tokenizer: TokenDecoder, options: DetokenizerOptions = {}) {
    this.#tokenizer = tokenizer;
    this.#skipSpecialTokens = options.skipSpecialTokens ?? true;
  }

  /** Adds tokens; returns the text that is certain now (often empty, never ending inside a character). */
  push(tokenIds: Iterable<number>): string {
    let delta = '';
    for (const id of tokenIds) delta += this.#pushOne(id);
    return delta;
  }

  /** Ends the stream; returns what was held back, with U+FFFD for bytes that never became a character. The detokenizer is then empty. */
  flush(): string {
    const text = this.#decode(this.#window).slice(this.#given);
    this.#window = [];
    this.#contextTokens = 0;
    this.#given = 0;
    return text;
  }

  #pushOne(id: number): string {
    // Tokens without text would make an empty context, after which SentencePiece's decoder would drop a space in mid-text.
    if (this.#skipSpecialTokens && this.#tokenizer.isSpecial(id)) return '';
    if ((this.#tokenizer.idToToken(id) ?? '') === '') return '';
    this.#window.push(id);
    const text = this.#decode(this.#window);
    // Only the last character can still change: an open byte sequence shows as one U+FFFD.
    const open = text.endsWith(replacement);
    const certain = open ? text.length - replacement.length : text.length;
    const delta = text.slice(this.#given, certain);
    this.#given = Math.max(this.#given, certain);
    if (!open) this.#cutBehindContext();
    else if (this.#window.length % longRun === 0) this.#cutInsideRun(text);
    return delta;
  }

  /** Everything was given out: drops the old context, and keeps the newest tokens as the next one. */
  #cutBehindContext(): void {
    const context = this.#window.slice(this.#contextTokens);
    this.#contextTokens = context.length;
    this.#given = this.#decode(context).length;
    this.#window = context;
  }

  /** In a long run of invalid bytes every text ends in U+FFFD; cuts where decoding the two sides apart gives the same text. */
  #cutInsideRun(text: string): void {
    for (let at = this.#window.length - openTokens; at > this.#window.length - longRun; at--) {
      const head = this.#decode(this.#window.slice(0, at));
      const tail = this.#window.slice(at);
      if (head.length <= this.#given && head + this.#decode(tail) === text) {
        this.#window = tail;
        this.#given -= head.length;
        this.#contextTokens = 0;
        return;
      }
    }
  }

  #decode(ids: readonly number[]): string {
    return this.#tokenizer.decode(ids, { skipSpecialTokens: false });
  }
}
