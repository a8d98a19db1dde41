// An NVIDIA GPU opened through the driver: its primary context, memory, streams, modules. Every object is disposable and counted.
// Buffers of the device's memory are plain allocations; whoever makes one owns it.
import { track } from '../../base/dispose.ts';
import { show, TargetError } from '../../base/errors.ts';
import type { CudaArch } from '../../kernels/cuda-kernel.ts';
import {
  type ContextHandle,
  CudaDriver,
  type DeviceId,
  type DevicePtr,
  type FunctionHandle,
  type ModuleHandle,
} from '../ffi/cuda-driver.ts';
import { memoryAt } from '../ffi/library.ts';
import type { DeviceMemory } from '../target.ts';
import { Stream } from './stream.ts';

export interface CudaDeviceInfo extends CudaArch {
  readonly name: string;
  readonly totalBytes: number;
  readonly l2Bytes: number;
  readonly driverVersion: number;
  readonly clockKHz: number;
}

/** A piece of the device's memory. */
export interface DeviceBuffer extends Disposable {
  readonly ptr: DevicePtr;
  readonly bytes: number;
}

/** Page-locked memory of the host, which copies reach without staging. */
export interface PinnedBuffer extends Disposable {
  readonly address: bigint;
  readonly bytes: Uint8Array;
}

/** A kernel loaded on the device. */
export interface LoadedKernel extends Disposable {
  readonly name: string;
  readonly func: FunctionHandle;
  readonly registers: number;
  /** Bytes a thread spills to local memory. */
  readonly localBytes: number;
}

/** The oldest driver that has every function TypeRT calls, as it counts versions: CUDA 12.0. */
export const oldestDriver = 12000;

export function driverTooOld(version: number): TargetError {
  return new TargetError("NVIDIA's driver is too old", {
    expected: `a driver for CUDA ${cudaVersion(oldestDriver)} or newer (525 or newer)`,
    got: `one for CUDA ${cudaVersion(version)}`,
    remedy: 'Update the driver',
  });
}

/** 13.0 for 13000. */
export function cudaVersion(version: number): string {
  return `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`;
}

export class CudaDevice implements Disposable {
  readonly driver: CudaDriver;
  readonly info: CudaDeviceInfo;
  readonly #id: DeviceId;
  readonly #context: ContextHandle;
  readonly #untrack: () => void;
  readonly #freeAtStart: number;
  #allocated = 0;
  #closed = false;

