// Matrix products on CUDA: problem → candidates → config → launch, plain data. y[m, n] = act(x[m, k] · w[n, k]ᵀ + bias) + residual; a gated
// product has a stacked weight [gate; up] of 2n rows and computes act(gate) · up.
import type { FloatDType } from '../../base/dtype.ts';
import type { Activation } from '../../define/graph/ops.ts';
import {
  type CudaArch,
  type CudaArg,
  type CudaKernel,
  type CudaLaunch,
  cudaTypes,
  symbolName,
  type TensorMap,
} from '../cuda-kernel.ts';

export interface MatmulProblem {
  readonly dtype: FloatDType;
  /** Rows of x (tokens). */
  readonly m: number;
  /** Columns of y. */
  readonly n: number;
  readonly k: number;
  /** Elements from row to row. */
  readonly ldx: number;
  readonly ldy: number;
  readonly ldr?: number;
  readonly bias: boolean;
  readonly residual: boolean;
  readonly gated: boolean;
  readonly activation: Activation | 'none';
  /** x is normed (rms) as it is read, with a weight or without: kernels of few rows do so (normsWhileReading), others want x normed before. */
  readonly norm?: 'weighted' | 'plain';
}

export type MatmulConfig =
  | {
      readonly kind: 'small';
      readonly tokenTiles: 1 | 2;
      readonly rowTiles: 1 | 2 | 4;
      readonly warps: number;
      readonly unroll: number;
      readonly blocks: number;
      readonly splits: number;
    }
  | {
      readonly kind: 'tile';
      readonly bm: number;
      readonly bn: number;
      readonly stages: number;
      readonly warpsM: number;
      readonly warpsN: number;
    }
  | { readonly kind: 'wgmma'; readonly bn: number; readonly stages: number; readonly cluster: 1 | 2 }
  | {
      readonly kind: 'swap';
      readonly tokens: number;
      readonly warpgroups: 1 | 2;
      readonly stages: number;
      readonly splits: number;
      readonly blocks: number;
    }
  | { readonly kind: 'rows'; readonly tokens: number; readonly vectors: boolean }
  | { readonly kind: 'grid' };

export const actNames: Record<Activation | 'none', string> = {
  none: 'none',
  silu: 'silu',
  gelu: 'gelu',
  gelu_tanh: 'geluTanh',
  quick_gelu: 'quickGelu',
  relu: 'relu',
  relu2: 'relu2',
  sigmoid: 'sigmoid',
  tanh: 'tanh',
};

const ceilDiv = (a: number, b: number): number => Math.ceil(a / b);
const alignBytes = 1024;

/** Bytes of dynamic shared memory a configuration takes. */
export function matmulSharedBytes(config: MatmulConfig): number {
  switch (config.kind) {
    case 'tile':
      return config.stages * (config.bm + config.bn) * 128;
    case 'wgmma':
      return config.stages * (128 + config.bn) * 128 + alignBytes;
    case 'swap':
      return config.stages * (config.warpgroups * 64 + config.tokens) * 128 + alignBytes;
    default:
      return 0;
  }
}

/** True when the tensor-core kernels can take the problem: 16-bit elements, rows and columns in 16-byte pieces. */
export function isVectorised(problem: MatmulProblem): boolean {
  const { dtype, n, k, ldx, ldy, ldr } = problem;
  return dtype !== 'float32' && [n, k, ldx, ldy, ldr ?? 0].every((size) => size % 8 === 0);
}

/**
 * True when a kernel had better norm the rows of x as it reads them: few and short ones, where a launch costs more than what every block then computes
 * anew. Unnormed values times weights fit bfloat16's range, not float16's.
 */
export function normsWhileReading(problem: MatmulProblem, arch: CudaArch): boolean {
  const few = problem.m <= (arch.sm === 90 ? 8 : 16) && problem.k <= 2048;
  return problem.dtype === 'bfloat16' && isVectorised(problem) && few;
}

