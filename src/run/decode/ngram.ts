// Speculation without another model: what followed the last time the text had these tokens is proposed to follow again (prompt lookup). The step that computes the next token checks
// the proposal beside it; what is taken is exactly what would have come one by one.
import type { TokenHistory } from './logits.ts';

/** TensorRT-LLM's NGramDecodingConfig in camelCase. */
export interface NGramDecodingConfig {
  readonly decodingType: 'ngram';
  /** Tokens proposed at once, at most; default 8; fewer where fewer pay. */
  readonly maxDraftLen?: number;
  /** Tokens at the text's end that are looked for, at most; default 4. */
  readonly maxMatchingNgramSize?: number;
}

/** Steps without proposals, at most, where they do not pay. */
const longestPause = 64;
/** Endings that were not found, or not trusted, in a row, after which they are looked for only in every fourth step: the others may be planned ahead. */
const manyMisses = 8;
/** How much the newest measurement counts, and the newest proposal of a text for the texts after it. */
const newest = 0.2;
const newestText = 0.03;
/** Who proposes tokens of one sequence. */
export interface Drafter {
  /** From what was said before, or from what alone is allowed. */
  readonly kind: 'ngram' | 'forced';
  /** Nothing is proposed in the next step. */
  readonly pauses: boolean;
  /** The tokens that may follow, `most` at most, in a step of `numSequences`; undefined when there are none. Called once a step. */
  propose(history: TokenHistory, most: number, numSequences: number): number[] | undefined;
  /** How many of the proposed tokens were right. */
  learn(numDrafts: number, numAccepted: number): void;
}

/** How often a proposed token is right until something was learned. */
const firstRate = 0.6;
/** Steps without proposals after the first failure. */
const shortestPause = 8;
/** What a proposed token costs until something was measured, as a share of a step without any: a little, so that proposals are tried. */
const assumedShare = 0.1;
/** Steps of more tokens are not measured one by one: sizes that are near count as one. */
const exactSizes = 32;

/** What steps cost by how many tokens they compute: measured on the steps as they are, since kernels have sizes that they like. */
export class DraftCost {
  /** Milliseconds, by class of size. */
  readonly #times: (number | undefined)[] = [];

  /** A step in which every sequence generated a token, of `numTokens` tokens with the proposals. */
  observe(numTokens: number, milliseconds: number): void {
    const at = sizeClass(numTokens);
    const known = this.#times[at];
    // A step that was held up says nothing: only what is near or below the average counts in full.
    const bounded = known === undefined ? milliseconds : Math.min(milliseconds, 2 * known);
    this.#times[at] = known === undefined ? bounded : known + newest * (bounded - known);
  }

