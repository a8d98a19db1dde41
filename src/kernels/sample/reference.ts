// What sampling one row of logits means: temperature → topK → topP → minP, then one draw by the inverse of the distribution's sum in token order.
// Hugging Face transformers applies its warpers in the same order. Penalties and bans are not here: they change the logits before (run/decode/logits.ts).
import { uniform } from './philox.ts';

export interface RowFilters {
  /** Logits are divided by it; 0 = greedy. */
  readonly temperature: number;
  /** Only the so many likeliest tokens stay; 0 = off, 1 = greedy. */
  readonly topK: number;
  /** Only the fewest likeliest tokens whose probabilities sum to at least topP stay (of what topK left); 1 = off, 0 = greedy. */
  readonly topP: number;
  /** Only tokens at least minP times as likely as the likeliest stay; 0 = off. */
  readonly minP: number;
}

export interface RowSampling extends RowFilters {
  readonly seedLow: number;
  readonly seedHigh: number;
  /** Index of the token to be sampled in its sequence. */
  readonly counter: number;
}

export interface Sampled {
  readonly token: number;
  /** Log-probability in the unfiltered distribution at temperature 1; NaN when no token has a finite logit. */
  readonly logprob: number;
}

/** Index of the greatest logit, the lowest of equals; NaN never wins; -1 when there is none above -Infinity. */
export function argmax(logits: Float32Array): number {
  let best = -1;
  let bestLogit = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) {
    if (logits[i]! > bestLogit) {
      bestLogit = logits[i]!;
      best = i;
    }
  }
  return best;
}

/** Sum of exp((logit - max) / temperature), NaN logits left out. Divided, not multiplied by 1 / temperature, which may overflow. */
function sumExp(logits: Float32Array, max: number, temperature: number): number {
  let sum = 0;
  for (let i = 0; i < logits.length; i++) {
    const weight = Math.exp((logits[i]! - max) / temperature);
    if (weight > 0) sum += weight;
  }
  return sum;
}

/** log Σ exp(logit): subtract it from a logit for its log-probability. NaN when no logit is finite. */
export function logSumExp(logits: Float32Array): number {
  const best = argmax(logits);
  return best < 0 ? Number.NaN : logits[best]! + Math.log(sumExp(logits, logits[best]!, 1));
}

/** Log-probabilities of a row of logits. */
export function logSoftmax(logits: Float32Array): Float32Array {
  const norm = logSumExp(logits);
  return logits.map((logit) => logit - norm);
}

