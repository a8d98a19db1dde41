// The engine loop: schedule → forward → look at the logits if someone wants to → sample → give out. It knows sessions and requests, but no threads and no promises of users.
import { setImmediate as nextTurn } from 'node:timers/promises';
import { ExecutorError } from '../../base/errors.ts';
import type { GuideMaker } from '../decode/guided.ts';
import type { NGramDecodingConfig } from '../decode/ngram.ts';
import type { FinishReason, Stop } from '../decode/stop.ts';
import type { KvCacheEvent } from '../kv/events.ts';
import { PriorityQueue } from '../kv/queue.ts';
import type { Session, StepTimes } from '../session/batch.ts';
import { BatchBuilder } from './batch-builder.ts';
import { advanceBeams, commonDelta, finalDeltas } from './beams.ts';
import {
  finalDelta,
  gatherPrompt,
  type PromptGathering,
  perfMetrics,
  takePlainTokens,
  takeTokens,
  type Update,
} from './emission.ts';
import { prepareGuides } from './guides.ts';
import { HostLogits } from './host-logits.ts';
import type { Response, SequenceDelta } from './outputs.ts';
import type { ScheduledSequence, StepPlan } from './plan.ts';
import { type Profile, Profiler } from './profile.ts';
import type { Request, RequestData, Sequence } from './request.ts';
import { type CacheConfig, Scheduler, type SchedulerConfig } from './scheduler.ts';
import { type EngineSnapshot, type NewestStep, takeSnapshot } from './snapshot.ts';
import { type ExecutorStatistics, IterationLog, requestStats } from './statistics.ts';
import type { AskProcessors } from './user-processors.ts';

export interface EngineOptions {
  readonly schedulerConfig?: SchedulerConfig;
  readonly kvCacheConfig?: CacheConfig;
  /** Tokens are proposed and checked several at a time; default: none are. */
  readonly speculativeConfig?: NGramDecodingConfig;
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

export class Engine {
  readonly scheduler: Scheduler;
  readonly #session: Session;
  readonly #builder: BatchBuilder;
  readonly #emit: (updates: readonly Update[]) => void;
  readonly #helpers: EngineHelpers;
  readonly #deadlines = new PriorityQueue<{ readonly at: number; readonly requestId: number }>((a, b) => a.at - b.at);
  readonly #inbox: EngineEvent[] = [];
  readonly #prompts = new Map<Request, PromptGathering>();
  readonly #log: IterationLog;
  readonly #profiler: Profiler;
  #iter = 0;
  #newest: NewestStep | undefined;
  #numCompleted = 0;
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
    this.#builder = new BatchBuilder(session.limits);
    this.scheduler = new Scheduler(
      session.limits,
      { ...options.schedulerConfig, ...speculation(options.speculativeConfig) },
      options.kvCacheConfig,
    );
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

