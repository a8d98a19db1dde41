// A kernel launch made ready: its Params struct packed by C's layout rules, tensor maps encoded, then given to a stream.
import { TargetError } from '../../base/errors.ts';
import type { CudaLaunch } from '../../kernels/cuda-kernel.ts';
import { type DevicePtr, type LaunchShape, offsetPtr } from '../ffi/cuda-driver.ts';
import { addressOf, alignedBytes } from '../ffi/library.ts';
import type { CudaDevice, LoadedKernel } from './device.ts';
import type { Stream } from './stream.ts';

/** Addresses of the buffers that a launch names. */
export type Buffers = Readonly<Record<string, DevicePtr>>;

/** Work made ready for a stream; `issue` may be called again and captured. */
export interface PreparedWork {
  readonly name: string;
  /** Where it is a kernel of ours. */
  readonly shape?: LaunchShape;
  issue(stream: Stream): void;
}

/** A launch with its arguments encoded. */
export class PreparedLaunch implements PreparedWork {
  readonly kernel: LoadedKernel;
  readonly shape: LaunchShape;
  readonly #device: CudaDevice;
  readonly #params: Uint8Array;
  readonly #pointers: BigUint64Array;

  constructor(device: CudaDevice, kernel: LoadedKernel, launch: CudaLaunch, buffers: Buffers) {
    this.#device = device;
    this.kernel = kernel;
    this.shape = {
      grid: launch.grid,
      block: [launch.threads, 1, 1],
      sharedBytes: launch.sharedBytes,
      ...(launch.cluster === undefined ? {} : { cluster: launch.cluster }),
      ...(launch.overlap === true && device.info.sm >= 90 ? { overlap: true } : {}),
    };
    this.#params = packParams(device, launch, buffers);
    this.#pointers = BigUint64Array.of(addressOf(this.#params));
  }

  get name(): string {
    return this.kernel.name;
  }

  issue(stream: Stream): void {
    this.#device.driver.launch(this.kernel.func, this.shape, stream.handle, this.#pointers, this.kernel.name);
  }
}

function packParams(device: CudaDevice, launch: CudaLaunch, buffers: Buffers): Uint8Array {
  const sizes = launch.args.map(({ kind }) => (kind === 'tensorMap' ? 128 : kind === 'i32' || kind === 'f32' ? 4 : 8));
  const offsets: number[] = [];
  let end = 0;
  for (const size of sizes) {
    const alignment = size === 128 ? 64 : size;
    end = Math.ceil(end / alignment) * alignment;
    offsets.push(end);
    end += size;
  }
  const bytes = alignedBytes(Math.ceil(Math.max(end, 8) / 64) * 64, 64);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const address = (name: string, offset = 0): DevicePtr => {
    const base = buffers[name];
    if (base === undefined)
      throw new TargetError('a launch names a buffer that is not there', { where: launch.kernel.name, expected: name });
    return offsetPtr(base, offset);
  };
  for (const [i, arg] of launch.args.entries()) {
    const at = offsets[i]!;
    switch (arg.kind) {
      case 'pointer':
        view.setBigUint64(at, address(arg.buffer, arg.offset), true);
        break;
      case 'null':
        break;
      case 'i32':
        view.setInt32(at, arg.value, true);
        break;
      case 'f32':
        view.setFloat32(at, arg.value, true);
        break;
      case 'tensorMap':
        bytes.set(device.driver.tensorMap(address(arg.buffer, arg.offset), arg.spec), at);
        break;
      default:
        arg satisfies never;
    }
  }
  return bytes;
}
