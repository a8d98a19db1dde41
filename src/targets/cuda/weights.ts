// A plan's weights in the device's memory: one allocation, filled from the engine's file by large reads into page-locked memory, several at a time,
// each on its way to the device while the next are read. What kernels want in another dtype is converted on the host.
import { type FileHandle, open } from 'node:fs/promises';
import { byteLength, elementCount, type FloatDType, toBFloat16Bits, toFloat16Bits } from '../../base/dtype.ts';
import { TargetError } from '../../base/errors.ts';
import { toFloat32 } from '../../define/checkpoint/cast.ts';
import { fileError } from '../../define/checkpoint/file.ts';
import { type DevicePtr, offsetPtr } from '../ffi/cuda-driver.ts';
import type { Plan, PlanTensor } from '../plan.ts';
import type { ProgramSource } from '../target.ts';
import type { CudaDevice, DeviceBuffer, PinnedBuffer } from './device.ts';
import { floatInputs } from './kernels.ts';
import { Event, type Stream } from './stream.ts';

const alignment = 256;
/** Bytes that one read brings, and reads under way: as many as Node.js has threads for files, and as many on their way to the device. */
const chunkBytes = 16 << 20;
const numSlots = 8;

interface Weight {
  readonly tensor: PlanTensor;
  readonly dtype: FloatDType;
  readonly bytes: number;
  /** Where it begins in the device's allocation. */
  readonly at: number;
}

/** A piece of a weight within a chunk of the file. */
interface Piece {
  /** Bytes from the chunk's first. */
  readonly from: number;
  readonly bytes: number;
  readonly to: number;
}

interface Chunk {
  readonly position: number;
  readonly bytes: number;
  readonly pieces: readonly Piece[];
}

export class DeviceWeights implements Disposable {
  readonly bytes: number;
  readonly #buffer: DeviceBuffer;
  readonly #places: ReadonlyMap<number, number>;

  private constructor(buffer: DeviceBuffer, places: ReadonlyMap<number, number>) {
    this.#buffer = buffer;
    this.#places = places;
    this.bytes = buffer.bytes;
  }

  /** Takes memory for all weights of the plan and fills it. Throws TargetError when it does not fit. */
  static async load(device: CudaDevice, stream: Stream, source: ProgramSource): Promise<DeviceWeights> {
    const { weights, bytes } = layOut(source.plan);
    const buffer = device.allocate(bytes, 'weights');
    try {
      await fill(device, stream, buffer.ptr, [...weights.values()], source);
    } catch (error) {
      buffer[Symbol.dispose]();
      throw error;
    }
    return new DeviceWeights(buffer, new Map([...weights].map(([index, { at }]) => [index, at])));
  }

