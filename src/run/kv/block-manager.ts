// The KV cache's blocks: who holds which, what they hold, how many are free. It moves no data itself: blocks to be copied before the next step are handed out as pairs.
// A block may be held by several tables (a shared prefix); whoever writes into a shared block first gets a copy. A block nobody holds keeps its content until its place is needed.
import { ExecutorError } from '../../base/errors.ts';
import type { BlockKeys } from './block-keys.ts';
import { type BlockId, BlockTable } from './block-table.ts';
import { type CachedBlock, ContentTree } from './content.ts';
import { type BlockCopies, PendingCopies } from './copies.ts';
import { EventBuffer, type KvCacheEvent } from './events.ts';
import { FreeList } from './free-list.ts';
import type { BlockRetention } from './retention.ts';
import type { KvCacheStats } from './stats.ts';
import { UnusedBlocks } from './unused.ts';

export interface BlockManagerOptions {
  readonly numBlocks: number;
  readonly tokensPerBlock: number;
  /** Blocks are found again by content; default true. */
  readonly enableBlockReuse?: boolean;
  /** A block that begins as wanted is copied for its beginning; default true. */
  readonly enablePartialReuse?: boolean;
  /** Events kept until they are taken; default 0: none. */
  readonly eventBufferMaxSize?: number;
}

/** A sequence as the cache sees it. */
export interface Content {
  readonly tokens: Int32Array;
  readonly keys: BlockKeys;
  /** What was said of the block whose first token is at `position`. */
  retention?(position: number): BlockRetention | undefined;
}

/** What the cache holds of a sequence's beginning. */
export interface PrefixMatch {
  readonly blocks: readonly CachedBlock[];
  /** The block that begins like the sequence's next one. */
  readonly partial: { readonly source: CachedBlock; readonly numTokens: number } | undefined;
  readonly numTokens: number;
}

const nothing: PrefixMatch = { blocks: [], partial: undefined, numTokens: 0 };

export class BlockManager {
  readonly tokensPerBlock: number;
  readonly maxNumBlocks: number;
  readonly #options: BlockManagerOptions;
  readonly #references: Int32Array;
  readonly #content: (CachedBlock | undefined)[];
  readonly #tree: ContentTree;
  readonly #events: EventBuffer;
  /** Free blocks without content. */
  readonly #free: FreeList;
  readonly #unused: UnusedBlocks;
  readonly #copies = new PendingCopies();
  /** Sources of copies that nobody holds any more: they stay untouched until the copies are taken. */
  readonly #leaving = new Set<BlockId>();
  #allocated = 0;
  #reused = 0;
  #missed = 0;

  constructor(options: BlockManagerOptions) {
    const { numBlocks, tokensPerBlock } = options;
    this.#options = options;
    this.maxNumBlocks = numBlocks;
    this.tokensPerBlock = tokensPerBlock;
    this.#references = new Int32Array(numBlocks);
    this.#content = new Array(numBlocks).fill(undefined);
    this.#free = new FreeList(numBlocks);
    this.#tree = new ContentTree(tokensPerBlock);
    this.#events = new EventBuffer(options.eventBufferMaxSize ?? 0);
    this.#unused = new UnusedBlocks(this.#events);
    this.#events.add({ type: 'created', numBlocksPerCacheLevel: [numBlocks] });
  }

  get enableBlockReuse(): boolean {
    return this.#options.enableBlockReuse ?? true;
  }

  get freeNumBlocks(): number {
    return this.#free.size + this.#unused.size;
  }

  get usedNumBlocks(): number {
    return this.maxNumBlocks - this.freeNumBlocks;
  }

  /** Milliseconds: priorities that lasted until then fall back. */
  advance(now: number): void {
    this.#unused.advance(now);
  }

  /** Blocks that `numTokens` tokens take. */
  blocksFor(numTokens: number): number {
    return Math.ceil(numTokens / this.tokensPerBlock);
  }

  /** How many tables hold a block. */
  references(block: BlockId): number {
    return this.#references[block]!;
  }