  /** One step; false when there was nothing to do. */
  async step(): Promise<boolean> {
    const updates = this.#takeEvents();
    const time = Date.now();
    this.#endOverdue(time, updates);
    const plan = this.scheduler.schedule(time);
    if (plan.entries.length === 0) this.#profiler.idle();
    else {
      this.#newest = { iter: this.#iter, plan };
      const times = this.#profiler.times();
      const start = performance.now();
      try {
        updates.push(...(await this.#compute(plan, times)));
      } catch (error) {
        this.#fail(error);
      }
      const latency = performance.now() - start;
      this.#record(plan, time, latency);
      if (times !== undefined) this.#profiler.add(plan, times, latency);
    }
    if (updates.length > 0) this.#emit(updates);
    return plan.entries.length > 0;
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
      requests: [...requests.values()].map(requestStats),
      kvCacheStats: blocks.stats(),
      numActiveRequests: running.length,
      numQueuedRequests: numWaiting,
      numCompletedRequests: this.#numCompleted,
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

  async #compute(plan: StepPlan, times: StepTimes | undefined): Promise<Update[]> {
    for (const copies of plan.copies ?? []) await this.#session.copyBlocks(copies);
    const forward = this.#session.forward(this.#builder.build(plan), times);
    const failures = await this.#meanwhile(forward, plan);
    // A step of chunks that complete no prompt has no logits.
    if (plan.numLogits === 0) return [];
    const host = await HostLogits.exchange(plan, this.#session, { ask: this.#helpers.ask, failures });
    const { tokens, logprobs } = await this.#session.sample(times);
    const updates: Update[] = [];
    for (let i = 0; i < plan.entries.length; i++) {
      const entry = plan.entries[i]!;
      const { sequence } = entry;
      if (sequence.request.beams !== undefined) {
        if (sequence.index === 0) updates.push(...this.#updateBeams(beamsOf(plan, i), host));
      } else this.#update(entry, tokens, logprobs, host, updates);
    }
    return updates;
  }

  /** What the host does while the device computes. */
  async #meanwhile(forward: Promise<void>, plan: StepPlan): Promise<ReadonlyMap<Request, unknown>> {
    const guides = prepareGuides(plan, this.#helpers.guides);
    await forward;
    return await guides;
  }

  /** Takes in what a step computed for one entry. What goes wrong here is that request's own. */
  #update(
    entry: ScheduledSequence,
    tokens: Int32Array,
    logprobs: Float32Array,
    host: HostLogits,
    updates: Update[],
  ): void {
    const { sequence, samples, promptFrom, promptTo } = entry;
    const { request } = sequence;
    try {
      if (host.failures.size > 0 && host.failures.has(request)) throw host.failures.get(request);
      const prompt = promptTo > promptFrom ? gatherPrompt(entry, host, this.#gathering(request)) : undefined;
      if (samples.length === 0 && prompt === undefined) return;
      const outputs: SequenceDelta[] = [];
      for (let i = 0; i < samples.length; i++) {
        const part = i === 0 ? entry : { ...entry, sequence: samples[i]!, firstSampleRow: entry.firstSampleRow + i };
        const delta = this.#takeIn(part, tokens, logprobs, host);
        if (delta !== undefined) outputs.push(delta);
      }
      const response = this.#respond(request, outputs, prompt);
      if (response !== undefined) updates.push({ response });
    } catch (error) {
      updates.push(...this.#abandon(request, error));
    }
  }

  /** Takes in the tokens of one sequence. */
  #takeIn(entry: ScheduledSequence, tokens: Int32Array, logprobs: Float32Array, host: HostLogits) {
    const { sequence, numDrafts } = entry;
    const { request } = sequence;
    const taken = sequence.plain ? takePlainTokens(entry, tokens, logprobs) : takeTokens(entry, tokens, logprobs, host);
    if (numDrafts > 0) this.#learn(entry, taken.numTaken - 1);
    request.firstTokenTime ??= Date.now();
    request.firstIter ??= this.#iter;
    if (taken.stop !== undefined) this.scheduler.finish(sequence);
    return taken.delta;
  }

  /** Proposals were checked: what the wrong ones left in the cache is forgotten. */
  #learn({ sequence, numDrafts }: ScheduledSequence, numAccepted: number): void {
    this.scheduler.blocks.truncate(sequence.table, sequence.numTokens - 1);
    sequence.drafter!.learn(numAccepted);
    this.#log.drafted(numDrafts, numAccepted);
  }

  /** Takes in what a step computed for the beams of a request. */
  #updateBeams(entries: readonly ScheduledSequence[], host: HostLogits): Update[] {
    const { request } = entries[0]!.sequence;
    try {
      const beams = request.beams!;
      if (host.failures.has(request)) throw host.failures.get(request);
      const prompt = gatherPrompt(entries[0]!, host, this.#gathering(request));
      if (entries[0]!.samples.length === 0) return asUpdates(this.#respond(request, [], prompt));
      request.firstTokenTime ??= Date.now();
      request.firstIter ??= this.#iter;
      const next = advanceBeams(beams, entries, host);
      if (!beams.done) {
        this.scheduler.regroup(
          request,
          next.map(({ from, node }) => ({ from, token: node.token })),
        );
        return asUpdates(this.#respond(request, commonDelta(request, beams), prompt));
      }
      for (const sequence of request.sequences) this.scheduler.finish(sequence);
      return asUpdates(this.#respond(request, finalDeltas(request, beams), prompt));
    } catch (error) {
      return this.#abandon(request, error);
    }
  }

  /** A request that cannot go on. */
  #abandon(request: Request, error: unknown): Update[] {
    for (const sequence of request.sequences) this.scheduler.finish(sequence);
    this.#close(request);
    return [{ requestId: request.data.requestId, error }];
  }

  #respond(
    request: Request,
    outputs: readonly SequenceDelta[],
    prompt?: Pick<Response, 'contextLogits' | 'promptLogprobs'>,
  ): Response | undefined {
    const { requestId, params } = request.data;
    if (!request.finished) {
      if (prompt !== undefined) return { requestId, outputs, finished: false, ...prompt };
      return outputs.length === 0 ? undefined : { requestId, outputs, finished: false };
    }
    this.#close(request);
    return {
      requestId,
      outputs,
      finished: true,
      ...prompt,
      cachedTokens: request.cachedTokens,
      ...(params.returnPerfMetrics ? { perfMetrics: perfMetrics(request, this.#iter, Date.now()) } : {}),
    };
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
      if (event.type === 'cancel') return this.#end(request, request.sequences, 'cancelled');
      return this.#end(request, [request.sequences[event.index]!], 'stop');
    });
  }

  /** Ends requests that have taken longer than they may. */
  #endOverdue(time: number, updates: Update[]): void {
    for (let top = this.#deadlines.peek(); top !== undefined && top.at <= time; top = this.#deadlines.peek()) {
      this.#deadlines.pop();
      const request = this.scheduler.requests.get(top.requestId);
      if (request !== undefined) updates.push(...this.#end(request, request.sequences, 'timeout'));
    }
  }

  /** Ends sequences from outside. */
  #end(request: Request, sequences: readonly Sequence[], finishReason: FinishReason): Update[] {
    if (request.beams !== undefined) {
      for (const sequence of request.sequences) this.scheduler.finish(sequence);
      return asUpdates(this.#respond(request, finalDeltas(request, request.beams, finishReason)));
    }
    const stop: Stop = { finishReason, stopReason: undefined, numDropped: 0 };
    const open = sequences.filter(({ status }) => status !== 'finished');
    for (const sequence of open) this.scheduler.finish(sequence);
    const deltas = open.map((sequence) => finalDelta(sequence, stop));
    return asUpdates(this.#respond(request, deltas));
  }

  #gathering(request: Request): PromptGathering {
    const gathering = this.#prompts.get(request) ?? { logits: [], logprobs: [] };
    if (request.wantsPromptLogits) this.#prompts.set(request, gathering);
    return gathering;
  }

  #close(request: Request): void {
    this.#prompts.delete(request);
    for (const { guide } of request.sequences) guide?.[Symbol.dispose]();
    this.#numCompleted++;
    this.#log.completed();
  }

  /** The session failed: nothing that is open can go on. */
  #fail(cause: unknown): never {
    this.#stopped = true;
    for (const request of [...this.scheduler.requests.values()]) {
      for (const sequence of request.sequences) this.scheduler.finish(sequence);
      this.#close(request);
    }
    throw new ExecutorError(`the engine failed: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }

  #record(plan: StepPlan, time: number, latency: number): void {
    for (const { request } of plan.admitted) request.firstScheduledTime ??= time;
    this.#log.add(plan, this.scheduler, { iter: this.#iter++, time, latency });
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

/** The entries of the request whose first beam's entry is number `first`. */
function beamsOf({ entries }: StepPlan, first: number): readonly ScheduledSequence[] {
  const { request } = entries[first]!.sequence;
  let end = first + 1;
  while (entries[end]?.sequence.request === request) end++;
  return entries.slice(first, end);
}

function asUpdates(response: Response | undefined): Update[] {
  return response === undefined ? [] : [{ response }];
}

function speculation(speculativeConfig: NGramDecodingConfig | undefined) {
  return speculativeConfig === undefined ? {} : { speculativeConfig };
}
