// Every sampler on every target draws from the distribution that it says: frequencies pass a chi-square test.
import { describe, expect, test } from 'vitest';
import { makePlan } from '../../src/compile/plan.ts';
import { GraphBuilder } from '../../src/define/graph/graph.ts';
import { filteredDistribution, type RowFilters } from '../../src/kernels/sample/reference.ts';
import { targets } from '../../src/targets/index.ts';
import type { Target } from '../../src/targets/target.ts';
import { chiSquare } from '../support/chi-square.ts';

const vocab = 203;
const rows = 64;
const steps = 300;
const off: RowFilters = { temperature: 1, topK: 0, topP: 1, minP: 0 };
const samplers: Record<string, Partial<RowFilters>> = {
  plain: {},
  'a low temperature': { temperature: 0.6 },
  'a high temperature': { temperature: 1.8 },
  topK: { topK: 11 },
  topP: { topP: 0.7 },
  minP: { minP: 0.08 },
  'all of them': { temperature: 1.3, topK: 60, topP: 0.9, minP: 0.01 },
};
const logits = Float32Array.from(
  { length: vocab },
  (_, i) => 3 * Math.sin(i * 1.7) + ((i * 37) % 11) / 5 - (i % 29 === 0 ? Number.POSITIVE_INFINITY : 0),
);

function sampling() {
  const builder = new GraphBuilder('sampling');
  const float = (name: string) => builder.input(name, 'float32', ['L']);
  const int = (name: string) => builder.input(name, 'int32', ['L']);
  const { token, logprob } = builder.op(
    'sample',
    'sample',
    {
      logits: builder.input('logits', 'float32', ['L', vocab]),
      temperature: float('temperature'),
      topK: int('topK'),
      topP: float('topP'),
      minP: float('minP'),
      seedLow: int('seedLow'),
      seedHigh: int('seedHigh'),
      counter: int('counter'),
    },
    {},
  );
  return builder.finish({ token: token!, logprob: logprob! });
}

async function draw(target: Target, filters: RowFilters): Promise<Float64Array> {
  const limits = { maxNumTokens: rows, maxBatchSize: rows, maxNumLogits: rows };
  const options = { target, dtype: 'float32', limits, tokensPerBlock: 16, maxBlocksPerSequence: 1 } as const;
  const { plan } = makePlan(sampling(), options);
  await using device = await target.open();
  await using program = await device.load({ plan, numBlocks: 1, readWeight: () => new Uint8Array() });
  const all = new Float32Array(rows * vocab);
  for (let row = 0; row < rows; row++) all.set(logits, row * vocab);
  program.write('logits', all, all.length);
  for (const name of ['temperature', 'topP', 'minP'] as const)
    program.write(name, new Float32Array(rows).fill(filters[name]), rows);
  program.write('topK', new Int32Array(rows).fill(filters.topK), rows);
  program.write('seedHigh', new Int32Array(rows).fill(77), rows);
  const counts = new Float64Array(vocab);
  const tokens = new Int32Array(rows);
  for (let step = 0; step < steps; step++) {
    // Half of the draws differ by seed, half by the token's place.
    program.write(
      'seedLow',
      Int32Array.from(tokens, (_, row) => row >> 1),
      rows,
    );
    program.write(
      'counter',
      Int32Array.from(tokens, (_, row) => 2 * step + (row & 1)),
      rows,
    );
    await program.run('sample', { T: rows, R: rows, L: rows });
    await program.read('token', tokens);
    for (const token of tokens) counts[token]! += 1;
  }
  return counts;
}

describe.each(targets)('$name', (target) => {
  const status = target.probe();
  if (!status.available) return void test.skip(`${target.name}: ${status.detail}`);

  test.each(Object.entries(samplers))('%s', async (_, filters) => {
    const expected = filteredDistribution(logits, { ...off, ...filters });
    const counts = await draw(target, { ...off, ...filters });
    const { statistic, limit, impossible } = chiSquare(counts, expected, rows * steps);
    expect(impossible).toEqual([]);
    expect(statistic).toBeLessThan(limit);
  });
});
