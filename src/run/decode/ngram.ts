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
/** Steps without proposals, at most, where they do not pay. */
const longestPause = 64;
/** Endings that were not found in a row, after which they are looked for only in every fourth step: the others may be planned ahead. */
const manyMisses = 8;
/** How much the newest measurement counts. */
const newest = 0.2;

/** What a proposed token costs: measured on the steps as they are, as a share of a step without any. */
export class DraftCost {
  /** Milliseconds of steps without proposals, by number of sequences. */
  readonly #plain = new Map<number, number>();
  /** Until something was measured: a little, so that proposals are tried. */
  share = 0.1;

  /** A step in which every sequence generated a token, and `numDrafts` were proposed. */
  observe(numSequences: number, numDrafts: number, milliseconds: number): void {
    const plain = this.#plain.get(numSequences);
    if (numDrafts === 0) {
      // A step that was held up says nothing: only what is near or below the average counts in full.
      const bounded = plain === undefined ? milliseconds : Math.min(milliseconds, 2 * plain);
      this.#plain.set(numSequences, plain === undefined ? bounded : plain + newest * (bounded - plain));
      return;
    }
    if (plain === undefined || plain <= 0) return;
    const measured = ((milliseconds / plain - 1) * numSequences) / numDrafts;
    // The same here: what is far above the average counts as twice that.
    const bounded = Math.min(2, 2 * this.share + 0.05, Math.max(0.005, measured));
    this.share += newest * (bounded - this.share);
  }
}

/** Proposes tokens for one sequence, as many as pay. */
export class NGramDrafter {
  readonly #maxDraftLen: number;
  readonly #sizes: readonly number[];
  /** For each size: hash of an n-gram → where the text goes on after its last occurrence. */
  readonly #seen: readonly Map<number, number>[];
  readonly #cost: DraftCost;
  #indexed = 0;
  #pause = 0;
  #nextPause = 2;
  #misses = 0;
  /** How often a proposed token whose predecessors were right was right. */
  #rate = 0.6;

  constructor({ maxDraftLen = 4, maxMatchingNgramSize = 4 }: NGramDecodingConfig, cost = new DraftCost()) {
    this.#maxDraftLen = maxDraftLen;
    this.#cost = cost;
    const longest = Math.max(shortest, maxMatchingNgramSize);
    this.#sizes = Array.from({ length: longest - shortest + 1 }, (_, i) => longest - i);
    this.#seen = this.#sizes.map(() => new Map());
  }

  /** Nothing is proposed in the next step. */
  get pauses(): boolean {
    return this.#pause > 0;
  }

  /** Where the proposed tokens begin in the text, and how many there are, `most` at most; undefined when there are none. */
  propose(history: TokenHistory, most: number): { readonly from: number; readonly count: number } | undefined {
    const { tokens, numTokens } = history;
    if (this.#pause > 0) {
      this.#pause--;
      return undefined;
    }
    // The last token is still to come: nothing can follow it yet.
    if (tokens[numTokens - 1]! < 0) return undefined;
    this.#index(history);
    for (const [i, size] of this.#sizes.entries()) {
      if (size > numTokens) continue;
      const from = this.#seen[i]!.get(hashOf(tokens, numTokens - size, size));
      if (from === undefined || !sameTokens(tokens, from - size, numTokens - size, size)) continue;
      this.#misses = 0;
      const count = Math.min(this.#length(), most, numTokens - from);
      return count > 0 ? { from, count } : undefined;
    }
    if (++this.#misses >= manyMisses) this.#pause = 3;
    return undefined;
  }

  /** How many of the proposed tokens were right. Where too few are for what they cost, proposals become rare. */
  learn(numDrafts: number, numAccepted: number): void {
    const looked = Math.min(numDrafts, numAccepted + 1);
    this.#rate += (1 - (1 - newest) ** looked) * (numAccepted / looked - this.#rate);
    if (numAccepted > 0 && this.#best() > 0) {
      this.#nextPause = 2;
      return;
    }
    if (this.#best() > 0) return;
    this.#pause = this.#nextPause;
    this.#nextPause = Math.min(longestPause, this.#nextPause * 2);
  }

  /** How many tokens to propose: as many as pay, and a single one to see whether it is right after a pause. */
  #length(): number {
    return Math.max(1, this.#best());
  }

  /** The number of proposals that makes most tokens for the time, 0 when none pays. */
  #best(): number {
    let best = 0;
    let most = 1.02;
    let expected = 1;
    let chance = 1;
    for (let count = 1; count <= this.#maxDraftLen; count++) {
      chance *= this.#rate;
      expected += chance;
      const gain = expected / (1 + this.#cost.share * count);
      if (gain > most) [best, most] = [count, gain];
    }
    return best;
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
