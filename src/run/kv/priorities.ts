// What was said of how long blocks stay: priorities that hold for ever, or for a while after the last use.
import type { CachedBlock } from './content.ts';
import { PriorityQueue } from './queue.ts';
import { type BlockRetention, defaultPriority } from './retention.ts';

export class Priorities {
  readonly #expiring = new PriorityQueue<{ readonly node: CachedBlock; readonly at: number }>((a, b) => a.at - b.at);
  readonly #changed: (node: CachedBlock, old: number) => void;
  #now = 0;

  /** `changed` is told of every block whose priority changes, after it did. */
  constructor(changed: (node: CachedBlock, old: number) => void) {
    this.#changed = changed;
  }

  /** Nobody holds the block any more: its time begins. */
  unused(node: CachedBlock): void {
    if (node.durationMs === undefined) return;
    node.expires = this.#now + node.durationMs;
    this.#expiring.push({ node, at: node.expires });
  }

  /** Gives a block the priority that was said for it; nothing said changes nothing. */
  set(node: CachedBlock, retention: BlockRetention | undefined): void {
    if (retention === undefined) return;
    node.durationMs = retention.durationMs;
    this.#set(node, retention.priority);
  }

  /** Priorities that lasted until `now` fall back to the default. */
  advance(now: number): void {
    this.#now = now;
    for (let top = this.#expiring.peek(); top !== undefined && top.at <= now; top = this.#expiring.peek()) {
      this.#expiring.pop();
      if (top.node.expires !== top.at) continue;
      top.node.expires = Number.POSITIVE_INFINITY;
      top.node.durationMs = undefined;
      this.#set(top.node, defaultPriority);
    }
  }

  #set(node: CachedBlock, priority: number): void {
    const old = node.priority;
    if (old === priority) return;
    node.priority = priority;
    this.#changed(node, old);
  }
}