/** The `count` tokens with the greatest logits, likeliest first, equals by lower id. Tokens at -Infinity or NaN are left out. O(V log count). */
export function topTokens(logits: Float32Array, count: number): Int32Array {
  const heap = new Int32Array(Math.min(count, logits.length));
  let size = 0;
  // The root is the worst token kept: the lowest logit, of equals the higher id.
  const worse = (a: number, b: number): boolean => logits[a]! < logits[b]! || (logits[a]! === logits[b]! && a > b);
  const siftDown = (): void => {
    let at = 0;
    const token = heap[0]!;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      if (child + 1 < size && worse(heap[child + 1]!, heap[child]!)) child++;
      if (!worse(heap[child]!, token)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = token;
  };
  for (let token = 0; token < logits.length; token++) {
    if (!(logits[token]! > Number.NEGATIVE_INFINITY)) continue;
    if (size < heap.length) {
      let at = size++;
      while (at > 0) {
        const parent = (at - 1) >> 1;
        if (!worse(token, heap[parent]!)) break;
        heap[at] = heap[parent]!;
        at = parent;
      }
      heap[at] = token;
    } else if (size > 0 && worse(heap[0]!, token)) {
      heap[0] = token;
      siftDown();
    }
  }
  return heap.subarray(0, size).sort((a, b) => (worse(b, a) ? -1 : 1));
}

/** How many of `tokens` (likeliest first) topP and minP keep; undefined when they all stay and more tokens could follow. */
function keptOf(
  tokens: Int32Array,
  logits: Float32Array,
  max: number,
  total: number,
  filters: RowFilters,
  complete: boolean,
) {
  let mass = 0;
  for (let i = 0; i < tokens.length; i++) {
    const weight = Math.exp((logits[tokens[i]!]! - max) / filters.temperature);
    if (i > 0 && (mass >= filters.topP * total || weight < filters.minP)) return i;
    mass += weight;
  }
  return complete ? tokens.length : undefined;
}

/** The tokens that topK and topP leave, ascending; undefined when neither is on. */
function filterTokens(logits: Float32Array, max: number, filters: RowFilters): Int32Array | undefined {
  const { topK, topP, temperature } = filters;
  const limited = topK > 0 && topK < logits.length;
  if (!limited && topP >= 1) return undefined;
  // Without topK the nucleus is looked for among a few tokens first: sorting the whole vocabulary is rarely needed.
  for (let count = limited ? topK : 64; ; count *= 8) {
    const tokens = topTokens(logits, count);
    const complete = limited || tokens.length < count;
    const total = limited
      ? tokens.reduce((sum, token) => sum + Math.exp((logits[token]! - max) / temperature), 0)
      : sumExp(logits, max, temperature);
    const kept = keptOf(tokens, logits, max, topP >= 1 ? Number.POSITIVE_INFINITY : total, filters, complete);
    if (kept !== undefined) return tokens.slice(0, kept).sort();
  }
}

/** Probabilities after temperature, topK, topP and minP: [vocabSize] float64, 0 where a token is filtered out. For tests and for reading; sampling does not build it. */
export function filteredDistribution(logits: Float32Array, filters: RowFilters): Float64Array {
  const out = new Float64Array(logits.length);
  const best = argmax(logits);
  if (best < 0) return out;
  if (isGreedy(filters)) {
    out[best] = 1;
    return out;
  }
  const max = logits[best]!;
  const tokens = filterTokens(logits, max, filters);
  let total = 0;
  for (let i = 0; i < (tokens ?? logits).length; i++) {
    const token = tokens === undefined ? i : tokens[i]!;
    const weight = Math.exp((logits[token]! - max) / filters.temperature);
    if (!(weight > 0) || weight < filters.minP) continue;
    out[token] = weight;
    total += weight;
  }
  return out.map((weight) => weight / total);
}

/** True when the filters leave one token whatever the draw. */
export function isGreedy(filters: RowFilters): boolean {
  return filters.temperature === 0 || filters.topK === 1 || filters.topP === 0;
}

/**
 * Samples one token of a row. The draw `u` (see `uniform`) picks the first token, in ascending order of ids, at which the sum of the kept weights exceeds u × total.
 * A row without a finite logit gives token 0 with a NaN log-probability.
 */
export function sampleRow(logits: Float32Array, sampling: RowSampling): Sampled {
  const best = argmax(logits);
  if (best < 0) return { token: 0, logprob: Number.NaN };
  const max = logits[best]!;
  const norm = max + Math.log(sumExp(logits, max, 1));
  if (isGreedy(sampling)) return { token: best, logprob: max - norm };
  const token = draw(logits, max, best, sampling);
  return { token, logprob: logits[token]! - norm };
}

function draw(logits: Float32Array, max: number, best: number, sampling: RowSampling): number {
  const { temperature, minP } = sampling;
  const tokens = filterTokens(logits, max, sampling);
  const count = (tokens ?? logits).length;
  const weights = new Float64Array(count);
  let total = 0;
  for (let i = 0; i < count; i++) {
    const weight = Math.exp((logits[tokens === undefined ? i : tokens[i]!]! - max) / temperature);
    if (!(weight > 0) || weight < minP) continue;
    weights[i] = weight;
    total += weight;
  }
  const target = uniform(sampling.seedLow, sampling.seedHigh, sampling.counter) * total;
  let sum = 0;
  for (let i = 0; i < count; i++) {
    sum += weights[i]!;
    if (sum > target) return tokens === undefined ? i : tokens[i]!;
  }
  return best;
}
