// Sampling on CUDA: one block a row of logits.
import type { FloatDType } from '../../base/dtype.ts';
import { type CudaArg, type CudaLaunch, cudaTypes, symbolName } from '../cuda-kernel.ts';

export interface SampleProblem {
  readonly dtype: FloatDType;
  readonly rows: number;
  readonly vocab: number;
  readonly ld: number;
}

/** Buffers: logits, temperature, topK, topP, minP, seedLow, seedHigh, counter, token, logprob. */
export function sampleLaunch({ dtype, rows, vocab, ld }: SampleProblem): CudaLaunch {
  const type = cudaTypes[dtype];
  const names = ['logits', 'temperature', 'topK', 'topP', 'minP', 'seedLow', 'seedHigh', 'counter', 'token', 'logprob'];
  return {
    kernel: { name: symbolName('sample', type), include: 'sample/cuda.cuh', type: `SampleRows<${type}>` },
    grid: [rows, 1, 1],
    threads: 1024,
    sharedBytes: 0,
    overlap: true,
    args: [
      ...names.map((buffer): CudaArg => ({ kind: 'pointer', buffer })),
      { kind: 'i32', value: vocab },
      { kind: 'i32', value: ld },
    ],
  };
}
