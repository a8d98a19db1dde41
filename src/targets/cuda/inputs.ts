// The inputs of a step: written by the host into page-locked memory, brought to the device in one copy.
import { TargetError } from '../../base/errors.ts';
import { type DevicePtr, offsetPtr } from '../ffi/cuda-driver.ts';
import type { HostArray } from '../target.ts';
import type { CudaDevice, DeviceBuffer, PinnedBuffer } from './device.ts';
import { Event, type Stream } from './stream.ts';

const alignment = 256;

/** An input and the bytes it takes at most. */
export interface SizedInput {
  readonly name: string;
  readonly bytes: number;
}

export class StepInputs implements Disposable {
  readonly bytes: number;
  readonly #stream: Stream;
  readonly #places = new Map<string, { readonly offset: number; readonly bytes: number }>();
  readonly #buffer: DeviceBuffer;
  readonly #staging: PinnedBuffer;
  readonly #uploaded: Event;
  #dirty = 0;

  constructor(device: CudaDevice, stream: Stream, inputs: readonly SizedInput[]) {
    this.#stream = stream;
    let end = 0;
    // Small inputs first: one copy brings what a step needs of them, and block tables as far as they are used.
    for (const { name, bytes } of [...inputs].sort((a, b) => a.bytes - b.bytes)) {
      this.#places.set(name, { offset: end, bytes });
      end += Math.ceil(bytes / alignment) * alignment;
    }
    this.bytes = Math.max(end, alignment);
    this.#buffer = device.allocate(this.bytes, 'step inputs');
    try {
      this.#staging = device.allocatePinned(this.bytes);
    } catch (error) {
      this.#buffer[Symbol.dispose]();
      throw error;
    }
    this.#uploaded = new Event(device.driver);
  }

  address(name: string): DevicePtr {
    return offsetPtr(this.#buffer.ptr, this.#places.get(name)!.offset);
  }

  /** Sets the elements [at, at + count) of an input. */
  write(input: string, data: HostArray, count: number, at: number): void {
    const place = this.#places.get(input);
    // An input that no kernel reads was dropped by the compiler.
    if (place === undefined) return;
    // What was written for the step before may still be on its way.
    if (this.#dirty === 0) this.#uploaded.synchronize();
    const end = (at + count) * 4;
    if (end > place.bytes)
      throw new TargetError('step input too long', { where: input, expected: `${place.bytes} bytes`, got: `${end}` });
    this.#staging.bytes.set(new Uint8Array(data.buffer, data.byteOffset, count * 4), place.offset + at * 4);
    this.#dirty = Math.max(this.#dirty, place.offset + end);
  }

  /** Brings what was written to the device, in stream order. */
  upload(): void {
    if (this.#dirty === 0) return;
    this.#stream.upload(this.#buffer.ptr, this.#staging.address, this.#dirty);
    this.#uploaded.record(this.#stream);
    this.#dirty = 0;
  }

  [Symbol.dispose](): void {
    this.#buffer[Symbol.dispose]();
    this.#staging[Symbol.dispose]();
    this.#uploaded[Symbol.dispose]();
  }
}
