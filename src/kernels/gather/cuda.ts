// Rows by index on CUDA: embedding, the rows that want logits, and copies of KV blocks.
import type { FloatDType } from '../../base/dtype.ts';
import { type CudaArg, type CudaLaunch, cudaTypes, symbolName } from '../cuda-kernel.ts';

export interface GatherProblem {
  readonly dtype: FloatDType;
  readonly tableDType: FloatDType;
  readonly rows: number;
  readonly columns: number;
  readonly tableRows: number;
  readonly ldt: number;
  readonly ldy: number;
  readonly sampled?: true;
}

/** Buffers: ids (int32), table, y; with `sampled` (int32), an id −1 − i stands for sampled[i]. */
export function gatherLaunch(problem: GatherProblem): CudaLaunch {
  const [to, from] = [cudaTypes[problem.dtype], cudaTypes[problem.tableDType]];
  const { rows, columns, ldt, ldy, tableRows, sampled } = problem;
  return {
    kernel: { name: symbolName('gather', to, from), include: 'gather/cuda.cuh', type: `GatherRows<${to}, ${from}>` },
    grid: [rows, Math.max(1, Math.min(8, Math.ceil(columns / 1024))), 1],
    threads: 128,
    sharedBytes: 0,
    overlap: true,
    args: [
      { kind: 'pointer', buffer: 'ids' },
      sampled ? { kind: 'pointer', buffer: 'sampled' } : { kind: 'null' },
      ...['table', 'y'].map((buffer): CudaArg => ({ kind: 'pointer', buffer })),
      ...[columns, ldt, ldy, tableRows].map((value): CudaArg => ({ kind: 'i32', value })),
    ],
  };
}

/** Buffers: from, to (int32 block ids), cache; blocks of `bytes` bytes, a multiple of 16. */
export function copyBlocksLaunch(count: number, bytes: number): CudaLaunch {
  const vectors = bytes / 16;
  return {
    kernel: { name: 'copy_blocks', include: 'gather/cuda.cuh', type: 'CopyBlocks' },
    grid: [count, Math.max(1, Math.min(16, Math.ceil(vectors / 1024))), 1],
    threads: 256,
    sharedBytes: 0,
    args: [
      ...['from', 'to', 'cache'].map((buffer): CudaArg => ({ kind: 'pointer', buffer })),
      { kind: 'i32', value: vectors },
    ],
  };
}
