// Which sequences take part in the next step. A deterministic state machine: events come in (`add`, `append`, `finish`), `schedule` puts out the next step's plan.
// No clock, no randomness, no device: the same events give the same plans, so it can be simulated. The tokens of a plan may arrive after the next plan is asked for.
import { type Drafter, DraftRecord, type NGramDecodingConfig, NGramDrafter } from '../decode/ngram.ts';
import { BlockManager, type BlockManagerOptions } from '../kv/block-manager.ts';
import { CacheLayout } from '../kv/layout.ts';
import { PriorityQueue } from '../kv/queue.ts';
import type { SessionLimits } from '../session/batch.ts';
import { beamsNeed, branch, isBeam, places } from './beam-group.ts';
import { Capacity, type CapacitySchedulerPolicy } from './capacity.ts';
import { type ContextChunkingPolicy, equalShare } from './chunking.ts';
import { JumpAhead } from './guides.ts';
import { PlanBuilder, type ScheduledSequence, type StepPlan } from './plan.ts';
import { compareRank, Request, type RequestData, type Sequence } from './request.ts';

/** How requests are scheduled. */
export interface SchedulerConfig {
  /** Default 'guaranteed_no_evict'. */
  readonly capacitySchedulerPolicy?: CapacitySchedulerPolicy;
  /** Prompt tokens of one sequence in one step at most; default: as many as fit maxNumTokens. */
  readonly contextChunkSize?: number;
  /** How prompts share the tokens of a step; default 'first_come_first_served'. */
  readonly contextChunkingPolicy?: ContextChunkingPolicy;
  /**
   * So many milliseconds of waiting count as much as the whole range of priorities: a request of priority 0 is served before those of priority 1 that arrive so much later, and never
   * starves. 0: in order of arrival. Infinity: by priority alone. Default 60 000.
   */
  readonly priorityAgingMs?: number;
}

/** What the engine passes on besides. */
export interface SchedulerOptions extends SchedulerConfig {
  readonly speculativeConfig?: NGramDecodingConfig | undefined;
  readonly disableJumpAhead?: boolean | undefined;
}

/** What the cache does besides holding blocks. */
export type CacheConfig = Omit<BlockManagerOptions, 'numBlocks' | 'tokensPerBlock' | 'numHostBlocks' | 'layout'>;

export class Scheduler {
  readonly blocks: BlockManager;
  readonly requests = new Map<number, Request>();
  /** Sequences that hold blocks, in rank order. */
  readonly running: Sequence[] = [];
  numWaiting = 0;
  numPreemptions = 0;
  readonly #waiting = new PriorityQueue<Sequence>(compareRank);
  readonly #limits: SessionLimits;
  readonly #layout: CacheLayout;
  readonly #speculative: NGramDecodingConfig | undefined;
  readonly #jumps: boolean;
  readonly #policy: CapacitySchedulerPolicy;
  readonly #capacity: Capacity;
  readonly #equal: boolean;
  readonly #chunk: number;
  readonly #maxRunning: number;
  readonly #agingMs: number | undefined;
  readonly #drafts = new DraftRecord();
  /** Sequences that run, and beams that will when their prompt is computed. */
  #numPlaces = 0;
  #order = 0;
  #numPlans = 0;
  /** What the last plan computes: known by content when the next one is made. */
  #computed: readonly ScheduledSequence[] = [];

