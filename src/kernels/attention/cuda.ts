// Attention over the paged cache on CUDA: problem → configs → launches, plain data. A step's requests with few new tokens go to the decode
// kernel, the others to a prefill kernel; each skips what is not its own, so that a mixed step launches both.
import type { FloatDType } from '../../base/dtype.ts';
import type { HeadNorm, RopeAttrs } from '../../define/graph/attention.ts';
import {
  type CudaArch,
  type CudaArg,
  type CudaKernel,
  type CudaLaunch,
  cudaTypes,
  symbolName,
} from '../cuda-kernel.ts';

export interface AttentionProblem {
  readonly dtype: FloatDType;
  readonly tokens: number;
  readonly requests: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Columns of a value head. */
  readonly valueDim: number;
  /** Elements from token to token of q and of y. */
  readonly ldq: number;
  readonly ldy: number;
  /** A power of two. */
  readonly tokensPerBlock: number;
  readonly maxBlocksPerSequence: number;
  /** Blocks of the layer's cache. */
  readonly numBlocks: number;
  readonly scale: number;
  readonly softcap?: number;
  readonly window?: number;
  readonly chunk?: number;
  readonly sinkTokens?: number;
  readonly sinks: boolean;
  readonly alibi: boolean;
}

export type AttentionConfig =
  | { readonly kind: 'decode'; readonly stages: number; readonly splits: number; readonly fresh?: FreshHeads }
  | { readonly kind: 'tile'; readonly warps: 4 | 8 }
  | { readonly kind: 'wgmma'; readonly bn: number }
  | { readonly kind: 'plain' };

/** What the decode kernel does itself where it takes q, k and v as the projection made them: norm, rotation, cache write. */
export interface FreshHeads {
  readonly norm: HeadNorm | undefined;
  readonly rope: RopeAttrs | undefined;
  readonly ldk: number;
  readonly ldv: number;
}

/** Rows (new tokens × query heads a kv head) of a request that the decode kernel takes at most. */
export const decodeRows = 16;

const ceilDiv = (a: number, b: number): number => Math.ceil(a / b);

type HeadDims = Pick<AttentionProblem, 'headDim' | 'valueDim'>;

export function attentionSharedBytes(config: AttentionConfig, { headDim, valueDim }: HeadDims): number {
  const stage = 64 * (2 * headDim + 2 * valueDim + 32);
  switch (config.kind) {
    case 'decode':
      return config.stages * stage + (config.fresh === undefined ? 0 : (decodeRows + 2) * (headDim * 2 + 16));
    case 'tile':
      return 2 * stage;
    case 'wgmma':
      return 128 * headDim * 2 + 4 * config.bn * headDim * 2 + 1024;
    default:
      return 0;
  }
}

/** The most splits of a sequence's keys that may pay, for a number of requests. */
export function decodeSplits(problem: AttentionProblem, arch: CudaArch): number {
  const blocks = problem.requests * problem.kvHeads;
  const longest = problem.maxBlocksPerSequence * problem.tokensPerBlock;
  return Math.max(1, Math.min(ceilDiv(2 * arch.multiprocessors, blocks), ceilDiv(longest, 256), 64));
}

/** True when the tensor-core kernels take the problem. */
function usesTensorCores(problem: AttentionProblem): boolean {
  const { dtype, headDim, valueDim, ldq, ldy, tokensPerBlock, sinkTokens } = problem;
  // Their tiles are one stretch of keys.
  if (sinkTokens !== undefined) return false;
  const powerOfTwo = (tokensPerBlock & (tokensPerBlock - 1)) === 0;
  const dims = [headDim, valueDim].every((dim) => dim % 16 === 0 && dim <= 256);
  return dtype !== 'float32' && dims && ldq % 8 === 0 && ldy % 8 === 0 && powerOfTwo;
}

/** Configurations for the requests in their generation phase, the heuristic's choice first. */
export function decodeCandidates(problem: AttentionProblem, arch: CudaArch): AttentionConfig[] {
  if (!usesTensorCores(problem) || problem.heads / problem.kvHeads > decodeRows) return [{ kind: 'plain' }];
  const splits = decodeSplits(problem, arch);
  const make = (stages: number): AttentionConfig => ({ kind: 'decode', stages, splits });
  const bytes = (stages: number): number => attentionSharedBytes(make(stages), problem);
  const fits = [2, 3, 4, 6].filter((stages) => bytes(stages) <= arch.maxSharedBytes);
  if (fits.length === 0) return [{ kind: 'plain' }];
  const pairs = fits.filter((stages) => bytes(stages) * 2 + 4096 <= arch.maxSharedBytes);
  const first = pairs.at(-1) ?? fits.at(-1)!;
  return [first, ...fits.filter((stages) => stages !== first)].map(make);
}

