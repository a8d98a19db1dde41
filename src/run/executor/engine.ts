// The engine loop: schedule → forward → look at the logits if someone wants to → sample → give out. It knows sessions and requests, but no threads and no promises of users.
import { setImmediate as nextTurn } from 'node:timers/promises';
import { ExecutorError } from '../../base/errors.ts';
import type { GuideMaker } from '../decode/guided.ts';
import type { NGramDecodingConfig } from '../decode/ngram.ts';
import type { KvCacheEvent } from '../kv/events.ts';
import { PriorityQueue } from '../kv/queue.ts';
import type { Samples, Session, StepTimes } from '../session/batch.ts';
import { BatchBuilder } from './batch-builder.ts';
import type { Update } from './emission.ts';
import { prepareGuides } from './guides.ts';
import { HostLogits } from './host-logits.ts';
import { Intake } from './intake.ts';
import { isForeseeable, type StepPlan } from './plan.ts';
import { type Profile, Profiler } from './profile.ts';
import type { Request, RequestData } from './request.ts';
import { type CacheConfig, Scheduler, type SchedulerConfig } from './scheduler.ts';
import { type EngineSnapshot, type NewestStep, takeSnapshot } from './snapshot.ts';
import { type ExecutorStatistics, IterationLog, requestStats } from './statistics.ts';
import type { AskProcessors } from './user-processors.ts';

export interface EngineOptions {
  readonly schedulerConfig?: SchedulerConfig;
  readonly kvCacheConfig?: CacheConfig;
  /** Tokens are proposed and checked several at a time; default: none are. */
  readonly speculativeConfig?: NGramDecodingConfig;
  /** Each token of a guided request takes a step of its own; default false: tokens that a grammar leaves no choice about are computed at once. */
  readonly disableJumpAhead?: boolean;
  /** Each step waits for the one before it; default false: where the device allows it, a step is planned and started while the one before is computed. */
  readonly disableOverlapScheduler?: boolean;
  /** Steps whose statistics are kept; default 1000. */
  readonly iterStatsMaxIterations?: number;
}

/** Who helps with the logits. */
export interface EngineHelpers {
  /** How rows get to the user's processors. */
  readonly ask?: AskProcessors;
  readonly guides?: GuideMaker;
}

/** What happens to an engine from outside. Taken in between two steps. */
export type EngineEvent =
  | { readonly type: 'enqueue'; readonly request: RequestData }
  | { readonly type: 'cancel'; readonly requestId: number }
  | { readonly type: 'finish'; readonly requestId: number; readonly index: number };

/** A step that is being computed while the next one is planned: nobody looks at its logits. */
interface StepUnderWay {
  readonly plan: StepPlan;
  readonly samples: Promise<Samples>;
  /** Milliseconds since the epoch, and of the process's clock. */
  readonly time: number;
  readonly start: number;
}

export class Engine {
  readonly scheduler: Scheduler;
  readonly #session: Session;
  /** They take turns: a batch is read while the next one is built. */
  readonly #builders: readonly [BatchBuilder, BatchBuilder];
  readonly #emit: (updates: readonly Update[]) => void;
  readonly #helpers: EngineHelpers;
  readonly #deadlines = new PriorityQueue<{ readonly at: number; readonly requestId: number }>((a, b) => a.at - b.at);
  readonly #inbox: EngineEvent[] = [];
  readonly #intake: Intake;
  readonly #log: IterationLog;
  readonly #profiler: Profiler;
  readonly #overlap: boolean;
  #underWay: StepUnderWay | undefined;
  /** When the last step ended, by the process's clock. */
  #ended = 0;
  #iter = 0;
  #numBatches = 0;
  #newest: NewestStep | undefined;
  #wake: (() => void) | undefined;
  #stopped = false;

  constructor(
    session: Session,
    options: EngineOptions,
    emit: (updates: readonly Update[]) => void,
    helpers: EngineHelpers = {},
  ) {
    this.#helpers = helpers;
    this.#session = session;
    this.#emit = emit;
    this.#log = new IterationLog(session.limits, options.iterStatsMaxIterations ?? 1000);
    this.#profiler = new Profiler(session.numLaunches);
    this.#builders = [new BatchBuilder(session.limits), new BatchBuilder(session.limits)];
    this.#overlap = options.disableOverlapScheduler !== true;
    this.scheduler = new Scheduler(
      session.limits,
      {
        ...options.schedulerConfig,
        speculativeConfig: options.speculativeConfig,
        disableJumpAhead: options.disableJumpAhead,
      },
      options.kvCacheConfig,
    );
    this.#intake = new Intake(this.scheduler, this.#log);
  }

  /** Takes in an event; the loop sees it before its next step. */
  post(event: EngineEvent): void {
    this.#inbox.push(event);
    this.#wake?.();
  }

