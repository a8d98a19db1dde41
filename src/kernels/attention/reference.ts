// Attention in its two halves: norm, rotation and cache write; then softmax(q·k)·v over the paged cache.

import type { RopeAttrs } from '../../define/graph/attention.ts';
import { normRow } from '../norm/reference.ts';
import { blockElements, type RefArgs, type RefCache, type ReferenceKernel, type RefTensor } from '../reference.ts';

/** Where a key (or value) of `head` at `slot` begins in the layer's cache. */
export function cacheOffset(cache: RefCache, part: 'key' | 'value', slot: number, head: number): number {
  const { tokensPerBlock, numKvHeads, headDim, valueDim } = cache;
  const block = Math.floor(slot / tokensPerBlock);
  const row = head * tokensPerBlock + (slot % tokensPerBlock);
  const base = block * blockElements(cache, tokensPerBlock);
  return part === 'key' ? base + row * headDim : base + numKvHeads * tokensPerBlock * headDim + row * valueDim;
}

/** Rotates one head in place. */
function rotate(data: Float32Array, at: number, position: number, frequencies: Float32Array, rope: RopeAttrs): void {
  const half = rope.rotaryDim / 2;
  for (let i = 0; i < half; i++) {
    // Angles are formed in float32, as transformers and the GPU kernels do.
    const angle = Math.fround(position * frequencies[i]!);
    const cos = Math.fround(Math.cos(angle) * rope.attentionFactor);
    const sin = Math.fround(Math.sin(angle) * rope.attentionFactor);
    const a = rope.style === 'half' ? at + i : at + 2 * i;
    const b = rope.style === 'half' ? a + half : a + 1;
    const x = data[a]!;
    const y = data[b]!;
    data[a] = x * cos - y * sin;
    data[b] = y * cos + x * sin;
  }
}

export const ropeCache: ReferenceKernel<'ropeCache'> = (
  args,
  { numHeads, numKvHeads, headDim, valueDim, norm, rope },
) => {
  const positions = args.ints('positions');
  const slots = args.ints('cacheSlots');
  const frequencies = args.optional('frequencies')?.data;
  const { cache } = args;
  const head = (from: RefTensor, t: number, h: number, weight: RefTensor | undefined, to: Float32Array, at: number) => {
    const begin = t * from.stride + h * headDim;
    if (norm === undefined || weight === undefined) to.set(from.data.subarray(begin, begin + headDim), at);
    else normRow(norm.kind, from.data, begin, headDim, norm.eps, weight.data, norm.weightOffset, undefined, to, at);
    if (rope !== undefined && frequencies !== undefined) rotate(to, at, positions.data[t]!, frequencies, rope);
  };
  const q = args.tensor('q');
  const k = args.tensor('k');
  const v = args.tensor('v');
  const y = args.tensor('y');
  const [qNorm, kNorm] = [args.optional('qNorm'), args.optional('kNorm')];
  for (let t = 0; t < positions.shape[0]!; t++) {
    for (let h = 0; h < numHeads; h++) head(q, t, h, qNorm, y.data, t * y.stride + h * headDim);
    for (let h = 0; h < numKvHeads; h++) {
      const slot = slots.data[t]!;
      head(k, t, h, kNorm, cache.data, cacheOffset(cache, 'key', slot, h));
      const from = t * v.stride + h * valueDim;
      cache.data.set(v.data.subarray(from, from + valueDim), cacheOffset(cache, 'value', slot, h));
    }
  }
};

export const ropeAttention: ReferenceKernel<'ropeAttention'> = (args, attrs) => {
  const renamed = (from: string): RefArgs => ({
    tensor: (name) => args.tensor(name === from ? 'rotated' : name),
    optional: (name) => args.optional(name),
    ints: (name) => args.ints(name),
    cache: args.cache,
  });
  ropeCache(renamed('y'), attrs);
  pagedAttention(renamed('q'), attrs);
};

export const pagedAttention: ReferenceKernel<'pagedAttention'> = (args, attrs) => {
  const { numHeads, numKvHeads, headDim, valueDim, scale, window, sinkTokens = 0, chunk, softcap } = attrs;
  const q = args.tensor('q');
  const y = args.tensor('y');
  const sinks = args.optional('sinks')?.data;
  const slopes = args.optional('slopes')?.data;
  const positions = args.ints('positions').data;
  const offsets = args.ints('requestOffsets');
  const lengths = args.ints('contextLengths').data;
  const tables = args.ints('blockTables');
  const { cache } = args;
  const { tokensPerBlock } = cache;
  const group = numHeads / numKvHeads;
  const maxBlocks = tables.shape[1]!;
  const scores = new Float64Array(maxBlocks * tokensPerBlock);
  const out = new Float64Array(valueDim);
  for (let r = 0; r + 1 < offsets.shape[0]!; r++) {
    const slot = (position: number) =>
      tables.data[r * maxBlocks + Math.floor(position / tokensPerBlock)]! * tokensPerBlock +
      (position % tokensPerBlock);
    for (let t = offsets.data[r]!; t < offsets.data[r + 1]!; t++) {
      const position = positions[t]!;
      const last = Math.min(position, lengths[r]! - 1);
      let first = window === undefined ? 0 : Math.max(0, position - window + 1);
      if (chunk !== undefined) first = Math.max(first, Math.floor(position / chunk) * chunk);
      /** The position that is seen after `p`: the first ones, then the window. */
      const next = (p: number): number => (p + 1 < sinkTokens ? p + 1 : Math.max(p + 1, first));
      for (let h = 0; h < numHeads; h++) {
        const kvHead = Math.floor(h / group);
        const from = t * q.stride + h * headDim;
        let max = sinks === undefined ? Number.NEGATIVE_INFINITY : sinks[h]!;
        for (let p = next(-1); p <= last; p = next(p)) {
          const key = cacheOffset(cache, 'key', slot(p), kvHead);
          let score = 0;
          for (let i = 0; i < headDim; i++) score += q.data[from + i]! * cache.data[key + i]!;
          score *= scale;
          if (softcap !== undefined) score = softcap * Math.tanh(score / softcap);
          if (slopes !== undefined) score += slopes[h]! * (p - position);
          scores[p] = score;
          if (score > max) max = score;
        }
        let total = sinks === undefined ? 0 : Math.exp(sinks[h]! - max);
        out.fill(0);
        for (let p = next(-1); p <= last; p = next(p)) {
          const weight = Math.exp(scores[p]! - max);
          total += weight;
          const value = cacheOffset(cache, 'value', slot(p), kvHead);
          for (let i = 0; i < valueDim; i++) out[i]! += weight * cache.data[value + i]!;
        }
        const to = t * y.stride + h * valueDim;
        for (let i = 0; i < valueDim; i++) y.data[to + i] = out[i]! / total;
      }
    }
  }
};
