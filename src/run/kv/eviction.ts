// Which unused block goes next: of those nothing else builds on (leaves), the one of lowest priority, of equals the one unused for longest. An entry of the queue counts only while
// its block still has the stamp and priority it was put in with: nothing is searched for in the middle.
import type { CachedBlock } from './content.ts';
import { PriorityQueue } from './queue.ts';

interface Entry {
  readonly node: CachedBlock;
  readonly priority: number;
  readonly stamp: number;
}

export class EvictionQueue {
  readonly #queue = new PriorityQueue<Entry>((a, b) => a.priority - b.priority || a.stamp - b.stamp);
  /** Whether a block may go: nobody holds it and it has no children. */
  readonly #mayGo: (node: CachedBlock) => boolean;

  constructor(mayGo: (node: CachedBlock) => boolean) {
    this.#mayGo = mayGo;
  }

  /** `numLive` blocks may go at most: much more than that in the queue is history. */
  put(node: CachedBlock, numLive: number): void {
    if (this.#queue.size > 4 * numLive + 256) this.#compact();
    this.#queue.push({ node, priority: node.priority, stamp: node.lastUsed });
  }

  /** Takes the block that goes next; undefined when none may. */
  take(): CachedBlock | undefined {
    for (;;) {
      const entry = this.#queue.pop();
      if (entry === undefined || this.#counts(entry)) return entry?.node;
    }
  }

  #compact(): void {
    const kept = new Set<CachedBlock>();
    this.#queue.keep((entry) => {
      const wanted = this.#counts(entry) && !kept.has(entry.node);
      if (wanted) kept.add(entry.node);
      return wanted;
    });
  }

  #counts({ node, priority, stamp }: Entry): boolean {
    return node.lastUsed === stamp && node.priority === priority && this.#mayGo(node);
  }
}
