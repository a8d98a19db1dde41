// What a kernel of the reference target is: plain TypeScript over float32 (and int32) arrays. Activations of narrower dtypes are rounded by the caller
// after each kernel, so a kernel computes as if in float32.
import type { CacheSpec } from '../define/graph/attention.ts';
import type { Op, OpAttrs } from '../define/graph/ops.ts';

/** A tensor as kernels see it: row-major, rows `stride` elements apart (a view into a wider tensor has stride > columns). */
export interface RefTensor {
  readonly data: Float32Array;
  readonly shape: readonly number[];
  readonly stride: number;
}

/** An integer input. */
export interface RefInts {
  readonly data: Int32Array;
  readonly shape: readonly number[];
}

/** One layer's cache: blocks of [keys: kvHeads × tokensPerBlock × headDim][values: kvHeads × tokensPerBlock × valueDim]. */
export interface RefCache extends CacheSpec {
  readonly data: Float32Array;
  readonly tokensPerBlock: number;
}

export interface RefArgs {
  /** A float tensor by the op's input or output name; throws when absent. */
  tensor(name: string): RefTensor;
  /** The same, or undefined when the optional input is absent. */
  optional(name: string): RefTensor | undefined;
  ints(name: string): RefInts;
  readonly cache: RefCache;
}

export type ReferenceKernel<K extends Op> = (args: RefArgs, attrs: OpAttrs[K]) => void;

/** Elements of one block of a layer's cache. */
export function blockElements(cache: CacheSpec, tokensPerBlock: number): number {
  return cache.numKvHeads * tokensPerBlock * (cache.headDim + cache.valueDim);
}
