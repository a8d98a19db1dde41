// What happens to the blocks of the cache, for routers that send a request where its prefix is: TensorRT-LLM's KV cache events in camelCase.

/** A block that can be found by its content. */
export interface KvCacheStoredBlock {
  /** Name of the block by content: see `blockHashes`. */
  readonly blockHash: number;
  readonly tokenIds: readonly number[];
  /** 0: the device's memory; 1: the host's. */
  readonly cacheLevel: number;
  readonly priority: number;
}

/** What happened to blocks of the KV cache. */
export type KvCacheEventData =
  | { readonly type: 'created'; readonly numBlocksPerCacheLevel: readonly number[] }
  /** Blocks that follow each other, the first one after `parentHash` (null: at a beginning). */
  | { readonly type: 'stored'; readonly parentHash: number | null; readonly blocks: readonly KvCacheStoredBlock[] }
  | { readonly type: 'removed'; readonly blockHashes: readonly number[] }
  | {
      readonly type: 'updated';
      readonly blockHash: number;
      readonly priority?: { readonly oldValue: number; readonly newValue: number };
      /** The content moved between the device's memory (0) and the host's (1). */
      readonly cacheLevel?: { readonly oldValue: number; readonly newValue: number };
    };

/** One event; ids count up by one, so a gap means that the buffer overflowed. */
export interface KvCacheEvent {
  readonly eventId: number;
  readonly data: KvCacheEventData;
}

/** The newest events until they are taken. */
export class EventBuffer {
  readonly #capacity: number;
  #events: KvCacheEvent[] = [];
  #nextId = 0;

  /** `capacity` 0: nothing is kept. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get enabled(): boolean {
    return this.#capacity > 0;
  }

  add(data: KvCacheEventData): void {
    if (this.#capacity === 0) return;
    const last = this.#events.at(-1);
    const eventId = this.#nextId++;
    // Blocks are evicted one by one; one event tells of a run of them.
    if (data.type === 'removed' && last?.data.type === 'removed') {
      this.#nextId--;
      const blockHashes = [...last.data.blockHashes, ...data.blockHashes];
      this.#events[this.#events.length - 1] = { eventId: last.eventId, data: { type: 'removed', blockHashes } };
      return;
    }
    this.#events.push({ eventId, data });
    if (this.#events.length > 2 * this.#capacity) this.#events = this.#events.slice(-this.#capacity);
  }

  /** The events since the last call, oldest first. */
  take(): KvCacheEvent[] {
    const events = this.#events.slice(-this.#capacity);
    this.#events = [];
    return events;
  }
}