  /** Runs until `stop`. A session that fails ends all open requests, then the loop throws ExecutorError. */
  async run(): Promise<void> {
    while (!this.#stopped) {
      if (!(await this.step())) await this.#event();
      else await nextTurn(); // Lets messages in: a session may never leave the microtask queue.
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#wake?.();
  }

  /** Plans and starts a step, and takes in what the one before it gave: their work overlaps. False when there was nothing to do. */
  async step(): Promise<boolean> {
    const updates = this.#takeEvents();
    const time = Date.now();
    this.#endOverdue(time, updates);
    const plan = this.scheduler.schedule(time);
    const before = this.#underWay;
    this.#underWay = undefined;
    const idle = plan.entries.length === 0;
    if (idle) this.#profiler.idle();
    else this.#newest = { iter: this.#iter + (before === undefined ? 0 : 1), plan };
    const times = idle ? undefined : this.#profiler.times();
    try {
      const start = performance.now();
      const batch = idle ? undefined : this.#builders[this.#numBatches++ & 1]!.build(plan);
      for (const copies of plan.copies ?? []) await this.#session.copyBlocks(copies);
      if (batch !== undefined && times === undefined && this.#mayOverlap(plan)) {
        const samples = this.#session.step(batch);
        samples.catch(() => {}); // It is awaited after the step before, which may fail first.
        if (before !== undefined) updates.push(...(await this.#takeUnderWay(before)));
        for (const { samples: sequences, firstSampleRow } of plan.entries)
          sequences.forEach((sequence, i) => {
            if (sequence.status !== 'finished') sequence.expect(firstSampleRow + i);
          });
        this.#underWay = { plan, samples, time, start };
      } else {
        const forward = batch === undefined ? undefined : this.#session.forward(batch, times);
        forward?.catch(() => {});
        if (before !== undefined) updates.push(...(await this.#takeUnderWay(before)));
        if (forward !== undefined) {
          updates.push(...(await this.#finish(plan, forward, times)));
          const latency = this.#record(plan, time, start);
          if (times !== undefined) this.#profiler.add(plan, times, latency);
        }
      }
    } catch (error) {
      this.#fail(error);
    }
    if (updates.length > 0) this.#emit(updates);
    return !idle || before !== undefined;
  }

  /** What happened to the cache's blocks since the last call. */
  kvCacheEvents(): KvCacheEvent[] {
    return this.scheduler.blocks.takeEvents();
  }

  statistics(): ExecutorStatistics {
    const { blocks, requests, running, numWaiting, numPreemptions } = this.scheduler;
    return {
      iterations: this.#log.read(),
      specDecodingStats: this.#log.specDecodingStats(),
      jumpAheadStats: this.#log.jumpAheadStats(),
      requests: [...requests.values()].map(requestStats),
      kvCacheStats: blocks.stats(),
      numActiveRequests: running.length,
      numQueuedRequests: numWaiting,
      numCompletedRequests: this.#intake.numCompleted,
      numPreemptions,
      numIterations: this.#iter,
      cpuMemUsage: process.memoryUsage.rss(),
    };
  }

  /** The engine as it is now, and the steps after the one of number `since`. */
  snapshot(since: number): EngineSnapshot {
    return takeSnapshot(this.scheduler, this.#newest, this.#log, since);
  }

  /** Times the launches of the next `numSteps` steps; fewer when there is nothing more to compute after some. */
  profile(numSteps: number): Promise<Profile> {
    return new Promise((resolve) => this.#profiler.begin(numSteps, resolve));
  }

  #mayOverlap(plan: StepPlan): boolean {
    return this.#overlap && this.#session.overlaps && isForeseeable(plan);
  }

  /** Waits for a step that was started ahead. */
  async #takeUnderWay({ plan, samples, time, start }: StepUnderWay): Promise<Update[]> {
    const updates = this.#intake.take(plan, await samples, HostLogits.unseen(this.#session.limits.vocabSize));
    this.#record(plan, time, start);
    return updates;
  }

  /** The rest of a step at whose logits the host looks. */
  async #finish(plan: StepPlan, forward: Promise<void>, times: StepTimes | undefined): Promise<Update[]> {
    const failures = await this.#meanwhile(forward, plan);
    // A step of chunks that complete no prompt has no logits.
    if (plan.numLogits === 0) return [];
    const host = await HostLogits.exchange(plan, this.#session, { ask: this.#helpers.ask, failures });
    return this.#intake.take(plan, await this.#session.sample(times), host);
  }

  /** What the host does while the device computes. */
  async #meanwhile(forward: Promise<void>, plan: StepPlan): Promise<ReadonlyMap<Request, unknown>> {
    const guides = prepareGuides(plan, this.#helpers.guides);
    await forward;
    return await guides;
  }

  #takeEvents(): Update[] {
    if (this.#inbox.length === 0) return [];
    return this.#inbox.splice(0).flatMap((event) => {
      if (event.type === 'enqueue') {
        const { requestId, arrivalTime, allottedTimeMs } = this.scheduler.add(event.request).data;
        if (allottedTimeMs !== undefined) this.#deadlines.push({ at: arrivalTime + allottedTimeMs, requestId });
        return [];
      }
      const request = this.scheduler.requests.get(event.requestId);
      if (request === undefined) return [];
      if (event.type === 'cancel') return this.#intake.end(request, request.sequences, 'cancelled');
      return this.#intake.end(request, [request.sequences[event.index]!], 'stop');
    });
  }

  /** Ends requests that have taken longer than they may. */
  #endOverdue(time: number, updates: Update[]): void {
    for (let top = this.#deadlines.peek(); top !== undefined && top.at <= time; top = this.#deadlines.peek()) {
      this.#deadlines.pop();
      const request = this.scheduler.requests.get(top.requestId);
      if (request !== undefined) updates.push(...this.#intake.end(request, request.sequences, 'timeout'));
    }
  }

  /** The session failed: nothing that is open can go on. */
  #fail(cause: unknown): never {
    this.#stopped = true;
    this.#intake.dropAll();
    throw new ExecutorError(`the engine failed: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }

  #record(plan: StepPlan, time: number, start: number): number {
    for (const { request } of plan.admitted) request.firstScheduledTime ??= time;
    // What a step waited for the one before it is not its own time.
    const latency = performance.now() - Math.max(start, this.#ended);
    this.#ended = performance.now();
    this.scheduler.timed(plan, latency);
    this.#log.add(plan, this.scheduler, { iter: this.#iter++, time, latency });
    this.#intake.iter = this.#iter;
    return latency;
  }

  /** Resolves with the next event. */
  async #event(): Promise<void> {
    if (this.#inbox.length > 0 || this.#stopped) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    this.#wake = undefined;
  }
}
