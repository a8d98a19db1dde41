// KV blocks on the device and their second pool, in page-locked memory of the host.
import { TargetError } from '../../base/errors.ts';
import { type DevicePtr, offsetPtr } from '../ffi/cuda-driver.ts';
import type { PinnedBuffer } from './device.ts';
import type { Stream } from './stream.ts';

/** The memory behind the caches of one layer, or of one layer of each group. */
export interface CachePool {
  readonly ptr: DevicePtr;
  readonly host: PinnedBuffer | undefined;
  readonly blockBytes: number;
}

/** Copies blocks between device and host in stream order; neighbours that go to neighbours go together. Nothing waits: the host never reads what it keeps. */
export function exchangeBlocks(
  stream: Stream,
  { ptr, host, blockBytes }: CachePool,
  kind: 'toHost' | 'toDevice',
  from: Int32Array,
  to: Int32Array,
): void {
  if (host === undefined) throw new TargetError('there is no cache on the host', { where: 'copyBlocks', got: kind });
  for (let i = 0; i < from.length; ) {
    let count = 1;
    while (i + count < from.length && from[i + count] === from[i]! + count && to[i + count] === to[i]! + count) count++;
    const [block, slot] = kind === 'toHost' ? [from[i]!, to[i]!] : [to[i]!, from[i]!];
    const device = offsetPtr(ptr, block * blockBytes);
    const address = host.address + BigInt(slot * blockBytes);
    if (kind === 'toHost') stream.download(device, address, count * blockBytes);
    else stream.upload(device, address, count * blockBytes);
    i += count;
  }
}