/** Every configuration worth timing for the problem, the heuristic's choice first. */
export function matmulCandidates(problem: MatmulProblem, arch: CudaArch): MatmulConfig[] {
  const { m, n, k, gated } = problem;
  if (!isVectorised(problem)) {
    const vectorBytes = problem.dtype === 'float32' ? 4 : 8;
    const vectors = k % vectorBytes === 0 && problem.ldx % vectorBytes === 0;
    return m <= 8 ? [{ kind: 'rows', tokens: m === 1 ? 1 : 8, vectors }] : [{ kind: 'grid' }];
  }
  const hopper = arch.sm === 90;
  const physical = gated ? 2 * n : n;
  const configs: MatmulConfig[] = [];
  if (m <= 16) {
    const tokenTiles = m <= 8 ? 1 : 2;
    for (const rowTiles of [1, 2, 4] as const) {
      for (const warps of [4, 8, 16]) {
        for (const unroll of [2, 4, 8]) {
          if (rowTiles * unroll > 8 || warps * rowTiles * tokenTiles > 32) continue;
          const blocks = Math.max(1, Math.min(1024 / (warps * 32), rowTiles * unroll > 4 ? 512 / (warps * 32) : 99));
          for (const splits of [1, 2, 4, 8]) {
            const resident = arch.multiprocessors * blocks;
            if (splits > 1 && problem.norm !== undefined) continue;
            if (splits > 1 && ceilDiv(physical, rowTiles * 16) * (splits / 2) >= resident) continue;
            const least = warps === 4 && unroll === 2 && splits === 1;
            if (!least && k < warps * unroll * 32 * splits * 0.5) continue;
            configs.push({ kind: 'small', tokenTiles, rowTiles, warps, unroll, blocks, splits });
          }
        }
      }
    }
  }
  const plain = problem.norm === undefined;
  if (plain && hopper && m > 8 && m <= 512 && physical % 16 === 0) {
    const tokens = [16, 32, 64, 128].find((size) => size >= m) ?? 128;
    for (const warpgroups of [1, 2] as const) {
      for (const blocks of [1, 2]) {
        for (const splits of [1, 2, 4, 8]) {
          const stageBytes = (warpgroups * 64 + tokens) * 128;
          const room = Math.floor(arch.maxSharedBytes / blocks) - 4096;
          const stages = Math.min(Math.floor(room / stageBytes), 12);
          if (stages < 3 || stages * stageBytes < tokens * (warpgroups * 64 + 4) * 4) continue;
          if (k / 64 / splits < 4) continue;
          const grid = ceilDiv(physical, warpgroups * 64) * splits * ceilDiv(m, tokens);
          if (splits > 1 && grid / 2 >= arch.multiprocessors * blocks) continue;
          configs.push({ kind: 'swap', tokens, warpgroups, stages, splits, blocks });
        }
      }
    }
  }
  if (plain && hopper && m > 64 && physical % 16 === 0) {
    for (const bn of [256, 192, 128]) {
      for (const cluster of [2, 1] as const) {
        if (gated && (bn / cluster) % 16 !== 0) continue;
        if (cluster === 2 && m <= 128) continue;
        const stages = Math.min(Math.floor((arch.maxSharedBytes - 2048) / ((128 + bn) * 128)), 6);
        configs.push({ kind: 'wgmma', bn, stages, cluster });
      }
    }
  }
  if (plain && m > 8 && !(hopper && m > 1024)) {
    for (const [bm, bn, warpsM, warpsN] of tiles) {
      if (gated && bn / warpsN < 64) continue;
      if (bm >= 2 * m && bm > 16) continue;
      const stages = Math.min(4, Math.floor(arch.maxSharedBytes / ((bm + bn) * 128)));
      if (stages >= 2) configs.push({ kind: 'tile', bm, bn, stages, warpsM, warpsN });
    }
  }
  if (configs.length === 0) return [{ kind: 'grid' }];
  const ranked = configs.map((config) => ({ config, cost: estimate(config, problem, arch) }));
  return ranked.sort((a, b) => a.cost - b.cost).map(({ config }) => config);
}

/** Tile kernels: rows, columns, warps along each. */
const tiles: readonly (readonly [bm: number, bn: number, warpsM: number, warpsN: number])[] = [
  [16, 64, 1, 1],
  [16, 128, 1, 2],
  [32, 128, 1, 2],
  [64, 64, 2, 1],
  [64, 128, 2, 2],
  [128, 128, 2, 2],
  [128, 128, 4, 2],
  [128, 256, 2, 4],
];

