// How large the KV cache gets: as asked, or as the memory allows that is left when everything else is there.
import { TargetError } from '../../base/errors.ts';
import type { Engine } from '../../compile/engine/read.ts';
import { blockBytes, type Plan } from '../../targets/plan.ts';
import { cacheBytesOf, type DeviceMemory, type Target } from '../../targets/target.ts';
import { CacheLayout } from '../kv/layout.ts';
import type { CacheGroup } from './batch.ts';
import type { KvCacheConfig } from './options.ts';

/** Share of free memory that the KV cache may take when nothing is said. */
const defaultFraction = { device: 0.9, host: 0.25 } as const;
/** What a capped device keeps for captured graphs, and for kernels that are loaded when they are first needed: a share of the cap, and bytes at most. */
const later = { share: 0.05, bytes: 512 << 20 } as const;

/** What decides the pool's size. */
export interface PoolOptions {
  readonly kvCacheConfig: KvCacheConfig;
  /** Bytes that everything may take on the device, or the share of its memory when at most 1. */
  readonly gpuMemory: number | undefined;
}

/** The number of blocks, given the memory that is left. Throws TargetError when not one fits. */
export function poolSize(engine: Engine, target: Target, { kvCacheConfig: config, gpuMemory }: PoolOptions) {
  const { plan } = engine;
  const perBlock = blockBytes(plan, cacheBytesOf(target));
  const { maxBatchSize, maxNumTokens } = plan.limits;
  const layout = new CacheLayout({ tokensPerBlock: plan.tokensPerBlock, cacheGroups: groupsOf(plan), maxNumTokens });
  const useful = maxBatchSize * layout.blocksOf(plan.maxBlocksPerSequence * plan.tokensPerBlock);
  return (memory: DeviceMemory): number => {
    const share = memory.free * (config.freeGpuMemoryFraction ?? defaultFraction[memory.kind]);
    const allowed = gpuMemory === undefined ? Number.POSITIVE_INFINITY : capLeft(memory, gpuMemory);
    const asked =
      config.maxTokens === undefined ? useful : Math.ceil(config.maxTokens / plan.tokensPerBlock) * layout.numGroups;
    const fits = perBlock === 0 ? useful : Math.floor(Math.min(share, allowed) / perBlock);
    // A number of tokens that was asked for is kept to, or refused by the device; a cap is kept to in any case.
    const most = config.maxTokens === undefined || gpuMemory !== undefined ? fits : asked;
    if (most < 1) {
      throw new TargetError('no memory for the KV cache', {
        where: engine.path,
        expected: `${perBlock} bytes for one block`,
        got: `${Math.max(0, Math.floor(Math.min(share, allowed)))} bytes${gpuMemory === undefined ? '' : ' of what gpuMemory allows, after weights and activations'}`,
        remedy:
          gpuMemory === undefined
            ? 'Free memory, or build with a smaller maxNumTokens'
            : 'Allow more, or build with a smaller maxNumTokens',
      });
    }
    return Math.min(useful, asked, most);
  };
}

function capLeft({ total, used = 0 }: DeviceMemory, gpuMemory: number): number {
  const cap = gpuMemory <= 1 ? gpuMemory * total : gpuMemory;
  return cap - used - Math.min(later.bytes, later.share * cap);
}

/** What the layers of each group see. */
export function groupsOf({ caches }: Plan): readonly CacheGroup[] {
  const count = caches.reduce((most, { group = 0 }) => Math.max(most, group + 1), 1);
  return Array.from({ length: count }, (_, index): CacheGroup => {
    const [first, ...others] = caches.filter(({ group = 0 }) => group === index);
    // An engine from before there were groups has all its layers in one: it keeps what any of them sees.
    const { window, sinkTokens } = first ?? {};
    if (window === undefined || others.some((other) => other.window !== window)) return {};
    return { window, ...(sinkTokens === undefined ? {} : { sinkTokens }) };
  });
}

/** Blocks of the pool on the host. */
export function hostPoolSize({ plan }: Engine, target: Target, { hostCacheSize = 0 }: KvCacheConfig): number {
  const perBlock = blockBytes(plan, cacheBytesOf(target));
  return perBlock === 0 ? 0 : Math.floor(hostCacheSize / perBlock);
}
