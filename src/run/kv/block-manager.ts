// The KV cache's blocks: who holds which, what they hold, how many are free. It moves no data itself: copies to be made before the next step are handed out in order.
// A block may be held by several tables (a shared prefix); whoever writes into a shared block first gets a copy. A block nobody holds keeps its content until its place is needed; then
// the content moves to the host's memory, where there is room, and comes back when it is wanted.
import { ExecutorError } from '../../base/errors.ts';
import type { BlockCopies } from '../../targets/target.ts';
import { type BlockId, BlockTable, outOfWindow } from './block-table.ts';
import type { CachedBlock } from './content.ts';
import type { DevicePages } from './device-pages.ts';
import type { KvCacheEvent } from './events.ts';
import { CacheLayout } from './layout.ts';
import { type Content, firstHeld, isHeld, matchPrefix, noMatch, type PrefixMatch } from './matching.ts';
import { hostSlot, isOnDevice, isOnHost } from './place.ts';
import type { KvCacheStats } from './stats.ts';
import { CacheStore, type StoreOptions } from './store.ts';

export interface BlockManagerOptions extends StoreOptions {
  /** How sequences lie in the cache; default: one group of layers that sees everything. */
  readonly layout?: CacheLayout;
  /** Blocks are found again by content; default true. */
  readonly enableBlockReuse?: boolean;
  /** A block that begins as wanted is copied for its beginning; default true. */
  readonly enablePartialReuse?: boolean;
}

export class BlockManager {
  readonly layout: CacheLayout;
  readonly tokensPerBlock: number;
  readonly maxNumBlocks: number;
  readonly enableBlockReuse: boolean;
  readonly #options: BlockManagerOptions;
  readonly #numGroups: number;
  readonly #store: CacheStore;
  readonly #device: DevicePages;
  #reused = 0;
  #missed = 0;

  constructor(options: BlockManagerOptions) {
    const { numBlocks, tokensPerBlock } = options;
    this.#options = options;
    this.layout = options.layout ?? new CacheLayout({ tokensPerBlock });
    this.#numGroups = this.layout.numGroups;
    this.maxNumBlocks = numBlocks;
    this.tokensPerBlock = tokensPerBlock;
    this.enableBlockReuse = options.enableBlockReuse ?? true;
    this.#store = new CacheStore(this.layout, options);
    this.#device = this.#store.device;
  }

  get freeNumBlocks(): number {
    return this.#device.numFree;
  }

  get usedNumBlocks(): number {
    return this.maxNumBlocks - this.freeNumBlocks;
  }

  /** Blocks that tables hold in groups with windows, each counted once. */
  get numHeldInWindows(): number {
    return this.#device.numHeldInWindows;
  }

  /** Milliseconds: priorities that lasted until then fall back. */
  advance(now: number): void {
    this.#store.priorities.advance(now);
  }

  /** Blocks that `numTokens` tokens take in one group. */
  blocksFor(numTokens: number): number {
    return this.layout.blocksFor(numTokens);
  }

  /** How many tables hold a block. */
  references(block: BlockId): number {
    return this.#device.references(block);
  }

  /** Tokens of a block that are known by content: they must not be written. */
  numKnown(block: BlockId): number {
    return this.#device.node(block)?.numTokens ?? 0;
  }

  /** True when the next token goes into a block that another table holds too. */
  sharesLastBlock(table: BlockTable): boolean {
    return table.numTokens % this.tokensPerBlock !== 0 && this.references(table.block(table.numBlocks - 1)) > 1;
  }

  /** Free blocks that it takes to grow a table to `numTokens` tokens, the copy of a shared last block counted. */
  needed(table: BlockTable, numTokens: number): number {
    return this.#numGroups * this.#grown(table, numTokens);
  }

  /** The same in the groups that see everything: what a table may still take there until it has `numTokens` tokens. */
  neededInFull(table: BlockTable, numTokens: number): number {
    return this.layout.numFull * this.#grown(table, numTokens);
  }