  constructor(limits: SessionLimits, config: SchedulerOptions = {}, cache: CacheConfig = {}) {
    this.#limits = limits;
    this.#speculative = config.speculativeConfig;
    this.#agingMs = config.priorityAgingMs;
    this.#jumps = config.disableJumpAhead !== true;
    this.#policy = config.capacitySchedulerPolicy ?? 'guaranteed_no_evict';
    this.#chunk = config.contextChunkSize ?? limits.maxNumTokens;
    // So that every running sequence can have its one token and its one row of logits in every step.
    this.#maxRunning = Math.min(limits.maxBatchSize, limits.maxNumTokens, limits.maxNumLogits);
    const { numBlocks, numHostBlocks = 0, tokensPerBlock } = limits;
    this.#layout = new CacheLayout(limits, Math.min(this.#chunk, limits.maxNumTokens));
    this.#equal = config.contextChunkingPolicy === 'equal_progress';
    this.blocks = new BlockManager({ ...cache, layout: this.#layout, numBlocks, numHostBlocks, tokensPerBlock });
    this.#capacity = new Capacity(this.blocks, this.#policy, this.running);
  }

  get maxRunning(): number {
    return this.#maxRunning;
  }

  /** A request arrives; `checkRequest` has seen it. */
  add(data: RequestData): Request {
    const request = new Request(data, this.#order++, this.#layout, this.#agingMs);
    this.requests.set(data.requestId, request);
    if (request.mayDraft) for (const sequence of request.sequences) sequence.drafter = this.#drafterFor(sequence);
    this.#wait(request.sequences[0]!);
    return request;
  }

  #drafterFor(sequence: Sequence): Drafter | undefined {
    if (sequence.guided) return this.#jumps ? new JumpAhead(sequence) : undefined;
    return this.#speculative === undefined ? undefined : new NGramDrafter(this.#speculative, this.#drafts);
  }

  /** A token was sampled. */
  append(sequence: Sequence, token: number): void {
    sequence.append(token);
  }

  /** A plan's step took so long: what proposals cost is measured on steps that generate and nothing else. */
  timed({ entries, numTokens }: StepPlan, milliseconds: number): void {
    if (this.#speculative === undefined || entries.some(({ context }) => context)) return;
    this.#drafts.cost.observe(numTokens, milliseconds);
  }

  /** The beams of a request go on as these continuations: each shares the blocks of the one that it comes from. */
  regroup(request: Request, next: readonly { readonly from: number; readonly token: number }[]): void {
    request.promptDone = true;
    const { sequences } = request;
    for (const sequence of branch(this.blocks, sequences, next)) {
      if (sequence.index >= next.length) {
        if (sequence.status !== 'running') continue;
        this.#leave(sequence);
        sequence.status = 'held';
      } else if (sequence.status === 'held') this.#join(sequence);
    }
  }

  /** A sequence ends, whatever it is doing. */
  finish(sequence: Sequence): void {
    if (sequence.status === 'finished') return;
    sequence.forgo();
    if (sequence.status === 'running') this.#leave(sequence);
    const waited = sequence.status === 'waiting';
    sequence.status = 'finished';
    if (waited) this.#stopWaiting();
    const { request } = sequence;
    // Nobody computes the shared prompt any more: the others do it themselves.
    if (sequence.index === 0 && request.beams === undefined) this.#letGo(request);
    if (request.finished) this.requests.delete(request.data.requestId);
  }

  /** Plans the next step; no entries when nothing can run. `now`, milliseconds, is what durations of cached blocks are counted in. */
  schedule(now = 0): StepPlan {
    this.blocks.advance(now);
    this.#settle();
    const plan = new PlanBuilder(this.#limits, ++this.#numPlans);
    this.#continueGeneration(plan);
    this.#continueContext(plan);
    // Who was just preempted must not come back before the step that it made room for.
    if (plan.preempted.length === 0 && this.#mayJoin()) this.#admit(plan);
    for (const sequence of plan.preempted) this.#wait(sequence);
    this.#computed = plan.entries;
    return plan.build(this.blocks.takeCopies());
  }

  /** What the last plan computed becomes known by content, and what is out of a window is given back. */
  #settle(): void {
    const { blocks } = this;
    const slides = this.#layout.windowed.length > 0;
    for (let i = 0; i < this.#computed.length; i++) {
      const { sequence } = this.#computed[i]!;
      const { table } = sequence;
      if (!slides && table.numTokens < (table.numStored + 1) * blocks.tokensPerBlock) continue;
      if (sequence.status !== 'running') continue;
      blocks.commit(table, sequence, sequence.numTokens);
      if (slides) blocks.slide(table);
    }
  }

  /** A static batch is closed once its first token is there. */
  #mayJoin(): boolean {
    return this.#policy !== 'static_batch' || this.running.every(({ numGenerated }) => numGenerated === 0);
  }

  #continueGeneration(plan: PlanBuilder): void {
    const running = [...this.running];
    for (let i = 0; i < running.length; i++) {
      const sequence = running[i]!;
      const length = sequence.table.numTokens + 1;
      if (sequence.numTokens !== length || sequence.status !== 'running' || sequence.complete) continue;
      if (sequence.request.beams !== undefined) {
        if (sequence.index === 0) this.#continueBeams(plan, sequence.request);
        continue;
      }
      // Most sequences in most steps: no block is needed.
      if (sequence.request.promptDone && length > sequence.promptLength) {
        const numDrafts = sequence.drafter === undefined ? 0 : this.#draft(plan, sequence, running.length - 1 - i);
        if (numDrafts > 0) this.blocks.extend(sequence.table, length + numDrafts);
        if (numDrafts > 0 || this.blocks.extendInPlace(sequence.table)) {
          plan.addGeneration(sequence, length - 1, numDrafts);
          continue;
        }
      }
      while (sequence.status === 'running' && this.blocks.needed(sequence.table, length) > this.blocks.freeNumBlocks)
        this.#preemptLowest(plan);
      if (sequence.status === 'running') this.#advance(plan, sequence, 1);
    }
  }

  /** Puts proposals after a sequence's last token; how many. They take only what `numOthers` sequences that are still to be planned do not need. */
  #draft(plan: PlanBuilder, sequence: Sequence, numOthers: number): number {
    const { numTokens, numCached, maxCached, table } = sequence;
    const most = Math.min(plan.tokensLeft - numOthers - 1, plan.logitsLeft - numOthers - 1, maxCached - numCached - 1);
    const draft = most > 0 ? sequence.drafter!.propose(sequence, most, this.running.length) : undefined;
    if (draft === undefined) return 0;
    if (this.blocks.needed(table, numTokens + draft.length) > this.blocks.freeNumBlocks - numOthers) return 0;
    sequence.reserve(numTokens + draft.length);
    sequence.tokens.set(draft, numTokens);
    return draft.length;
  }

  /** All beams of a request in this step, or none. */
  #continueBeams(plan: PlanBuilder, { sequences }: Request): void {
    const beams = sequences.filter(({ status }) => status === 'running');
    const first = beams[0]!;
    while (first.status === 'running' && beamsNeed(this.blocks, beams) > this.blocks.freeNumBlocks)
      this.#preemptLowest(plan);
    if (first.status === 'running') for (const beam of beams) this.#advance(plan, beam, 1);
  }

