// Attention over the paged cache on CUDA: problem → configs → launches, plain data. A step's requests with few new tokens go to the decode
// kernel, the others to a prefill kernel; each skips what is not its own, so that a mixed step launches both.
import type { FloatDType } from '../../base/dtype.ts';
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
  | { readonly kind: 'decode'; readonly stages: number; readonly splits: number }
  | { readonly kind: 'tile'; readonly warps: 4 | 8 }
  | { readonly kind: 'wgmma'; readonly bn: number }
  | { readonly kind: 'plain' };

/** Rows (new tokens × query heads a kv head) of a request that the decode kernel takes at most. */
export const decodeRows = 16;

const ceilDiv = (a: number, b: number): number => Math.ceil(a / b);

export function attentionSharedBytes(config: AttentionConfig, headDim: number): number {
  const stage = 2 * 64 * (headDim * 2 + 16);
  switch (config.kind) {
    case 'decode':
      return config.stages * stage;
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
function usesTensorCores({ dtype, headDim, ldq, ldy, tokensPerBlock, sinkTokens }: AttentionProblem): boolean {
  // Their tiles are one stretch of keys.
  if (sinkTokens !== undefined) return false;
  const powerOfTwo = (tokensPerBlock & (tokensPerBlock - 1)) === 0;
  return dtype !== 'float32' && headDim % 16 === 0 && headDim <= 256 && ldq % 8 === 0 && ldy % 8 === 0 && powerOfTwo;
}

/** Configurations for the requests in their generation phase, the heuristic's choice first. */
export function decodeCandidates(problem: AttentionProblem, arch: CudaArch): AttentionConfig[] {
  if (!usesTensorCores(problem) || problem.heads / problem.kvHeads > decodeRows) return [{ kind: 'plain' }];
  const stage = 2 * 64 * (problem.headDim * 2 + 16);
  const splits = decodeSplits(problem, arch);
  const fits = [2, 3, 4, 6].filter((stages) => stages * stage <= arch.maxSharedBytes);
  if (fits.length === 0) return [{ kind: 'plain' }];
  const pairs = fits.filter((stages) => stages * stage * 2 + 4096 <= arch.maxSharedBytes);
  const first = pairs.at(-1) ?? fits.at(-1)!;
  return [first, ...fits.filter((stages) => stages !== first)].map((stages) => ({ kind: 'decode', stages, splits }));
}

/** Configurations for the requests in their context phase, the heuristic's choice first. */
export function prefillCandidates(problem: AttentionProblem, arch: CudaArch): AttentionConfig[] {
  if (!usesTensorCores(problem)) return [{ kind: 'plain' }];
  const configs: AttentionConfig[] = [];
  const { headDim, tokensPerBlock } = problem;
  if (arch.sm === 90 && (headDim === 64 || headDim === 128) && tokensPerBlock >= 8 && tokensPerBlock <= 1024)
    configs.push({ kind: 'wgmma', bn: 128 });
  const tile: AttentionConfig = { kind: 'tile', warps: 8 };
  if (attentionSharedBytes(tile, headDim) <= arch.maxSharedBytes) configs.push(tile, { kind: 'tile', warps: 4 });
  if (configs.length === 0) return [{ kind: 'plain' }];
  // Few tokens fill few large tiles: the smallest first.
  return problem.tokens < 256 ? configs.reverse() : configs;
}

function features({ softcap, alibi, sinks }: AttentionProblem): number {
  return (softcap === undefined ? 0 : 1) + (alibi ? 2 : 0) + (sinks ? 4 : 0);
}

export function attentionKernel(problem: AttentionProblem, config: AttentionConfig): CudaKernel {
  const type = cudaTypes[problem.dtype];
  const make = (file: string, template: string, parts: readonly number[]): CudaKernel => ({
    name: symbolName(template, type, ...parts),
    include: `attention/${file}.cuh`,
    type: `${template}<${[type, ...parts].join(', ')}>`,
  });
  const { headDim } = problem;
  const flags = features(problem);
  switch (config.kind) {
    case 'decode':
      return make('cuda-decode', 'DecodeAttention', [headDim, config.stages, flags]);
    case 'tile':
      return make('cuda-tile', 'TileAttention', [headDim, config.warps, flags]);
    case 'wgmma':
      return make('cuda-wgmma', 'WgmmaAttention', [headDim, config.bn, flags]);
    case 'plain':
      return make('cuda-plain', 'PlainAttention', [headDim, flags]);
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
  return { partial: pairs * config.splits * decodeRows * (problem.headDim + 2) * 4, counters: pairs * 4 };
}

/**
 * Buffers: q, y, cache, positions, requestOffsets, contextLengths, blockTables, and where the problem has them sinks, slopes, partial, counters.
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
  const base = { kernel, sharedBytes: attentionSharedBytes(config, headDim), overlap: true };
  const tiles = (rows: number): number => ceilDiv((tokens * heads) / kvHeads, rows) + Math.min(requests, tokens);
  switch (config.kind) {
    case 'decode': {
      const split = config.splits > 1;
      const args = [...input, buffer('partial', split), buffer('counters', split)];
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
