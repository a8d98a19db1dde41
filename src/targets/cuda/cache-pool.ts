// KV blocks on the device and their second pool, in page-locked memory of the host.
import { TargetError } from '../../base/errors.ts';
import { type DevicePtr, offsetPtr } from '../ffi/cuda-driver.ts';
import type { CudaDevice, DeviceBuffer, PinnedBuffer } from './device.ts';
import type { Buffers } from './launch.ts';
import { Event, type Stream } from './stream.ts';

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

/** Pairs of blocks that one launch copies. */
const copiesAtOnce = 1024;

/** Brings ids of blocks that are to be copied on the device there, in stream order. */
export class BlockCopier implements Disposable {
  readonly #stream: Stream;
  readonly #staging: PinnedBuffer;
  readonly #ids: DeviceBuffer;
  readonly #uploaded: Event;

  constructor(device: CudaDevice, stream: Stream) {
    const bytes = 2 * 4 * copiesAtOnce;
    this.#stream = stream;
    this.#staging = device.allocatePinned(bytes);
    this.#ids = device.allocate(bytes, 'block ids');
    this.#uploaded = new Event(device.driver);
  }

  /** One piece after the other; a piece is to be launched before the next is asked for. */
  *upload(from: Int32Array, to: Int32Array): Generator<{ readonly count: number; readonly buffers: Buffers }> {
    const { bytes, address } = this.#staging;
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, 2 * copiesAtOnce);
    const buffers = { from: this.#ids.ptr, to: offsetPtr(this.#ids.ptr, 4 * copiesAtOnce) };
    for (let start = 0; start < from.length; start += copiesAtOnce) {
      // The ids before may still be on their way.
      this.#uploaded.synchronize();
      words.set(from.subarray(start, start + copiesAtOnce));
      words.set(to.subarray(start, start + copiesAtOnce), copiesAtOnce);
      this.#stream.upload(this.#ids.ptr, address, bytes.length);
      this.#uploaded.record(this.#stream);
      yield { count: Math.min(copiesAtOnce, from.length - start), buffers };
    }
  }

  [Symbol.dispose](): void {
    this.#staging[Symbol.dispose]();
    this.#ids[Symbol.dispose]();
    this.#uploaded[Symbol.dispose]();
  }
}
