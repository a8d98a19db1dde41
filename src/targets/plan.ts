// The plan: what the compiler puts out and a device runs. Plain JSON, written into the engine.
import type { DType, FloatDType } from '../base/dtype.ts';
import type { Shape } from '../base/expr.ts';
import type { CacheSpec } from '../define/graph/attention.ts';
import type { Op, OpAttrs } from '../define/graph/ops.ts';

/** Largest value of each symbol of the step. */
export interface PlanLimits {
  readonly maxNumTokens: number;
  readonly maxBatchSize: number;
  readonly maxNumLogits: number;
}

/** Where a tensor of the plan lives. */
export type Storage =
  /** `offset` bytes into the arena. */
  | { readonly kind: 'arena'; readonly offset: number }
  /** `random`: the seed of values that are not in the engine but made where it runs. */
  | { readonly kind: 'weight'; readonly packed?: PackedWeight; readonly random?: number }
  /** A buffer of step input of that name. */
  | { readonly kind: 'input' };

/** How a weight lies in the engine when not as its dtype stores it. */
export interface PackedWeight {
  /** 'float32': its elements as such; else a name that its target knows. */
  readonly layout: string;
  readonly bytes: number;
}

/** An activation, a weight or a step input of the plan. */
export interface PlanTensor {
  /** Name of the weight or input; of an activation: the module path that makes it. */
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** Elements from row to row, where that is more than the last dim (a view into a wider tensor). */
  readonly stride?: number;
  readonly storage: Storage;
}

/** One launch. `args` names the op's inputs and outputs by index into the plan's tensors. */
export interface PlanStep<K extends Op = Op> {
  readonly op: K;
  readonly scope: string;
  readonly attrs: OpAttrs[K];
  readonly kernel: KernelChoice;
  readonly args: Readonly<Record<string, number>>;
}

/** Which kernel computes a step, and its tactic: plain data that only the target understands. */
export interface KernelChoice {
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>>;
}

/** A kernel's config for the sizes of a problem up to `upTo`. */
export interface Tactic {
  readonly upTo: number;
  readonly config: KernelChoice['config'];
}

/** The tactics that were chosen at build, on the device they were chosen for. */
export interface PlanTactics {
  readonly device: string;
  /** By problem (a step's op and all that shapes it but its size), sizes ascending. */
  readonly problems: Readonly<Record<string, readonly Tactic[]>>;
}

/** Kernels whose binaries the engine carries as tensors (`kernelTensor`). */
export interface PlanKernels {
  /** What they were compiled for, in the compiler's words, and by which compiler. */
  readonly arch: string;
  readonly compiler: string;
  /** By name: a hash of what was compiled. */
  readonly sources: Readonly<Record<string, string>>;
}

/** The name of the engine's tensor that holds a kernel's binary. */
export const kernelTensor = (name: string): string => `kernels/${name}`;

/** A step is run in two phases, so that the host may look at the logits between them. */
export type Phase = 'forward' | 'sample';

export const cacheDTypes = ['float32', 'bfloat16', 'float16', 'int8'] as const;
/** What the KV cache holds; `int8`: with a scale for each token and head. */
export type CacheDType = (typeof cacheDTypes)[number];

/** The steps of both phases, the tensors they work on, and the limits they were laid out for. */
export interface Plan {
  readonly target: string;
  /** Dtype of activations. */
  readonly dtype: FloatDType;
  /** Dtype of the KV cache, where it is another. */
  readonly cacheDType?: CacheDType;
  readonly limits: PlanLimits;
  readonly tokensPerBlock: number;
  readonly maxBlocksPerSequence: number;
  readonly tensors: readonly PlanTensor[];
  readonly phases: { readonly [P in Phase]: readonly PlanStep[] };
  /** Results by name → index into `tensors`. */
  readonly outputs: Readonly<Record<string, number>>;
  readonly caches: readonly CacheSpec[];
  /** Bytes of the arena with every symbol at its limit. */
  readonly arenaBytes: number;
  /** Where the target has a choice: what was chosen. */
  readonly tactics?: PlanTactics;
  readonly kernels?: PlanKernels;
}

/** One spec for each piece of memory that holds caches. */
export function cachePools({ caches }: Pick<Plan, 'caches'>): ReadonlyMap<number, CacheSpec> {
  return new Map(caches.map((spec) => [poolOf(spec), spec]));
}

/** Which piece of memory a layer's cache is in. */
export function poolOf({ pool, layer }: CacheSpec): number {
  return pool ?? layer;
}

/** Dtype of a plan's KV cache. */
export function cacheDTypeOf({ dtype, cacheDType = dtype }: Pick<Plan, 'dtype' | 'cacheDType'>): CacheDType {
  return cacheDType;
}

/** Bytes that a block takes in one layer, `bytesPerNumber` as the target stores the cache's dtype: heads are whole floats. */
export function layerBlockBytes(
  { numKvHeads, headDim, valueDim }: CacheSpec,
  plan: Pick<Plan, 'tokensPerBlock' | 'dtype' | 'cacheDType'>,
  bytesPerNumber: number,
): number {
  const scales = cacheDTypeOf(plan) === 'int8' ? 8 : 0;
  return numKvHeads * Math.ceil((plan.tokensPerBlock * ((headDim + valueDim) * bytesPerNumber + scales)) / 4) * 4;
}

/** Bytes that one block takes in all layers together. */
export function blockBytes(
  plan: Pick<Plan, 'caches' | 'tokensPerBlock' | 'dtype' | 'cacheDType'>,
  cacheBytes: (dtype: CacheDType) => number,
): number {
  const bytesPerNumber = cacheBytes(cacheDTypeOf(plan));
  return [...cachePools(plan).values()].reduce((sum, spec) => sum + layerBlockBytes(spec, plan, bytesPerNumber), 0);
}
