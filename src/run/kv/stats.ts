// The KV cache in numbers.

/** In the words of TensorRT-LLM's KvCacheStats. */
export interface KvCacheStats {
  readonly maxNumBlocks: number;
  /** Blocks nobody holds, with or without content that may be used again. */
  readonly freeNumBlocks: number;
  readonly usedNumBlocks: number;
  readonly tokensPerBlock: number;
  /** Blocks given to sequences since the start: new and reused. */
  readonly allocTotalBlocks: number;
  /** Blocks taken from the free ones since the start. */
  readonly allocNewBlocks: number;
  /** Blocks whose content was found in the cache instead of computed, in whole or in part. */
  readonly reusedBlocks: number;
  /** Full blocks of tokens that were looked for in the cache and not found. */
  readonly missedBlocks: number;
  /** reusedBlocks / (reusedBlocks + missedBlocks); 0 before the first look-up. */
  readonly cacheHitRate: number;
  /** Blocks of host memory that content of the device may move to, and how many hold some. */
  readonly maxNumHostBlocks: number;
  readonly usedNumHostBlocks: number;
  /** Blocks whose content moved to the host since the start, and came back from there. */
  readonly offloadedBlocks: number;
  readonly onboardedBlocks: number;
}
