// `typert/executor`: requests in token ids, without a tokenizer.

/** @module typert/executor */

export { ExecutorError, RequestError } from '../../base/errors.ts';
export type { Logprob, TokenLogprobs } from '../decode/logprobs.ts';
export { checkSamplingParams, impliesGreedy } from '../decode/resolve.ts';
export type { EmbeddingBias, SamplingParams } from '../decode/sampling-params.ts';
export type { FinishReason, StopReason } from '../decode/stop.ts';
export type { KvCacheStats } from '../kv/block-manager.ts';
export type { SessionLimits } from '../session/batch.ts';
export type { KvCacheConfig, SessionOptions, TargetChoice } from '../session/options.ts';
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
export type { ExecutorOptions } from './protocol.ts';
export type { RequestOptions } from './request.ts';
export type { CapacitySchedulerPolicy, SchedulerConfig } from './scheduler.ts';
export type {
  ExecutorStatistics,
  InflightBatchingStats,
  IterationStats,
  RequestStage,
  RequestStats,
} from './statistics.ts';
