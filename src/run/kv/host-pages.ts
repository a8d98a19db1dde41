// The host's blocks: content that gave way on the device. When they are full the lowest in priority goes, of equals the one that came first.
import type { CachedBlock } from './content.ts';
import { FreeList } from './free-list.ts';
import { hostSlot, isOnHost } from './place.ts';
import { PriorityQueue } from './queue.ts';

interface Entry {
  readonly node: CachedBlock;
  readonly group: number;
  readonly slot: number;
  readonly priority: number;
  readonly stamp: number;
}

/** A block of a node that gives way. */
export interface HostVictim {
  readonly node: CachedBlock;
  readonly group: number;
}

export class HostPages {
  readonly numBlocks: number;
  readonly #free: FreeList;
  readonly #stamps: Float64Array;
  readonly #queue = new PriorityQueue<Entry>((a, b) => a.priority - b.priority || a.stamp - b.stamp);
  #clock = 0;

  constructor(numBlocks: number) {
    this.numBlocks = numBlocks;
    this.#free = new FreeList(numBlocks);
    this.#stamps = new Float64Array(numBlocks);
  }

  get numUsed(): number {
    return this.numBlocks - this.#free.size;
  }

  /** Takes a free block; undefined when there is none. */
  take(): number | undefined {
    return this.#free.shift();
  }

  put(node: CachedBlock, group: number, slot: number): void {
    const stamp = ++this.#clock;
    this.#stamps[slot] = stamp;
    if (this.#queue.size > 4 * this.numUsed + 256) this.#queue.keep((entry) => this.#counts(entry));
    this.#queue.push({ node, group, slot, priority: node.priority, stamp });
  }

  free(slot: number): void {
    this.#stamps[slot] = 0;
    this.#free.push(slot);
  }

  /** What goes next, not below `priority` and none of `pinned`; undefined when nothing may. */
  victim(priority: number, pinned: ReadonlySet<CachedBlock>): HostVictim | undefined {
    const kept: Entry[] = [];
    let found: Entry | undefined;
    while (found === undefined) {
      const entry = this.#queue.pop();
      if (entry === undefined) break;
      if (!this.#counts(entry)) continue;
      if (entry.priority > priority) {
        kept.push(entry);
        break;
      }
      if (pinned.has(entry.node)) kept.push(entry);
      else found = entry;
    }
    for (const entry of kept) this.#queue.push(entry);
    return found;
  }

  #counts({ node, group, slot, stamp }: Entry): boolean {
    const place = node.places[group]!;
    return isOnHost(place) && hostSlot(place) === slot && this.#stamps[slot] === stamp;
  }
}
