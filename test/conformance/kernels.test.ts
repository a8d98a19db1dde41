// Every kernel of every target against the reference kernel of its op, on one set of odd shapes.
import { describe, expect, test } from 'vitest';
import { makePlan } from '../../src/compile/plan.ts';
import { cpuTargetWith } from '../../src/targets/cpu/target.ts';
import { targets } from '../../src/targets/index.ts';
import type { Phase } from '../../src/targets/plan.ts';
import { referenceTarget } from '../../src/targets/reference/target.ts';
import type { Target } from '../../src/targets/target.ts';
import {
  attentionCases,
  CaseBuilder,
  type Conformance,
  elementsOf,
  matmulCases,
  moeCases,
  pointCases,
  sampleCases,
} from './cases.ts';

const sets: Record<string, (c: CaseBuilder) => void> = {
  'ops on elements and rows': pointCases,
  'products of one row': (c) => matmulCases(c, [1]),
  'products of rows': (c) => matmulCases(c, [5, 8, 27, 100]),
  'mixture of experts': moeCases,
  sampling: sampleCases,
};
const blocks = [4, 16, 64];

async function compute(
  target: Target,
  { graph, weights, inputs }: Conformance,
  tokensPerBlock: number,
  times?: Map<Phase, Float64Array>,
): Promise<Map<string, Float32Array | Int32Array>> {
  const limits = { maxNumTokens: 128, maxBatchSize: 8, maxNumLogits: 8 };
  const { plan } = makePlan(graph, { target, dtype: 'float32', limits, tokensPerBlock, maxBlocksPerSequence: 64 });
  await using device = await target.open();
  await using program = await device.load({ plan, numBlocks: 256, readWeight: (name) => weights.get(name)! });
  for (const [name, data] of inputs) program.write(name, data, data.length);
  for (const phase of ['forward', 'sample'] as const) {
    times?.set(phase, new Float64Array(plan.phases[phase].length));
    await program.run(phase, { T: 1, R: 1, L: 1 }, times?.get(phase));
  }
  const results = new Map<string, Float32Array | Int32Array>();
  for (const [name, value] of Object.entries(graph.outputs)) {
    const into = value.dtype === 'int32' ? new Int32Array(elementsOf(value)) : new Float32Array(elementsOf(value));
    await program.read(name, into);
    results.set(name, into);
  }
  return results;
}

/** Outputs that differ by more than they may, with by how much. */
async function differences(target: Target, made: Conformance, tokensPerBlock: number): Promise<string[]> {
  const expected = await compute(referenceTarget, made, tokensPerBlock);
  const results = await compute(target, made, tokensPerBlock);
  return [...expected].flatMap(([name, values]) => {
    const got = results.get(name)!;
    const list = Array.from(values);
    const top = list.reduce((most, value) => Math.max(most, Math.abs(value)), 0.1);
    let worst = 0;
    list.forEach((value, i) => {
      const delta = Math.abs(value - got[i]!) / top;
      if (!(delta <= worst)) worst = delta;
    });
    return worst <= made.tolerances.get(name)! ? [] : [`${name}: ${worst}`];
  });
}

/** The CPU's kernels as WebAssembly come into play by themselves only where no C compiler is. */
const wasm = { ...cpuTargetWith(() => 'wasm'), label: 'cpu (WebAssembly)' };
const compared = [
  ...targets.filter((target) => target !== referenceTarget).map((target) => ({ ...target, label: target.name })),
  wasm,
];

describe.each(compared)('$label', (target) => {
  const status = target.probe();
  if (!status.available) return void test.skip(`${target.name}: ${status.detail}`);

  test.each(Object.keys(sets))('%s', async (name) => {
    const c = new CaseBuilder(17);
    sets[name]!(c);
    expect(await differences(target, c.finish(), 16)).toEqual([]);
  });

  test.each(blocks)('attention over blocks of %i tokens', async (tokensPerBlock) => {
    const c = new CaseBuilder(tokensPerBlock);
    attentionCases(c, tokensPerBlock);
    expect(await differences(target, c.finish(), tokensPerBlock)).toEqual([]);
  });
});

describe.each(targets)('$name, timed', (target) => {
  const status = target.probe();
  if (!status.available) return void test.skip(`${target.name}: ${status.detail}`);

  test('gives the same, and a time for each launch', async () => {
    const c = new CaseBuilder(5);
    matmulCases(c, [5, 8]);
    const made = c.finish();
    const times = new Map<Phase, Float64Array>();
    expect(await compute(target, made, 16, times)).toEqual(await compute(target, made, 16));
    const forward = times.get('forward')!;
    expect(forward.length).toBeGreaterThan(2);
    expect(forward.every((ms) => ms > 0 && ms < 60_000)).toBe(true);
  });
});
