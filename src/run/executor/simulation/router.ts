// Which replica a request goes to: in turn, or where its prompt's beginning is in the cache, as the events of the caches tell.
import { blockHashes } from '../../kv/block-keys.ts';
import type { KvCacheEvent } from '../../kv/events.ts';

/** Chooses replicas. */
export interface Router {
  /** `loads`: tokens that each replica has still to compute or generate. */
  route(promptTokenIds: Int32Array, loads: readonly number[]): number;
  /** What happened to the blocks of a replica's cache. */
  observe(replica: number, events: readonly KvCacheEvent[]): void;
}

/** One after the other. */
export class RoundRobinRouter implements Router {
  #next = 0;

  route(_prompt: Int32Array, loads: readonly number[]): number {
    const replica = this.#next;
    this.#next = (replica + 1) % loads.length;
    return replica;
  }

  observe(): void {}
}

/** Where most of the prompt is cached, unless too much waits there: a token that is found is worth as much as `weight` tokens of load. */
export class PrefixRouter implements Router {
  readonly #tokensPerBlock: number;
  readonly #weight: number;
  /** Block hash → replicas that hold it. */
  readonly #holders = new Map<number, Set<number>>();

  constructor(tokensPerBlock: number, weight = 1) {
    this.#tokensPerBlock = tokensPerBlock;
    this.#weight = weight;
  }

  /** Blocks that are known to be somewhere. */
  get size(): number {
    return this.#holders.size;
  }

  route(prompt: Int32Array, loads: readonly number[]): number {
    const found = new Map<number, number>();
    let depth = 0;
    for (const hash of blockHashes(prompt, this.#tokensPerBlock)) {
      const holders = this.#holders.get(hash);
      if (holders === undefined) break;
      let any = false;
      // A block is of use only after all that come before it.
      for (const replica of holders)
        if ((found.get(replica) ?? 0) === depth) {
          found.set(replica, depth + 1);
          any = true;
        }
      if (!any) break;
      depth++;
    }
    let best = 0;
    let bestScore = Number.NEGATIVE_INFINITY;
    for (let replica = 0; replica < loads.length; replica++) {
      const score = this.#weight * (found.get(replica) ?? 0) * this.#tokensPerBlock - loads[replica]!;
      if (score > bestScore) [best, bestScore] = [replica, score];
    }
    return best;
  }

  observe(replica: number, events: readonly KvCacheEvent[]): void {
    for (const { data } of events) {
      if (data.type === 'stored') for (const { blockHash } of data.blocks) this.#add(blockHash, replica);
      else if (data.type === 'removed') for (const hash of data.blockHashes) this.#remove(hash, replica);
    }
  }

  #add(hash: number, replica: number): void {
    const holders = this.#holders.get(hash);
    if (holders === undefined) this.#holders.set(hash, new Set([replica]));
    else holders.add(replica);
  }

  #remove(hash: number, replica: number): void {
    const holders = this.#holders.get(hash);
    holders?.delete(replica);
    if (holders?.size === 0) this.#holders.delete(hash);
  }
}
