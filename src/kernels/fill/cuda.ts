// Random values on the device: what dummy weights and timings are made of.
import type { FloatDType } from '../../base/dtype.ts';
import { type CudaLaunch, cudaTypes } from '../cuda-kernel.ts';

/** `count` uniform values in [low, high) into the buffer `y`; the same for a seed in any launch. */
export function fillLaunch(dtype: FloatDType, count: number, seed: number, low: number, high: number): CudaLaunch {
  return {
    kernel: { name: `fill_${dtype}`, include: 'fill/cuda.cuh', type: `FillRandom<${cudaTypes[dtype]}>` },
    grid: [1024, 1, 1],
    threads: 256,
    sharedBytes: 0,
    args: [
      { kind: 'pointer', buffer: 'y' },
      { kind: 'i32', value: count | 0 },
      { kind: 'i32', value: Math.floor(count / 2 ** 32) },
      { kind: 'i32', value: seed },
      { kind: 'f32', value: low },
      { kind: 'f32', value: high },
    ],
  };
}
