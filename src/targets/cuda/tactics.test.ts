// Tactics without a device: a table answers by size, heuristics fill its gaps, and a survey of the plan finds every kernel a step can launch.
import { describe, expect, test } from 'vitest';
import { goldenPath } from '../../../test/support/golden.ts';
import { compile } from '../../compile/build.ts';
import { openCheckpoint } from '../../define/checkpoint/open.ts';
import type { MatmulProblem } from '../../kernels/matmul/cuda.ts';
import type { Plan } from '../plan.ts';
import { planKernels, planProblems, stepKernels } from './survey.ts';
import { candidates, planTactics, problemKey, problemSize, TacticTable, tacticDevice, tacticSizes } from './tactics.ts';
import { cudaTarget } from './target.ts';

const hopper = { sm: 90, multiprocessors: 132, maxSharedBytes: 232448, name: 'Some GPU' };
const small = { sm: 86, multiprocessors: 28, maxSharedBytes: 101376, name: 'Another GPU' };
const product: MatmulProblem = {
  dtype: 'bfloat16',
  m: 20,
  n: 512,
  k: 256,
  ldx: 256,
  ldy: 512,
  bias: false,
  residual: false,
  gated: false,
  activation: 'none',
};

async function planOf(name: string): Promise<Plan> {
  using checkpoint = await openCheckpoint(goldenPath(name));
  return compile(checkpoint, cudaTarget, { dtype: 'bfloat16', maxSeqLen: 64, maxNumTokens: 300, maxBatchSize: 40 })
    .plan;
}

test('sizes reach the limit and are whole', () => {
  expect(tacticSizes(1)).toEqual([1]);
  expect(tacticSizes(33)).toEqual([1, 2, 4, 8, 16, 24, 32, 48]);
  expect(tacticSizes(64).at(-1)).toBe(64);
});

describe('TacticTable', () => {
  test('takes the first range that holds the size, and the heuristic beyond the table', () => {
    const problem = { op: 'matmul', problem: product } as const;
    const tile = { kind: 'tile', bm: 16, bn: 64, stages: 2, warpsM: 1, warpsN: 1 } as const;
    const grid = { kind: 'grid' } as const;
    const table = new TacticTable(hopper, {
      [problemKey(problem)]: [
        { upTo: 16, config: grid },
        { upTo: 32, config: tile },
      ],
    });
    const chosen = [1, 16, 17, 32].map((m) => table.matmul({ ...product, m }).kind);
    expect(chosen).toEqual(['grid', 'grid', 'tile', 'tile']);
    const beyond = { ...product, m: 48 };
    expect(table.matmul({ ...product, m: 33 })).toEqual(candidates({ op: 'matmul', problem: beyond }, hopper)[0]);
    expect(table.matmul({ ...product, m: 1, bias: true })).not.toEqual(grid);
  });

  test('tactics of another device are not used', async () => {
    const plan = await planOf('llama');
    const [first] = planProblems(plan, hopper);
    const tuned: Plan = {
      ...plan,
      tactics: {
        device: tacticDevice(hopper),
        problems: { [problemKey(first!)]: [{ upTo: 1 << 20, config: { kind: 'grid' } }] },
      },
    };
    const problem = first!.problem as MatmulProblem;
    expect(planTactics(tuned, hopper).matmul(problem)).toEqual({ kind: 'grid' });
    expect(planTactics(tuned, small).matmul(problem)).toEqual(candidates(first!, small)[0]);
  });
});

describe.each(['llama', 'gemma2', 'mixtral', 'gpt2', 'qwen3'])('the plan of %s', (name) => {
  test.each([hopper, small])('launches no kernel that the survey did not find, on sm_$sm', async (arch) => {
    const plan = await planOf(name);
    const tactics = new TacticTable(arch);
    const known = new Set(planKernels(plan, arch, tactics).map((kernel) => kernel.name));
    const { maxNumTokens, maxBatchSize, maxNumLogits } = plan.limits;
    for (const T of [1, 2, 3, 7, 8, 9, 17, 33, 40, 41, 63, 100, 129, 200, 256, 299, maxNumTokens])
      for (const R of [1, 2, 5, 17, 33, maxBatchSize])
        for (const L of [0, 1, 3, 9, 31, 40, maxNumLogits]) {
          if (R > T || L > T) continue;
          for (const kernel of stepKernels(plan, { T, R, L }, arch, tactics)) expect(known).toContain(kernel.name);
        }
  });

  test('has problems of every size once, each with candidates', async () => {
    const plan = await planOf(name);
    const problems = planProblems(plan, hopper);
    const places = problems.map((problem) => `${problemKey(problem)} ${problemSize(problem)}`);
    expect(new Set(places).size).toBe(places.length);
    expect(problems.some((problem) => problem.op === 'matmul' && problem.problem.m === 384)).toBe(true);
    for (const problem of problems) expect(candidates(problem, hopper).length).toBeGreaterThan(0);
  });
});
