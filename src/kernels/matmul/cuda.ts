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
  | {
      readonly kind: 'stream';
      readonly tokenTiles: 1 | 2;
      readonly rowTiles: 1 | 2 | 3 | 4;
      readonly stages: number;
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

export const ceilDiv = (a: number, b: number): number => Math.ceil(a / b);
const alignBytes = 1024;

/** Bytes of dynamic shared memory a configuration takes. */
export function matmulSharedBytes(config: MatmulConfig): number {
  switch (config.kind) {
    case 'tile':
      return config.stages * (config.bm + config.bn) * 128;
    case 'wgmma':
      return config.stages * (128 + config.bn) * 128 + alignBytes;
    case 'stream':
      return config.stages * (config.rowTiles * 16 + config.tokenTiles * 8) * 512 + alignBytes;
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
    case 'stream':
      return make('cuda-stream', 'StreamMatmul', [config.tokenTiles, config.rowTiles, config.stages]);
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
  const sizes = [m, n, k].map(int);
  const boxes = (rowsX: number, rowsW: number): readonly CudaArg[] => [
    { kind: 'tensorMap', buffer: 'x', spec: rowsMap(dtype, m, k, ldx, rowsX) },
    { kind: 'tensorMap', buffer: 'w', spec: gated ? gatedMap(dtype, n, k, rowsW) : rowsMap(dtype, n, k, k, rowsW) },
    ...out,
    ...sizes,
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
    case 'stream': {
      const [tokens, rows] = [config.tokenTiles * 8, config.rowTiles * 16];
      const x: TensorMap = partsMap(dtype, k, [m], [ldx * 2], [tokens]);
      const w: TensorMap = gated
        ? partsMap(dtype, k, [8, 2, n / 8], [k * 2, n * k * 2, 16 * k], [8, 2, rows / 16])
        : partsMap(dtype, k, [n], [k * 2], [rows]);
      const maps = { x, w };
      const args = [
        ...(['x', 'w'] as const).map((name): CudaArg => ({ kind: 'tensorMap', buffer: name, spec: maps[name] })),
        ...out,
        ...sizes,
      ];
      const grid = [Math.min(ceilDiv(physical, rows), arch.multiprocessors), 1, 1] as const;
      return { ...base, grid, threads: 160, args };
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

/** Boxes of 4 × 64 k, each 64 of all the box's rows: k is the innermost dimension and, in steps of 64, the outermost. */
function partsMap(
  dtype: FloatDType,
  k: number,
  dims: readonly number[],
  strides: readonly number[],
  box: readonly number[],
): TensorMap {
  return { dtype, dims: [64, ...dims, k / 64], strides: [...strides, 128], box: [64, ...box, 4], swizzle: 'b128' };
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
