// What a plan will ask of the device, found without one: the problems that have tactics, and every kernel that its steps launch at any size.
import { isFloatDType } from '../../base/dtype.ts';
import type { Dims } from '../../base/expr.ts';
import type { CudaArch, CudaKernel } from '../../kernels/cuda-kernel.ts';
import { fillLaunch } from '../../kernels/fill/cuda.ts';
import type { DevicePtr } from '../ffi/cuda-driver.ts';
import type { Plan, PlanStep } from '../plan.ts';
import { runtimeKernels, stepLaunches } from './kernels.ts';
import { type StepView, stepTensor } from './step.ts';
import { planTactics, type TacticProblem, type Tactics, TacticTable, tacticSizes } from './tactics.ts';

/** Steps that differ in more than their layer. */
function distinctSteps(plan: Plan): PlanStep[] {
  const found = new Map<string, PlanStep>();
  for (const step of [...plan.phases.forward, ...plan.phases.sample]) {
    const args = Object.entries(step.args).map(([name, index]) => {
      const { dtype, shape, stride } = plan.tensors[index]!;
      return [name, dtype, shape, stride];
    });
    found.set(JSON.stringify([step.op, { ...step.attrs, layer: 0 }, args]), step);
  }
  return [...found.values()];
}

/** Sizes of steps that together ask for every tactic: prompts, generation at each batch size, and each number of rows with logits. */
function representativeDims({ maxNumTokens, maxBatchSize, maxNumLogits }: Plan['limits']): Dims[] {
  const upTo = (limit: number): number[] => tacticSizes(limit).map((size) => Math.min(size, limit));
  return [
    ...upTo(maxNumTokens).map((T) => ({ T, R: 1, L: 1 })),
    ...upTo(maxBatchSize).map((R) => ({ T: R, R, L: Math.min(R, maxNumLogits) })),
    ...upTo(maxNumLogits).map((L) => ({ T: maxNumTokens, R: Math.min(L, maxBatchSize), L })),
  ];
}

function view(
  plan: Plan,
  step: PlanStep,
  dims: Dims,
  arch: CudaArch,
  tactics: Tactics,
  onScratch: (bytes: number) => void = () => {},
): StepView {
  const nowhere = 0n as DevicePtr;
  const optional: StepView['optional'] = (name) => {
    const index = step.args[name];
    return index === undefined ? undefined : stepTensor(plan, index, dims, nowhere);
  };
  return {
    arch,
    tactics,
    dtype: plan.dtype,
    tokensPerBlock: plan.tokensPerBlock,
    maxBlocksPerSequence: plan.maxBlocksPerSequence,
    numBlocks: plan.limits.maxBatchSize * plan.maxBlocksPerSequence,
    dims: dims as StepView['dims'],
    optional,
    tensor: (name) => optional(name)!,
    sampled: nowhere,
    cache: () => nowhere,
    scratch: (bytes) => {
      onScratch(bytes);
      return nowhere;
    },
    counters: () => nowhere,
  };
}

/** The kernels of one step at these sizes. */
export function stepKernels(plan: Plan, dims: Dims, arch: CudaArch, tactics: Tactics): CudaKernel[] {
  return kernelsOf(distinctSteps(plan), plan, [dims], arch, tactics);
}

/** Every kernel the plan's steps launch with these tactics, at any size, and the runtime's own. */
export function planKernels(plan: Plan, arch: CudaArch, tactics: Tactics): CudaKernel[] {
  const found = kernelsOf(distinctSteps(plan), plan, representativeDims(plan.limits), arch, tactics);
  return [
    ...new Map([...runtimeKernels, ...fillKernels(plan), ...found].map((kernel) => [kernel.name, kernel])).values(),
  ];
}

/** What random weights are made with. */
function fillKernels({ tensors }: Plan): CudaKernel[] {
  return tensors.flatMap(({ storage, dtype }) =>
    storage.kind === 'weight' && storage.random !== undefined && isFloatDType(dtype)
      ? [fillLaunch(dtype, 1, 0, 0, 0).kernel]
      : [],
  );
}

function kernelsOf(
  steps: readonly PlanStep[],
  plan: Plan,
  sizes: readonly Dims[],
  arch: CudaArch,
  tactics: Tactics,
): CudaKernel[] {
  const found = new Map<string, CudaKernel>();
  for (const dims of sizes)
    for (const step of steps)
      for (const work of stepLaunches(step, view(plan, step, dims, arch, tactics)))
        if ('launch' in work) found.set(work.launch.kernel.name, work.launch.kernel);
  return [...found.values()];
}

/** The kernels that an engine carries for a device: with cuBLASLt and where that is not found. */
export function engineKernels(plan: Plan, info: CudaArch & { readonly name: string }): CudaKernel[] {
  const all = [true, false].flatMap((cublaslt) => planKernels(plan, info, planTactics(plan, info, cublaslt)));
  return [...new Map(all.map((kernel) => [kernel.name, kernel])).values()];
}

/** Bytes of room for partial sums that the plan's steps ask for at most. */
export function planScratch(plan: Plan, arch: CudaArch, tactics: Tactics): number {
  let most = 0;
  const onScratch = (bytes: number): void => {
    most = Math.max(most, bytes);
  };
  for (const dims of representativeDims(plan.limits))
    for (const step of distinctSteps(plan)) stepLaunches(step, view(plan, step, dims, arch, tactics, onScratch));
  return most;
}

/** Every problem with a choice of tactics, at each size that the plan's limits allow. */
export function planProblems(plan: Plan, arch: CudaArch): TacticProblem[] {
  const found: TacticProblem[] = [];
  planKernels(plan, arch, new TacticTable(arch, {}, { ask: (problem) => found.push(problem) }));
  return found;
}