/** Ranks configurations without a device: first by kind, as measured on Hopper, then by how evenly blocks fill the multiprocessors. */
function estimate(config: MatmulConfig, problem: MatmulProblem, arch: CudaArch): number {
  const { m, n, k, gated } = problem;
  const physical = gated ? 2 * n : n;
  const sms = arch.multiprocessors;
  const hopper = arch.sm === 90;
  const waves = (blocks: number, resident: number): number => (ceilDiv(blocks, resident) * resident) / blocks;
  switch (config.kind) {
    case 'small': {
      const { rowTiles, warps, unroll, splits } = config;
      const blocks = ceilDiv(physical, rowTiles * 16) * splits;
      // Two row tiles in eight warps where there are rows or k enough, else one in sixteen; meeting of splits costs some microseconds.
      const wide = ceilDiv(physical, 32) >= 1.3 * sms;
      const wanted = wide || k >= 8192 ? [2, 8, 4] : [1, 16, 2];
      const distance = [rowTiles, warps, unroll].reduce((sum, v, i) => sum + Math.abs(Math.log2(v / wanted[i]!)), 0);
      const idle = Math.max(1, (0.3 * sms) / blocks);
      return (m > 8 && hopper ? 5 : 0) + distance * 0.1 + idle + Math.log2(splits) * 2;
    }
    case 'swap': {
      const { warpgroups, splits, blocks } = config;
      const count = ceilDiv(physical, warpgroups * 64) * splits * ceilDiv(m, config.tokens);
      const many = count > 1.5 * sms;
      // A multiprocessor without a block costs half of what it could bring: the others get its share of the memory's rate.
      const fill = count <= sms ? (1 + sms / count) / 2 : Math.max(1.05, waves(count, sms * blocks) * 0.95);
      const slow =
        (config.tokens === 128 && warpgroups === 1 ? (many ? 0.2 : 0.05) : 0) + (many && blocks === 1 ? 0.1 : 0);
      const shape = slow + splits * 0.05 + blocks * 0.02;
      return (m <= 8 ? 10 : m <= 128 ? 0 : m <= 256 ? 2 : 10) + fill + shape;
    }
    case 'wgmma': {
      const { bn, cluster } = config;
      const count = ceilDiv(m, 128 * cluster) * cluster * ceilDiv(physical, bn);
      const work = (waves(count, sms) * count * 128 * bn) / (m * physical);
      const overhead = bn === 256 ? 1 : bn === 192 ? 1.06 : 1.12;
      const kind = m <= 128 ? 5 : m <= 256 && count < 0.6 * sms ? 5 : 0;
      return kind + work * overhead + (cluster === 2 ? (m >= 2048 ? -0.02 : 0.02) : 0);
    }
    case 'tile': {
      const count = ceilDiv(m, config.bm) * ceilDiv(physical, config.bn);
      const work = (waves(count, sms) * count * config.bm * config.bn) / (m * physical);
      return (hopper ? 10 : m <= 16 ? 5 : 0) + work + 32 / Math.min(config.bm, 64);
    }
    default:
      return 0;
  }
}

/** The template's C++ type. */
export function matmulKernel(problem: MatmulProblem, config: MatmulConfig): CudaKernel {
  const act = `Act::${actNames[problem.activation]}`;
  const tail: readonly (string | number | boolean)[] = [problem.gated, act];
  const make = (file: string, template: string, parts: readonly (string | number | boolean)[]): CudaKernel => {
    const all = [cudaTypes[problem.dtype], ...parts, ...tail];
    return {
      name: symbolName(template, ...all.map((part) => (typeof part === 'string' ? part.replace('Act::', '') : part))),
      include: `matmul/${file}.cuh`,
      type: `${template}<${all.join(', ')}>`,
    };
  };
  switch (config.kind) {
    case 'small': {
      const { tokenTiles, rowTiles, warps, unroll, blocks } = config;
      const normed = problem.norm !== undefined;
      return make('cuda-small', 'SmallMatmul', [tokenTiles, rowTiles, warps, unroll, blocks, normed]);
    }
    case 'tile':
      return make('cuda-tile', 'TileMatmul', [config.bm, config.bn, config.stages, config.warpsM, config.warpsN]);
    case 'wgmma':
      return make('cuda-wgmma', 'WgmmaMatmul', [config.bn, config.stages, config.cluster]);
    case 'swap': {
      const { tokens, warpgroups, stages, splits, blocks } = config;
      return make('cuda-swap', 'SwapMatmul', [tokens, warpgroups, stages, splits, blocks]);
    }
    case 'rows':
      return make('cuda-simt', 'RowsMatmul', [config.tokens, config.vectors]);
    case 'grid':
      return make('cuda-simt', 'GridMatmul', []);
    default:
      return config satisfies never;
  }
}

/** Bytes of workspace (partial sums, then zeroed counters) a configuration needs; 0 for most. */
export function matmulWorkspace(problem: MatmulProblem, config: MatmulConfig): { partial: number; counters: number } {
  if (config.kind !== 'small' || config.splits === 1) return { partial: 0, counters: 0 };
  const physical = problem.gated ? 2 * problem.n : problem.n;
  return {
    partial: config.splits * config.tokenTiles * 8 * physical * 4,
    counters: ceilDiv(physical, config.rowTiles * 16) * 4,
  };
}

