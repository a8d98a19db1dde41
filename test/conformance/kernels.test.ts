// Every kernel of every target against the reference kernel of its op, on one set of odd shapes.
import { describe, expect, test } from 'vitest';
import { cpuTargetWith } from '../../src/targets/cpu/target.ts';
import { targets } from '../../src/targets/index.ts';
import type { Phase } from '../../src/targets/plan.ts';
import { referenceTarget } from '../../src/targets/reference/target.ts';
import type { Epilogue } from '../../src/targets/target.ts';
import { attentionCases, CaseBuilder, longCases, matmulCases, ropeAttentionCases } from './cases.ts';
import { blocks, compute, differences, fusedSets, ropeAttention, sets } from './compare.ts';

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

  // Long contexts are split among threads there.
  test.each(target.cache?.dtypes ?? [])('attention over a cache of %s', async (dtype) => {
    const c = new CaseBuilder(3);
    attentionCases(c, 16);
    longCases(c);
    expect(await differences(target, c.finish(dtype), 16)).toEqual([]);
  });
});

describe.each(compared)('$label, fused', (target) => {
  const status = target.probe();
  const has = (epilogue: Epilogue) => target.epilogues.includes(epilogue);
  if (!status.available || target.epilogues.length === 0)
    return void test.skip(`${target.name}: ${status.available ? 'fuses nothing' : status.detail}`);

  test.each(Object.keys(fusedSets).filter((name) => fusedSets[name]!.needs.every(has)))('%s', async (name) => {
    const c = new CaseBuilder(17);
    fusedSets[name]!.fill(c);
    expect(await differences(target, c.finish(), 16)).toEqual([]);
  });

  test.each(has(ropeAttention) ? blocks : [])('rotation and attention over blocks of %i', async (tokensPerBlock) => {
    const c = new CaseBuilder(tokensPerBlock);
    ropeAttentionCases(c, tokensPerBlock);
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
