// What comes back from the device: copies into pinned memory in stream order, each with an event of its own, so that several may be on their way.
import type { DevicePtr } from '../ffi/cuda-driver.ts';
import type { CudaDevice, PinnedBuffer } from './device.ts';
import { Event, type Stream } from './stream.ts';

/** Pinned memory comes in pieces of at least so many bytes. */
const smallest = 1 << 16;

interface Slot {
  readonly memory: PinnedBuffer;
  readonly done: Event;
  busy: boolean;
}

/** Copies from the device that do not hold up the event loop. */
export class Results implements Disposable {
  readonly #device: CudaDevice;
  readonly #stream: Stream;
  readonly #slots: Slot[] = [];

  constructor(device: CudaDevice, stream: Stream) {
    this.#device = device;
    this.#stream = stream;
  }

  /** Copies `bytes` bytes after all work given so far; `take` sees them once they are there, and may not keep them. */
  async read(source: DevicePtr, bytes: number, take: (bytes: Uint8Array) => void): Promise<void> {
    const slot = this.#slot(bytes);
    slot.busy = true;
    try {
      this.#stream.download(source, slot.memory.address, bytes);
      slot.done.record(this.#stream);
      await slot.done.reached();
      take(slot.memory.bytes.subarray(0, bytes));
    } finally {
      slot.busy = false;
    }
  }

  #slot(bytes: number): Slot {
    const free = this.#slots.find(({ busy, memory }) => !busy && memory.bytes.length >= bytes);
    if (free !== undefined) return free;
    const memory = this.#device.allocatePinned(Math.max(smallest, bytes));
    const slot: Slot = { memory, done: new Event(this.#device.driver), busy: false };
    this.#slots.push(slot);
    this.#slots.sort((a, b) => a.memory.bytes.length - b.memory.bytes.length);
    return slot;
  }

  /** Call when the stream is idle. */
  [Symbol.dispose](): void {
    for (const { memory, done } of this.#slots.splice(0)) {
      memory[Symbol.dispose]();
      done[Symbol.dispose]();
    }
  }
}