/** Buffers: x, w, y, and where the problem has them bias, residual, norm; partial and counters when matmulWorkspace says so. */
export function matmulLaunch(
  problem: MatmulProblem,
  config: MatmulConfig,
  arch: CudaArch,
  norm = { eps: 0, weightOffset: 0 },
): CudaLaunch {
  const { dtype, m, n, k, ldx, ldy, gated } = problem;
  const physical = gated ? 2 * n : n;
  const int = (value: number): CudaArg => ({ kind: 'i32', value });
  const buffer = (name: string, there = true): CudaArg =>
    there ? { kind: 'pointer', buffer: name } : { kind: 'null' };
  const out: readonly CudaArg[] = [
    buffer('bias', problem.bias),
    buffer('residual', problem.residual),
    buffer('y'),
    int(problem.ldr ?? 0),
    int(ldy),
  ];
  const base = { kernel: matmulKernel(problem, config), sharedBytes: matmulSharedBytes(config), overlap: true };
  const boxes = (rowsX: number, rowsW: number): readonly CudaArg[] => [
    { kind: 'tensorMap', buffer: 'x', spec: rowsMap(dtype, m, k, ldx, rowsX) },
    { kind: 'tensorMap', buffer: 'w', spec: gated ? gatedMap(dtype, n, k, rowsW) : rowsMap(dtype, n, k, k, rowsW) },
    ...out,
    int(m),
    int(n),
    int(k),
  ];
  const pointers = (...last: readonly CudaArg[]): readonly CudaArg[] => [buffer('x'), buffer('w'), ...out, ...last];
  switch (config.kind) {
    case 'small': {
      const split = config.splits > 1;
      const grid = [ceilDiv(physical, config.rowTiles * 16), config.splits, 1] as const;
      const args = pointers(
        buffer('partial', split),
        buffer('counters', split),
        ...[m, n, k, ldx, config.splits].map(int),
        buffer('norm', problem.norm === 'weighted'),
        { kind: 'f32', value: norm.eps },
        { kind: 'f32', value: norm.weightOffset },
      );
      return { ...base, grid, threads: config.warps * 32, args };
    }
    case 'tile': {
      const grid = [ceilDiv(m, config.bm) * ceilDiv(physical, config.bn), 1, 1] as const;
      const threads = config.warpsM * config.warpsN * 32;
      return { ...base, grid, threads, args: pointers(...[m, n, k, ldx].map(int)) };
    }
    case 'wgmma': {
      const { bn, cluster } = config;
      const count = ceilDiv(m, 128 * cluster) * cluster * ceilDiv(physical, bn);
      const blocks = Math.min(count, Math.floor(arch.multiprocessors / cluster) * cluster);
      const args = boxes(128, bn / cluster);
      const launch = { ...base, grid: [blocks, 1, 1] as const, threads: 384, args };
      return cluster === 1 ? launch : { ...launch, cluster: [cluster, 1, 1] };
    }
    case 'swap': {
      const { tokens, warpgroups, splits } = config;
      const grid = [ceilDiv(physical, warpgroups * 64) * splits, ceilDiv(m, tokens), 1] as const;
      const launch = { ...base, grid, threads: warpgroups * 128 + 32, args: boxes(tokens, warpgroups * 64) };
      return splits === 1 ? launch : { ...launch, cluster: [splits, 1, 1] };
    }
    case 'rows':
      return {
        ...base,
        grid: [ceilDiv(n, 8), ceilDiv(m, config.tokens), 1],
        threads: 256,
        args: pointers(...[m, n, k, ldx].map(int)),
      };
    case 'grid':
      return {
        ...base,
        grid: [ceilDiv(n, 64), ceilDiv(m, 64), 1],
        threads: 256,
        args: pointers(...[m, n, k, ldx].map(int)),
      };
    default:
      return config satisfies never;
  }
}

/** Boxes of 64 k × `boxRows` rows in the 128-byte swizzle. */
function rowsMap(dtype: FloatDType, rows: number, k: number, ld: number, boxRows: number): TensorMap {
  return { dtype, dims: [k, rows], strides: [ld * 2], box: [64, boxRows], swizzle: 'b128' };
}

/** The same of a stacked [gate; up] weight: rows in eights, of gate and up in turn. */
function gatedMap(dtype: FloatDType, n: number, k: number, boxRows: number): TensorMap {
  const row = k * 2;
  return {
    dtype,
    dims: [k, 8, 2, n / 8],
    strides: [row, n * row, 8 * row],
    box: [64, 8, 2, boxRows / 16],
    swizzle: 'b128',
  };
}
