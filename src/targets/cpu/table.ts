// The list of launches as the native side reads it (include/cpu/launch.h): fixed-size records with addresses and sizes filled in, so that a step
// only tells the values of its symbols.
import { TargetError } from '../../base/errors.ts';
import { type Dims, type Expr, evaluate, printExpr } from '../../base/expr.ts';
import { inputNames } from '../../define/graph/ops.ts';
import type { KernelOp } from '../../kernels/reference-table.ts';
import type { PlanStep, PlanTensor } from '../plan.ts';
import { cpuKernel } from './kernels.ts';

const limits = { args: 10, ints: 12, floats: 8 };
const tensorBytes = 32;
/** Offsets in a record. */
const at = {
  kernel: 0,
  cache: 8,
  ints: 16,
  floats: 16 + limits.ints * 4,
  args: 16 + (limits.ints + limits.floats) * 4,
};
export const launchBytes = at.args + limits.args * tensorBytes;

/** Sizes that only a step knows; a record names them by index. */
export class StepSizes {
  readonly #exprs: Expr[] = [];
  readonly #indices = new Map<string, number>();

  encode(dim: Expr): number {
    if (typeof dim === 'number') return dim;
    const key = printExpr(dim);
    let index = this.#indices.get(key);
    if (index === undefined) {
      index = this.#exprs.push(dim) - 1;
      this.#indices.set(key, index);
    }
    return -1 - index;
  }

  get count(): number {
    return this.#exprs.length;
  }

  /** Fills in the values of one step. */
  fill(values: BigInt64Array, dims: Dims): void {
    for (let i = 0; i < this.#exprs.length; i++) values[i] = BigInt(evaluate(this.#exprs[i]!, dims));
  }
}

export interface TableContext {
  readonly tensors: readonly PlanTensor[];
  readonly addresses: readonly bigint[];
  readonly sizes: StepSizes;
  kernelOf(step: PlanStep): number;
  /** What the kernel takes before its op's own numbers. */
  configOf(step: PlanStep): readonly number[];
  /** Address of a layer's part of the KV pool. */
  cacheOf(layer: number): bigint;
}

/** Writes the records of a phase into `bytes`. */
export function writeLaunches(bytes: Uint8Array, steps: readonly PlanStep[], context: TableContext): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  steps.forEach((step, i) => {
    const kernel = cpuKernel(step.op)!;
    const base = i * launchBytes;
    view.setInt32(base + at.kernel, context.kernelOf(step), true);
    if ('layer' in step.attrs) view.setBigUint64(base + at.cache, context.cacheOf(step.attrs.layer), true);
    [...context.configOf(step), ...(kernel.ints?.(step.attrs as never) ?? [])].forEach((value, j) => {
      view.setInt32(base + at.ints + j * 4, value, true);
    });
    kernel.floats?.(step.attrs as never).forEach((value, j) => {
      view.setFloat32(base + at.floats + j * 4, value, true);
    });
    const inputs = kernel.inputs ?? inputNames(step.op as KernelOp).map(({ name }) => name);
    const names = [...inputs, ...kernel.outputs];
    if (names.length > limits.args) throw new TargetError('too many arguments for a launch', { where: step.scope });
    names.forEach((name, j) => {
      const index = step.args[name];
      if (index === undefined) return;
      const { shape, stride } = context.tensors[index]!;
      const place = base + at.args + j * tensorBytes;
      const columns = shape.at(-1) ?? 1;
      view.setBigUint64(place, context.addresses[index]!, true);
      view.setBigInt64(place + 8, BigInt(stride ?? (typeof columns === 'number' ? columns : 1)), true);
      view.setInt32(place + 16, shape.length, true);
      shape.forEach((dim, k) => {
        view.setInt32(place + 20 + k * 4, context.sizes.encode(dim), true);
      });
    });
  });
}
