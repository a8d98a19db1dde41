// What one step computes, as the scheduler decided it.
import type { BlockCopies } from '../../targets/target.ts';
import type { SessionLimits } from '../session/batch.ts';
import type { Sequence } from './request.ts';

/** One sequence's part of a step: tokens [start, start + count) of it. */
export interface ScheduledSequence {
  readonly sequence: Sequence;
  readonly start: number;
  readonly count: number;
  /** Several tokens, or a part of them: the prompt, or what a preempted sequence computes again. */
  readonly context: boolean;
  /** The sequences that get a token after this step: none (the context goes on), the sequence itself, and those that begin here by sharing its prompt. */
  readonly samples: readonly Sequence[];
  /** The last so many tokens are proposals: each of them, and the token before them, gets a row and a sample of the one sequence. */
  readonly numDrafts: number;
  /** Prompt positions whose logits are wanted: [promptFrom, promptTo). */
  readonly promptFrom: number;
  readonly promptTo: number;
  /** First row of logits that belongs to this entry: the prompt's rows come first. */
  readonly firstRow: number;
  /** Row of `samples[0]`; those of the others follow. It is the prompt's last row when that is wanted too. */
  readonly firstSampleRow: number;
}

export interface StepPlan {
  readonly entries: readonly ScheduledSequence[];
  /** To be made before the step, in order. */
  readonly copies: readonly BlockCopies[] | undefined;
  readonly numTokens: number;
  readonly numLogits: number;
  /** Sequences that joined in this step, and those that gave their blocks back and wait again. */
  readonly admitted: readonly Sequence[];
  readonly preempted: readonly Sequence[];
}

/** Whether the step after this one can be planned before this one's tokens are known. */
export function isForeseeable({ entries }: StepPlan): boolean {
  return entries.every(({ samples, promptFrom, promptTo }) => {
    if (promptTo > promptFrom) return false;
    for (let i = 0; i < samples.length; i++) if (!samples[i]!.foreseeable) return false;
    return true;
  });
}

/** The entries of the request whose first beam's entry is number `first`. */
export function beamsOf({ entries }: StepPlan, first: number): readonly ScheduledSequence[] {
  const { request } = entries[first]!.sequence;
  let end = first + 1;
  while (entries[end]?.sequence.request === request) end++;
  return entries.slice(first, end);
}

export type GenerationEntry = { -readonly [Key in keyof ScheduledSequence]: ScheduledSequence[Key] };

function newEntry(sequence: Sequence): GenerationEntry {
  const { alone } = sequence;
  const prompt = { promptFrom: 0, promptTo: 0, firstRow: 0, firstSampleRow: 0 };
  return { sequence, start: 0, count: 1, context: false, samples: alone, numDrafts: 0, ...prompt };
}

/** A plan in the making: what is left of the step's limits. */
export class PlanBuilder {
  readonly entries: ScheduledSequence[] = [];
  readonly admitted: Sequence[] = [];
  readonly preempted: Sequence[] = [];
  readonly #stamp: number;
  readonly #limits: SessionLimits;
  #numTokens = 0;
  #numLogits = 0;

  /** `stamp`: number of the plan. */
  constructor(limits: SessionLimits, stamp: number) {
    this.#limits = limits;
    this.#stamp = stamp;
  }

  get tokensLeft(): number {
    return this.#limits.maxNumTokens - this.#numTokens;
  }

  get logitsLeft(): number {
    return this.#limits.maxNumLogits - this.#numLogits;
  }

  holds(sequence: Sequence): boolean {
    return sequence.planned === this.#stamp;
  }

  /** Rows of logits that the next `count` tokens of a sequence take, for `numSamples` samples when they complete it. */
  rowsFor(sequence: Sequence, count: number, numSamples: number): number {
    const { from, to } = this.#promptRange(sequence, count);
    const completes = count === sequence.numRemaining;
    const sharesRow = completes && to > from && to === sequence.numTokens;
    return to - from + (completes ? numSamples : 0) - (sharesRow ? 1 : 0);
  }

  /** Plans the next `count` tokens of a sequence. Call before its table grows. */
  add(sequence: Sequence, count: number, joining: readonly Sequence[]): void {
    const { from, to } = this.#promptRange(sequence, count);
    const samples = count === sequence.numRemaining ? [sequence, ...joining] : [];
    const rows = this.rowsFor(sequence, count, samples.length);
    this.entries.push({
      sequence,
      start: sequence.numCached,
      count,
      context: count > 1 || sequence.numCached < sequence.promptLength,
      samples,
      numDrafts: 0,
      promptFrom: from,
      promptTo: to,
      firstRow: this.#numLogits,
      firstSampleRow: this.#numLogits + rows - samples.length,
    });
    sequence.planned = this.#stamp;
    sequence.numPromptLogits = Math.max(sequence.numPromptLogits, to);
    this.#numTokens += count;
    this.#numLogits += rows;
  }

  /** Plans the next token of a sequence in its generation phase, whose table has grown, and the proposals after it. */
  addGeneration(sequence: Sequence, start: number, numDrafts: number): void {
    const count = 1 + numDrafts;
    const firstRow = this.#numLogits;
    // Two entries a sequence take turns, so that a plan holds until the one after the next is made, and nothing is made anew in most steps.
    const entry = (sequence.turns[this.#stamp & 1] ??= newEntry(sequence));
    entry.start = start;
    entry.count = count;
    entry.numDrafts = numDrafts;
    entry.firstRow = firstRow;
    entry.firstSampleRow = firstRow;
    this.entries.push(entry);
    sequence.planned = this.#stamp;
    this.#numTokens += count;
    this.#numLogits += count;
  }

  build(copies: readonly BlockCopies[] | undefined): StepPlan {
    const { entries, admitted, preempted } = this;
    return { entries, copies, numTokens: this.#numTokens, numLogits: this.#numLogits, admitted, preempted };
  }

  #promptRange(sequence: Sequence, count: number): { from: number; to: number } {
    if (sequence.index !== 0 || !sequence.request.wantsPromptLogits) return { from: 0, to: 0 };
    const from = Math.max(sequence.numCached, sequence.numPromptLogits);
    return { from, to: Math.max(from, Math.min(sequence.numCached + count, sequence.promptLength)) };
  }
}
