// Where kernels run: their code, the memory that they see, and the threads that walk a step. Programs know no more of it than this.
import type { Plan, PlanStep } from '../plan.ts';
import type { PackRows } from './pack.ts';

/** One phase of a step, as the threads walk it; all of it addresses in the host's memory. */
export interface StepCall {
  readonly launches: bigint;
  readonly count: number;
  /** Values of the symbols that the launches name, 64 bits each. */
  readonly values: bigint;
  readonly scratch: bigint;
  /** Nanoseconds that each launch took in all, 64 bits each; 0n: not asked for. */
  readonly times: bigint;
}

/** Kernels, loaded, with the threads that run them. */
export interface KernelHost extends AsyncDisposable {
  readonly threads: number;
  /** Zeroed memory; throws TargetError when there is none. `pages`: huge ones make reading through quicker, small ones the first touch of memory of which little is used. */
  allocate(what: string, bytes: number, pages?: 'huge' | 'small'): bigint;
  /** The host's memory as the program sees it. */
  bytesAt(address: bigint, bytes: number): Uint8Array;
  /** A file's bytes in memory, shared with all who map it; undefined where files cannot be mapped. */
  map(path: string, bytes: number): bigint | undefined;
  readonly pack: PackRows;
  /** Which of the host's kernels computes a step. */
  kernelOf(step: PlanStep, plan: Plan): number;
  /** Configuration that the kernel takes with each launch, before what its op's attributes say. */
  configOf(step: PlanStep, plan: Plan): readonly number[];
  copyBlocks(source: bigint, target: bigint, blockBytes: number, from: Int32Array, to: Int32Array): void;
  /** Runs a step: done when it returns. */
  step(call: StepCall): void;
  /** Runs a step beside the event loop. */
  stepAside(call: StepCall): Promise<void>;
}
