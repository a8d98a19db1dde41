// The engine folder's config.json, in TensorRT-LLM's layout: version, pretrained_config, build_config. And the metadata of rankN.engine.
import * as z from 'zod';
import { cacheDTypes } from '../../targets/plan.ts';

/** Raised when a change makes older engines unreadable; an engine of a newer version is refused. */
export const engineVersion = 1;

const size = z.int().positive();

export const buildConfigSchema = z.object({
  target: z.enum(['reference', 'cpu', 'cuda']),
  /** Dtype of activations. */
  dtype: z.enum(['float32', 'bfloat16', 'float16']),
  /** Requests in one step. */
  max_batch_size: size,
  /** Tokens in one step. */
  max_num_tokens: size,
  /** Tokens of one sequence, prompt and output. */
  max_seq_len: size,
  /** Rows that may want logits in one step. */
  max_num_logits: size,
  /** Tokens in one block of the KV cache. */
  tokens_per_block: size,
  /** Dtype of the KV cache, where it is told. */
  kv_cache_dtype: z.enum(cacheDTypes).optional(),
  /** Positions that each layer sees at most, where the build limited them, and how many first ones stay visible. */
  max_attention_window: z.array(size).optional(),
  sink_token_length: z.int().min(0).optional(),
});

export type BuildConfigJson = z.infer<typeof buildConfigSchema>;

export const engineConfigSchema = z.object({
  /** Of the engine format. */
  version: z.int().positive(),
  producer: z.object({ name: z.literal('typert'), version: z.string() }),
  pretrained_config: z.looseObject({ architecture: z.string(), vocab_size: size }),
  build_config: buildConfigSchema,
});

/** The config.json of an engine folder. */
export type EngineConfig = z.infer<typeof engineConfigSchema>;

/** Keys of a rank file's `__metadata__`. */
export const metadataKeys = { version: 'typert.version', plan: 'typert.plan' } as const;
