// The KV cache's blocks: who holds which, how many are free. It moves no data itself: blocks to be copied before the next step are handed out as pairs.
// A block may be held by several tables (sequences of one request share their prompt); whoever writes into a shared block first gets a copy.
import { ExecutorError } from '../../base/errors.ts';
import { type BlockId, BlockTable } from './block-table.ts';
import { FreeList } from './free-list.ts';

/** The KV cache in numbers, in the words of TensorRT-LLM's KvCacheStats. */
export interface KvCacheStats {
  readonly maxNumBlocks: number;
  readonly freeNumBlocks: number;
  readonly usedNumBlocks: number;
  readonly tokensPerBlock: number;
  /** Blocks given to sequences since the start: new and reused. */
  readonly allocTotalBlocks: number;
  /** Blocks taken from the free ones since the start. */
  readonly allocNewBlocks: number;
  /** Blocks whose content was found in the cache instead of computed. */
  readonly reusedBlocks: number;
  /** Full prompt blocks that were looked for in the cache and not found. */
  readonly missedBlocks: number;
  /** reusedBlocks / (reusedBlocks + missedBlocks); 0 before the first look-up. */
  readonly cacheHitRate: number;
}

/** Blocks to be copied, `from[i]` → `to[i]`. No target is a source. */
export interface BlockCopies {
  readonly from: Int32Array;
  readonly to: Int32Array;
}

export interface BlockManagerOptions {
  readonly numBlocks: number;
  readonly tokensPerBlock: number;
}

export class BlockManager {
  readonly tokensPerBlock: number;
  readonly maxNumBlocks: number;
  readonly #references: Int32Array;
  readonly #free: FreeList;
  #copies: { from: BlockId; to: BlockId }[] = [];
  /** Sources of copies that nobody holds any more: they stay untouched until the copies are taken. */
  #leaving = new Set<BlockId>();
  #allocated = 0;

  constructor({ numBlocks, tokensPerBlock }: BlockManagerOptions) {
    this.maxNumBlocks = numBlocks;
    this.tokensPerBlock = tokensPerBlock;
    this.#references = new Int32Array(numBlocks);
    this.#free = new FreeList(numBlocks);
  }

  get freeNumBlocks(): number {
    return this.#free.size;
  }

  get usedNumBlocks(): number {
    return this.maxNumBlocks - this.#free.size;
  }

  /** Blocks that `numTokens` tokens take. */
  blocksFor(numTokens: number): number {
    return Math.ceil(numTokens / this.tokensPerBlock);
  }

  /** How many tables hold a block. */
  references(block: BlockId): number {
    return this.#references[block]!;
  }

  /** True when the next token goes into a block that another table holds too. */
  sharesLastBlock(table: BlockTable): boolean {
    return table.numTokens % this.tokensPerBlock !== 0 && this.references(table.block(table.numBlocks - 1)) > 1;
  }

  /** Free blocks that it takes to grow a table to `numTokens` tokens, the copy of a shared last block counted. */
  needed(table: BlockTable, numTokens: number): number {
    if (numTokens <= table.numTokens) return 0;
    return this.blocksFor(numTokens) - table.numBlocks + (this.sharesLastBlock(table) ? 1 : 0);
  }

  /** Tokens that a table can grow by with the blocks that are free now. */
  room(table: BlockTable): number {
    const shared = this.sharesLastBlock(table) ? 1 : 0;
    if (shared > this.freeNumBlocks) return 0;
    const blocks = table.numBlocks + this.freeNumBlocks - shared;
    return blocks * this.tokensPerBlock - table.numTokens;
  }

  /** Grows a table to `numTokens` tokens; a shared last block is replaced by a copy. Throws ExecutorError when too few blocks are free: ask `needed` before. */
  extend(table: BlockTable, numTokens: number): void {
    const needed = this.needed(table, numTokens);
    if (needed > this.freeNumBlocks)
      throw new ExecutorError('the KV cache is full', {
        expected: `${needed} free blocks for ${numTokens} tokens`,
        got: `${this.freeNumBlocks} free of ${this.maxNumBlocks}`,
      });
    if (needed === 0) {
      table.numTokens = Math.max(table.numTokens, numTokens);
      return;
    }
    if (this.sharesLastBlock(table)) this.#copyLast(table);
    while (table.numBlocks < this.blocksFor(numTokens)) table.append(this.#take());
    table.numTokens = numTokens;
  }

  /** A second table over the same blocks. */
  fork(table: BlockTable): BlockTable {
    const copy = new BlockTable();
    for (let i = 0; i < table.numBlocks; i++) {
      const block = table.block(i);
      this.#references[block]! += 1;
      copy.append(block);
    }
    copy.numTokens = table.numTokens;
    return copy;
  }

  /** Gives a table's blocks back; the last ones first, so that a prompt's beginning stays in the cache for longest. */
  free(table: BlockTable): void {
    for (let i = table.numBlocks - 1; i >= 0; i--) this.#release(table.block(i));
    table.numBlocks = 0;
    table.numTokens = 0;
  }

  /** The copies to be made before the next step; undefined when there are none. */
  takeCopies(): BlockCopies | undefined {
    const copies = this.#copies;
    this.#copies = [];
    for (const block of this.#leaving) this.#free.push(block);
    this.#leaving.clear();
    if (copies.length === 0) return undefined;
    return {
      from: Int32Array.from(copies, (copy) => copy.from),
      to: Int32Array.from(copies, (copy) => copy.to),
    };
  }

  stats(): KvCacheStats {
    // Content is not looked up yet: a sequence always computes what it does not share with its siblings.
    return {
      maxNumBlocks: this.maxNumBlocks,
      freeNumBlocks: this.freeNumBlocks,
      usedNumBlocks: this.usedNumBlocks,
      tokensPerBlock: this.tokensPerBlock,
      allocTotalBlocks: this.#allocated,
      allocNewBlocks: this.#allocated,
      reusedBlocks: 0,
      missedBlocks: 0,
      cacheHitRate: 0,
    };
  }

  #take(): BlockId {
    const block = this.#free.shift()! as BlockId;
    this.#references[block] = 1;
    this.#allocated++;
    return block;
  }

  #release(block: BlockId): void {
    const references = --this.#references[block]!;
    if (references > 0) return;
    if (references < 0) throw new ExecutorError(`block ${block} was freed twice`);
    if (this.#copies.some((copy) => copy.from === block)) this.#leaving.add(block);
    else this.#dropCopyTo(block);
  }

  /** A block freed before its copy was made needs no copy any more. */
  #dropCopyTo(block: BlockId): void {
    const index = this.#copies.findIndex((copy) => copy.to === block);
    if (index >= 0) this.#copies.splice(index, 1);
    this.#free.push(block);
  }

  #copyLast(table: BlockTable): void {
    const from = table.block(table.numBlocks - 1);
    const to = this.#take();
    this.#references[from]! -= 1;
    this.#copies.push({ from, to });
    table.ids[table.numBlocks - 1] = to;
  }
}