  /** The address of the weight that is number `index` among the plan's tensors. */
  address(index: number): DevicePtr {
    return offsetPtr(this.#buffer.ptr, this.#places.get(index)!);
  }

  [Symbol.dispose](): void {
    this.#buffer[Symbol.dispose]();
  }
}

function layOut(plan: Plan): { weights: Map<number, Weight>; bytes: number } {
  const floats = floatWeights(plan);
  const weights = new Map<number, Weight>();
  let end = 0;
  for (const [index, tensor] of plan.tensors.entries()) {
    if (tensor.storage.kind !== 'weight') continue;
    const dtype = floats.has(index) ? 'float32' : plan.dtype;
    const bytes = byteLength(dtype, elementCount(tensor.shape as readonly number[]));
    weights.set(index, { tensor, dtype, bytes, at: end });
    end += Math.ceil(bytes / alignment) * alignment;
  }
  return { weights, bytes: end };
}

/** Weights that kernels read as float32. */
function floatWeights(plan: Plan): ReadonlySet<number> {
  const found = new Set<number>();
  for (const step of [...plan.phases.forward, ...plan.phases.sample])
    for (const [name, index] of Object.entries(step.args)) if (floatInputs.has(name)) found.add(index);
  return found;
}

async function fill(
  device: CudaDevice,
  stream: Stream,
  base: DevicePtr,
  all: readonly Weight[],
  source: ProgramSource,
): Promise<void> {
  const { file } = source;
  // Those are made on the device.
  const weights = all.filter(({ tensor: { storage } }) => storage.kind === 'weight' && storage.random === undefined);
  const plain = weights.filter(({ tensor, dtype }) => file !== undefined && tensor.dtype === dtype);
  const others = weights.filter((weight) => !plain.includes(weight));
  for (const { tensor, dtype, at } of others) {
    const stored = source.readWeight(tensor.name);
    const shape = tensor.shape as readonly number[];
    const same = tensor.dtype === dtype;
    device.upload(
      offsetPtr(base, at),
      same ? stored : narrow(toFloat32({ dtype: tensor.dtype, shape, data: stored }), dtype),
    );
    source.onWeight?.(tensor.name, stored.byteLength);
  }
  if (file === undefined || plain.length === 0) return;
  await transfer(
    device,
    stream,
    base,
    file.path,
    chunksOf(plain, (name) => file.offsetOf(name)),
  );
  for (const { tensor, bytes } of plain) source.onWeight?.(tensor.name, bytes);
}

/** Ranges of the file, in its order, that hold the weights; weights that lie side by side share one, large ones have several. */
export function chunksOf(weights: readonly Weight[], offsetOf: (name: string) => number, limit = chunkBytes): Chunk[] {
  const ordered = weights
    .map((weight) => ({ weight, position: offsetOf(weight.tensor.name) }))
    .sort((a, b) => a.position - b.position);
  const chunks: { position: number; bytes: number; pieces: Piece[] }[] = [];
  for (const { weight, position } of ordered) {
    for (let done = 0; done < weight.bytes; ) {
      let chunk = chunks.at(-1);
      const at = position + done;
      if (chunk === undefined || chunk.position + chunk.bytes !== at || chunk.bytes >= limit) {
        chunk = { position: at, bytes: 0, pieces: [] };
        chunks.push(chunk);
      }
      const bytes = Math.min(weight.bytes - done, limit - chunk.bytes);
      chunk.pieces.push({ from: chunk.bytes, bytes, to: weight.at + done });
      chunk.bytes += bytes;
      done += bytes;
    }
  }
  return chunks;
}

async function transfer(
  device: CudaDevice,
  stream: Stream,
  base: DevicePtr,
  path: string,
  chunks: readonly Chunk[],
): Promise<void> {
  const largest = chunks.reduce((most, { bytes }) => Math.max(most, bytes), 0);
  let handle: FileHandle;
  try {
    handle = await open(path, 'r');
  } catch (error) {
    throw fileError('cannot be opened', path, error);
  }
  const slots = Array.from({ length: Math.min(numSlots, chunks.length) }, () => new Slot(device, largest));
  try {
    const waiting = chunks.values();
    const results = await Promise.allSettled(
      slots.map(async (slot) => {
        for (const chunk of waiting) {
          await slot.read(handle, path, chunk);
          for (const { from, bytes, to } of chunk.pieces)
            stream.upload(offsetPtr(base, to), slot.memory.address + BigInt(from), bytes);
          slot.sent.record(stream);
        }
      }),
    );
    // Nothing may still be on its way out of a slot that is freed.
    stream.settle();
    for (const result of results) if (result.status === 'rejected') throw result.reason;
    stream.synchronize();
  } finally {
    for (const slot of slots) slot[Symbol.dispose]();
    await handle.close();
  }
}

/** Page-locked memory for one chunk. */
class Slot implements Disposable {
  readonly memory: PinnedBuffer;
  readonly sent: Event;

  constructor(device: CudaDevice, bytes: number) {
    this.memory = device.allocatePinned(bytes);
    this.sent = new Event(device.driver);
  }

  /** Reads a chunk when the one before has left for the device. */
  async read(handle: FileHandle, path: string, { position, bytes }: Chunk): Promise<void> {
    while (!this.sent.done) await new Promise((resolve) => setImmediate(resolve));
    for (let done = 0; done < bytes; ) {
      let got: number;
      try {
        ({ bytesRead: got } = await handle.read(this.memory.bytes, done, bytes - done, position + done));
      } catch (error) {
        throw fileError('cannot be read', path, error);
      }
      if (got === 0)
        throw new TargetError('the engine ends too early', {
          where: path,
          expected: `${bytes} bytes at ${position}`,
          got: `${done} bytes`,
          remedy: 'It was changed while it was loaded: build it again',
        });
      done += got;
    }
  }

  [Symbol.dispose](): void {
    this.sent[Symbol.dispose]();
    this.memory[Symbol.dispose]();
  }
}

/** The values as the device stores them. */
export function narrow(values: Float32Array, dtype: FloatDType): Float32Array | Uint16Array {
  if (dtype === 'float32') return values;
  const bits = dtype === 'bfloat16' ? toBFloat16Bits : toFloat16Bits;
  const out = new Uint16Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = bits(values[i]!);
  return out;
}
