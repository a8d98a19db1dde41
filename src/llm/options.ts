// What `LLM.load` can be told, in the words of TensorRT-LLM's LLM arguments (tensorrt_llm.llmapi.LlmArgs) in camelCase; checked before anything is read.
import { z } from 'zod';
import { type FloatDType, floatDTypes } from '../base/dtype.ts';
import { nearest, show, UsageError } from '../base/errors.ts';
import { type Progress, silent } from '../base/progress.ts';
import { activationKinds, type QuantConfig, quantAlgos } from '../compile/quantization.ts';
import { groupSizes } from '../define/checkpoint/group-blocks.ts';
import type { BatchedLogitsProcessor, NGramDecodingConfig } from '../run/executor/index.ts';
import { type CacheDType, cacheDTypes } from '../targets/plan.ts';

/** How much memory the paged key-value cache gets and how it is kept. */
export interface KvCacheConfig {
  /** Tokens that fit in the cache over all requests; the smaller of this and the memory's share counts. Default: what fits in the memory's share. */
  readonly maxTokens?: number;
  /** Share of the device's free memory after weights and activations, above 0 to 1. Default: 0.9 of a device's own memory, 0.25 of the host's. */
  readonly freeGpuMemoryFraction?: number;
  /** Tokens a block, a power of two. Default 32. */
  readonly tokensPerBlock?: number;
  /** What keys and values are kept in; 'int8' has a scale for each token and head. Default 'auto': narrow where weights are narrow. */
  readonly dtype?: 'auto' | CacheDType;
  /** Blocks of earlier requests are used again where a prompt begins alike. Default true. */
  readonly enableBlockReuse?: boolean;
  /** A block that is alike only at its beginning is copied. Default true. */
  readonly enablePartialReuse?: boolean;
  /** Bytes of host memory that blocks move to when their place on the device is needed, to come back when they are wanted. Default 0. */
  readonly hostCacheSize?: number;
  /** Blocks of a lower retention priority are dropped instead of moved to the host. Default 0: none is. */
  readonly secondaryOffloadMinPriority?: number;
  /** Positions that each layer sees at most, repeated over the layers; their blocks are given back beyond it. Built into the engine. Default: what the model says. */
  readonly maxAttentionWindow?: readonly number[];
  /** So many first positions stay visible in layers with a window (StreamingLLM). Built into the engine. Default 0. */
  readonly sinkTokenLength?: number;
  /** Events of the cache that are kept until `LLM.kvCacheEvents` takes them. Default 0: none. */
  readonly eventBufferMaxSize?: number;
}

export const capacitySchedulerPolicies = ['guaranteed_no_evict', 'max_utilization', 'static_batch'] as const;
/**
 * `guaranteed_no_evict` starts a request only when its blocks to the end are there; `max_utilization` starts as many as fit now and may pause one
 * later; `static_batch` starts a new batch only when the last one has ended.
 */
export type CapacitySchedulerPolicy = (typeof capacitySchedulerPolicies)[number];

const contextChunkingPolicies = ['first_come_first_served', 'equal_progress'] as const;

/** How requests are scheduled. */
export interface SchedulerConfig {
  /** Default 'guaranteed_no_evict'. */
  readonly capacitySchedulerPolicy?: CapacitySchedulerPolicy;
  /** How prompts share the tokens of a step: the first in rank takes what it can, or all take about as many. Default 'first_come_first_served'. */
  readonly contextChunkingPolicy?: (typeof contextChunkingPolicies)[number];
  /** Prompt tokens of one sequence in one step, at most. Default: as many as fit maxNumTokens. */
  readonly contextChunkSize?: number;
  /**
   * So many milliseconds of waiting count as much as the whole range of priorities: a request of priority 0 is served before those of priority 1 that arrive so much later, and never
   * starves. 0: in order of arrival. Infinity: by priority alone. Default 60 000.
   */
  readonly priorityAgingMs?: number;
}

const targets = ['auto', 'cuda', 'cpu', 'reference'] as const;
const loadFormats = ['auto', 'dummy'] as const;