  /** Opens device `ordinal`, counted after CUDA_VISIBLE_DEVICES; throws TargetError when it is not there. */
  constructor(ordinal = 0) {
    const driver = CudaDriver.open();
    try {
      if (driver.version < oldestDriver) throw driverTooOld(driver.version);
      const count = driver.deviceCount;
      if (ordinal < 0 || ordinal >= count)
        throw new TargetError('no such CUDA device', {
          expected: count === 0 ? 'a visible GPU' : `a number from 0 to ${count - 1}`,
          got: show(ordinal),
          remedy: 'Check the device number and CUDA_VISIBLE_DEVICES.',
        });
      this.#id = driver.device(ordinal);
      this.info = {
        name: driver.deviceName(this.#id),
        sm: driver.attribute(this.#id, 'computeMajor') * 10 + driver.attribute(this.#id, 'computeMinor'),
        multiprocessors: driver.attribute(this.#id, 'multiprocessors'),
        maxSharedBytes: driver.attribute(this.#id, 'maxSharedMemoryPerBlock'),
        l2Bytes: driver.attribute(this.#id, 'l2Bytes'),
        totalBytes: driver.totalMemory(this.#id),
        driverVersion: driver.version,
        clockKHz: driver.attribute(this.#id, 'clockKHz'),
      };
      if (this.info.sm < 80)
        throw new TargetError('the GPU is too old', {
          where: this.info.name,
          expected: 'compute capability 8.0 or newer',
          got: `${Math.floor(this.info.sm / 10)}.${this.info.sm % 10}`,
          remedy: "Use another target (target: 'cpu').",
        });
      this.#context = driver.handle('cuDevicePrimaryCtxRetain', (out) =>
        driver.fn.cuDevicePrimaryCtxRetain(out, this.#id),
      );
      driver.check('cuCtxSetCurrent', driver.fn.cuCtxSetCurrent(this.#context));
      this.#freeAtStart = driver.memoryInfo().free;
    } catch (error) {
      driver[Symbol.dispose]();
      throw error;
    }
    this.driver = driver;
    this.#untrack = track('cuda device');
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.driver.fn.cuDevicePrimaryCtxRelease_v2(this.#id);
    this.driver[Symbol.dispose]();
    this.#untrack();
  }

  /** The device's memory now. */
  memory(): DeviceMemory {
    const { total, free } = this.driver.memoryInfo();
    return { kind: 'device', total, free, used: Math.max(0, this.#freeAtStart - free) };
  }

  /** Bytes allocated through this object and not yet freed. */
  get allocatedBytes(): number {
    return this.#allocated;
  }

  allocate(bytes: number, what = 'buffer'): DeviceBuffer {
    const { driver } = this;
    const size = Math.max(bytes, 1);
    const ptr = driver.handle<DevicePtr>(
      'cuMemAlloc',
      (out) => driver.fn.cuMemAlloc_v2(out, size),
      `${what}, ${size} bytes`,
    );
    const untrack = track('cuda memory');
    this.#allocated += size;
    let open = true;
    return {
      ptr,
      bytes,
      [Symbol.dispose]: () => {
        if (!open) return;
        open = false;
        this.#allocated -= size;
        untrack();
        // A device that is lost refuses this too: the error that told so must not be covered by another.
        driver.fn.cuMemFree_v2(ptr);
      },
    };
  }

  allocatePinned(bytes: number): PinnedBuffer {
    const { driver } = this;
    const address = driver.handle<bigint>('cuMemHostAlloc', (out) => driver.fn.cuMemHostAlloc(out, bytes, 0));
    const untrack = track('cuda pinned memory');
    let open = true;
    return {
      address,
      bytes: new Uint8Array(memoryAt(address, bytes)),
      [Symbol.dispose]: () => {
        if (!open) return;
        open = false;
        untrack();
        driver.fn.cuMemFreeHost(address);
      },
    };
  }

  /** Copies to the device and returns when the source may change. */
  upload(target: DevicePtr, data: ArrayBufferView): void {
    this.driver.check('cuMemcpyHtoD', this.driver.fn.cuMemcpyHtoD_v2(target, data, data.byteLength));
  }

  /** Copies from the device; waits for all work before it. */
  download(source: DevicePtr, into: ArrayBufferView): void {
    this.driver.check('cuMemcpyDtoH', this.driver.fn.cuMemcpyDtoH_v2(into, source, into.byteLength));
  }

  synchronize(): void {
    this.driver.check('cuCtxSynchronize', this.driver.fn.cuCtxSynchronize());
  }

  createStream(): Stream {
    return new Stream(this.driver);
  }

  /** Loads a cubin and finds `name` in it; `sharedBytes` is the dynamic shared memory its launches will ask for. */
  loadKernel(name: string, binary: Uint8Array, sharedBytes = 0): LoadedKernel {
    const { driver } = this;
    const module = driver.handle<ModuleHandle>(
      'cuModuleLoadData',
      (out) => driver.fn.cuModuleLoadData(out, binary),
      name,
    );
    let func: FunctionHandle;
    try {
      func = driver.handle('cuModuleGetFunction', (out) => driver.fn.cuModuleGetFunction(out, module, name), name);
      if (sharedBytes > 48 * 1024) driver.setFunctionAttribute(func, 'maxDynamicShared', sharedBytes);
    } catch (error) {
      driver.fn.cuModuleUnload(module);
      throw error;
    }
    const untrack = track('cuda module');
    let open = true;
    return {
      name,
      func,
      registers: driver.functionAttribute(func, 'registers'),
      localBytes: driver.functionAttribute(func, 'localBytes'),
      [Symbol.dispose]: () => {
        if (!open) return;
        open = false;
        untrack();
        driver.fn.cuModuleUnload(module);
      },
    };
  }

  /** Blocks of a kernel that fit on one multiprocessor. */
  occupancy(kernel: LoadedKernel, threads: number, sharedBytes: number): number {
    const { driver } = this;
    return driver.int('cuOccupancyMaxActiveBlocksPerMultiprocessor', (out) =>
      driver.fn.cuOccupancyMaxActiveBlocksPerMultiprocessor(out, kernel.func, threads, sharedBytes),
    );
  }
}