  #grown(table: BlockTable, numTokens: number): number {
    if (numTokens <= table.numTokens) return 0;
    return this.blocksFor(numTokens) - table.numBlocks + (this.sharesLastBlock(table) ? 1 : 0);
  }

  /** Tokens that a table can grow by with the blocks that are free now. */
  room(table: BlockTable): number {
    const stretches = Math.floor(this.freeNumBlocks / this.#numGroups) - (this.sharesLastBlock(table) ? 1 : 0);
    return stretches < 0 ? 0 : (table.numBlocks + stretches) * this.tokensPerBlock - table.numTokens;
  }

  /** What the cache holds of the first `limit` tokens. */
  match(content: Content, limit: number): PrefixMatch {
    if (!this.enableBlockReuse) return noMatch;
    return matchPrefix(this.#store.tree, this.layout, content, limit, this.#options.enablePartialReuse ?? true);
  }

  /**
   * Free blocks that it takes to begin a table with a match and let it grow to `numTokens`, in groups with windows what it holds there at once. More than that is needed for a moment
   * where a part of a block is reused.
   */
  neededAfter({ blocks, partial }: PrefixMatch, numTokens: number): number {
    const { layout } = this;
    let held = 0;
    if (layout.numFull > 0) while (held < blocks.length && this.#isHeld(blocks[held]!)) held++;
    const pinned = partial === undefined ? 0 : partial.source.places.filter((place) => this.#isUnused(place)).length;
    return layout.numFull * (this.blocksFor(numTokens) - held) + layout.mostInWindows(numTokens) + pinned;
  }

  /** Begins an empty table with what was found; the match has to be fresh. `numLooked`: tokens that were looked for. */
  attach(table: BlockTable, match: PrefixMatch, content: Content, numLooked: number): void {
    if (!this.enableBlockReuse) return;
    const { layout, tokensPerBlock: size } = this;
    const { blocks, partial } = match;
    for (const node of blocks) {
      this.#store.priorities.set(node, content.retention?.(table.numBlocks * size));
      const index = table.numBlocks;
      const at = table.append();
      for (let group = 0; group < this.#numGroups; group++) {
        const place = node.places[group]!;
        const held = isHeld(layout, group, index, blocks.length);
        table.ids[at + group] = held ? place : outOfWindow;
        if (held && isOnDevice(place)) this.#device.claim(place as BlockId);
      }
    }
    for (const group of layout.windowed) table.firsts[group] = firstHeld(layout, group, blocks.length);
    table.numStored = blocks.length;
    table.stored = blocks.at(-1);
    if (partial !== undefined) this.#store.claimAll(partial.source);
    this.#store.pinning(partial === undefined ? blocks : [...blocks, partial.source], () => {
      this.#fetch(table, blocks);
      if (partial !== undefined) this.#attachPart(table, partial);
    });
    table.numTokens = match.numTokens;
    this.#reused += blocks.length + (partial === undefined ? 0 : 1);
    this.#missed += Math.floor(numLooked / size) - blocks.length;
  }

  /** Grows a table by one token when that takes no block; false when it does. */
  extendInPlace(table: BlockTable): boolean {
    const { numTokens } = table;
    if (numTokens % this.tokensPerBlock === 0 || this.references(table.block(table.numBlocks - 1)) > 1) return false;
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
    while (table.numBlocks < this.blocksFor(numTokens)) {
      const at = table.append();
      for (let group = 0; group < this.#numGroups; group++) table.ids[at + group] = this.#store.take(group);
    }
    table.numTokens = numTokens;
  }

  /** Makes the full blocks among a table's first `numTokens` tokens, which are computed, known by content. Where another block holds the same, the table goes over to that one. */
  commit(table: BlockTable, content: Content, numTokens: number): void {
    const size = this.tokensPerBlock;
    if (!this.enableBlockReuse || table.closed) return;
    const full = Math.floor(Math.min(numTokens, table.numTokens) / size);
    if (full <= table.numStored) return;
    const added: CachedBlock[] | undefined = this.#store.events.enabled ? [] : undefined;
    for (let i = table.numStored; i < full; i++) {
      const parent = table.stored ?? this.#store.tree.root(content.keys.scope);
      const key = content.keys.at(i, content.tokens);
      const found = this.#store.tree.child(parent, key, content.tokens, i * size);
      // Two contents with one name: the later one, and what follows it, stays unknown.
      if (found === 'taken') {
        table.closed = true;
        break;
      }
      const node = found ?? this.#insert(table, i, parent, content.tokens, (i + 1) * size, key)!;
      if (found === undefined) added?.push(node);
      else this.#join(table, i, found);
      if (content.retention !== undefined) this.#store.priorities.set(node, content.retention(i * size));
      table.stored = node;
      table.numStored = i + 1;
    }
    if (added !== undefined) this.#store.tell(added);
  }

  /** Gives back the blocks that no token after the table's last one sees. */
  slide(table: BlockTable): void {
    const { layout } = this;
    for (const group of layout.windowed) {
      let first = layout.firstBlock(group, table.numTokens);
      if (this.enableBlockReuse && !table.closed) first = Math.min(first, Math.max(0, table.numStored - 1));
      for (let i = Math.max(table.firsts[group]!, layout.sinkBlocks(group)); i < first; i++) {
        this.#store.release(table.block(i, group));
        table.ids[i * this.#numGroups + group] = outOfWindow;
      }
      table.firsts[group] = Math.max(first, table.firsts[group]!);
    }
  }

  /** A second table over the same blocks. */
  fork(table: BlockTable): BlockTable {
    const copy = new BlockTable(this.#numGroups);
    copy.ids = table.ids.slice();
    copy.numBlocks = table.numBlocks;
    copy.numTokens = table.numTokens;
    copy.numStored = table.numStored;
    copy.stored = table.stored;
    copy.closed = table.closed;
    for (const group of this.layout.windowed) copy.firsts[group] = table.firsts[group]!;
    for (let at = 0; at < copy.numBlocks * this.#numGroups; at++)
      if (copy.ids[at] !== outOfWindow) this.#device.claim(copy.ids[at]! as BlockId);
    return copy;
  }

  /** Cuts a table to its first `numTokens` tokens: what came after was not wanted. */
  truncate(table: BlockTable, numTokens: number): void {
    const kept = this.blocksFor(numTokens);
    while (table.numBlocks > kept) this.#releaseLast(table);
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
    while (table.numBlocks > 0) this.#releaseLast(table);
    table.clear();
  }

  /** The copies to be made before the next step, in order; undefined when there are none. */
  takeCopies(): readonly BlockCopies[] | undefined {
    return this.#store.copies.take();
  }

  /** Events since the last call. */
  takeEvents(): KvCacheEvent[] {
    return this.#store.events.take();
  }

  stats(): KvCacheStats {
    const store = this.#store;
    const looked = this.#reused + this.#missed;
    return {
      maxNumBlocks: this.maxNumBlocks,
      freeNumBlocks: this.freeNumBlocks,
      usedNumBlocks: this.usedNumBlocks,
      tokensPerBlock: this.tokensPerBlock,
      allocTotalBlocks: store.numAllocated + this.#reused,
      allocNewBlocks: store.numAllocated,
      reusedBlocks: this.#reused,
      missedBlocks: this.#missed,
      cacheHitRate: looked === 0 ? 0 : this.#reused / looked,
      maxNumHostBlocks: store.host.numBlocks,
      usedNumHostBlocks: store.host.numUsed,
      offloadedBlocks: store.numOffloaded,
      onboardedBlocks: store.numOnboarded,
    };
  }

  /** Whether somebody holds a block in the groups that see everything (in the first one, where there is none). */
  #isHeld({ places }: CachedBlock): boolean {
    const place = places[this.layout.groups.findIndex((_, group) => this.layout.isFull(group))] ?? places[0]!;
    return isOnDevice(place) && !this.#isUnused(place);
  }

  #isUnused(place: number): boolean {
    return isOnDevice(place) && this.references(place as BlockId) === 0;
  }

  /** Brings what is on the host back to the device, for a table that holds it from now on. */
  #fetch(table: BlockTable, blocks: readonly CachedBlock[]): void {
    blocks.forEach((node, index) => {
      for (let group = 0; group < this.#numGroups; group++) {
        const at = index * this.#numGroups + group;
        if (isOnHost(table.ids[at]!)) table.ids[at] = this.#store.onboard(node, group);
      }
    });
  }

  /** The block that holds a part of what is wanted, which is claimed: taken over when that is all it holds and nobody else has it, else copied. */
  #attachPart(table: BlockTable, { source, numTokens }: NonNullable<PrefixMatch['partial']>): void {
    const { places } = source;
    const alone = source.isAllOnDevice && places.every((place) => this.references(place as BlockId) === 1);
    const at = table.append();
    if (alone && source.numTokens === numTokens && source.isLeaf) {
      table.ids.set(places, at);
      this.#store.drop(source);
      return;
    }
    for (let group = 0; group < this.#numGroups; group++) {
      const place = places[group]!;
      const page = this.#store.take(group);
      table.ids[at + group] = page;
      if (isOnDevice(place)) {
        this.#store.copies.add('device', place, page);
        this.#store.release(place as BlockId);
      } else this.#store.copies.add('toDevice', hostSlot(place), page);
    }
  }

  /** A table's blocks for a stretch of tokens become known. */
  #insert(table: BlockTable, index: number, parent: CachedBlock, tokens: Int32Array, to: number, key?: number) {
    const places: number[] = [];
    for (let group = 0; group < this.#numGroups; group++) places.push(table.block(index, group));
    return this.#store.insert(parent, places, tokens, index * this.tokensPerBlock, to, key);
  }

  /** A table's full block holds what another one does already: the table goes over to that, and gives it what it lacks. */
  #join(table: BlockTable, index: number, node: CachedBlock): void {
    for (let group = 0; group < this.#numGroups; group++) {
      const own = table.block(index, group);
      const place = node.places[group]!;
      if (own === outOfWindow || own === place) continue;
      if (isOnDevice(place)) {
        this.#device.claim(place as BlockId);
        table.replace(index, group, place as BlockId);
        this.#store.release(own);
        continue;
      }
      this.#store.adopt(node, group, own);
    }
  }

  #commitTail(table: BlockTable, content: Content): void {
    const { tokens, keys } = content;
    const size = this.tokensPerBlock;
    const start = table.numStored * size;
    const count = table.numTokens - start;
    if (table.closed || count <= 0 || count >= size || table.numBlocks !== table.numStored + 1) return;
    if (this.references(table.block(table.numStored)) !== 1) return;
    const parent = table.stored ?? this.#store.tree.root(keys.scope);
    // Nothing is gained when another block begins with the same tokens.
    if (this.#store.tree.closest(parent, tokens, start, table.numTokens)?.numTokens === count) return;
    const node = this.#insert(table, table.numStored, parent, tokens, table.numTokens);
    if (node === undefined) return;
    this.#store.priorities.set(node, content.retention?.(start));
    this.#store.tell([node]);
  }

  #releaseLast(table: BlockTable): void {
    const at = --table.numBlocks * this.#numGroups;
    for (let i = at; i < at + this.#numGroups; i++)
      if (table.ids[i] !== outOfWindow) this.#store.release(table.ids[i]! as BlockId);
  }

  #copyLast(table: BlockTable): void {
    for (let group = 0; group < this.#numGroups; group++) {
      const from = table.block(table.numBlocks - 1, group);
      const to = this.#store.take(group);
      this.#store.copies.add('device', from, to);
      table.replace(table.numBlocks - 1, group, to);
      this.#store.release(from);
    }
  }
}