/**
 * The decode config taking heads as they come, where the kernel can, there is room (with fewer stages if need be), and it pays: what the kernel prepares
 * must hide behind the product before it, or be little beside its own work.
 */
export function withFreshHeads(
  problem: AttentionProblem,
  config: AttentionConfig,
  fresh: FreshHeads,
  arch: CudaArch,
): AttentionConfig | undefined {
  if (config.kind !== 'decode' || problem.headDim !== problem.valueDim) return undefined;
  if (fresh.ldk % 8 !== 0 || fresh.ldv % 8 !== 0) return undefined;
  if (problem.heads * problem.headDim < 4096 && problem.requests < 32) return undefined;
  for (let stages = config.stages; stages >= 2; stages--) {
    const made = { ...config, stages, fresh };
    // The kernel holds angles and norm weights besides, in float32.
    if (attentionSharedBytes(made, problem) + 12 * problem.headDim + 1024 <= arch.maxSharedBytes) return made;
  }
  return undefined;
}

/** Configurations for the requests in their context phase, the heuristic's choice first. */
export function prefillCandidates(problem: AttentionProblem, arch: CudaArch): AttentionConfig[] {
  if (!usesTensorCores(problem)) return [{ kind: 'plain' }];
  const configs: AttentionConfig[] = [];
  const { headDim, tokensPerBlock } = problem;
  if (
    arch.sm === 90 &&
    headDim === problem.valueDim &&
    (headDim === 64 || headDim === 128) &&
    tokensPerBlock >= 8 &&
    tokensPerBlock <= 1024
  )
    configs.push({ kind: 'wgmma', bn: 128 });
  const tile: AttentionConfig = { kind: 'tile', warps: 8 };
  if (attentionSharedBytes(tile, problem) <= arch.maxSharedBytes) configs.push(tile, { kind: 'tile', warps: 4 });
  if (configs.length === 0) return [{ kind: 'plain' }];
  // Few tokens fill few large tiles: the smallest first.
  return problem.tokens < 256 ? configs.reverse() : configs;
}

function freshType([norm, rope]: readonly string[]): readonly string[] {
  return norm === undefined ? [] : [`ToRotate<HeadNorm::${norm}, Rope::${rope}>`];
}

function features({ softcap, alibi, sinks }: AttentionProblem): number {
  return (softcap === undefined ? 0 : 1) + (alibi ? 2 : 0) + (sinks ? 4 : 0);
}

export function attentionKernel(problem: AttentionProblem, config: AttentionConfig): CudaKernel {
  const type = cudaTypes[problem.dtype];
  const make = (file: string, template: string, parts: readonly number[], ...fresh: readonly string[]): CudaKernel => ({
    name: symbolName(template, type, ...parts, ...fresh),
    include: `attention/${file}.cuh`,
    type: `${template}<${[type, ...parts, ...freshType(fresh)].join(', ')}>`,
  });
  const { headDim, valueDim } = problem;
  const flags = features(problem);
  switch (config.kind) {
    case 'decode': {
      const { stages, fresh } = config;
      const kinds = fresh === undefined ? [] : [fresh.norm?.kind ?? 'none', fresh.rope?.style ?? 'none'];
      return make('cuda-decode', 'DecodeAttention', [headDim, valueDim, stages, flags], ...kinds);
    }
    case 'tile':
      return make('cuda-tile', 'TileAttention', [headDim, valueDim, config.warps, flags]);
    case 'wgmma':
      return make('cuda-wgmma', 'WgmmaAttention', [headDim, config.bn, flags]);
    case 'plain':
      return make('cuda-plain', 'PlainAttention', [headDim, valueDim, flags]);
    default:
      return config satisfies never;
  }
}

