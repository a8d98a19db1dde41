// One simulated engine: the real scheduler and cache, and a clock that a step moves on by what it would take. No model computes anything.
import { resolveSamplingParams } from '../../decode/resolve.ts';
import type { KvCacheEvent } from '../../kv/events.ts';
import type { SessionLimits } from '../../session/batch.ts';
import type { StepPlan } from '../plan.ts';
import type { Request } from '../request.ts';
import { type CacheConfig, Scheduler, type SchedulerConfig } from '../scheduler.ts';
import type { SimulatedRequest } from './traffic.ts';

/** Milliseconds that a step takes. */
export type StepTime = (plan: StepPlan) => number;

/** What became of a request. Milliseconds of simulated time. */
export interface SimulatedResult {
  readonly requestId: number;
  readonly replica: number;
  readonly arrival: number;
  readonly firstToken: number;
  readonly end: number;
  readonly numPromptTokens: number;
  readonly numCachedTokens: number;
  readonly numOutputTokens: number;
}

/** A step as it was, for a timeline. */
export interface SimulatedStep {
  readonly replica: number;
  readonly start: number;
  readonly end: number;
  readonly parts: readonly {
    readonly requestId: number;
    readonly kind: 'context' | 'generation';
    readonly numTokens: number;
  }[];
  readonly preempted: readonly number[];
}

interface Open {
  readonly request: Request;
  readonly simulated: SimulatedRequest;
  firstToken: number | undefined;
}

export interface ReplicaOptions {
  readonly limits: SessionLimits;
  readonly schedulerConfig?: SchedulerConfig;
  readonly kvCacheConfig?: CacheConfig;
  readonly stepTime: StepTime;
}

export class Replica {
  readonly index: number;
  readonly scheduler: Scheduler;
  readonly #options: ReplicaOptions;
  readonly #open = new Map<number, Open>();
  /** When the step under way ends; undefined: nothing runs. */
  busyUntil: number | undefined;
  /** Tokens still to be computed or generated. */
  load = 0;
  numSteps = 0;
  #plan: StepPlan | undefined;
  #start = 0;

  constructor(index: number, options: ReplicaOptions) {
    this.index = index;
    this.#options = options;
    this.scheduler = new Scheduler(options.limits, options.schedulerConfig, options.kvCacheConfig);
  }

  get idle(): boolean {
    return this.busyUntil === undefined;
  }

  add(requestId: number, simulated: SimulatedRequest): void {
    const { promptTokenIds, numOutputTokens, priority = 0.5, arrival } = simulated;
    const params = {
      ...resolveSamplingParams({ maxTokens: numOutputTokens }, this.#options.limits.vocabSize),
      seed: 0n,
    };
    const request = this.scheduler.add({ requestId, promptTokenIds, params, priority, arrivalTime: arrival });
    this.load += promptTokenIds.length + numOutputTokens;
    this.#open.set(requestId, { request, simulated, firstToken: undefined });
  }

  /** Begins the next step at `now`; false when there is nothing to do. */
  begin(now: number): boolean {
    const plan = this.scheduler.schedule(now);
    if (plan.entries.length === 0) return false;
    this.#plan = plan;
    this.#start = now;
    this.busyUntil = now + this.#options.stepTime(plan);
    return true;
  }

  /** Ends the step under way: its tokens are there. */
  end(finished: SimulatedResult[], record?: SimulatedStep[]): void {
    const plan = this.#plan!;
    const now = this.busyUntil!;
    this.numSteps++;
    record?.push(describe(plan, this.index, this.#start, now));
    for (let i = 0; i < plan.entries.length; i++) {
      const { sequence, samples, count, context } = plan.entries[i]!;
      if (context) this.load -= count;
      if (samples.length === 0 || sequence.status !== 'running') continue;
      const { requestId } = sequence.request.data;
      const open = this.#open.get(requestId)!;
      open.firstToken ??= now;
      this.load--;
      // Any token will do: what was generated is found again only by who shares the whole text.
      this.scheduler.append(sequence, (requestId + sequence.numTokens) % this.#options.limits.vocabSize);
      if (sequence.numGenerated < open.simulated.numOutputTokens) continue;
      this.scheduler.finish(sequence);
      this.#open.delete(requestId);
      finished.push(this.#result(requestId, open, now));
    }
    this.busyUntil = undefined;
    this.#plan = undefined;
  }

  takeEvents(): KvCacheEvent[] {
    return this.scheduler.blocks.takeEvents();
  }

  #result(requestId: number, { request, simulated, firstToken }: Open, end: number): SimulatedResult {
    // What came from the cache had not to be computed.
    this.load -= request.cachedTokens;
    if (this.#open.size === 0) this.load = 0;
    return {
      requestId,
      replica: this.index,
      arrival: simulated.arrival,
      firstToken: firstToken!,
      end,
      numPromptTokens: simulated.promptTokenIds.length,
      numCachedTokens: request.cachedTokens,
      numOutputTokens: simulated.numOutputTokens,
    };
  }
}

function describe({ entries, preempted }: StepPlan, replica: number, start: number, end: number): SimulatedStep {
  return {
    replica,
    start,
    end,
    parts: entries.map(({ sequence, context, count }) => ({
      requestId: sequence.request.data.requestId,
      kind: context ? 'context' : 'generation',
      numTokens: count,
    })),
    preempted: preempted.map(({ request }) => request.data.requestId),
  };
}
