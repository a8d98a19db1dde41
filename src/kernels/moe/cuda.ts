// Mixture of experts on CUDA: routing, then both products of each token's experts.
import type { FloatDType } from '../../base/dtype.ts';
import type { Activation } from '../../define/graph/ops.ts';
import { type CudaArg, type CudaLaunch, cudaTypes, symbolName } from '../cuda-kernel.ts';
import { actNames } from '../matmul/cuda.ts';

const pointer = (buffer: string, there = true): CudaArg => (there ? { kind: 'pointer', buffer } : { kind: 'null' });
const int = (value: number): CudaArg => ({ kind: 'i32', value });

export interface RouteProblem {
  readonly dtype: FloatDType;
  readonly tokens: number;
  readonly experts: number;
  readonly ld: number;
  readonly topK: number;
  readonly scoring: 'softmax' | 'sigmoid';
  readonly normalize: boolean;
  readonly scale: number;
  readonly bias: boolean;
}

/** The most experts that the routing kernel holds in shared memory. */
export const maxRoutedExperts = 512;

/** Buffers: logits, weights (float32), experts (int32), and bias where there is one. */
export function routeLaunch(problem: RouteProblem): CudaLaunch {
  const { dtype, tokens, experts, ld, topK, scoring, normalize, scale } = problem;
  const type = cudaTypes[dtype];
  return {
    kernel: {
      name: symbolName('moe_route', type, scoring),
      include: 'moe/cuda.cuh',
      type: `MoeRoute<${type}, Scoring::${scoring}>`,
    },
    grid: [Math.ceil(tokens / 4), 1, 1],
    threads: 128,
    sharedBytes: 0,
    overlap: true,
    args: [
      pointer('logits'),
      pointer('bias', problem.bias),
      pointer('weights'),
      pointer('experts'),
      ...[tokens, experts, ld, topK, normalize ? 1 : 0].map(int),
      { kind: 'f32', value: scale },
    ],
  };
}

export interface ExpertsProblem {
  readonly dtype: FloatDType;
  readonly activation: Activation;
  readonly tokens: number;
  readonly topK: number;
  readonly hidden: number;
  readonly inner: number;
  readonly ldx: number;
  readonly ldy: number;
}

/** Buffers: x, gateUp, down, experts, weights, y, and `inner`: [tokens · topK, inner] elements of workspace. */
export function expertsLaunches(problem: ExpertsProblem): readonly CudaLaunch[] {
  const { dtype, activation, tokens, topK, hidden, inner, ldx, ldy } = problem;
  const type = cudaTypes[dtype];
  const act = actNames[activation];
  const base = { threads: 256, sharedBytes: 0, overlap: true };
  return [
    {
      ...base,
      kernel: {
        name: symbolName('moe_inner', type, act),
        include: 'moe/cuda.cuh',
        type: `MoeInner<${type}, Act::${act}>`,
      },
      grid: [tokens * topK, Math.ceil(inner / 8), 1],
      args: [
        ...['x', 'gateUp', 'experts', 'inner'].map((name) => pointer(name)),
        ...[hidden, inner, ldx, topK].map(int),
      ],
    },
    {
      ...base,
      kernel: { name: symbolName('moe_down', type), include: 'moe/cuda.cuh', type: `MoeDown<${type}>` },
      grid: [tokens, Math.ceil(hidden / 8), 1],
      args: [
        ...['inner', 'down', 'experts', 'weights', 'y'].map((name) => pointer(name)),
        ...[hidden, inner, ldy, topK].map(int),
      ],
    },
  ];
}
