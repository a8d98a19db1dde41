// Which sequences take part in the next step. A deterministic state machine: events come in (`add`, `append`, `finish`), `schedule` puts out the next step's plan.
// No clock, no randomness, no device: the same events give the same plans, so it can be simulated. The tokens of a plan may arrive after the next plan is asked for.
import { BlockManager } from '../kv/block-manager.ts';
import type { SessionLimits } from '../session/batch.ts';
import { PlanBuilder, type StepPlan } from './plan.ts';
import { PriorityQueue } from './queue.ts';
import { compareRank, Request, type RequestData, type Sequence } from './request.ts';

/**
 * When a waiting sequence may join (TensorRT-LLM's capacity scheduler policies):
 * 'guaranteed_no_evict': when the KV cache holds it and all that run up to their greatest lengths; nothing is ever preempted.
 * 'max_utilization': when the KV cache holds what it has now; when blocks run out later, the lowest in rank gives its blocks back and computes them again.
 * 'static_batch': as guaranteed_no_evict, and only when nothing runs.
 */
export type CapacitySchedulerPolicy = 'guaranteed_no_evict' | 'max_utilization' | 'static_batch';

/** How requests are scheduled. */
export interface SchedulerConfig {
  /** Default 'guaranteed_no_evict'. */
  readonly capacitySchedulerPolicy?: CapacitySchedulerPolicy;
  /** Prompt tokens of one sequence in one step at most; default: as many as fit maxNumTokens. */
  readonly contextChunkSize?: number;
}

export class Scheduler {
  readonly blocks: BlockManager;
  readonly requests = new Map<number, Request>();
  /** Sequences that hold blocks, in rank order. */
  readonly running: Sequence[] = [];
  numWaiting = 0;
  numPreemptions = 0;
  readonly #waiting = new PriorityQueue<Sequence>(compareRank);
  readonly #limits: SessionLimits;
  readonly #policy: CapacitySchedulerPolicy;
  readonly #chunk: number;
  readonly #maxRunning: number;
  #order = 0;

  constructor(limits: SessionLimits, config: SchedulerConfig = {}) {
    this.#limits = limits;
    this.#policy = config.capacitySchedulerPolicy ?? 'guaranteed_no_evict';
    this.#chunk = config.contextChunkSize ?? limits.maxNumTokens;
    // So that every running sequence can have its one token and its one row of logits in every step.
    this.#maxRunning = Math.min(limits.maxBatchSize, limits.maxNumTokens, limits.maxNumLogits);
    this.blocks = new BlockManager(limits);
  }

  get maxRunning(): number {
    return this.#maxRunning;
  }

