// The copies of blocks that are to be made before the next step, in order: what a block holds may go to the host and the block be filled from elsewhere in one step.
import type { BlockCopies } from '../../targets/target.ts';

interface Run {
  readonly kind: BlockCopies['kind'];
  readonly from: number[];
  readonly to: number[];
  readonly sources: Set<number>;
  readonly targets: Set<number>;
}

export class PendingCopies {
  #runs: Run[] = [];

  add(kind: BlockCopies['kind'], from: number, to: number): void {
    let run = this.#runs.at(-1);
    // Copies on the device are made at once: none may depend on another.
    if (run?.kind !== kind || run.sources.has(to) || run.targets.has(from) || run.targets.has(to)) {
      run = { kind, from: [], to: [], sources: new Set(), targets: new Set() };
      this.#runs.push(run);
    }
    run.from.push(from);
    run.to.push(to);
    if (kind !== 'device') return;
    run.sources.add(from);
    run.targets.add(to);
  }

  /** All of them, which are made now; undefined when there are none. */
  take(): readonly BlockCopies[] | undefined {
    if (this.#runs.length === 0) return undefined;
    const runs = this.#runs;
    this.#runs = [];
    return runs.map(({ kind, from, to }) => ({ kind, from: Int32Array.from(from), to: Int32Array.from(to) }));
  }
}
