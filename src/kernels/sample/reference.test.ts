import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { chiSquare } from '../../../test/support/chi-square.ts';
import { filteredDistribution, logSumExp, type RowFilters, sampleRow, topTokens } from './reference.ts';

const off: RowFilters = { temperature: 1, topK: 0, topP: 1, minP: 0 };

/** The filters written out the long way: sort everything, then cut. */
function plainDistribution(logits: Float32Array, { temperature, topK, topP, minP }: RowFilters): number[] {
  const order = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b);
  const softmax = (ids: readonly number[]): number[] => {
    const weights = ids.map((id) => Math.exp((logits[id]! - logits[order[0]!]!) / temperature));
    const total = weights.reduce((a, b) => a + b, 0);
    return weights.map((weight) => weight / total);
  };
  let kept = topK > 0 ? order.slice(0, topK) : order;
  let mass = 0;
  const probabilities = softmax(kept);
  if (topP < 1)
    kept = kept.filter((_, i) => {
      const keep = mass < topP;
      mass += probabilities[i]!;
      return keep;
    });
  const best = softmax(kept)[0]!;
  kept = kept.filter((_, i) => softmax(kept)[i]! >= minP * best * (1 - 1e-12));
  const out = new Array<number>(logits.length).fill(0);
  softmax(kept).forEach((probability, i) => {
    out[kept[i]!] = probability;
  });
  return out;
}

describe('the filters', () => {
  it('keep what sorting and cutting keeps', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: -40, max: 40 }), { minLength: 1, maxLength: 200 }),
        fc.constantFrom(0.3, 1, 2.5),
        fc.constantFrom(0, 2, 5, 70, 500),
        fc.constantFrom(1, 0.999, 0.9, 0.4, 0.01),
        fc.constantFrom(0, 0.05, 0.5, 1),
        (numbers, temperature, topK, topP, minP) => {
          const logits = Float32Array.from(numbers, (x) => x / 8);
          const filters = { temperature, topK, topP, minP };
          const got = filteredDistribution(logits, filters);
          const expected = plainDistribution(logits, filters);
          for (const [i, probability] of expected.entries()) expect(got[i]!).toBeCloseTo(probability, 9);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('renormalise between topK and topP, and keep the token that crosses topP', () => {
    const logits = Float32Array.from([0.5, 0.3, 0.15, 0.05], Math.log);
    const kept = (filters: Partial<RowFilters>) =>
      [...filteredDistribution(logits, { ...off, ...filters })].map((p) => p > 0);
    expect(kept({ topP: 0.79 })).toEqual([true, true, false, false]);
    expect(kept({ topP: 0.81 })).toEqual([true, true, true, false]);
    // Of the best three, 0.5 is 10/19 and 0.8 is 16/19 > 0.81.
    expect(kept({ topP: 0.81, topK: 3 })).toEqual([true, true, false, false]);
    expect(kept({ minP: 0.29 })).toEqual([true, true, true, false]);
    expect(kept({ minP: 0.31 })).toEqual([true, true, false, false]);
  });

  it('orders equal logits by id', () => {
    const logits = Float32Array.from([1, 3, 3, 3, 2]);
    expect([...topTokens(logits, 2)]).toEqual([1, 2]);
    expect([...topTokens(logits, 5)]).toEqual([1, 2, 3, 4, 0]);
    expect(sampleRow(logits, { ...off, temperature: 0, seedLow: 0, seedHigh: 0, counter: 0 }).token).toBe(1);
  });
});

describe('sampling a row', () => {
  const logits = Float32Array.from({ length: 100 }, (_, i) => Math.sin(i * 12.9898) * 3);
  const samplers: Record<string, Partial<RowFilters>> = {
    plain: {},
    'low temperature': { temperature: 0.5 },
    'high temperature': { temperature: 2 },
    topK: { topK: 10 },
    topP: { topP: 0.7 },
    minP: { minP: 0.2 },
    'all together': { temperature: 1.3, topK: 40, topP: 0.9, minP: 0.05 },
  };

  for (const [name, filters] of Object.entries(samplers)) {
    it(`draws from the filtered distribution: ${name} (chi-square)`, () => {
      const all = { ...off, ...filters };
      const expected = filteredDistribution(logits, all);
      const draws = 20_000;
      const counts = new Float64Array(logits.length);
      for (let counter = 0; counter < draws; counter++)
        counts[sampleRow(logits, { ...all, seedLow: 1234, seedHigh: 5, counter }).token]! += 1;
      const { statistic, limit, impossible } = chiSquare(counts, expected, draws);
      expect(impossible).toEqual([]);
      expect(statistic).toBeLessThan(limit);
    });
  }

  it('is a function of seed and counter', () => {
    const draw = (seedLow: number, counter: number) =>
      sampleRow(logits, { ...off, seedLow, seedHigh: 0, counter }).token;
    const run = (seed: number) => Array.from({ length: 50 }, (_, counter) => draw(seed, counter));
    expect(run(1)).toEqual(run(1));
    expect(run(1)).not.toEqual(run(2));
  });

  it('is greedy at temperature 0, topK 1 and topP 0', () => {
    const best = topTokens(logits, 1)[0];
    for (const filters of [{ temperature: 0 }, { topK: 1 }, { topP: 0 }])
      expect(sampleRow(logits, { ...off, ...filters, seedLow: 3, seedHigh: 4, counter: 5 }).token).toBe(best);
  });

  it('returns the log-probability of the unfiltered distribution', () => {
    const { token, logprob } = sampleRow(logits, {
      ...off,
      temperature: 0.2,
      topK: 3,
      seedLow: 0,
      seedHigh: 0,
      counter: 9,
    });
    expect(logprob).toBeCloseTo(logits[token]! - logSumExp(logits), 12);
  });

  it('never draws a token at -Infinity or NaN, and says when there is no other', () => {
    const holes = Float32Array.from([Number.NaN, Number.NEGATIVE_INFINITY, 0, 0]);
    for (let counter = 0; counter < 50; counter++) {
      for (const filters of [{}, { topK: 3 }, { topP: 0.9 }, { temperature: 0 }])
        expect([2, 3]).toContain(sampleRow(holes, { ...off, ...filters, seedLow: 0, seedHigh: 0, counter }).token);
    }
    const nothing = new Float32Array(4).fill(Number.NEGATIVE_INFINITY);
    expect(sampleRow(nothing, { ...off, seedLow: 0, seedHigh: 0, counter: 0 }).logprob).toBeNaN();
  });

  it('holds at the smallest temperatures', () => {
    for (const temperature of [1e-4, 1e-30, 1e-45])
      expect(sampleRow(logits, { ...off, temperature, topP: 0.9, seedLow: 1, seedHigh: 0, counter: 0 }).token).toBe(
        topTokens(logits, 1)[0],
      );
  });
});