  /** Tokens of a block that are known by content: they must not be written. */
  numKnown(block: BlockId): number {
    return this.#content[block]?.tokens.length ?? 0;
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

  /** What the cache holds of the first `limit` tokens. */
  match({ tokens, keys }: Content, limit: number): PrefixMatch {
    if (!this.enableBlockReuse) return nothing;
    let node = this.#tree.findRoot(keys.scope);
    if (node === undefined) return nothing;
    const size = this.tokensPerBlock;
    const blocks: CachedBlock[] = [];
    while ((blocks.length + 1) * size <= limit) {
      const child = this.#tree.child(node, keys.at(blocks.length, tokens), tokens, blocks.length * size);
      if (child === undefined || child === 'taken') break;
      blocks.push(child);
      node = child;
    }
    const start = blocks.length * size;
    const partial =
      (this.#options.enablePartialReuse ?? true) && start < limit
        ? this.#tree.closest(node, tokens, start, Math.min(limit, start + size))
        : undefined;
    return { blocks, partial, numTokens: start + (partial?.numTokens ?? 0) };
  }

  /** Free blocks that it takes to begin a table with a match and let it grow to `numTokens`; one more than that is needed for a moment where a part of a block is reused. */
  neededAfter({ blocks, partial }: PrefixMatch, numTokens: number): number {
    let held = 0;
    while (held < blocks.length && this.#references[blocks[held]!.block]! > 0) held++;
    const pinned = partial !== undefined && this.#references[partial.source.block] === 0 ? 1 : 0;
    return this.blocksFor(numTokens) - held + pinned;
  }

  /** Begins an empty table with what was found; the match has to be fresh. `numLooked`: tokens that were looked for. */
  attach(table: BlockTable, match: PrefixMatch, content: Content, numLooked: number): void {
    if (!this.enableBlockReuse) return;
    const size = this.tokensPerBlock;
    for (const node of match.blocks) {
      this.#claim(node);
      this.#unused.prioritize(node, content.retention?.(table.numBlocks * size));
      table.append(node.block);
    }
    table.numStored = table.numBlocks;
    table.stored = match.blocks.at(-1);
    if (match.partial !== undefined) this.#attachPart(table, match.partial);
    table.numTokens = match.numTokens;
    this.#reused += match.blocks.length + (match.partial === undefined ? 0 : 1);
    this.#missed += Math.floor(numLooked / size) - match.blocks.length;
  }

  /** Grows a table by one token when that takes no block; false when it does. */
  extendInPlace(table: BlockTable): boolean {
    const { numTokens } = table;
    if (numTokens % this.tokensPerBlock === 0 || this.#references[table.ids[table.numBlocks - 1]!]! > 1) return false;
    table.numTokens = numTokens + 1;
    return true;
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

  /** Makes the full blocks among a table's first `numTokens` tokens, which are computed, known by content. Where another block holds the same, the table goes over to that one. */
  commit(table: BlockTable, content: Content, numTokens: number): void {
    const size = this.tokensPerBlock;
    if (table.numTokens < (table.numStored + 1) * size) return;
    const full = Math.floor(Math.min(numTokens, table.numTokens) / size);
    if (!this.enableBlockReuse || full <= table.numStored) return;
    const added: CachedBlock[] | undefined = this.#events.enabled ? [] : undefined;
    for (let i = table.numStored; i < full; i++) {
      const parent = table.stored ?? this.#tree.root(content.keys.scope);
      const key = content.keys.at(i, content.tokens);
      const own = table.block(i);
      const found = this.#tree.child(parent, key, content.tokens, i * size);
      // Two contents with one name: the later one, and what follows it, stays unknown.
      if (found === 'taken') break;
      const node = found ?? this.#tree.insert(parent, own, content.tokens, i * size, (i + 1) * size, key)!;
      if (found === undefined) {
        this.#content[own] = node;
        added?.push(node);
      } else if (found.block !== own) {
        this.#claim(found);
        table.replace(i, found.block);
        this.#release(own);
      }
      this.#unused.prioritize(node, content.retention?.(i * size));
      table.stored = node;
      table.numStored = i + 1;
    }
    if (added !== undefined) this.#tell(added);
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
    copy.numStored = table.numStored;
    copy.stored = table.stored;
    return copy;
  }

  /** Cuts a table to its first `numTokens` tokens: what came after was not wanted. */
  truncate(table: BlockTable, numTokens: number): void {
    const kept = this.blocksFor(numTokens);
    while (table.numBlocks > kept) this.#release(table.block(--table.numBlocks));
    table.numTokens = numTokens;
  }

  /**
   * Gives a table's blocks back; the last ones first, so that a prompt's beginning stays in the cache for longest. With `content`, whose tokens are all computed, what the blocks hold
   * is known from then on, that of a last block with fewer tokens too.
   */
  free(table: BlockTable, content?: Content): void {
    if (content !== undefined && this.enableBlockReuse && table.numBlocks > 0) {
      this.commit(table, content, table.numTokens);
      this.#commitTail(table, content);
    }
    for (let i = table.numBlocks - 1; i >= 0; i--) this.#release(table.block(i));
    table.clear();
  }

  /** The copies to be made before the next step; undefined when there are none. */
  takeCopies(): BlockCopies | undefined {
    for (const block of this.#leaving) this.#giveBack(block);
    this.#leaving.clear();
    return this.#copies.take();
  }

  /** Events since the last call. */
  takeEvents(): KvCacheEvent[] {
    return this.#events.take();
  }

  stats(): KvCacheStats {
    const looked = this.#reused + this.#missed;
    return {
      maxNumBlocks: this.maxNumBlocks,
      freeNumBlocks: this.freeNumBlocks,
      usedNumBlocks: this.usedNumBlocks,
      tokensPerBlock: this.tokensPerBlock,
      allocTotalBlocks: this.#allocated + this.#reused,
      allocNewBlocks: this.#allocated,
      reusedBlocks: this.#reused,
      missedBlocks: this.#missed,
      cacheHitRate: looked === 0 ? 0 : this.#reused / looked,
    };
  }

  /** The block that holds a part of what is wanted: taken over when that is all it holds and nobody has it, else copied. */
  #attachPart(table: BlockTable, { source, numTokens }: NonNullable<PrefixMatch['partial']>): void {
    this.#claim(source);
    const alone = this.#references[source.block] === 1 && !this.#copies.isSource(source.block);
    if (alone && source.tokens.length === numTokens && source.isLeaf) {
      this.#forget(source);
      table.append(source.block);
      return;
    }
    const to = this.#take();
    this.#copies.add(source.block, to);
    table.append(to);
    this.#release(source.block);
  }

  #commitTail(table: BlockTable, content: Content): void {
    const { tokens, keys } = content;
    const size = this.tokensPerBlock;
    const start = table.numStored * size;
    const count = table.numTokens - start;
    if (count <= 0 || count >= size || table.numBlocks !== table.numStored + 1) return;
    const block = table.block(table.numStored);
    if (this.#references[block] !== 1 || this.#copies.isTarget(block)) return;
    const parent = table.stored ?? this.#tree.root(keys.scope);
    // Nothing is gained when another block begins with the same tokens.
    if (this.#tree.closest(parent, tokens, start, table.numTokens)?.numTokens === count) return;
    const node = this.#tree.insert(parent, block, tokens, start, table.numTokens);
    if (node === undefined) return;
    this.#content[block] = node;
    this.#unused.prioritize(node, content.retention?.(start));
    this.#tell([node]);
  }

  #tell(added: readonly CachedBlock[]): void {
    if (added.length === 0 || !this.#events.enabled) return;
    const parent = added[0]!.parent!;
    this.#events.add({
      type: 'stored',
      parentHash: parent.parent === undefined ? null : parent.key,
      blocks: added.map(({ key, tokens, priority }) => ({
        blockHash: key,
        tokenIds: Array.from(tokens),
        cacheLevel: 0,
        priority,
      })),
    });
  }

  #take(): BlockId {
    const block = (this.#free.shift() ?? this.#evict()) as BlockId;
    this.#references[block] = 1;
    this.#allocated++;
    return block;
  }

  /** Gives up the content of an unused block. */
  #evict(): BlockId {
    const node = this.#unused.take();
    if (node === undefined) throw new ExecutorError('no block is free');
    this.#forget(node);
    return node.block;
  }

  #forget(node: CachedBlock): void {
    this.#tree.remove(node);
    this.#content[node.block] = undefined;
    this.#events.add({ type: 'removed', blockHashes: [node.key] });
    const parent = node.parent!;
    if (parent.parent !== undefined && this.#references[parent.block] === 0 && !this.#leaving.has(parent.block))
      this.#unused.leaf(parent);
  }

  /** One more holder of a block that is known by content. */
  #claim(node: CachedBlock): void {
    if (this.#references[node.block]!++ > 0) return;
    if (!this.#leaving.delete(node.block)) this.#unused.remove(node);
  }

  #release(block: BlockId): void {
    const references = --this.#references[block]!;
    if (references > 0) return;
    if (references < 0) throw new ExecutorError(`block ${block} was freed twice`);
    if (this.#copies.isSource(block)) {
      this.#leaving.add(block);
      return;
    }
    this.#dropCopyTo(block);
    this.#giveBack(block);
  }

  #giveBack(block: BlockId): void {
    const node = this.#content[block];
    if (node === undefined) this.#free.push(block);
    else this.#unused.put(node);
  }

  /** A block freed before its copy was made needs no copy any more, nor does its source wait for it. */
  #dropCopyTo(block: BlockId): void {
    const from = this.#copies.drop(block);
    if (from !== undefined && this.#leaving.delete(from)) this.#giveBack(from);
  }

  #copyLast(table: BlockTable): void {
    const from = table.block(table.numBlocks - 1);
    const to = this.#take();
    this.#references[from]! -= 1;
    this.#copies.add(from, to);
    table.replace(table.numBlocks - 1, to);
  }
}
