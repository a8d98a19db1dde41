// Norm, rotation and cache write on CUDA, one kernel.
import type { FloatDType } from '../../base/dtype.ts';
import type { RopeCacheAttrs } from '../../define/graph/attention.ts';
import { type CudaArg, type CudaLaunch, cudaTypes, symbolName } from '../cuda-kernel.ts';

export interface RopeCacheProblem {
  readonly dtype: FloatDType;
  readonly attrs: Omit<RopeCacheAttrs, 'layer'>;
  readonly tokens: number;
  readonly ldq: number;
  readonly ldk: number;
  readonly ldv: number;
  readonly ldy: number;
  readonly tokensPerBlock: number;
}

/** True when whole heads are rotated and lie in 16-byte pieces; steps of few tokens want the blocks that the other kernel has more of. */
function rotatesVectors({ dtype, attrs, tokens, ldq, ldk, ldv, ldy }: RopeCacheProblem): boolean {
  const { headDim, valueDim, rope } = attrs;
  const whole = [64, 128, 256].includes(headDim) && rope?.rotaryDim === headDim;
  return dtype !== 'float32' && tokens >= 64 && whole && [valueDim, ldq, ldk, ldv, ldy].every((size) => size % 8 === 0);
}

/** Buffers: q, k, v, positions, slots, y, cache, and where the attributes ask for them qNorm, kNorm, frequencies (float32). */
export function ropeCacheLaunch(problem: RopeCacheProblem): CudaLaunch {
  const { dtype, attrs, tokens } = problem;
  const { norm, rope, numHeads, numKvHeads, headDim, valueDim } = attrs;
  const type = cudaTypes[dtype];
  const dim = Math.max(64, 2 ** Math.ceil(Math.log2(headDim)));
  const parts = [norm?.kind ?? 'none', rope?.style ?? 'none'] as const;
  const pointer = (buffer: string, there = true): CudaArg => (there ? { kind: 'pointer', buffer } : { kind: 'null' });
  const int = (value: number): CudaArg => ({ kind: 'i32', value });
  const float = (value: number): CudaArg => ({ kind: 'f32', value });
  const vectors = rotatesVectors(problem);
  const prefix = vectors ? 'rope_cache_vectors' : 'rope_cache';
  return {
    kernel: {
      name: symbolName(prefix, type, dim, ...parts),
      include: 'attention/cuda-rope.cuh',
      type: `RopeCache${vectors ? 'Vectors' : ''}<${type}, ${dim}, HeadNorm::${parts[0]}, Rope::${parts[1]}>`,
    },
    grid: [tokens, vectors ? 1 : Math.ceil((numHeads + 2 * numKvHeads) / 4), 1],
    threads: 128,
    sharedBytes: 0,
    overlap: true,
    args: [
      pointer('q'),
      pointer('k'),
      pointer('v'),
      pointer('qNorm', norm !== undefined),
      pointer('kNorm', norm !== undefined),
      pointer('frequencies', rope !== undefined),
      pointer('positions'),
      pointer('slots'),
      pointer('y'),
      pointer('cache'),
      ...[tokens, problem.ldq, problem.ldk, problem.ldv, problem.ldy].map(int),
      ...[numHeads, numKvHeads, headDim, valueDim, rope?.rotaryDim ?? 0, problem.tokensPerBlock].map(int),
      ...[norm?.eps ?? 0, norm?.weightOffset ?? 0, rope?.attentionFactor ?? 1].map(float),
    ],
  };
}