/** Options of `LLM.load`. What is left out is chosen from the model and the device. */
export interface LLMOptions {
  /** Where the engine runs. Default 'auto': the fastest that works here. */
  readonly target?: (typeof targets)[number];
  /** What activations and arithmetic use. Default 'auto': what the checkpoint says, or what the device computes best. */
  readonly dtype?: 'auto' | FloatDType;
  /** Sequences in one step, at most. */
  readonly maxBatchSize?: number;
  /** Tokens in one step over all its requests, at most. */
  readonly maxNumTokens?: number;
  /** Tokens of one request, prompt and output together, at most. Default: the model's context length. */
  readonly maxSeqLen?: number;
  /** Beams of one request, at most 16; requests with more are refused. Default 16: beams take memory only while a request uses them. */
  readonly maxBeamWidth?: number;
  /** Kernels are chosen by timing them on the device when an engine is built, where the target has a choice. Default true; else by rule of thumb. */
  readonly tune?: boolean;
  /** JSON file of times measured before: read, and added to. Default: one in the cache folder. */
  readonly timingCache?: string;
  /** Products may go to cuBLASLt where it is found. Default true; else own kernels alone. */
  readonly cublaslt?: boolean;
  readonly kvCacheConfig?: KvCacheConfig;
  /** Which of several GPUs, counted after CUDA_VISIBLE_DEVICES. Default 0. */
  readonly device?: number;
  /** Bytes that weights, activations, KV cache, graphs and kernels may take together on the GPU, or the share of its memory when at most 1. Default: what is free. */
  readonly gpuMemory?: number;
  readonly schedulerConfig?: SchedulerConfig;
  /** Quantisation of weights when the engine is built. Default: weights keep the checkpoint's bits. */
  readonly quantConfig?: QuantConfig;
  /** Branch, tag or commit of a model on the hub. Default 'main'. */
  readonly revision?: string;
  /** Access token for the hub. Default: `HF_TOKEN`. */
  readonly token?: string;
  /** Folder of built engines and kernels. Default: `TYPERT_CACHE`. */
  readonly cacheDir?: string;
  /** Loads no tokenizer: prompts are token ids, and outputs have no text. Default false. */
  readonly skipTokenizerInit?: boolean;
  /** 'dummy' makes random weights from the config alone (for benches). Default 'auto': read from the checkpoint. */
  readonly loadFormat?: (typeof loadFormats)[number];
  /** Tokens are proposed from the text so far and checked several at a time; the output stays the same. Default: none are. */
  readonly speculativeConfig?: NGramDecodingConfig;
  /** Each step waits for the one before it. Default false: on a device that allows it, a step is planned and started while the one before is computed. */
  readonly disableOverlapScheduler?: boolean;
  /** Tokens of a request that are streamed together; the first comes at once. More than 1 takes work from the thread that reads many streams. Default 1. */
  readonly streamInterval?: number;
  /** Each token of a guided request takes a step of its own. Default false: tokens that a grammar leaves no choice about are computed at once; the output stays the same. */
  readonly disableJumpAhead?: boolean;
  /** Changes the logits of requests with `applyBatchedLogitsProcessor`, all rows of a step at once. */
  readonly batchedLogitsProcessor?: BatchedLogitsProcessor;
  /** Seed of the dummy weights and of sampling for requests that have none of their own. Default: from the system's randomness. */
  readonly seed?: number;
  /** Told about downloads and building. Default: nobody. */
  readonly progress?: Progress;
  /** Ends loading with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** `LLMOptions` with the defaults that do not depend on model or device filled in. */
export type ResolvedLLMOptions = LLMOptions & {
  readonly target: NonNullable<LLMOptions['target']>;
  readonly dtype: NonNullable<LLMOptions['dtype']>;
  readonly maxBeamWidth: number;
  readonly kvCacheConfig: KvCacheConfig & Required<Pick<KvCacheConfig, 'tokensPerBlock'>>;
  readonly schedulerConfig: SchedulerConfig & Required<Pick<SchedulerConfig, 'capacitySchedulerPolicy'>>;
  readonly skipTokenizerInit: boolean;
  readonly loadFormat: NonNullable<LLMOptions['loadFormat']>;
  readonly progress: Progress;
};

const count = z.int('expected a whole number').min(1).optional();
const dtype = z.enum(['auto', ...floatDTypes]).optional();
const powerOfTwo = z
  .int('expected a whole number')
  .refine((n) => n >= 1 && (n & (n - 1)) === 0, 'expected a power of two');

const natural = z.int('expected a whole number').min(0).optional();

const kvCacheSchema = z.strictObject({
  maxTokens: count,
  freeGpuMemoryFraction: z.number().gt(0).max(1).optional(),
  tokensPerBlock: powerOfTwo.optional(),
  dtype: z.enum(['auto', ...cacheDTypes]).optional(),
  enableBlockReuse: z.boolean().optional(),
  enablePartialReuse: z.boolean().optional(),
  hostCacheSize: natural,
  secondaryOffloadMinPriority: z.int('expected a whole number from 0 to 100').min(0).max(100).optional(),
  maxAttentionWindow: z.array(z.int('expected whole numbers').min(1)).min(1).optional(),
  sinkTokenLength: natural,
  eventBufferMaxSize: natural,
});

const schedulerSchema = z.strictObject({
  // TensorRT-LLM writes its policies in capitals; both spellings are understood.
  capacitySchedulerPolicy: z.preprocess(
    (value) => (typeof value === 'string' ? value.toLowerCase() : value),
    z.enum(capacitySchedulerPolicies).optional(),
  ),
  contextChunkingPolicy: z.preprocess(
    (value) => (typeof value === 'string' ? value.toLowerCase() : value),
    z.enum(contextChunkingPolicies).optional(),
  ),
  contextChunkSize: count,
  priorityAgingMs: z.number().nonnegative().or(z.literal(Number.POSITIVE_INFINITY)).optional(),
});

const quantSchema = z.strictObject({
  quantAlgo: z.enum(quantAlgos).optional(),
  groupSize: z.literal([...groupSizes], 'expected 32, 64 or 128').optional(),
  hasZeroPoint: z.boolean().optional(),
  excludeModules: z.array(z.string().min(1)).optional(),
  activations: z.enum(activationKinds).optional(),
});

const speculativeSchema = z.strictObject({
  decodingType: z.literal('ngram'),
  maxDraftLen: count,
  maxMatchingNgramSize: count,
});

const atMost16 = 'expected 1 to 16';
const schema = z.strictObject({
  target: z.enum(targets).optional(),
  dtype,
  maxBatchSize: count,
  maxNumTokens: count,
  maxSeqLen: count,
  maxBeamWidth: z.int('expected a whole number from 1 to 16').min(1, atMost16).max(16, atMost16).optional(),
  tune: z.boolean().optional(),
  timingCache: z.string().min(1).optional(),
  cublaslt: z.boolean().optional(),
  kvCacheConfig: kvCacheSchema.optional(),
  device: z.int('expected a whole number').min(0).optional(),
  gpuMemory: z.number().gt(0).optional(),
  schedulerConfig: schedulerSchema.optional(),
  quantConfig: quantSchema.optional(),
  revision: z.string().min(1).optional(),
  token: z.string().min(1).optional(),
  cacheDir: z.string().min(1).optional(),
  skipTokenizerInit: z.boolean().optional(),
  loadFormat: z.enum(loadFormats).optional(),
  seed: z.int('expected a whole number').min(0).optional(),
  speculativeConfig: speculativeSchema.optional(),
  disableOverlapScheduler: z.boolean().optional(),
  streamInterval: count,
  disableJumpAhead: z.boolean().optional(),
  batchedLogitsProcessor: z
    .custom<BatchedLogitsProcessor>((value) => typeof value === 'function', 'expected a function')
    .optional(),
  progress: z.custom<Progress>((value) => typeof value === 'function', 'expected a function').optional(),
  signal: z.instanceof(AbortSignal, { error: 'expected an AbortSignal' }).optional(),
} satisfies Record<keyof LLMOptions, z.ZodType>);

/** Names known at a place of the options, for "did you mean". */
const namesAt: Readonly<Record<string, readonly string[]>> = {
  '': Object.keys(schema.shape),
  kvCacheConfig: Object.keys(kvCacheSchema.shape),
  schedulerConfig: Object.keys(schedulerSchema.shape),
  quantConfig: Object.keys(quantSchema.shape),
  speculativeConfig: Object.keys(speculativeSchema.shape),
};

function at(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown> | undefined)?.[key], value);
}

