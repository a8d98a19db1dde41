// What the dashboard's routes say, as JSON. The page in web/ is written against these types. Read-only, and without a word of what users asked or were answered.
import type { EngineConfig } from '../../compile/engine/schema.ts';
import type { MemoryReport } from '../../compile/report.ts';
import type { EngineSnapshot } from '../../run/executor/snapshot.ts';
import type { Plan } from '../../targets/plan.ts';
import type { ModelState } from '../model.ts';

/** What the server saw of requests since the last event. Times are milliseconds. */
export interface RequestsSeen {
  readonly timeToFirstToken: readonly number[];
  /** A sample of them where there were many; `numTokens` counts all. */
  readonly interToken: readonly number[];
  readonly numTokens: number;
  readonly numEnded: number;
  readonly numFailed: number;
}

/** The engine at one moment; `blocks` as base64, one byte a block: 0 free, 1 cached, 1 + n held by n. */
export type EngineNow = Omit<EngineSnapshot, 'blocks'> & { readonly blocks: string };

/** An event of `GET /v1/typert/live`. */
export type LiveEvent =
  | {
      readonly model: string;
      readonly state: 'ready';
      readonly numOpen: number;
      readonly engine: EngineNow;
      readonly requests: RequestsSeen;
    }
  | { readonly model: string; readonly state: Exclude<ModelState, 'ready'>; readonly reason?: string };

/** `GET /v1/typert/engine`. */
export interface EngineDescription {
  readonly model: string;
  readonly config: EngineConfig;
  readonly memory: MemoryReport;
  readonly plan: Plan;
}

/** Sums over the timed steps of one kind, milliseconds; one entry a launch, in the plan's order. */
export interface StepsTimes {
  readonly numSteps: number;
  readonly numTokens: number;
  readonly totalMs: number;
  readonly forward: readonly number[];
  readonly sample: readonly number[];
}

/** `POST /v1/typert/profile`. */
export interface ProfileAnswer {
  readonly model: string;
  /** Whether steps of users' requests were timed, or those of a request made for it because nobody asked anything. */
  readonly load: 'users' | 'own';
  readonly generation: StepsTimes;
  readonly context: StepsTimes;
}
