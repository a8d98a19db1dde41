// Mixture of experts on CUDA: routing, then both products of each token's experts.
import type { FloatDType } from '../../base/dtype.ts';
import type { Activation } from '../../define/graph/ops.ts';
import { type CudaArch, type CudaArg, type CudaLaunch, cudaTypes, symbolName } from '../cuda-kernel.ts';
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
  readonly experts: number;
  readonly topK: number;
  readonly hidden: number;
  readonly inner: number;
  readonly ldx: number;
  readonly ldy: number;
}

/** How the experts' products are computed: one warp a column, or tiles of tokens sorted by expert on tensor cores. */
export type ExpertsConfig =
  | { readonly kind: 'plain' }
  | {
      readonly kind: 'grouped';
      readonly bm: number;
      readonly bn: number;
      readonly stages: number;
      readonly warpsM: number;
      readonly warpsN: number;
    };

/** The heuristic's choice: tiles about as high as an expert's tokens are many, narrow ones where there are few. */
export function expertsConfig(problem: ExpertsProblem, arch: CudaArch): ExpertsConfig {
  const { dtype, tokens, experts, topK, hidden, inner, ldx, ldy } = problem;
  const whole = [hidden, inner, ldx, ldy].every((size) => size % 8 === 0);
  if (dtype === 'float32' || !whole || experts > maxRoutedExperts) return { kind: 'plain' };
  const busy = Math.min(experts, tokens * topK);
  const rows = (tokens * topK) / busy;
  const make = (bm: number, bn: number, warpsM: number, warpsN: number): ExpertsConfig => {
    // Two blocks or more share a multiprocessor.
    const room = bm >= 128 ? arch.maxSharedBytes : Math.floor(arch.maxSharedBytes / 2) - 2048;
    const stages = Math.max(2, Math.min(bm >= 128 ? 4 : 6, Math.floor(room / ((bm + bn) * 128))));
    return { kind: 'grouped', bm, bn, stages, warpsM, warpsN };
  };
  if (rows > 80) return make(128, 128, 4, 2);
  if (rows > 40) return make(64, 128, 2, 2);
  if (rows > 20) return make(32, 128, 1, 2);
  const wide = busy * Math.ceil(hidden / 128) >= 3 * arch.multiprocessors;
  return wide ? make(16, 128, 1, 2) : make(16, 64, 1, 1);
}

/** Where each piece of the workspace begins, and its size in all. */
function expertsRoom({ dtype, tokens, topK, experts, hidden, inner }: ExpertsProblem, config: ExpertsConfig) {
  const bytes = dtype === 'float32' ? 4 : 2;
  const slots = tokens * topK;
  let end = 0;
  const take = (size: number): number => {
    const at = end;
    end += Math.ceil(size / 256) * 256;
    return at;
  };
  const places = { inner: take(slots * inner * bytes) };
  if (config.kind === 'plain') return { ...places, parts: 0, order: 0, begins: 0, tiles: 0, total: end };
  const rest = {
    parts: take(slots * hidden * bytes),
    order: take(slots * 4),
    begins: take((experts + 1) * 4),
    tiles: take(experts * 4),
  };
  return { ...places, ...rest, total: end };
}

/** Bytes of workspace that the experts' products need. */
export function expertsWorkspace(problem: ExpertsProblem, config: ExpertsConfig): number {
  return expertsRoom(problem, config).total;
}

/** Buffers: x, gateUp, down, experts, weights, y, and `workspace`. */
export function expertsLaunches(problem: ExpertsProblem, config: ExpertsConfig): readonly CudaLaunch[] {
  return config.kind === 'plain' ? plainLaunches(problem, config) : groupedLaunches(problem, config);
}

type Grouped = Extract<ExpertsConfig, { kind: 'grouped' }>;

function groupedLaunches(problem: ExpertsProblem, config: Grouped): readonly CudaLaunch[] {
  const { dtype, activation, tokens, experts, topK, hidden, inner, ldx, ldy } = problem;
  const { bm, bn, stages, warpsM, warpsN } = config;
  const type = cudaTypes[dtype];
  const slots = tokens * topK;
  const room = expertsRoom(problem, config);
  const piece = (offset: number): CudaArg => ({ kind: 'pointer', buffer: 'workspace', offset });
  const [innerRows, parts, order] = [piece(room.inner), piece(room.parts), piece(room.order)];
  const [begins, tiles] = [piece(room.begins), piece(room.tiles)];
  const include = 'moe/cuda-grouped.cuh';
  // Every expert's last tile may be a part of one.
  const tilesM = Math.floor(slots / bm) + Math.min(experts, slots);
  const product = (first: boolean, columns: number, args: readonly CudaArg[]): CudaLaunch => {
    const act = first ? actNames[activation] : 'none';
    const parameters = [type, bm, bn, stages, warpsM, warpsN, first];
    return {
      kernel: {
        name: symbolName('moe_product', ...parameters, act),
        include,
        type: `MoeProduct<${[...parameters, `Act::${act}`].join(', ')}>`,
      },
      grid: [tilesM * Math.ceil(columns / bn), 1, 1],
      threads: warpsM * warpsN * 32,
      sharedBytes: stages * (bm + bn) * 128,
      overlap: true,
      args,
    };
  };
  return [
    {
      kernel: { name: 'moe_sort', include, type: 'MoeSort' },
      grid: [1, 1, 1],
      threads: 1024,
      sharedBytes: 0,
      overlap: true,
      args: [pointer('experts'), order, begins, tiles, ...[slots, experts, bm].map(int)],
    },
    product(true, 2 * inner, [
      ...[pointer('x'), pointer('gateUp'), innerRows, order, begins, tiles],
      ...[experts, inner, hidden, ldx, inner, topK].map(int),
    ]),
    product(false, hidden, [
      ...[innerRows, pointer('down'), parts, order, begins, tiles],
      ...[experts, hidden, inner, inner, hidden, topK].map(int),
    ]),
    {
      kernel: { name: symbolName('moe_combine', type), include, type: `MoeCombine<${type}>` },
      grid: [Math.ceil((tokens * hidden) / 8 / 256), 1, 1],
      threads: 256,
      sharedBytes: 0,
      overlap: true,
      args: [parts, pointer('weights'), pointer('y'), ...[tokens, hidden, ldy, topK].map(int)],
    },
  ];
}

function plainLaunches(problem: ExpertsProblem, config: ExpertsConfig): readonly CudaLaunch[] {
  const { dtype, activation, tokens, topK, hidden, inner, ldx, ldy } = problem;
  const type = cudaTypes[dtype];
  const act = actNames[activation];
  const base = { threads: 256, sharedBytes: 0, overlap: true };
  const innerRows: CudaArg = { kind: 'pointer', buffer: 'workspace', offset: expertsRoom(problem, config).inner };
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
        ...[pointer('x'), pointer('gateUp'), pointer('experts'), innerRows],
        ...[hidden, inner, ldx, topK].map(int),
      ],
    },
    {
      ...base,
      kernel: { name: symbolName('moe_down', type), include: 'moe/cuda.cuh', type: `MoeDown<${type}>` },
      grid: [tokens, Math.ceil(hidden / 8), 1],
      args: [
        ...[innerRows, ...['down', 'experts', 'weights', 'y'].map((name) => pointer(name))],
        ...[hidden, inner, ldy, topK].map(int),
      ],
    },
  ];
}
