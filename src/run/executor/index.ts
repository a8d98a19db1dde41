// `typert/executor`: requests in token ids, without a tokenizer.

/** @module typert/executor */

export { ExecutorError, RequestError } from '../../base/errors.ts';
export type { GuidedDecodingConfig } from '../decode/guided.ts';
export type { Logprob, TokenLogprobs } from '../decode/logprobs.ts';
export type { NGramDecodingConfig } from '../decode/ngram.ts';
export { checkSamplingParams, impliesGreedy } from '../decode/resolve.ts';
export type {
  EmbeddingBias,
  GuidedDecodingParams,
  LogitsProcessorCall,
  SamplingParams,
  UserLogitsProcessor,
} from '../decode/sampling-params.ts';
export type { FinishReason, StopReason } from '../decode/stop.ts';
export { blockHashes } from '../kv/block-keys.ts';
export type { KvCacheEvent, KvCacheEventData, KvCacheStoredBlock } from '../kv/events.ts';
export type { KvCacheRetentionConfig, TokenRangeRetentionConfig } from '../kv/retention.ts';
export type { KvCacheStats } from '../kv/stats.ts';
export type { SessionLimits } from '../session/batch.ts';
export type { KvCacheConfig, SessionOptions, TargetChoice } from '../session/options.ts';
export type { CapacitySchedulerPolicy } from './capacity.ts';
export type { ContextChunkingPolicy } from './chunking.ts';
export { Executor } from './executor.ts';
export { type Finish, RequestHandle } from './handle.ts';
export {
  bestSequences,
  type LogitsTensor,
  type RequestPerfMetrics,
  type Response,
  type Result,
  type SequenceDelta,
  type SequenceOutput,
} from './outputs.ts';
export type { Profile, StepsProfile } from './profile.ts';
export type { ExecutorOptions } from './protocol.ts';
export type { RequestOptions } from './request.ts';
export type { SchedulerConfig } from './scheduler.ts';
export * from './simulation/index.ts';
export { blockStates, type EngineSnapshot, type SequenceSnapshot, type StepSnapshot } from './snapshot.ts';
export type {
  ExecutorStatistics,
  InflightBatchingStats,
  IterationStats,
  JumpAheadStats,
  RequestStage,
  RequestStats,
  SpecDecodingStats,
  StepSummary,
} from './statistics.ts';
export type { BatchedLogitsProcessor } from './user-processors.ts';