/** Bytes of workspace: partial results and zeroed counters of the decode kernel. */
export function attentionWorkspace(
  problem: AttentionProblem,
  config: AttentionConfig,
): { partial: number; counters: number } {
  if (config.kind !== 'decode' || config.splits === 1) return { partial: 0, counters: 0 };
  const pairs = problem.requests * problem.kvHeads;
  return { partial: pairs * config.splits * decodeRows * (problem.valueDim + 2) * 4, counters: pairs * 4 };
}

/**
 * Buffers: q, y, cache, positions, requestOffsets, contextLengths, blockTables, and where the problem has them sinks, slopes, partial, counters.
 * A decode kernel that takes fresh heads reads k, v, slots and where it needs them qNorm, kNorm, frequencies besides.
 * `skipRows`: requests of at most so many rows are left to the decode kernel (prefill kernels).
 */
export function attentionLaunch(problem: AttentionProblem, config: AttentionConfig, skipRows: number): CudaLaunch {
  const { dtype, tokens, requests, heads, kvHeads, headDim, tokensPerBlock } = problem;
  const int = (value: number): CudaArg => ({ kind: 'i32', value });
  const float = (value: number): CudaArg => ({ kind: 'f32', value });
  const buffer = (name: string, there = true): CudaArg =>
    there ? { kind: 'pointer', buffer: name } : { kind: 'null' };
  const names = ['q', 'y', 'cache', 'positions', 'requestOffsets', 'contextLengths', 'blockTables'];
  const input: readonly CudaArg[] = [
    ...names.map((name) => buffer(name)),
    buffer('sinks', problem.sinks),
    buffer('slopes', problem.alibi),
    ...[requests, problem.ldq, problem.ldy, heads, kvHeads, Math.log2(tokensPerBlock)].map(int),
    int(problem.maxBlocksPerSequence),
    int(problem.window ?? 0),
    int(problem.chunk ?? 0),
    int(problem.sinkTokens ?? 0),
    float(problem.scale),
    float(problem.softcap ?? 0),
  ];
  const kernel = attentionKernel(problem, config);
  const base = { kernel, sharedBytes: attentionSharedBytes(config, problem), overlap: true };
  const tiles = (rows: number): number => ceilDiv((tokens * heads) / kvHeads, rows) + Math.min(requests, tokens);
  switch (config.kind) {
    case 'decode': {
      const split = config.splits > 1;
      const args = [...freshArgs(config.fresh), ...input, buffer('partial', split), buffer('counters', split)];
      return { ...base, grid: [kvHeads, requests, config.splits], threads: 128, args };
    }
    case 'tile': {
      const grid = [tiles(config.warps * 16), kvHeads, 1] as const;
      return { ...base, grid, threads: config.warps * 32, args: [...input, int(skipRows)] };
    }
    case 'wgmma': {
      const rows = problem.numBlocks * 2 * kvHeads * tokensPerBlock;
      const spec = {
        dtype,
        dims: [headDim, rows],
        strides: [headDim * 2],
        box: [64, Math.min(tokensPerBlock, config.bn)],
        swizzle: 'b128',
      } as const;
      const args: readonly CudaArg[] = [{ kind: 'tensorMap', buffer: 'cache', spec }, ...input, int(skipRows)];
      return { ...base, grid: [kvHeads, tiles(128), 1], threads: 384, args };
    }
    case 'plain':
      return { ...base, grid: [tokens, ceilDiv(heads, 4), 1], threads: 128, args: [...input, int(tokens)] };
    default:
      return config satisfies never;
  }
}

function freshArgs(fresh: FreshHeads | undefined): readonly CudaArg[] {
  if (fresh === undefined) return [];
  const { norm, rope, ldk, ldv } = fresh;
  const buffer = (name: string, there = true): CudaArg =>
    there ? { kind: 'pointer', buffer: name } : { kind: 'null' };
  return [
    buffer('k'),
    buffer('v'),
    buffer('qNorm', norm !== undefined),
    buffer('kNorm', norm !== undefined),
    buffer('frequencies', rope !== undefined),
    buffer('slots'),
    buffer('cache'),
    ...[ldk, ldv, rope?.rotaryDim ?? 0].map((value): CudaArg => ({ kind: 'i32', value })),
    ...[norm?.eps ?? 0, norm?.weightOffset ?? 0, rope?.attentionFactor ?? 1].map(
      (value): CudaArg => ({ kind: 'f32', value }),
    ),
  ];
}
