// One set of odd shapes for every kernel, computed on a target and on the reference target, and where they differ.
import { makePlan } from '../../src/compile/plan.ts';
import type { Phase, Plan } from '../../src/targets/plan.ts';
import { referenceTarget } from '../../src/targets/reference/target.ts';
import type { Epilogue, Target } from '../../src/targets/target.ts';
import {
  type CaseBuilder,
  type Conformance,
  elementsOf,
  fusedMatmulCases,
  matmulCases,
  moeCases,
  pointCases,
  sampleCases,
} from './cases.ts';

const fusedProducts: readonly Epilogue[] = ['gated-matmul', 'residual-matmul'];

export const sets: Record<string, (c: CaseBuilder) => void> = {
  'ops on elements and rows': pointCases,
  'products of one row': (c) => matmulCases(c, [1]),
  'products of rows': (c) => matmulCases(c, [5, 8, 27, 100]),
  'mixture of experts': moeCases,
  sampling: sampleCases,
};
export const blocks = [4, 16, 64];

/** Sets of ops that the compiler makes for targets that have these alone. */
export const fusedSets: Record<string, { readonly needs: readonly Epilogue[]; fill(c: CaseBuilder): void }> = {
  'fused products of few rows': { needs: fusedProducts, fill: (c) => fusedMatmulCases(c, [1, 3, 8]) },
  'fused products of rows': { needs: fusedProducts, fill: (c) => fusedMatmulCases(c, [13, 40, 150]) },
};
/** Besides, where a target has it: rotation and attention in one, over blocks of each length. */
export const ropeAttention: Epilogue = 'rope-attention';

/** The plan of a graph of cases. */
export function planOf(
  { graph, dtype = 'float32', cacheDType = dtype }: Conformance,
  target: Target,
  tokensPerBlock: number,
): Plan {
  const limits = { maxNumTokens: 128, maxBatchSize: 8, maxNumLogits: 8 };
  return makePlan(graph, { target, dtype, cacheDType, limits, tokensPerBlock, maxBlocksPerSequence: 64 }).plan;
}

export async function compute(
  target: Target,
  made: Conformance,
  tokensPerBlock: number,
  times?: Map<Phase, Float64Array>,
  adapt: (plan: Plan) => Plan = (plan) => plan,
): Promise<Map<string, Float32Array | Int32Array>> {
  const { graph, weights, inputs } = made;
  const plan = adapt(planOf(made, target, tokensPerBlock));
  await using device = await target.open();
  await using program = await device.load({
    plan,
    numBlocks: 2048 / tokensPerBlock,
    readWeight: (name) => weights.get(name)!,
  });
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

const references = new WeakMap<Conformance, ReturnType<typeof compute>>();

/** Outputs that differ by more than they may, with by how much. `adapt` chooses other kernels for the target's plan. */
export async function differences(
  target: Target,
  made: Conformance,
  tokensPerBlock: number,
  adapt?: (plan: Plan) => Plan,
): Promise<string[]> {
  if (!references.has(made)) references.set(made, compute(referenceTarget, made, tokensPerBlock));
  const expected = await references.get(made)!;
  const results = await compute(target, made, tokensPerBlock, undefined, adapt);
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
