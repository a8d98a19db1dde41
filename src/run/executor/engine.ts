// The engine loop: schedule → forward → look at the logits if someone wants to → sample → give out. It knows sessions and requests, but no threads and no promises of users.
import { setImmediate as nextTurn } from 'node:timers/promises';
import { ExecutorError } from '../../base/errors.ts';
import type { FinishReason, Stop } from '../decode/stop.ts';
import type { Session } from '../session/batch.ts';
import { BatchBuilder } from './batch-builder.ts';
import {
  acceptToken,
  finalDelta,
  gatherPrompt,
  type PromptGathering,
  pendingToken,
  perfMetrics,
  type Update,
} from './emission.ts';
import { HostLogits } from './host-logits.ts';
import type { Response, SequenceDelta } from './outputs.ts';
import type { ScheduledSequence, StepPlan } from './plan.ts';
import type { Request, RequestData, Sequence } from './request.ts';
import { Scheduler, type SchedulerConfig } from './scheduler.ts';
import { type ExecutorStatistics, type IterationStats, iterationStats, requestStats } from './statistics.ts';

export interface EngineOptions {
  readonly schedulerConfig?: SchedulerConfig;
  /** Steps whose statistics are kept; default 1000. */
  readonly iterStatsMaxIterations?: number;
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
  readonly #inbox: EngineEvent[] = [];
  readonly #prompts = new Map<Request, PromptGathering>();
  readonly #iterations: IterationStats[] = [];
  readonly #maxIterations: number;
  #iter = 0;
  #numCompleted = 0;
  #wake: (() => void) | undefined;
  #stopped = false;

  constructor(session: Session, options: EngineOptions, emit: (updates: readonly Update[]) => void) {
    this.#session = session;
    this.#emit = emit;
    this.#maxIterations = options.iterStatsMaxIterations ?? 1000;
    this.#builder = new BatchBuilder(session.limits);
    this.scheduler = new Scheduler(session.limits, options.schedulerConfig);
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
    const plan = this.scheduler.schedule();
    if (plan.entries.length > 0) {
      const start = performance.now();
      try {
        updates.push(...(await this.#compute(plan)));
      } catch (error) {
        this.#fail(error);
      }
      this.#record(plan, { time, latency: performance.now() - start });
    }
    if (updates.length > 0) this.#emit(updates);
    return plan.entries.length > 0;
  }

  statistics(): ExecutorStatistics {
    const { blocks, requests, running, numWaiting, numPreemptions } = this.scheduler;
    return {
      iterations: [...this.#iterations],
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

  async #compute(plan: StepPlan): Promise<Update[]> {
    if (plan.copies !== undefined) await this.#session.copyBlocks(plan.copies.from, plan.copies.to);
    await this.#session.forward(this.#builder.build(plan));
    // A step of chunks that complete no prompt has no logits.
    if (plan.numLogits === 0) return [];
    const host = await HostLogits.exchange(plan, this.#session);
    const { tokens, logprobs } = await this.#session.sample();
    return plan.entries.flatMap((entry) => this.#update(entry, tokens, logprobs, host));
  }

  /** Takes in what a step computed for one entry. What goes wrong here is that request's own. */
  #update(entry: ScheduledSequence, tokens: Int32Array, logprobs: Float32Array, host: HostLogits): Update[] {
    const { request } = entry.sequence;
    try {
      if (host.failures.has(request)) throw host.failures.get(request);
      const prompt = gatherPrompt(entry, host, this.#gathering(request));
      const deltas = entry.samples.flatMap((sequence, i) => {
        const row = entry.firstSampleRow + i;
        const pending = pendingToken(sequence, tokens[row]!, logprobs[row]!, row, host);
        this.scheduler.append(sequence, pending.token);
        sequence.numIterations++;
        request.firstTokenTime ??= Date.now();
        request.firstIter ??= this.#iter;
        const { delta, stop } = acceptToken(sequence, pending);
        if (stop !== undefined) this.scheduler.finish(sequence);
        return delta === undefined ? [] : [delta];
      });
      return this.#respond(request, deltas, prompt);
    } catch (error) {
      for (const sequence of request.sequences) this.scheduler.finish(sequence);
      this.#close(request);
      return [{ requestId: request.data.requestId, error }];
    }
  }

  #respond(
    request: Request,
    outputs: readonly SequenceDelta[],
    prompt?: Pick<Response, 'contextLogits' | 'promptLogprobs'>,
  ): Update[] {
    const { finished } = request;
    if (outputs.length === 0 && prompt === undefined && !finished) return [];
    const { requestId, params } = request.data;
    const metrics = finished && params.returnPerfMetrics;
    if (finished) this.#close(request);
    const response: Response = {
      requestId,
      outputs,
      finished,
      ...prompt,
      ...(metrics ? { perfMetrics: perfMetrics(request, this.#iter, Date.now()) } : {}),
    };
    return [{ response }];
  }

  #takeEvents(): Update[] {
    return this.#inbox.splice(0).flatMap((event) => {
      if (event.type === 'enqueue') {
        this.scheduler.add(event.request);
        return [];
      }
      const request = this.scheduler.requests.get(event.requestId);
      if (request === undefined) return [];
      if (event.type === 'cancel') return this.#end(request, request.sequences, 'cancelled');
      return this.#end(request, [request.sequences[event.index]!], 'stop');
    });
  }

  /** Ends sequences from outside. */
  #end(request: Request, sequences: readonly Sequence[], finishReason: FinishReason): Update[] {
    const stop: Stop = { finishReason, stopReason: undefined, numDropped: 0 };
    const open = sequences.filter(({ status }) => status !== 'finished');
    for (const sequence of open) this.scheduler.finish(sequence);
    return this.#respond(
      request,
      open.map((sequence) => finalDelta(sequence, stop)),
    );
  }

  #gathering(request: Request): PromptGathering {
    const gathering = this.#prompts.get(request) ?? { logits: [], logprobs: [] };
    if (request.wantsPromptLogits) this.#prompts.set(request, gathering);
    return gathering;
  }

  #close(request: Request): void {
    this.#prompts.delete(request);
    this.#numCompleted++;
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

  #record(plan: StepPlan, { time, latency }: { time: number; latency: number }): void {
    for (const { request } of plan.admitted) request.firstScheduledTime ??= time;
    const samples = plan.entries.flatMap((entry) => entry.samples);
    const numCompleted = samples.filter(({ status }) => status === 'finished').length;
    const step = { iter: this.#iter++, time, latency, numCompleted };
    this.#iterations.push(iterationStats(plan, this.scheduler, this.#session.limits, step));
    if (this.#iterations.length > this.#maxIterations) this.#iterations.shift();
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
