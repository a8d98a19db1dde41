// The device's blocks: how many hold each one, what it is known to hold, and which gives way next. A block nobody holds whose content is known counts as free and keeps the content
// until its place is needed: of those nothing else builds on (leaves), the one of lowest priority goes first, of equals the one unused for longest.
import { ExecutorError } from '../../base/errors.ts';
import type { BlockId } from './block-table.ts';
import type { CachedBlock } from './content.ts';
import { FreeList } from './free-list.ts';
import type { CacheLayout } from './layout.ts';
import { isOnDevice } from './place.ts';
import { PriorityQueue } from './queue.ts';

/** Counts only while its block still has the stamp and the priority it was put in with: nothing is searched for in the middle. */
interface Entry {
  readonly page: BlockId;
  readonly priority: number;
  readonly stamp: number;
}

export class DevicePages {
  readonly #layout: CacheLayout;
  readonly #references: Int32Array;
  readonly #groups: Uint8Array;
  readonly #stamps: Float64Array;
  readonly #nodes: (CachedBlock | undefined)[];
  readonly #free: FreeList;
  readonly #queue = new PriorityQueue<Entry>((a, b) => a.priority - b.priority || a.stamp - b.stamp);
  #numUnused = 0;
  #clock = 0;
  /** Blocks that somebody holds in groups with windows. */
  numHeldInWindows = 0;

  constructor(numBlocks: number, layout: CacheLayout) {
    this.#layout = layout;
    this.#references = new Int32Array(numBlocks);
    this.#groups = new Uint8Array(numBlocks);
    this.#stamps = new Float64Array(numBlocks);
    this.#nodes = new Array<CachedBlock | undefined>(numBlocks).fill(undefined);
    this.#free = new FreeList(numBlocks);
  }

  /** Blocks nobody holds, with or without content. */
  get numFree(): number {
    return this.#free.size + this.#numUnused;
  }

  /** How many tables hold a block. */
  references(page: BlockId): number {
    return this.#references[page]!;
  }

  node(page: BlockId): CachedBlock | undefined {
    return this.#nodes[page];
  }

  group(page: BlockId): number {
    return this.#groups[page]!;
  }

  /** Takes a block without content for one holder; undefined when there is none: then the next victim has to go first. */
  take(group: number): BlockId | undefined {
    const page = this.#free.shift() as BlockId | undefined;
    if (page === undefined) return undefined;
    this.#references[page] = 1;
    this.#groups[page] = group;
    if (!this.#layout.isFull(group)) this.numHeldInWindows++;
    return page;
  }

  /** The block whose content goes next; undefined when nobody's may. */
  victim(): BlockId | undefined {
    for (;;) {
      const entry = this.#queue.pop();
      if (entry === undefined || this.#counts(entry)) return entry?.page;
    }
  }

  /** One more holder. */
  claim(page: BlockId): void {
    if (this.#references[page]!++ > 0) return;
    if (!this.#layout.isFull(this.#groups[page]!)) this.numHeldInWindows++;
    const node = this.#nodes[page];
    if (node === undefined) throw new ExecutorError(`block ${page} is claimed, but holds nothing`);
    node.expires = Number.POSITIVE_INFINITY;
    this.#numUnused--;
  }

  /** One holder less; true when it was the last one and the content is known. */
  release(page: BlockId): boolean {
    const references = --this.#references[page]!;
    if (references > 0) return false;
    if (references < 0) throw new ExecutorError(`block ${page} was freed twice`);
    if (!this.#layout.isFull(this.#groups[page]!)) this.numHeldInWindows--;
    if (this.#nodes[page] === undefined) {
      this.#free.push(page);
      return false;
    }
    this.#numUnused++;
    this.#stamps[page] = ++this.#clock;
    this.offer(page);
    return true;
  }

  /** What a held block holds is known from now on. */
  learn(page: BlockId, node: CachedBlock): void {
    this.#nodes[page] = node;
  }

  /** What a block holds is not known any more; one that nobody holds becomes free. */
  forget(page: BlockId): void {
    this.#nodes[page] = undefined;
    if (this.#references[page]! > 0) return;
    this.#numUnused--;
    this.#free.push(page);
  }

  /** Puts a block into the queue of those that may go, if it may. */
  offer(page: BlockId): void {
    const node = this.#nodes[page];
    if (node === undefined || !this.#mayGo(page, node)) return;
    if (this.#queue.size > 4 * this.#numUnused + 256) this.#compact();
    this.#queue.push({ page, priority: node.priority, stamp: this.#stamps[page]! });
  }

  /** Offers all blocks of a node: it became a leaf, or has another priority. */
  offerAll(node: CachedBlock): void {
    for (const place of node.places) if (isOnDevice(place)) this.offer(place as BlockId);
  }

  #mayGo(page: BlockId, node: CachedBlock): boolean {
    if (this.#references[page]! > 0) return false;
    return node.numResidentChildren === 0 || !this.#layout.isFull(this.#groups[page]!);
  }

  #compact(): void {
    const kept = new Set<BlockId>();
    this.#queue.keep((entry) => {
      const wanted = this.#counts(entry) && !kept.has(entry.page);
      if (wanted) kept.add(entry.page);
      return wanted;
    });
  }

  #counts({ page, priority, stamp }: Entry): boolean {
    const node = this.#nodes[page];
    return node !== undefined && this.#stamps[page] === stamp && node.priority === priority && this.#mayGo(page, node);
  }
}
