// Speculation without another model: what followed the last time the text had these tokens is proposed to follow again (prompt lookup). The step that computes the next token checks
// the proposal beside it; what is taken is exactly what would have come one by one.
import type { TokenHistory } from './logits.ts';

/** TensorRT-LLM's NGramDecodingConfig in camelCase. */
export interface NGramDecodingConfig {
  readonly decodingType: 'ngram';
  /** Tokens proposed at once, at most; default 4. */
  readonly maxDraftLen?: number;
  /** Tokens at the text's end that are looked for, at most; default 4. */
  readonly maxMatchingNgramSize?: number;
}

/** The shortest ending that is looked for: a single token recurs too often to say anything. */
const shortest = 2;
/** Steps without proposals after one that was all wrong, at most. */
const longestPause = 32;

/** Proposes tokens for one sequence. */
export class NGramDrafter {
  readonly #maxDraftLen: number;
  readonly #sizes: readonly number[];
  /** For each size: hash of an n-gram → where the text goes on after its last occurrence. */
  readonly #seen: readonly Map<number, number>[];
  #indexed = 0;
  #pause = 0;
  #nextPause = 1;

  constructor({ maxDraftLen = 4, maxMatchingNgramSize = 4 }: NGramDecodingConfig) {
    this.#maxDraftLen = maxDraftLen;
    const longest = Math.max(shortest, maxMatchingNgramSize);
    this.#sizes = Array.from({ length: longest - shortest + 1 }, (_, i) => longest - i);
    this.#seen = this.#sizes.map(() => new Map());
  }

  /** Where the proposed tokens begin in the text, and how many there are, `most` at most; undefined when there are none. */
  propose(history: TokenHistory, most: number): { readonly from: number; readonly count: number } | undefined {
    this.#index(history);
    if (this.#pause > 0) {
      this.#pause--;
      return undefined;
    }
    const { tokens, numTokens } = history;
    for (const [i, size] of this.#sizes.entries()) {
      if (size > numTokens) continue;
      const from = this.#seen[i]!.get(hashOf(tokens, numTokens - size, size));
      if (from === undefined || !sameTokens(tokens, from - size, numTokens - size, size)) continue;
      const count = Math.min(this.#maxDraftLen, most, numTokens - from);
      return count > 0 ? { from, count } : undefined;
    }
    return undefined;
  }

  /** How many of the proposed tokens were right. Where none is, proposals become rare: they cost. */
  learn(numAccepted: number): void {
    if (numAccepted > 0) {
      this.#nextPause = 1;
      return;
    }
    this.#pause = this.#nextPause;
    this.#nextPause = Math.min(longestPause, this.#nextPause * 2);
  }

  /** Takes in the n-grams that have got a token after them. */
  #index({ tokens, numTokens }: TokenHistory): void {
    for (; this.#indexed < numTokens - 1; this.#indexed++) {
      const end = this.#indexed + 1;
      for (const [i, size] of this.#sizes.entries())
        if (end >= size) this.#seen[i]!.set(hashOf(tokens, end - size, size), end);
    }
  }
}

function hashOf(tokens: Int32Array, from: number, size: number): number {
  let hash = size;
  for (let i = from; i < from + size; i++) {
    hash = Math.imul(hash ^ tokens[i]!, 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  return hash;
}

function sameTokens(tokens: Int32Array, a: number, b: number, size: number): boolean {
  for (let i = 0; i < size; i++) if (tokens[a + i] !== tokens[b + i]) return false;
  return true;
}