  #continueContext(plan: PlanBuilder): void {
    const goOn = this.running.filter((sequence) => sequence.numRemaining > 1 && !plan.holds(sequence));
    const most = this.#share(plan, goOn);
    for (const sequence of goOn) {
      if (sequence.status !== 'running') continue;
      // The first in rank always goes on, whatever it costs the others; the rest take what is there.
      while (plan.entries.length === 0 && this.blocks.room(sequence.table) === 0) {
        if (!this.#preemptLowest(plan, sequence)) break;
      }
      this.#context(plan, sequence, most);
    }
  }

  /** Tokens of a context that each of these sequences, and each of those that may join, computes in this step at most. */
  #share(plan: PlanBuilder, sequences: readonly Sequence[]): number {
    if (!this.#equal) return this.#chunk;
    const numJoining = this.#mayJoin() ? Math.min(this.numWaiting, this.#maxRunning - this.#numPlaces) : 0;
    const demands = sequences.map(({ numRemaining }) => Math.min(numRemaining, this.#chunk));
    for (let i = 0; i < numJoining; i++) demands.push(this.#chunk);
    return Math.min(this.#chunk, equalShare(plan.tokensLeft, demands, this.#limits.tokensPerBlock));
  }

  /** Plans as much of a sequence's context as tokens, logits and blocks allow. */
  #context(plan: PlanBuilder, sequence: Sequence, most: number): void {
    const room = this.blocks.room(sequence.table);
    let count = Math.min(sequence.numRemaining, plan.tokensLeft, most, room);
    while (count > 0 && plan.rowsFor(sequence, count, 1) > plan.logitsLeft) count--;
    if (count > 0) this.#advance(plan, sequence, count);
  }

  #advance(plan: PlanBuilder, sequence: Sequence, count: number): void {
    const { request } = sequence;
    const completesPrompt =
      sequence.index === 0 && !request.promptDone && request.beams === undefined && count === sequence.numRemaining;
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
    if (this.#numPlaces + numForks > this.#maxRunning) return false;
    if (plan.rowsFor(sequence, count, 1 + numForks) > plan.logitsLeft) return false;
    return this.#capacity.mayFork(sequence, count, numForks);
  }

  #admit(plan: PlanBuilder): void {
    let reserved: number | undefined;
    while (this.#numPlaces < this.#maxRunning && plan.tokensLeft > 0 && plan.logitsLeft > 0) {
      const sequence = this.#nextWaiting();
      if (sequence === undefined || this.#numPlaces + places(sequence) > this.#maxRunning) return;
      // Strictly in rank order: a large request at the head is never overtaken for ever.
      reserved ??= this.#capacity.reserved();
      const match = this.#capacity.affordable(sequence, this.blocks.freeNumBlocks - reserved);
      if (match === undefined) return;
      this.#waiting.pop();
      this.numWaiting--;
      this.#join(sequence);
      this.blocks.attach(sequence.table, match, sequence, sequence.numReusable);
      const { request } = sequence;
      if (request.firstPlanned) request.cachedTokens = match.numTokens;
      request.firstPlanned = false;
      plan.admitted.push(sequence);
      this.#context(plan, sequence, this.#share(plan, [sequence]));
      // Who joins alone changes nothing about the others.
      reserved = request.sequences.length > 1 ? undefined : this.#capacity.reservedWith(reserved, sequence);
    }
  }

  /** Gives back the blocks of the lowest in rank that the plan does not hold, `except` one; false when there is none. */
  #preemptLowest(plan: PlanBuilder, except?: Sequence): boolean {
    for (let i = this.running.length - 1; i >= 0; i--) {
      const sequence = this.running[i]!;
      // One whose token is still to come is part of a step already planned.
      if (sequence === except || plan.holds(sequence) || sequence.numRemaining === 0) continue;
      if (isBeam(sequence)) this.#restartBeams(sequence.request);
      else this.#leave(sequence);
      const first = isBeam(sequence) ? sequence.request.sequences[0]! : sequence;
      first.status = 'waiting';
      sequence.request.numPreemptions++;
      this.numPreemptions++;
      plan.preempted.push(first);
      return true;
    }
    return false;
  }

  /** Beams that have to give way begin again at the prompt: what they had found they find again. */
  #restartBeams(request: Request): void {
    for (const sequence of request.sequences) {
      if (sequence.status === 'running') this.#leave(sequence);
      sequence.status = 'held';
      sequence.restart();
    }
    request.promptDone = false;
    request.beams!.reset();
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
    this.#numPlaces += places(sequence);
  }

  #leave(sequence: Sequence): void {
    this.running.splice(this.running.indexOf(sequence), 1);
    this.#numPlaces -= places(sequence);
    this.blocks.free(sequence.table, sequence);
  }
}
