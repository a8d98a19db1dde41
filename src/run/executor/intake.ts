// From what steps computed to what requests get: tokens taken in, sequences ended, responses made. The engine loop hands in results; nothing here waits.
import type { FinishReason, Stop } from '../decode/stop.ts';
import type { Samples } from '../session/batch.ts';
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
import type { HostLogits } from './host-logits.ts';
import type { Response, SequenceDelta } from './outputs.ts';
import { beamsOf, type ScheduledSequence, type StepPlan } from './plan.ts';
import type { Request, Sequence } from './request.ts';
import type { Scheduler } from './scheduler.ts';
import type { IterationLog } from './statistics.ts';

export class Intake {
  /** Number of the step whose results are taken in. */
  iter = 0;
  numCompleted = 0;
  readonly #scheduler: Scheduler;
  readonly #log: IterationLog;
  readonly #prompts = new Map<Request, PromptGathering>();

  constructor(scheduler: Scheduler, log: IterationLog) {
    this.#scheduler = scheduler;
    this.#log = log;
  }

  /** Takes in a step's tokens; what its requests get. */
  take(plan: StepPlan, { tokens, logprobs }: Samples, host: HostLogits): Update[] {
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

  /** Ends sequences from outside. */
  end(request: Request, sequences: readonly Sequence[], finishReason: FinishReason): Update[] {
    if (request.beams !== undefined) {
      for (const sequence of request.sequences) this.#scheduler.finish(sequence);
      return asUpdates(this.#respond(request, finalDeltas(request, request.beams, finishReason)));
    }
    const stop: Stop = { finishReason, stopReason: undefined, numDropped: 0 };
    const open = sequences.filter(({ status }) => status !== 'finished');
    for (const sequence of open) this.#scheduler.finish(sequence);
    const deltas = open.map((sequence) => finalDelta(sequence, stop));
    return asUpdates(this.#respond(request, deltas));
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
        // Ended when the step had been started: by its token before, or from outside.
        if (samples[i]!.status === 'finished') continue;
        const part = i === 0 ? entry : { ...entry, sequence: samples[i]!, firstSampleRow: entry.firstSampleRow + i };
        const delta = this.#takeIn(part, tokens, logprobs, host);
        if (delta !== undefined) outputs.push(delta);
      }
      if (outputs.length === 0 && prompt === undefined) return;
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
    request.firstIter ??= this.iter;
    if (taken.stop !== undefined) this.#scheduler.finish(sequence);
    return taken.delta;
  }

  /** Proposals were checked: what the wrong ones left in the cache is forgotten. */
  #learn({ sequence, numDrafts }: ScheduledSequence, numAccepted: number): void {
    this.#scheduler.blocks.truncate(sequence.table, sequence.numTokens - 1);
    const drafter = sequence.drafter!;
    drafter.learn(numDrafts, numAccepted);
    this.#log.drafted(drafter.kind, numDrafts, numAccepted);
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
      request.firstIter ??= this.iter;
      const next = advanceBeams(beams, entries, host);
      if (!beams.done) {
        this.#scheduler.regroup(
          request,
          next.map(({ from, node }) => ({ from, token: node.token })),
        );
        return asUpdates(this.#respond(request, commonDelta(request, beams), prompt));
      }
      for (const sequence of request.sequences) this.#scheduler.finish(sequence);
      return asUpdates(this.#respond(request, finalDeltas(request, beams), prompt));
    } catch (error) {
      return this.#abandon(request, error);
    }
  }

  /** A request that cannot go on. */
  #abandon(request: Request, error: unknown): Update[] {
    for (const sequence of request.sequences) this.#scheduler.finish(sequence);
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
      ...(params.returnPerfMetrics ? { perfMetrics: perfMetrics(request, this.iter, Date.now()) } : {}),
    };
  }

  #gathering(request: Request): PromptGathering {
    const gathering = this.#prompts.get(request) ?? { logits: [], logprobs: [] };
    if (request.wantsPromptLogits) this.#prompts.set(request, gathering);
    return gathering;
  }

  /** Ends everything that is open, without a word. */
  dropAll(): void {
    for (const request of [...this.#scheduler.requests.values()]) {
      for (const sequence of request.sequences) this.#scheduler.finish(sequence);
      this.#close(request);
    }
  }

  #close(request: Request): void {
    this.#prompts.delete(request);
    for (const { guide } of request.sequences) guide?.[Symbol.dispose]();
    this.numCompleted++;
    this.#log.completed();
  }
}

function asUpdates(response: Response | undefined): Update[] {
  return response === undefined ? [] : [{ response }];
}
