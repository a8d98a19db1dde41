// The nouns of a CUDA step: what a maker of launches sees of the step at hand, and what it gives.
import type { FloatDType } from '../../base/dtype.ts';
import { type Dims, evaluate } from '../../base/expr.ts';
import type { Op, OpAttrs } from '../../define/graph/ops.ts';
import type { CudaArch, CudaLaunch } from '../../kernels/cuda-kernel.ts';
import type { DevicePtr } from '../ffi/cuda-driver.ts';
import type { Plan } from '../plan.ts';
import type { Buffers } from './launch.ts';
import type { LtLaunch } from './products.ts';
import type { Tactics } from './tactics.ts';

/** A tensor of the step at hand: [rows, columns], rows `stride` elements apart. */
export interface StepTensor {
  readonly ptr: DevicePtr;
  readonly rows: number;
  readonly columns: number;
  readonly stride: number;
}

/** What a launch maker may ask of the step. */
export interface StepView {
  readonly arch: CudaArch;
  readonly tactics: Tactics;
  readonly dtype: FloatDType;
  readonly tokensPerBlock: number;
  readonly maxBlocksPerSequence: number;
  readonly numBlocks: number;
  readonly dims: { readonly T: number; readonly R: number; readonly L: number };
  tensor(name: string): StepTensor;
  optional(name: string): StepTensor | undefined;
  /** The tokens that the step before sampled, [L]. */
  readonly sampled: DevicePtr | undefined;
  /** The cache of a layer. */
  cache(layer: number): DevicePtr;
  /** Room that launches in order may share, at least `bytes` large. */
  scratch(bytes: number): DevicePtr;
  /** Counters that every kernel leaves at zero. */
  counters(bytes: number): DevicePtr;
}

export interface BoundLaunch {
  readonly launch: CudaLaunch;
  readonly buffers: Buffers;
}

/** A product that goes to cuBLASLt. */
export interface BoundProduct {
  readonly product: LtLaunch;
  readonly buffers: Buffers;
}
export type BoundWork = BoundLaunch | BoundProduct;

/** How an op becomes launches. */
export type Maker<K extends Op> = (step: StepView, attrs: OpAttrs[K]) => readonly BoundWork[];

export const bind = (launch: CudaLaunch, buffers: Buffers): readonly BoundLaunch[] => [{ launch, buffers }];

/** Pointers of the tensors that are there, by their names (or new names). */
export function pointers(step: StepView, names: Readonly<Record<string, string>>): Buffers {
  const found: Record<string, DevicePtr> = {};
  for (const [as, name] of Object.entries(names)) {
    const tensor = step.optional(name);
    if (tensor !== undefined) found[as] = tensor.ptr;
  }
  return found;
}

/** An argument of a step at these sizes. */
export function stepTensor(plan: Plan, index: number, dims: Dims, ptr: DevicePtr): StepTensor {
  const tensor = plan.tensors[index]!;
  const shape = tensor.shape.map((dim) => evaluate(dim, dims));
  const columns = shape.at(-1) ?? 1;
  const rows = shape.slice(0, -1).reduce((a, b) => a * b, 1);
  return { ptr, rows, columns, stride: tensor.stride ?? columns };
}
