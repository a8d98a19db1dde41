// Which blocks hold a sequence's keys and values, in order. Only the block manager changes it.
import type { CachedBlock } from './content.ts';

declare const brand: unique symbol;

/** Index of a block in the pool. */
export type BlockId = number & { readonly [brand]: 'BlockId' };

/** In a table: the block was given back, no later token sees it. */
export const outOfWindow = -1 as BlockId;

export class BlockTable {
  readonly numGroups: number;
  /** Block ids: those of all groups for the first stretch of tokens, then for the next; `numBlocks` stretches are used. */
  ids: Int32Array;
  /** Stretches of `tokensPerBlock` tokens that have blocks. */
  numBlocks = 0;
  /** Tokens that have a place in the blocks. */
  numTokens = 0;
  /** So many blocks at the beginning are in the cache by content; `stored` is the last of them. */
  numStored = 0;
  stored: CachedBlock | undefined;
  /** No further blocks of it become known: another content has the name. */
  closed = false;
  /** For each group: blocks before it, sinks aside, are out of the window. */
  readonly firsts: number[];
  /** Counts changes of `ids`, for whoever keeps a copy. */
  version = 0;

  constructor(numGroups = 1) {
    this.numGroups = numGroups;
    this.ids = new Int32Array(8 * numGroups);
    this.firsts = new Array<number>(numGroups).fill(0);
  }

  block(index: number, group = 0): BlockId {
    return this.ids[index * this.numGroups + group]! as BlockId;
  }

  /** Makes room for one more stretch of tokens: where its ids go. */
  append(): number {
    const at = this.numBlocks * this.numGroups;
    if (at === this.ids.length) {
      const ids = new Int32Array(this.ids.length * 2);
      ids.set(this.ids);
      this.ids = ids;
    }
    this.numBlocks++;
    this.version++;
    return at;
  }

  replace(index: number, group: number, block: BlockId): void {
    this.ids[index * this.numGroups + group] = block;
    this.version++;
  }

  clear(): void {
    this.version++;
    this.numBlocks = 0;
    this.numTokens = 0;
    this.numStored = 0;
    this.stored = undefined;
    this.closed = false;
    this.firsts.fill(0);
  }
}
