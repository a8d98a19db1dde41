// Statistics of the engine's steps and of the requests in it, with TensorRT-LLM's field names (executor/types.h) in its JSON spelling. What a session does not know (memory of
// the device) is left out rather than set to zero.

import type { Drafter } from '../decode/ngram.ts';
import type { KvCacheStats } from '../kv/stats.ts';
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
  /** When tokens were proposed in this step. */
  readonly specDecStats?: Pick<SpecDecodingStats, 'numDraftTokens' | 'numAcceptedTokens'>;
}

/** How well tokens were proposed. */
export interface SpecDecodingStats {
  readonly numDraftTokens: number;
  readonly numAcceptedTokens: number;
  /** How often a sequence had proposals in a step. */
  readonly numRequestsWithDraftTokens: number;
  /** Tokens that a sequence got in such a step, on average. */
  readonly acceptanceLength: number;
}

/** How far grammars that left no choice spared steps. */
export interface JumpAheadStats {
  /** Tokens that were computed ahead, and those of them that came: the others spelled the same text in another way. */
  readonly numForcedTokens: number;
  readonly numAcceptedTokens: number;
  /** How often a sequence had such tokens in a step. */
  readonly numJumps: number;
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
  readonly specDecodingStats: SpecDecodingStats;
  readonly jumpAheadStats: JumpAheadStats;
  readonly numActiveRequests: number;
  readonly numQueuedRequests: number;
  /** Since the start. */
  readonly numCompletedRequests: number;
  readonly numPreemptions: number;
  readonly numIterations: number;
  /** Resident memory of the process, bytes. */
  readonly cpuMemUsage: number;
}

/** One step in a few numbers, for charts. */
export interface StepSummary {
  readonly iter: number;
  /** Milliseconds since the epoch, and that it took. */
  readonly time: number;
  readonly latencyMs: number;
  /** Sequences in their context phase and their tokens. */
  readonly numContext: number;
  readonly numCtxTokens: number;
  /** Sequences in their generation phase, and the tokens that they got. */
  readonly numGeneration: number;
  readonly numDecoded: number;
  readonly numRunning: number;
  readonly numWaiting: number;
  readonly usedNumBlocks: number;
}

export interface StepFacts {
  readonly iter: number;
  readonly time: number;
  readonly latency: number;
}

/** What is kept of a step until somebody asks. */
interface Entry extends StepFacts {
  readonly queueLatency: number;
  readonly numAdmitted: number;
  readonly numPreempted: number;
  readonly numEntries: number;
  readonly numContext: number;
  readonly numCtxTokens: number;
  readonly numRunning: number;
  readonly numWaiting: number;
  readonly maxRunning: number;
  readonly numCompleted: number;
  readonly numDecoded: number;
  readonly numDrafts: number;
  readonly numAccepted: number;
  readonly kvCacheStats: KvCacheStats;
}

