// The engine as it is at this moment, for people who watch it: which sequences run and how far they are, what the newest step is made of, who holds which blocks. Counts and places
// only: no token, no text, nothing that a user said.
import { type BlockTable, outOfWindow } from '../kv/block-table.ts';
import type { KvCacheStats } from '../kv/stats.ts';
import type { StepPlan } from './plan.ts';
import { compareRank, type Sequence } from './request.ts';
import type { Scheduler } from './scheduler.ts';
import type { IterationLog, StepSummary } from './statistics.ts';

/** One sequence that runs or waits. Times are milliseconds since the epoch. */
export interface SequenceSnapshot {
  readonly requestId: number;
  /** Which sample or beam of its request. */
  readonly index: number;
  readonly status: 'waiting' | 'running';
  readonly promptLength: number;
  /** Tokens that it may generate. */
  readonly maxTokens: number;
  /** Tokens of the prompt that were found in the KV cache. */
  readonly numReused: number;
  /** Tokens in the KV cache, the ones of the step under way included. */
  readonly numCached: number;
  readonly numGenerated: number;
  /** Tokens of the newest step that are its own; 0 when it has no part in it. */
  readonly numInStep: number;
  readonly arrivalTime: number;
  readonly firstScheduledTime: number | undefined;
  readonly firstTokenTime: number | undefined;
  readonly priority: number;
  readonly numPreemptions: number;
  /** Ids of its blocks in order, as runs: first, count, first, count, … */
  readonly blocks: readonly number[];
}

/** What the newest step is made of, in the order in which tokens are packed. */
export interface StepSnapshot {
  readonly iter: number;
  readonly numTokens: number;
  readonly entries: readonly {
    readonly requestId: number;
    readonly index: number;
    readonly count: number;
    readonly context: boolean;
  }[];
}

/** State of a block in `EngineSnapshot.blocks`: free, free but with content that may be used again, or `held` + the number of holders - 1. */
export const blockStates = { free: 0, cached: 1, held: 2, most: 255 } as const;

/** The engine at one moment. */
export interface EngineSnapshot {
  /** Milliseconds since the epoch. */
  readonly time: number;
  readonly step: StepSnapshot | undefined;
  readonly running: readonly SequenceSnapshot[];
  /** Those that are next; `numWaiting` counts all. */
  readonly waiting: readonly SequenceSnapshot[];
  readonly numWaiting: number;
  /** One state a block; see `blockStates`. */
  readonly blocks: Uint8Array;
  readonly kvCacheStats: KvCacheStats;
  /** Since the start. */
  readonly numPreemptions: number;
  /** Steps that were not told yet, oldest first. */
  readonly iterations: readonly StepSummary[];
}

/** Waiting sequences that are told one by one, and of how many the first are chosen. */
const mostWaiting = { told: 64, looked: 4096 };

/** The newest step, kept until somebody asks. */
export interface NewestStep {
  readonly iter: number;
  readonly plan: StepPlan;
}

function runs({ ids, numBlocks, numGroups }: BlockTable): number[] {
  const found: number[] = [];
  for (const id of ids.subarray(0, numBlocks * numGroups)) {
    if (id === outOfWindow) continue;
    const last = found.length - 2;
    if (last >= 0 && found[last]! + found[last + 1]! === id) found[last + 1]!++;
    else found.push(id, 1);
  }
  return found;
}

function sequenceSnapshot(sequence: Sequence, numInStep: number): SequenceSnapshot {
  const { request, index, status, promptLength, numCached, numGenerated, table } = sequence;
  const { requestId, params, arrivalTime, priority } = request.data;
  return {
    requestId,
    index,
    status: status === 'running' ? 'running' : 'waiting',
    promptLength,
    maxTokens: params.maxTokens,
    numReused: request.cachedTokens,
    numCached,
    numGenerated,
    numInStep,
    arrivalTime,
    firstScheduledTime: request.firstScheduledTime,
    firstTokenTime: request.firstTokenTime,
    priority,
    numPreemptions: request.numPreemptions,
    blocks: runs(table),
  };
}

function blockMap({ blocks }: Scheduler): Uint8Array {
  const { free, cached, held, most } = blockStates;
  return Uint8Array.from({ length: blocks.maxNumBlocks }, (_, id) => {
    const holders = blocks.references(id as never);
    if (holders > 0) return Math.min(most, held + holders - 1);
    return blocks.numKnown(id as never) > 0 ? cached : free;
  });
}

function firstWaiting({ requests }: Scheduler): readonly Sequence[] {
  const found: Sequence[] = [];
  for (const { sequences } of requests.values()) {
    for (const sequence of sequences) if (sequence.status === 'waiting') found.push(sequence);
    if (found.length >= mostWaiting.looked) break;
  }
  return found.sort(compareRank).slice(0, mostWaiting.told);
}

/** `since`: the last step that was told already. */
export function takeSnapshot(
  scheduler: Scheduler,
  newest: NewestStep | undefined,
  log: IterationLog,
  since: number,
): EngineSnapshot {
  const entries = newest?.plan.entries ?? [];
  const counts = new Map(entries.map(({ sequence, count }) => [sequence, count]));
  return {
    time: Date.now(),
    step: newest && {
      iter: newest.iter,
      numTokens: newest.plan.numTokens,
      entries: entries.map(({ sequence, count, context }) => ({
        requestId: sequence.request.data.requestId,
        index: sequence.index,
        count,
        context,
      })),
    },
    running: scheduler.running.map((sequence) => sequenceSnapshot(sequence, counts.get(sequence) ?? 0)),
    waiting: firstWaiting(scheduler).map((sequence) => sequenceSnapshot(sequence, 0)),
    numWaiting: scheduler.numWaiting,
    blocks: blockMap(scheduler),
    kvCacheStats: scheduler.blocks.stats(),
    numPreemptions: scheduler.numPreemptions,
    iterations: log.since(since),
  };
}
