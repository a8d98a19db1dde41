// Where a step's time goes: while somebody asks, steps are timed launch by launch. The order is the plan's, so that whoever has the plan knows which launch is which.
import type { Session, StepTimes } from '../session/batch.ts';
import type { StepPlan } from './plan.ts';

/** Sums over the timed steps of one kind. Times are milliseconds. */
export interface StepsProfile {
  readonly numSteps: number;
  readonly numTokens: number;
  /** Of the whole steps, as the host sees them: more than the launches where the host is waited for. */
  readonly totalMs: number;
  /** One entry a launch of the phase. */
  readonly forward: Float64Array;
  readonly sample: Float64Array;
}

/** What timing some steps has shown. */
export interface Profile {
  /** Steps of generation alone, and steps in which some sequence was in its context phase. */
  readonly generation: StepsProfile;
  readonly context: StepsProfile;
}

type Sums = { -readonly [Key in keyof StepsProfile]: StepsProfile[Key] };

interface Inquiry {
  left: number;
  readonly sums: { readonly generation: Sums; readonly context: Sums };
  readonly deliver: (profile: Profile) => void;
}

export class Profiler {
  readonly #numLaunches: Session['numLaunches'];
  #inquiries: Inquiry[] = [];

  constructor(numLaunches: Session['numLaunches']) {
    this.#numLaunches = numLaunches;
  }

  /** Times the next `numSteps` steps; fewer when there is nothing more to compute. */
  begin(numSteps: number, deliver: Inquiry['deliver']): void {
    const sums = (): Sums => ({ numSteps: 0, numTokens: 0, totalMs: 0, ...this.#zeros() });
    this.#inquiries.push({ left: numSteps, sums: { generation: sums(), context: sums() }, deliver });
  }

  /** Where the step that is about to run puts its times; undefined when nobody asks. */
  times(): StepTimes | undefined {
    return this.#inquiries.length === 0 ? undefined : this.#zeros();
  }

  /** A step has run. */
  add(plan: StepPlan, times: StepTimes, milliseconds: number): void {
    const kind = plan.entries.some(({ context }) => context) ? 'context' : 'generation';
    for (const inquiry of this.#inquiries) {
      const sums = inquiry.sums[kind];
      sums.numSteps++;
      sums.numTokens += plan.numTokens;
      sums.totalMs += milliseconds;
      for (const phase of ['forward', 'sample'] as const)
        for (let i = 0; i < times[phase].length; i++) sums[phase][i]! += times[phase][i]!;
      inquiry.left--;
    }
    this.#deliver(({ left }) => left <= 0);
  }

  /** Nothing is left to compute: who has seen a step gets what there is. */
  idle(): void {
    if (this.#inquiries.length > 0) this.#deliver(({ sums }) => sums.generation.numSteps + sums.context.numSteps > 0);
  }

  #deliver(ended: (inquiry: Inquiry) => boolean): void {
    const done = this.#inquiries.filter(ended);
    this.#inquiries = this.#inquiries.filter((inquiry) => !done.includes(inquiry));
    for (const { deliver, sums } of done) deliver(sums);
  }

  #zeros(): StepTimes {
    return {
      forward: new Float64Array(this.#numLaunches.forward),
      sample: new Float64Array(this.#numLaunches.sample),
    };
  }
}
