// What a build adds to a plan for this GPU: tactics, and the kernels they need, compiled.
import { join } from 'node:path';
import { readEnv } from '../../base/env.ts';
import type { Progress } from '../../base/progress.ts';
import { type CudaArch, type CudaKernel, cudaArchFlag } from '../../kernels/cuda-kernel.ts';
import { kernelTensor, type Plan, type Tactic } from '../plan.ts';
import type { Prepared, PrepareOptions } from '../target.ts';
import { TimingCache } from '../timing-cache.ts';
import { type KernelCompiler, openCompiler, sourceHash } from './binaries.ts';
import { CudaDevice } from './device.ts';
import { LtProducts } from './products.ts';
import { engineKernels, planProblems } from './survey.ts';
import { candidates, problemKey, problemSize, type TacticConfig, type TacticProblem, tacticDevice } from './tactics.ts';
import { tune } from './tune.ts';

/** Milliseconds that a build spends on timing, at most. */
const tuningBudget = 20_000;

/** Chooses tactics and compiles every kernel that the plan can launch. Throws TargetError without a GPU or without NVRTC. */
export async function prepareCuda(plan: Plan, options: PrepareOptions): Promise<Prepared> {
  using device = new CudaDevice(options.device ?? 0);
  using compiler = openCompiler(device.info);
  const problems = planProblems(plan, device.info);
  const choose =
    options.tune === false
      ? (problem: TacticProblem): TacticConfig => candidates(problem, device.info)[0]!
      : await tuned(plan, problems, device, compiler, options);
  const table = tabulate(problems, choose);
  const chosen: Plan = { ...plan, tactics: { device: tacticDevice(device.info), problems: table } };
  return await withKernels(chosen, device.info, compiler, options.progress);
}

async function tuned(
  plan: Plan,
  problems: readonly TacticProblem[],
  device: CudaDevice,
  compiler: KernelCompiler,
  { timingCache, cublaslt, progress }: PrepareOptions,
): Promise<(problem: TacticProblem) => TacticConfig> {
  const file = timingCache ?? join(readEnv().cacheDir, 'timings.json');
  const clock = `${Math.round(device.info.clockKHz / 1000)} MHz`;
  const cache = new TimingCache(file, `${tacticDevice(device.info)}, ${clock}`);
  using products = cublaslt === false ? undefined : LtProducts.find(device);
  return await tune({ device, compiler, dtype: plan.dtype, problems, cache, products, progress, budget: tuningBudget });
}

/** The choices of all problems as ranges of sizes; neighbours with the same choice are one range. */
export function tabulate(
  problems: readonly TacticProblem[],
  choose: (problem: TacticProblem) => TacticConfig,
): Record<string, Tactic[]> {
  const table: Record<string, Tactic[]> = {};
  for (const problem of [...problems].sort((a, b) => problemSize(a) - problemSize(b))) {
    const ranges = (table[problemKey(problem)] ??= []);
    const next: Tactic = { upTo: problemSize(problem), config: choose(problem) };
    const last = ranges.at(-1);
    if (last !== undefined && JSON.stringify(last.config) === JSON.stringify(next.config)) ranges.pop();
    ranges.push(next);
  }
  return table;
}

/** Compiles the kernels of a plan whose tactics are chosen, as many at a time as there are processors. */
export async function withKernels(
  plan: Plan,
  arch: CudaArch & { readonly name: string },
  compiler: KernelCompiler,
  progress: Progress,
): Promise<Prepared> {
  const kernels = engineKernels(plan, arch);
  const binaries = await compileAll(kernels, compiler, progress);
  const sources = Object.fromEntries(kernels.map((kernel) => [kernel.name, sourceHash(kernel)]));
  return {
    plan: { ...plan, kernels: { arch: cudaArchFlag(arch.sm), compiler: compiler.version, sources } },
    tensors: new Map([...binaries].map(([name, binary]) => [kernelTensor(name), binary])),
  };
}

/** Binaries by kernel name. */
export async function compileAll(
  kernels: readonly CudaKernel[],
  compiler: KernelCompiler,
  progress: Progress,
): Promise<Map<string, Uint8Array>> {
  let done = 0;
  const total = kernels.length;
  const compiled = await Promise.all(
    kernels.map(async (kernel) => {
      const { binary } = await compiler.compile(kernel);
      progress({ task: 'compile kernels', done: ++done, total, unit: 'steps', item: kernel.name });
      return [kernel.name, binary] as const;
    }),
  );
  return new Map(compiled);
}
