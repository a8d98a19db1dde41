// How a session is opened, and what is kept in its KV cache: plain data that crosses a thread.

/** A target's name; 'auto': the engine's own. */
export type TargetChoice = 'auto' | 'cuda' | 'cpu' | 'reference';

/** How large the KV cache is and what it keeps. A size that is not set follows from the device's free memory. */
export interface KvCacheConfig {
  /** Tokens the cache holds, over all sequences. */
  readonly maxTokens?: number;
  /** Share of the device's free memory that the cache may take, from 0 to 1. */
  readonly freeGpuMemoryFraction?: number;
  /** Blocks of earlier sequences are used again where a new one begins alike; default true. */
  readonly enableBlockReuse?: boolean;
  /** A block that is alike only at its beginning is copied; default true. */
  readonly enablePartialReuse?: boolean;
  /** Bytes of host memory that blocks move to when their place on the device is needed, to come back when they are wanted; default 0. */
  readonly hostCacheSize?: number;
  /** Blocks of a lower retention priority are dropped instead of moved to the host; default 0: none is. */
  readonly secondaryOffloadMinPriority?: number;
  /** Events of the cache that are kept until `Executor.kvCacheEvents` takes them; default 0: none. */
  readonly eventBufferMaxSize?: number;
}

/** Which engine is opened, and with how much KV cache. */
export interface SessionOptions {
  /** Folder with `config.json` and `rank0.engine`. */
  readonly engineDir: string;
  readonly target: TargetChoice;
  readonly kvCacheConfig?: KvCacheConfig;
  /** Which of several devices; default 0. */
  readonly device?: number;
  /** Bytes that everything together may take on the device, or the share of its memory when at most 1. Default: what is there. */
  readonly gpuMemory?: number;
}
