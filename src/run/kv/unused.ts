// The blocks that nobody holds and whose content is known: they count as free, and give way in the order of the eviction queue.
import type { CachedBlock } from './content.ts';
import type { EventBuffer } from './events.ts';
import { EvictionQueue } from './eviction.ts';
import { PriorityQueue } from './queue.ts';
import { type BlockRetention, defaultPriority } from './retention.ts';

export class UnusedBlocks {
  readonly #nodes = new Set<CachedBlock>();
  readonly #queue = new EvictionQueue((node) => this.#nodes.has(node) && node.isLeaf);
  readonly #expiring = new PriorityQueue<{ readonly node: CachedBlock; readonly at: number }>((a, b) => a.at - b.at);
  readonly #events: EventBuffer;
  #now = 0;
  #clock = 0;

  constructor(events: EventBuffer) {
    this.#events = events;
  }

  get size(): number {
    return this.#nodes.size;
  }

  /** Nobody holds the block any more. */
  put(node: CachedBlock): void {
    node.lastUsed = ++this.#clock;
    this.#nodes.add(node);
    if (node.durationMs !== undefined) {
      node.expires = this.#now + node.durationMs;
      this.#expiring.push({ node, at: node.expires });
    }
    if (node.isLeaf) this.#queue.put(node, this.#nodes.size);
  }

  /** Somebody holds the block again. */
  remove(node: CachedBlock): void {
    this.#nodes.delete(node);
    node.expires = Number.POSITIVE_INFINITY;
  }

  /** The last block that built on this one is gone. */
  leaf(node: CachedBlock): void {
    if (node.isLeaf && this.#nodes.has(node)) this.#queue.put(node, this.#nodes.size);
  }

  /** Takes the block that gives way next. */
  take(): CachedBlock | undefined {
    const node = this.#queue.take();
    if (node !== undefined) this.remove(node);
    return node;
  }

  /** Gives a block the priority that was said for it; nothing said changes nothing. */
  prioritize(node: CachedBlock, retention: BlockRetention | undefined): void {
    if (retention === undefined) return;
    node.durationMs = retention.durationMs;
    this.#setPriority(node, retention.priority);
  }

  /** Priorities that lasted until `now` fall back to the default. */
  advance(now: number): void {
    this.#now = now;
    for (let top = this.#expiring.peek(); top !== undefined && top.at <= now; top = this.#expiring.peek()) {
      this.#expiring.pop();
      if (top.node.expires !== top.at) continue;
      top.node.expires = Number.POSITIVE_INFINITY;
      top.node.durationMs = undefined;
      this.#setPriority(top.node, defaultPriority);
    }
  }

  #setPriority(node: CachedBlock, priority: number): void {
    const old = node.priority;
    if (old === priority) return;
    node.priority = priority;
    this.leaf(node);
    this.#events.add({ type: 'updated', blockHash: node.key, priority: { oldValue: old, newValue: priority } });
  }
}