function refuse(options: unknown, issue: z.core.$ZodIssue): never {
  const path = issue.path.join('.');
  if (issue.code === 'unrecognized_keys') {
    const name = issue.keys[0]!;
    const near = nearest(name, namesAt[path] ?? []);
    const where = path === '' ? name : `${path}.${name}`;
    throw new UsageError('unknown option', { where, remedy: `Did you mean ${near.join(', ')}?` });
  }
  // The token is a secret: it must not reach a log by way of an error message.
  const got = path === 'token' ? undefined : show(at(options, issue.path));
  throw new UsageError(`not a valid option: ${issue.message}`, {
    where: path === '' ? 'options' : path,
    ...(got === undefined ? {} : { got }),
  });
}

/** Drops keys that are undefined, which count as left out. */
function present<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  const entries = Object.entries(value).filter(([, entry]) => entry !== undefined);
  return Object.fromEntries(entries) as { [K in keyof T]: Exclude<T[K], undefined> };
}

/** Checks options and fills in defaults. Throws UsageError: an unknown name (with near ones), a wrong type or a value out of range. */
export function resolveOptions(options: LLMOptions = {}): ResolvedLLMOptions {
  const parsed = schema.safeParse(options);
  if (!parsed.success) refuse(options, parsed.error.issues[0]!);
  const given = present(parsed.data) as LLMOptions;
  return {
    target: 'auto',
    dtype: 'auto',
    maxBeamWidth: 16,
    skipTokenizerInit: false,
    loadFormat: 'auto',
    progress: silent,
    ...given,
    kvCacheConfig: {
      tokensPerBlock: 32,
      ...present(given.kvCacheConfig ?? {}),
    },
    schedulerConfig: {
      capacitySchedulerPolicy: 'guaranteed_no_evict',
      ...present(given.schedulerConfig ?? {}),
    },
  };
}
