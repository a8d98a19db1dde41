// Norms of rows on CUDA: y = norm(x [+ residual]) · weight (+ bias), and sum = x + residual.
import type { FloatDType } from '../../base/dtype.ts';
import { type CudaArg, type CudaKernel, type CudaLaunch, cudaTypes, symbolName } from '../cuda-kernel.ts';

export interface NormProblem {
  readonly kind: 'rms' | 'layer';
  readonly dtype: FloatDType;
  readonly rows: number;
  readonly columns: number;
  /** Elements from row to row of x, residual, sum and y. */
  readonly ldx: number;
  readonly ldr: number;
  readonly lds: number;
  readonly ldy: number;
  readonly eps: number;
  readonly weightOffset: number;
  readonly weight: boolean;
  readonly bias: boolean;
  readonly residual: boolean;
}

/** Threads of a block and 16-byte pieces a thread; undefined where rows are not made of whole pieces. */
function shapeOf(problem: NormProblem): { threads: number; vectors: number } | undefined {
  const size = problem.dtype === 'float32' ? 4 : 8;
  const { columns, ldx, ldr, lds, ldy } = problem;
  if ([columns, ldx, ldr, lds, ldy].some((n) => n % size !== 0)) return undefined;
  const pieces = columns / size;
  for (const threads of [64, 128, 256, 512, 1024]) {
    const vectors = Math.ceil(pieces / threads);
    if (vectors <= (threads === 1024 ? 8 : 2)) return { threads, vectors };
  }
  return undefined;
}

/** Buffers: x, y, and where the problem has them residual, sum, weight, bias. */
export function normLaunch(problem: NormProblem): CudaLaunch {
  const { dtype, kind, rows, columns, ldx, ldr, lds, ldy } = problem;
  const type = cudaTypes[dtype];
  const shape = shapeOf(problem);
  const kernel: CudaKernel =
    shape === undefined
      ? {
          name: symbolName('norm_any', type, kind),
          include: 'norm/cuda.cuh',
          type: `NormAnyRows<${type}, NormKind::${kind}>`,
        }
      : {
          name: symbolName('norm', type, kind, shape.threads, shape.vectors),
          include: 'norm/cuda.cuh',
          type: `NormRows<${type}, NormKind::${kind}, ${shape.threads}, ${shape.vectors}>`,
        };
  const pointer = (buffer: string, there = true): CudaArg => (there ? { kind: 'pointer', buffer } : { kind: 'null' });
  return {
    kernel,
    grid: [rows, 1, 1],
    threads: shape?.threads ?? 256,
    sharedBytes: 0,
    overlap: true,
    args: [
      pointer('x'),
      pointer('residual', problem.residual),
      pointer('weight', problem.weight),
      pointer('bias', problem.bias),
      pointer('sum', problem.residual),
      pointer('y'),
      ...[columns, ldx, ldr, lds, ldy].map((value): CudaArg => ({ kind: 'i32', value })),
      { kind: 'f32', value: problem.eps },
      { kind: 'f32', value: problem.weightOffset },
    ],
  };
}
