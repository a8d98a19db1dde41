// Statistics of the engine's steps and of the requests in it, with TensorRT-LLM's field names (executor/types.h) in its JSON spelling. What a session does not know (memory of
// the device) is left out rather than set to zero.
import type { KvCacheStats } from '../kv/block-manager.ts';
import type { SessionLimits } from '../session/batch.ts';
import type { StepPlan } from './plan.ts';
import type { Request } from './request.ts';
import type { Scheduler } from './scheduler.ts';

/** What one step was made of. */
export interface InflightBatchingStats {
  readonly numScheduledRequests: number;
  readonly numContextRequests: number;
  readonly numGenRequests: number;
  /** Preempted in this step. */
  readonly numPausedRequests: number;
  /** Tokens of sequences in their context phase. */
  readonly numCtxTokens: number;
  readonly microBatchId: number;
  readonly avgNumDecodedTokensPerIter: number;
}

/** One step of the engine. "Requests" are sequences here: a request with n > 1 counts n times. */
export interface IterationStats {
  /** ISO 8601. */
  readonly timestamp: string;
  readonly iter: number;
  readonly iterLatencyMS: number;
  /** Time that the sequences which joined in this step had waited, together. */
  readonly newActiveRequestsQueueLatencyMS: number;
  readonly numNewActiveRequests: number;
  readonly numActiveRequests: number;
  readonly numQueuedRequests: number;
  readonly numCompletedRequests: number;
  readonly maxNumActiveRequests: number;
  readonly maxBatchSizeStatic: number;
  readonly maxBatchSizeRuntime: number;
  readonly maxNumTokensStatic: number;
  readonly maxNumTokensRuntime: number;
  readonly kvCacheStats: KvCacheStats;
  readonly inflightBatchingStats: InflightBatchingStats;
}

/** TensorRT-LLM's names of a request's stages. */
export type RequestStage = 'QUEUED' | 'CONTEXT_IN_PROGRESS' | 'GENERATION_IN_PROGRESS' | 'GENERATION_COMPLETE';

/** One open request. */
export interface RequestStats {
  readonly id: number;
  readonly stage: RequestStage;
  /** Tokens of its first sequence in the KV cache, the prompt's length at most. */
  readonly contextPrefillPosition: number;
  readonly numGeneratedTokens: number;
  readonly avgNumDecodedTokensPerIter: number;
  /** Whether it holds a place in the batch, and whether it had one and gave it back. */
  readonly scheduled: boolean;
  readonly paused: boolean;
}

/** An executor in numbers. */
export interface ExecutorStatistics {
  /** The newest steps, oldest first. */
  readonly iterations: readonly IterationStats[];
  readonly requests: readonly RequestStats[];
  readonly kvCacheStats: KvCacheStats;
  readonly numActiveRequests: number;
  readonly numQueuedRequests: number;
  /** Since the start. */
  readonly numCompletedRequests: number;
  readonly numPreemptions: number;
  readonly numIterations: number;
  /** Resident memory of the process, bytes. */
  readonly cpuMemUsage: number;
}

export interface StepFacts {
  readonly iter: number;
  readonly time: number;
  readonly latency: number;
  readonly numCompleted: number;
}

export function iterationStats(
  plan: StepPlan,
  scheduler: Scheduler,
  limits: SessionLimits,
  step: StepFacts,
): IterationStats {
  const context = plan.entries.filter((entry) => entry.context);
  return {
    timestamp: new Date(step.time).toISOString(),
    iter: step.iter,
    iterLatencyMS: step.latency,
    newActiveRequestsQueueLatencyMS: plan.admitted.reduce(
      (sum, { request }) => sum + Math.max(0, step.time - request.data.arrivalTime),
      0,
    ),
    numNewActiveRequests: plan.admitted.length,
    numActiveRequests: scheduler.running.length,
    numQueuedRequests: scheduler.numWaiting,
    numCompletedRequests: step.numCompleted,
    maxNumActiveRequests: scheduler.maxRunning,
    maxBatchSizeStatic: limits.maxBatchSize,
    maxBatchSizeRuntime: limits.maxBatchSize,
    maxNumTokensStatic: limits.maxNumTokens,
    maxNumTokensRuntime: limits.maxNumTokens,
    kvCacheStats: scheduler.blocks.stats(),
    inflightBatchingStats: {
      numScheduledRequests: plan.entries.length,
      numContextRequests: context.length,
      numGenRequests: plan.entries.length - context.length,
      numPausedRequests: plan.preempted.length,
      numCtxTokens: context.reduce((sum, { count }) => sum + count, 0),
      microBatchId: 0,
      avgNumDecodedTokensPerIter: 1,
    },
  };
}

export function requestStats({ data, sequences, promptDone, numPreemptions }: Request): RequestStats {
  const running = sequences.some(({ status }) => status === 'running');
  const first = sequences[0]!;
  const stage = (): RequestStage => {
    if (!running && numPreemptions === 0 && !promptDone) return 'QUEUED';
    return promptDone ? 'GENERATION_IN_PROGRESS' : 'CONTEXT_IN_PROGRESS';
  };
  return {
    id: data.requestId,
    stage: stage(),
    contextPrefillPosition: Math.min(first.numCached, first.promptLength),
    numGeneratedTokens: sequences.reduce((sum, { numGenerated }) => sum + numGenerated, 0),
    avgNumDecodedTokensPerIter: promptDone ? 1 : 0,
    scheduled: running,
    paused: !running && numPreemptions > 0,
  };
}
