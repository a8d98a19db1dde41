// Traffic for simulations: requests that arrive at random, many of which begin alike. Seeded: the same settings give the same requests.

/** A request as a simulation sees it. */
export interface SimulatedRequest {
  /** Milliseconds from the start. */
  readonly arrival: number;
  readonly promptTokenIds: Int32Array;
  /** Tokens that it generates. */
  readonly numOutputTokens: number;
  readonly priority?: number;
}

/** What generated traffic is made of. */
export interface PoissonTraffic {
  readonly numRequests: number;
  /** Requests a second, on average, over all replicas. */
  readonly requestsPerSecond: number;
  /** Different beginnings (system prompts, documents), of which few are popular (Zipf's law with exponent 1). */
  readonly numPrefixes: number;
  readonly prefixLength: number;
  /** Mean of the tokens after the beginning, and of the tokens generated (both exponential, at least 1). */
  readonly meanSuffixLength: number;
  readonly meanOutputLength: number;
  /** Greatest prompt and output, together. */
  readonly maxLength: number;
  readonly vocabSize: number;
  readonly seed?: number;
}

/** Mulberry32: numbers in [0, 1). */
export function randomNumbers(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Requests with Poisson arrivals, in order; they are made one by one, so that a million of them take no memory. */
export function* poissonTraffic(traffic: PoissonTraffic): Generator<SimulatedRequest> {
  const { numRequests, requestsPerSecond, numPrefixes, prefixLength, maxLength, vocabSize, seed = 1 } = traffic;
  const random = randomNumbers(seed);
  const exponential = (mean: number): number => -mean * Math.log(1 - random());
  const cumulative = new Float64Array(numPrefixes);
  let sum = 0;
  for (let i = 0; i < numPrefixes; i++) cumulative[i] = sum += 1 / (i + 1);
  const prefixes = Array.from({ length: numPrefixes }, (_, i) => {
    const own = randomNumbers(seed * 7919 + i);
    return Int32Array.from({ length: prefixLength }, () => Math.floor(own() * vocabSize));
  });
  let arrival = 0;
  for (let i = 0; i < numRequests; i++) {
    arrival += exponential(1000 / requestsPerSecond);
    const drawn = random() * sum;
    let low = 0;
    for (let high = numPrefixes - 1; low < high; ) {
      const middle = (low + high) >> 1;
      if (cumulative[middle]! < drawn) low = middle + 1;
      else high = middle;
    }
    const suffix = Math.min(Math.ceil(exponential(traffic.meanSuffixLength)) || 1, maxLength - prefixLength - 1);
    const output = Math.ceil(exponential(traffic.meanOutputLength)) || 1;
    const promptTokenIds = new Int32Array(prefixLength + suffix);
    promptTokenIds.set(prefixes[low]!);
    for (let at = prefixLength; at < promptTokenIds.length; at++) promptTokenIds[at] = Math.floor(random() * vocabSize);
    yield { arrival, promptTokenIds, numOutputTokens: Math.min(output, maxLength - promptTokenIds.length) };
  }
}
