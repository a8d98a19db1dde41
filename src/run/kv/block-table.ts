// Which blocks hold a sequence's keys and values, in order. Only the block manager changes it.
import type { CachedBlock } from './content.ts';

declare const brand: unique symbol;

/** Index of a block in the pool. */
export type BlockId = number & { readonly [brand]: 'BlockId' };

export class BlockTable {
  /** Block ids; `numBlocks` of them are used. */
  ids = new Int32Array(8);
  numBlocks = 0;
  /** Tokens that have a place in the blocks. */
  numTokens = 0;
  /** So many blocks at the beginning are in the cache by content; `stored` is the last of them. */
  numStored = 0;
  stored: CachedBlock | undefined;
  /** Counts changes of `ids`, for whoever keeps a copy. */
  version = 0;

  block(index: number): BlockId {
    return this.ids[index]! as BlockId;
  }

  append(block: BlockId): void {
    if (this.numBlocks === this.ids.length) {
      const ids = new Int32Array(this.ids.length * 2);
      ids.set(this.ids);
      this.ids = ids;
    }
    this.ids[this.numBlocks++] = block;
    this.version++;
  }

  replace(index: number, block: BlockId): void {
    this.ids[index] = block;
    this.version++;
  }

  clear(): void {
    this.version++;
    this.numBlocks = 0;
    this.numTokens = 0;
    this.numStored = 0;
    this.stored = undefined;
  }
}
