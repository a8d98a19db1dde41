// How an engine stores weights for the CPU's kernels: matrices in panels (include/cpu/weights.h and quant.h, whose arithmetic this repeats), all
// else as float32. The layout is the same on every processor, so that an engine goes from one to another and only its kernels are compiled anew.
import { type DType, elementCount, isBlockDType } from '../../base/dtype.ts';
import { TargetError } from '../../base/errors.ts';
import type { PackedWeight, Plan, PlanTensor } from '../plan.ts';
import { cpuKernel, weightFormats } from './kernels.ts';

/** Names the layout of panels; changes with it, so that engines of another one are refused with what to do. */
export const panelLayout = 'cpu-panels-2';

/** Rows that lie together, and what makes up a block of them. */
const float = { rows: 64 };
const quantised = { rows: 32, group: 32, superGroups: 8, headerBytes: 128 };

/** By format: bytes of a group of 32 columns and 32 rows, and whether eight of them follow a header. */
const groups: Readonly<Record<string, { readonly bytes: number; readonly header: boolean }>> = {
  W_Q8_0: { bytes: 2 * (512 + 32), header: false },
  W_Q8_Z: { bytes: 2 * (512 + 64), header: false },
  W_Q4_0: { bytes: 2 * (256 + 32), header: false },
  W_Q4_1: { bytes: 2 * (256 + 64), header: false },
  W_Q5_0: { bytes: 2 * (256 + 64 + 32), header: false },
  W_Q5_1: { bytes: 2 * (256 + 64 + 64), header: false },
  W_Q4_K: { bytes: 2 * (256 + 32), header: true },
  W_Q5_K: { bytes: 2 * (256 + 64 + 32), header: true },
  W_Q6_K: { bytes: 2 * (256 + 128 + 32), header: true },
};

/** Rows that a block of panels holds. */
export function rowsTogether(dtype: DType): number {
  return isBlockDType(dtype) ? quantised.rows : float.rows;
}

/** Bytes of one matrix in panels. */
export function panelBytes(dtype: DType, rows: number, columns: number): number {
  const group = groups[weightFormats[dtype]?.name ?? ''];
  if (group !== undefined) {
    const count = columns / quantised.group;
    const headers = group.header ? (count / quantised.superGroups) * quantised.headerBytes : 0;
    return Math.ceil(rows / quantised.rows) * (count * group.bytes + headers);
  }
  // bf16 keeps pairs of columns.
  const stored = dtype === 'bfloat16' ? Math.ceil(columns / 2) * 2 : columns;
  return Math.ceil(rows / float.rows) * float.rows * stored * (dtype === 'float32' ? 4 : 2);
}

/** Tensors that kernels read as panels. Throws when a weight is also read otherwise. */
export function panelWeights(plan: Plan): ReadonlySet<number> {
  const panels = new Set<number>();
  const plain = new Set<number>();
  for (const step of [...plan.phases.forward, ...plan.phases.sample]) {
    const names = cpuKernel(step.op)?.packed ?? [];
    for (const [name, index] of Object.entries(step.args)) (names.includes(name) ? panels : plain).add(index);
  }
  for (const index of panels) {
    const tensor = plan.tensors[index]!;
    if (tensor.storage.kind !== 'weight') continue;
    if (plain.has(index)) throw new TargetError('a weight is read in two layouts', { where: tensor.name });
    if (weightFormats[tensor.dtype] === undefined)
      throw new TargetError('weights of this dtype have no CPU kernel', { where: tensor.name, got: tensor.dtype });
  }
  return panels;
}

/** How a weight lies in memory, and so in the engine. */
export function layoutOf(tensor: PlanTensor, panels: boolean): PackedWeight {
  const shape = tensor.shape as readonly number[];
  if (!panels) return { layout: 'float32', bytes: 4 * elementCount(shape) };
  const matrices = elementCount(shape.slice(0, -2));
  return { layout: panelLayout, bytes: matrices * panelBytes(tensor.dtype, shape.at(-2)!, shape.at(-1)!) };
}
