// The copies of blocks that are to be made before the next step.
import type { BlockId } from './block-table.ts';

/** Blocks to be copied, `from[i]` → `to[i]`. No target is a source. */
export interface BlockCopies {
  readonly from: Int32Array;
  readonly to: Int32Array;
}

export class PendingCopies {
  #copies: { readonly from: BlockId; readonly to: BlockId }[] = [];

  add(from: BlockId, to: BlockId): void {
    this.#copies.push({ from, to });
  }

  isSource(block: BlockId): boolean {
    return this.#copies.some(({ from }) => from === block);
  }

  isTarget(block: BlockId): boolean {
    return this.#copies.some(({ to }) => to === block);
  }

  /** Forgets the copy to a block; its source, when no other copy needs that. */
  drop(target: BlockId): BlockId | undefined {
    const dropped = this.#copies.find(({ to }) => to === target);
    if (dropped === undefined) return undefined;
    this.#copies.splice(this.#copies.indexOf(dropped), 1);
    return this.isSource(dropped.from) ? undefined : dropped.from;
  }

  /** All of them, which are made now; undefined when there are none. */
  take(): BlockCopies | undefined {
    const copies = this.#copies;
    if (copies.length === 0) return undefined;
    this.#copies = [];
    return {
      from: Int32Array.from(copies, ({ from }) => from),
      to: Int32Array.from(copies, ({ to }) => to),
    };
  }
}
