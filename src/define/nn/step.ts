// The inputs of a step as tensors, and what a causal language model is.
import type { Module } from './module.ts';
import type { Tensor } from './tensor.ts';

/** Names and dtypes are those of the runtime's batch. */
export interface StepInputs {
  /** [T] token ids. */
  readonly tokens: Tensor;
  /** [T] */
  readonly positions: Tensor;
  /** [R + 1] */
  readonly requestOffsets: Tensor;
  /** [R] */
  readonly contextLengths: Tensor;
  /** [R, maxBlocksPerSequence] */
  readonly blockTables: Tensor;
  /** [T] */
  readonly cacheSlots: Tensor;
  /** [L] rows of the step that want logits. */
  readonly logitsRows: Tensor;
}

/** A model that predicts the next token. */
export interface CausalLM extends Module {
  /** Logits [L, vocabSize] of the rows that want them. */
  forward(step: StepInputs): Tensor;
}