  /** How much longer a step takes in which each of `numSequences` has `count` proposals than one without any. */
  ratio(numSequences: number, count: number): number {
    const plain = this.#times[sizeClass(numSequences)];
    const guess = 1 + assumedShare * count;
    if (plain === undefined || plain <= 0) return guess;
    const size = numSequences * (1 + count);
    const at = sizeClass(size);
    const known = this.#times[at];
    if (known !== undefined) return known / plain;
    let [below, above] = [at - 1, at + 1];
    while (this.#times[below] === undefined) below--;
    while (above < this.#times.length && this.#times[above] === undefined) above++;
    const from = { size: sizeOf(below), time: this.#times[below]! };
    const to = this.#times[above];
    // Beyond all that was measured a token costs what it does up to there.
    const rise =
      to !== undefined
        ? (to - from.time) / (sizeOf(above) - from.size)
        : from.size > numSequences
          ? Math.max(0, from.time - plain) / (from.size - numSequences)
          : (assumedShare * plain) / numSequences;
    return (from.time + rise * (size - from.size)) / plain;
  }
}

function sizeClass(numTokens: number): number {
  return numTokens <= exactSizes ? numTokens : exactSizes + Math.ceil(8 * Math.log2(numTokens / exactSizes));
}

/** The size that a class stands for. */
function sizeOf(at: number): number {
  return at <= exactSizes ? at : exactSizes * 2 ** ((at - exactSizes) / 8);
}

/** What texts before have taught: what steps cost, and how often proposals after endings of each length were right. */
export class DraftRecord {
  readonly cost = new DraftCost();
  readonly #rates = new Map<number, number>();

  rate(size: number): number {
    return this.#rates.get(size) ?? firstRate;
  }

  learn(size: number, rate: number): void {
    this.#rates.set(size, this.rate(size) + newestText * (rate - this.rate(size)));
  }
}

/** How far endings of one length are trusted in one text. */
interface Trust {
  readonly size: number;
  /** Hash of an n-gram → where the text goes on after its last occurrence. */
  readonly seen: Map<number, number>;
  /** How often a proposed token whose predecessors were right was right. */
  rate: number;
  /** Steps until it is tried again, and the pause after the next failure. */
  pause: number;
  nextPause: number;
  /** It has paused: a single token shows whether it is right by now. */
  isDue: boolean;
}

/** Proposes tokens for one sequence, as many as pay. */
export class NGramDrafter implements Drafter {
  readonly kind = 'ngram';
  readonly #maxDraftLen: number;
  /** Longest first. */
  readonly #sizes: readonly Trust[];
  readonly #record: DraftRecord;
  #indexed = 0;
  /** Steps until endings are looked for again. */
  #pause = 0;
  #misses = 0;
  /** Of the last proposal. */
  #used = 0;
  #numSequences = 1;

  constructor({ maxDraftLen = 8, maxMatchingNgramSize = 4 }: NGramDecodingConfig, record = new DraftRecord()) {
    this.#maxDraftLen = maxDraftLen;
    this.#record = record;
    this.#sizes = Array.from({ length: maxMatchingNgramSize }, (_, i) => {
      const size = maxMatchingNgramSize - i;
      return { size, seen: new Map(), rate: record.rate(size), pause: 0, nextPause: shortestPause, isDue: false };
    });
  }

  get pauses(): boolean {
    return this.#pause > 0 || this.#sizes[0]!.pause > 0;
  }

  propose(history: TokenHistory, most: number, numSequences = 1): number[] | undefined {
    const { tokens, numTokens } = history;
    const paused = this.pauses;
    if (this.#pause > 0) this.#pause--;
    for (const trust of this.#sizes) if (trust.pause > 0) trust.pause--;
    // The last token is still to come: nothing can follow it yet.
    if (paused || tokens[numTokens - 1]! < 0) return undefined;
    this.#index(history);
    for (const [i, trust] of this.#sizes.entries()) {
      const { size, seen } = trust;
      if (size > numTokens) continue;
      const from = seen.get(hashOf(tokens, numTokens - size, size));
      if (from === undefined || !sameTokens(tokens, from - size, numTokens - size, size)) continue;
      // Shorter endings are trusted by where nothing longer was found.
      if (trust.pause > 0) break;
      const paying = this.#best(trust.rate, numSequences);
      if (paying === 0 && !trust.isDue) {
        this.#distrust(i);
        break;
      }
      trust.isDue = false;
      this.#misses = 0;
      this.#used = i;
      this.#numSequences = numSequences;
      const count = Math.min(Math.max(1, paying), most);
      // What was said last may be said again and again: the text goes on into the proposal itself.
      const period = numTokens - from;
      return count > 0 ? Array.from({ length: count }, (_, k) => tokens[from + (k % period)]!) : undefined;
    }
    if (++this.#misses >= manyMisses) this.#pause = 3;
    return undefined;
  }

  /** Where too few are right for what they cost, proposals become rare. */
  learn(numDrafts: number, numAccepted: number): void {
    const trust = this.#sizes[this.#used]!;
    const looked = Math.min(numDrafts, numAccepted + 1);
    const seen = numAccepted / looked;
    trust.rate += (1 - (1 - newest) ** looked) * (seen - trust.rate);
    this.#record.learn(trust.size, seen);
    if (this.#best(trust.rate, this.#numSequences) > 0) {
      if (numAccepted > 0) trust.nextPause = shortestPause;
      return;
    }
    this.#distrust(this.#used);
  }

  /** Endings of one length rest, and with them the shorter ones, which say still less. */
  #distrust(index: number): void {
    const trust = this.#sizes[index]!;
    for (const other of this.#sizes.slice(index)) {
      other.pause = Math.max(other.pause, trust.nextPause);
      other.isDue = true;
    }
    trust.nextPause = Math.min(longestPause, trust.nextPause * 2);
  }

  /** The number of proposals that makes most tokens for the time, 0 when none pays. */
  #best(rate: number, numSequences: number): number {
    let best = 0;
    let most = 1.02;
    let expected = 1;
    let chance = 1;
    for (let count = 1; count <= this.#maxDraftLen; count++) {
      chance *= rate;
      expected += chance;
      const gain = expected / this.#record.cost.ratio(numSequences, count);
      if (gain > most) [best, most] = [count, gain];
    }
    return best;
  }

  /** Takes in the n-grams that have got a token after them. */
  #index({ tokens, numTokens }: TokenHistory): void {
    for (; this.#indexed < numTokens - 1; this.#indexed++) {
      const end = this.#indexed + 1;
      for (const { size, seen } of this.#sizes) if (end >= size) seen.set(hashOf(tokens, end - size, size), end);
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
