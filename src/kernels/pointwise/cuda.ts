// Ops on elements on CUDA.
import type { FloatDType } from '../../base/dtype.ts';
import type { Activation } from '../../define/graph/ops.ts';
import { type CudaArch, type CudaArg, type CudaLaunch, cudaTypes, symbolName } from '../cuda-kernel.ts';
import { actNames } from '../matmul/cuda.ts';

export interface PointwiseProblem {
  readonly op: 'activation' | 'gated' | 'add' | 'mul' | 'scale' | 'softcap';
  readonly activation: Activation | 'none';
  readonly dtype: FloatDType;
  readonly rows: number;
  readonly columns: number;
  readonly lda: number;
  readonly ldb: number;
  readonly ldy: number;
  /** The factor of `scale`, the cap of `softcap`. */
  readonly factor: number;
}

/** Buffers: a, y, and b where the op has two inputs. */
export function pointwiseLaunch(problem: PointwiseProblem, arch: CudaArch): CudaLaunch {
  const { op, dtype, rows, columns, lda, ldb, ldy } = problem;
  const type = cudaTypes[dtype];
  const act = actNames[problem.activation];
  const two = op === 'gated' || op === 'add' || op === 'mul';
  const perBlock = 256 * (dtype === 'float32' ? 4 : 8);
  return {
    kernel: {
      name: symbolName('pointwise', type, op, act),
      include: 'pointwise/cuda.cuh',
      type: `Pointwise<${type}, PointOp::${op}, Act::${act}>`,
    },
    grid: [Math.max(1, Math.min(arch.multiprocessors * 8, Math.ceil((rows * columns) / perBlock))), 1, 1],
    threads: 256,
    sharedBytes: 0,
    overlap: true,
    args: [
      { kind: 'pointer', buffer: 'a' },
      two ? { kind: 'pointer', buffer: 'b' } : { kind: 'null' },
      { kind: 'pointer', buffer: 'y' },
      ...[rows, columns, lda, ldb, ldy].map((value): CudaArg => ({ kind: 'i32', value })),
      { kind: 'f32', value: problem.factor },
    ],
  };
}