  /** A request arrives; `checkRequest` has seen it. */
  add(data: RequestData): Request {
    const request = new Request(data, this.#order++);
    this.requests.set(data.requestId, request);
    this.#wait(request.sequences[0]!);
    return request;
  }

  /** A token was sampled. */
  append(sequence: Sequence, token: number): void {
    sequence.append(token);
  }

  /** A sequence ends, whatever it is doing. */
  finish(sequence: Sequence): void {
    if (sequence.status === 'finished') return;
    if (sequence.status === 'running') this.#leave(sequence);
    const waited = sequence.status === 'waiting';
    sequence.status = 'finished';
    if (waited) this.#stopWaiting();
    const { request } = sequence;
    // Nobody computes the shared prompt any more: the others do it themselves.
    if (sequence.index === 0) this.#letGo(request);
    if (request.finished) this.requests.delete(request.data.requestId);
  }

  /** Plans the next step; no entries when nothing can run. */
  schedule(): StepPlan {
    const plan = new PlanBuilder(this.#limits);
    this.#continueGeneration(plan);
    this.#continueContext(plan);
    // Who was just preempted must not come back before the step that it made room for.
    if (plan.preempted.length === 0 && this.#mayJoin()) this.#admit(plan);
    for (const sequence of plan.preempted) this.#wait(sequence);
    return plan.build(this.blocks.takeCopies());
  }

  /** A static batch is closed once its first token is there. */
  #mayJoin(): boolean {
    return this.#policy !== 'static_batch' || this.running.every(({ numGenerated }) => numGenerated === 0);
  }

  #continueGeneration(plan: PlanBuilder): void {
    for (const sequence of [...this.running]) {
      if (sequence.status !== 'running' || sequence.numRemaining !== 1) continue;
      const length = sequence.numCached + 1;
      while (sequence.status === 'running' && this.blocks.needed(sequence.table, length) > this.blocks.freeNumBlocks)
        this.#preemptLowest(plan);
      if (sequence.status === 'running') this.#advance(plan, sequence, 1);
    }
  }

  #continueContext(plan: PlanBuilder): void {
    for (const sequence of [...this.running]) {
      if (sequence.status !== 'running' || sequence.numRemaining <= 1 || plan.holds(sequence)) continue;
      // The first in rank always goes on, whatever it costs the others; the rest take what is there.
      while (plan.entries.length === 0 && this.blocks.room(sequence.table) === 0) {
        if (!this.#preemptLowest(plan, sequence)) break;
      }
      this.#context(plan, sequence);
    }
  }

  /** Plans as much of a sequence's context as tokens, logits and blocks allow. */
  #context(plan: PlanBuilder, sequence: Sequence): void {
    const room = this.blocks.room(sequence.table);
    let count = Math.min(sequence.numRemaining, plan.tokensLeft, this.#chunk, room);
    while (count > 0 && plan.rowsFor(sequence, count, 1) > plan.logitsLeft) count--;
    if (count > 0) this.#advance(plan, sequence, count);
  }

  #advance(plan: PlanBuilder, sequence: Sequence, count: number): void {
    const { request } = sequence;
    const completesPrompt = sequence.index === 0 && !request.promptDone && count === sequence.numRemaining;
    const joining: Sequence[] = [];
    const length = sequence.numCached + count;
    if (completesPrompt) {
      const held = request.sequences.filter(({ status }) => status === 'held');
      while (joining.length < held.length && this.#canFork(plan, sequence, count, joining.length + 1))
        joining.push(held[joining.length]!);
    }
    plan.add(sequence, count, joining);
    this.blocks.extend(sequence.table, length);
    for (const sibling of joining) {
      sibling.table = this.blocks.fork(sequence.table);
      this.#join(sibling);
    }
    if (completesPrompt) this.#letGo(request);
  }

  /** Whether `numForks` more sequences can go on from the prompt that the next `count` tokens of `sequence` complete. */
  #canFork(plan: PlanBuilder, sequence: Sequence, count: number, numForks: number): boolean {
    if (this.running.length + numForks > this.#maxRunning) return false;
    if (plan.rowsFor(sequence, count, 1 + numForks) > plan.logitsLeft) return false;
    const { blocks } = this;
    const length = sequence.numCached + count;
    const partial = length % blocks.tokensPerBlock === 0 ? 0 : 1;
    const free = blocks.freeNumBlocks - blocks.needed(sequence.table, length);
    if (this.#policy === 'max_utilization') return free >= numForks;
    const each = blocks.blocksFor(sequence.maxCached) - blocks.blocksFor(length) + partial;
    return free >= this.#reserved(sequence) + each * (numForks + 1);
  }

  /** Tokens in the cache that the policy grants a sequence before others may join: all it can ever have, or what it has and one more. */
  #claim(sequence: Sequence): number {
    if (this.#policy !== 'max_utilization') return sequence.maxCached;
    return Math.min(sequence.numTokens + 1, sequence.maxCached);
  }

  /** Blocks that the running sequences, `except` one, may still take. */
  #reserved(except?: Sequence): number {
    let sum = 0;
    for (const sequence of this.running) {
      if (sequence === except) continue;
      sum += this.blocks.needed(sequence.table, this.#claim(sequence));
    }
    return sum;
  }

  #admit(plan: PlanBuilder): void {
    let reserved: number | undefined;
    while (this.running.length < this.#maxRunning && plan.tokensLeft > 0 && plan.logitsLeft > 0) {
      const sequence = this.#nextWaiting();
      if (sequence === undefined) return;
      // Strictly in rank order: a large request at the head is never overtaken for ever.
      reserved ??= this.#reserved();
      if (this.blocks.freeNumBlocks - reserved < this.blocks.blocksFor(this.#claim(sequence))) return;
      this.#waiting.pop();
      this.numWaiting--;
      this.#join(sequence);
      plan.admitted.push(sequence);
      this.#context(plan, sequence);
      reserved = undefined;
    }
  }

  /** Gives back the blocks of the lowest in rank that the plan does not hold, `except` one; false when there is none. */
  #preemptLowest(plan: PlanBuilder, except?: Sequence): boolean {
    for (let i = this.running.length - 1; i >= 0; i--) {
      const sequence = this.running[i]!;
      // One whose token is still to come is part of a step already planned.
      if (sequence === except || plan.holds(sequence) || sequence.numRemaining === 0) continue;
      this.#leave(sequence);
      sequence.status = 'waiting';
      sequence.request.numPreemptions++;
      this.numPreemptions++;
      plan.preempted.push(sequence);
      return true;
    }
    return false;
  }

  /** Finished sequences leave the queue when they come to its head, or when they make up half of it. */
  #stopWaiting(): void {
    this.numWaiting--;
    if (this.#waiting.size > 64 && this.#waiting.size > 2 * this.numWaiting)
      this.#waiting.keep(({ status }) => status === 'waiting');
  }

  #nextWaiting(): Sequence | undefined {
    while (this.#waiting.peek()?.status === 'finished') this.#waiting.pop();
    return this.#waiting.peek();
  }

  #wait(sequence: Sequence): void {
    sequence.status = 'waiting';
    this.#waiting.push(sequence);
    this.numWaiting++;
  }

  /** The sequences still held wait on their own from now on. */
  #letGo(request: Request): void {
    request.promptDone = true;
    for (const sequence of request.sequences) if (sequence.status === 'held') this.#wait(sequence);
  }

  #join(sequence: Sequence): void {
    sequence.status = 'running';
    let at = this.running.length;
    while (at > 0 && compareRank(sequence, this.running[at - 1]!) < 0) at--;
    this.running.splice(at, 0, sequence);
  }

  #leave(sequence: Sequence): void {
    this.running.splice(this.running.indexOf(sequence), 1);
    this.blocks.free(sequence.table);
  }
}