/** The newest steps: little is done for each one, the rest when they are read. */
export class IterationLog {
  readonly #limits: SessionLimits;
  readonly #capacity: number;
  readonly #entries: Entry[] = [];
  #numCompleted = 0;
  #numDrafts = 0;
  #numAccepted = 0;
  readonly #total = {
    ngram: { numDrafts: 0, numAccepted: 0, numProposals: 0 },
    forced: { numDrafts: 0, numAccepted: 0, numProposals: 0 },
  };

  constructor(limits: SessionLimits, capacity: number) {
    this.#limits = limits;
    this.#capacity = capacity;
  }

  /** In the step under way a request was completed. */
  completed(): void {
    this.#numCompleted++;
  }

  /** In the step under way proposals were checked. */
  drafted(kind: Drafter['kind'], numDrafts: number, numAccepted: number): void {
    this.#numDrafts += numDrafts;
    this.#numAccepted += numAccepted;
    const total = this.#total[kind];
    total.numDrafts += numDrafts;
    total.numAccepted += numAccepted;
    total.numProposals++;
  }

  add({ entries, admitted, preempted }: StepPlan, scheduler: Scheduler, step: StepFacts): void {
    let numContext = 0;
    let numCtxTokens = 0;
    for (let i = 0; i < entries.length; i++) {
      if (!entries[i]!.context) continue;
      numContext++;
      numCtxTokens += entries[i]!.count;
    }
    let queueLatency = 0;
    for (const { request } of admitted) queueLatency += Math.max(0, step.time - request.data.arrivalTime);
    this.#entries.push({
      iter: step.iter,
      time: step.time,
      latency: step.latency,
      queueLatency,
      numAdmitted: admitted.length,
      numPreempted: preempted.length,
      numEntries: entries.length,
      numContext,
      numCtxTokens,
      numRunning: scheduler.running.length,
      numWaiting: scheduler.numWaiting,
      maxRunning: scheduler.maxRunning,
      numCompleted: this.#numCompleted,
      numDecoded: entries.length - numContext + this.#numAccepted,
      numDrafts: this.#numDrafts,
      numAccepted: this.#numAccepted,
      kvCacheStats: scheduler.blocks.stats(),
    });
    if (this.#entries.length > this.#capacity) this.#entries.shift();
    this.#numCompleted = 0;
    this.#numDrafts = 0;
    this.#numAccepted = 0;
  }

  read(): IterationStats[] {
    return this.#entries.map((entry) => describe(entry, this.#limits));
  }

  /** The steps after the one of this number, oldest first. */
  since(iter: number): StepSummary[] {
    let from = this.#entries.length;
    while (from > 0 && this.#entries[from - 1]!.iter > iter) from--;
    return this.#entries.slice(from).map((entry) => ({
      iter: entry.iter,
      time: entry.time,
      latencyMs: entry.latency,
      numContext: entry.numContext,
      numCtxTokens: entry.numCtxTokens,
      numGeneration: entry.numEntries - entry.numContext,
      numDecoded: entry.numDecoded,
      numRunning: entry.numRunning,
      numWaiting: entry.numWaiting,
      usedNumBlocks: entry.kvCacheStats.usedNumBlocks,
    }));
  }

  specDecodingStats(): SpecDecodingStats {
    const { numDrafts, numAccepted, numProposals } = this.#total.ngram;
    return {
      numDraftTokens: numDrafts,
      numAcceptedTokens: numAccepted,
      numRequestsWithDraftTokens: numProposals,
      acceptanceLength: numProposals === 0 ? 1 : 1 + numAccepted / numProposals,
    };
  }

  jumpAheadStats(): JumpAheadStats {
    const { numDrafts, numAccepted, numProposals } = this.#total.forced;
    return { numForcedTokens: numDrafts, numAcceptedTokens: numAccepted, numJumps: numProposals };
  }
}

function describe(entry: Entry, limits: SessionLimits): IterationStats {
  const numGenRequests = entry.numEntries - entry.numContext;
  return {
    timestamp: new Date(entry.time).toISOString(),
    iter: entry.iter,
    iterLatencyMS: entry.latency,
    newActiveRequestsQueueLatencyMS: entry.queueLatency,
    numNewActiveRequests: entry.numAdmitted,
    numActiveRequests: entry.numRunning,
    numQueuedRequests: entry.numWaiting,
    numCompletedRequests: entry.numCompleted,
    maxNumActiveRequests: entry.maxRunning,
    maxBatchSizeStatic: limits.maxBatchSize,
    maxBatchSizeRuntime: limits.maxBatchSize,
    maxNumTokensStatic: limits.maxNumTokens,
    maxNumTokensRuntime: limits.maxNumTokens,
    kvCacheStats: entry.kvCacheStats,
    inflightBatchingStats: {
      numScheduledRequests: entry.numEntries,
      numContextRequests: entry.numContext,
      numGenRequests,
      numPausedRequests: entry.numPreempted,
      numCtxTokens: entry.numCtxTokens,
      microBatchId: 0,
      avgNumDecodedTokensPerIter: numGenRequests === 0 ? 1 : entry.numDecoded / numGenRequests,
    },
    ...(entry.numDrafts === 0
      ? {}
      : { specDecStats: { numDraftTokens: entry.numDrafts, numAcceptedTokens: entry.numAccepted } }),
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
