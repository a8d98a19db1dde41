// What one step computes: T tokens of R requests, packed without padding. A request in its context phase brings many tokens, one in its
// generation phase one. The same shape goes to every target.

import type { BlockCopies } from '../../targets/target.ts';

/** Ragged input of one step. Arrays may be longer than needed; the counts say how much is used. */
export interface Batch {
  readonly numTokens: number;
  readonly numRequests: number;
  readonly numLogits: number;
  /** [T] token ids, request after request. −1 − row: the token that the step before samples in that row. */
  readonly tokens: Int32Array;
  /** [T] position of each token in its sequence, from 0. */
  readonly positions: Int32Array;
  /** [R + 1] where each request's tokens begin in `tokens`; the last entry is T. */
  readonly requestOffsets: Int32Array;
  /** [R] tokens of each sequence in the KV cache after this step (past + new). */
  readonly contextLengths: Int32Array;
  /** [R, maxBlocksPerSequence] block ids of each sequence's KV cache, row-major; entries past the sequence's end are ignored. */
  readonly blockTables: Int32Array;
  /** [T] where each token's key and value go: block id × tokensPerBlock + offset in the block. */
  readonly cacheSlots: Int32Array;
  /** The same two for the cache groups after the first. Blocks that are out of a group's window may have any id of the pool. */
  readonly otherGroups?: readonly GroupTables[];
  /** [L] indices into `tokens` of the rows that want logits, never descending; an index stands several times where several samples are drawn from one row. */
  readonly logitsRows: Int32Array;
  /** [L] how each row with logits is sampled. */
  readonly sampling: SamplingRows;
}

/** Where one group of layers has its keys and values. */
export interface GroupTables {
  readonly blockTables: Int32Array;
  readonly cacheSlots: Int32Array;
}

/** Layers that see the same positions, and so share a block table. */
export interface CacheGroup {
  /** A token sees positions > its own − window; left out: all. */
  readonly window?: number;
  /** And the first so many, whatever the window. */
  readonly sinkTokens?: number;
}

/** One entry a logits row. */
export interface SamplingRows {
  /** 0 = greedy. */
  readonly temperature: Float32Array;
  /** 0 = off. */
  readonly topK: Int32Array;
  /** 1 = off. */
  readonly topP: Float32Array;
  /** 0 = off. */
  readonly minP: Float32Array;
  /** [L] key of the counter-based generator (Philox 4x32-10), low and high word. */
  readonly seedLow: Uint32Array;
  readonly seedHigh: Uint32Array;
  /** Counter of the generator: the index of the token to be sampled in its sequence, so that a seed gives the same tokens in any batch. */
  readonly counter: Uint32Array;
}

/** Limits a session was built with. */
export interface SessionLimits {
  /** R of a step at most. */
  readonly maxBatchSize: number;
  /** T of a step at most. */
  readonly maxNumTokens: number;
  /** L of a step at most. */
  readonly maxNumLogits: number;
  /** Tokens of a sequence at most, prompt and output together. */
  readonly maxSeqLen: number;
  readonly tokensPerBlock: number;
  readonly maxBlocksPerSequence: number;
  /** Blocks in the KV pool, over all cache groups. */
  readonly numBlocks: number;
  /** Blocks in the pool of the host's memory; default 0. */
  readonly numHostBlocks?: number;
  /** Groups of layers with a block table each; default: one that sees everything. */
  readonly cacheGroups?: readonly CacheGroup[];
  readonly vocabSize: number;
}

/** Milliseconds that each step of the plan took, added up over the steps that were timed. */
export type StepTimes = { readonly [P in 'forward' | 'sample']: Float64Array };
/** What a step samples: [L] token ids and their log-probabilities (of the unprocessed distribution). */
export interface Samples {
  readonly tokens: Int32Array;
  readonly logprobs: Float32Array;
}

/** What may be sampled in a row: a bit a token. */
export interface RowMask {
  readonly row: number;
  readonly allowed: Int32Array;
}

/**
 * An engine opened on a device. A step is `forward` (the model, up to the logits) and then `sample`; between them the logits may be read or changed by the host.
 * Calls are made one after the other, but for `step`: the call after it may be made before it resolves.
 */
export interface Session extends AsyncDisposable {
  readonly limits: SessionLimits;
  /** Launches of the plan in each phase: the sizes of `StepTimes`. */
  readonly numLaunches: { readonly [P in keyof StepTimes]: number };
  /** Whether the device computes a step while the host prepares the next one. */
  readonly overlaps: boolean;
  /** Copies whole KV blocks before the next `forward`: shared ones that are about to be written, and those that move between device and host. */
  copyBlocks(copies: BlockCopies): Promise<void>;
  /** Computes the step; afterwards logits of the batch's L rows are on the device. With `times` its launches are timed, which costs time itself. */
  forward(batch: Batch, times?: StepTimes): Promise<void>;
  /** Copies the L rows' logits to the host: [L, vocabSize] float32. */
  readLogits(): Promise<Float32Array>;
  /** Replaces the L rows' logits on the device. */
  writeLogits(logits: Float32Array): Promise<void>;
  /** Excludes tokens from rows of the logits on the device. */
  maskLogits(masks: readonly RowMask[]): Promise<void>;
  /** Samples one token a logits row as `batch.sampling` says. */
  sample(times?: StepTimes): Promise<Samples>;
  /** `forward` and `sample` at once. The batch may not change before the step after it is given. */
  step(batch: Batch): Promise<Samples>;
}
