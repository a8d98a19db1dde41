// libcuda.so.1, the NVIDIA driver: every function TypeRT calls, with typed handles and errors that carry the driver's symbolic name.
// It holds no policy: contexts, streams and memory as disposable objects are in targets/cuda/.
import { TargetError } from '../../base/errors.ts';
import { addressOf, alignedBytes, type Functions, type Library, openLibrary, type Pointer, textAt } from './library.ts';

type Handle<Name extends string> = bigint & { readonly __handle: Name };
/** An address in the device's memory. */
export type DevicePtr = Handle<'DevicePtr'>;
export type ContextHandle = Handle<'Context'>;
export type StreamHandle = Handle<'Stream'>;
export type EventHandle = Handle<'Event'>;
export type ModuleHandle = Handle<'Module'>;
export type FunctionHandle = Handle<'Function'>;
export type GraphHandle = Handle<'Graph'>;
export type GraphExecHandle = Handle<'GraphExec'>;
/** A device's ordinal as the driver counts, after CUDA_VISIBLE_DEVICES. */
export type DeviceId = number & { readonly __handle: 'Device' };

/** `base` plus `bytes`. */
export const offsetPtr = (base: DevicePtr, bytes: number): DevicePtr => (base + BigInt(bytes)) as DevicePtr;

const functions = {
  cuInit: ['i32', 'u32'],
  cuDriverGetVersion: ['i32', 'ptr'],
  cuGetErrorName: ['i32', 'i32', 'ptr'],
  cuGetErrorString: ['i32', 'i32', 'ptr'],
  cuDeviceGetCount: ['i32', 'ptr'],
  cuDeviceGet: ['i32', 'ptr', 'i32'],
  cuDeviceGetName: ['i32', 'ptr', 'i32', 'i32'],
  cuDeviceGetUuid_v2: ['i32', 'ptr', 'i32'],
  cuDeviceTotalMem_v2: ['i32', 'ptr', 'i32'],
  cuDeviceGetAttribute: ['i32', 'ptr', 'i32', 'i32'],
  cuDevicePrimaryCtxRetain: ['i32', 'ptr', 'i32'],
  cuDevicePrimaryCtxRelease_v2: ['i32', 'i32'],
  cuCtxSetCurrent: ['i32', 'u64'],
  cuCtxSynchronize: ['i32'],
  cuMemGetInfo_v2: ['i32', 'ptr', 'ptr'],
  cuMemAlloc_v2: ['i32', 'ptr', 'u64'],
  cuMemFree_v2: ['i32', 'u64'],
  cuMemHostAlloc: ['i32', 'ptr', 'u64', 'u32'],
  cuMemFreeHost: ['i32', 'u64'],
  cuMemcpyHtoD_v2: ['i32', 'u64', 'ptr', 'u64'],
  cuMemcpyDtoH_v2: ['i32', 'ptr', 'u64', 'u64'],
  cuMemcpyHtoDAsync_v2: ['i32', 'u64', 'ptr', 'u64', 'u64'],
  cuMemcpyDtoHAsync_v2: ['i32', 'ptr', 'u64', 'u64', 'u64'],
  cuMemcpyDtoDAsync_v2: ['i32', 'u64', 'u64', 'u64', 'u64'],
  cuMemsetD8Async: ['i32', 'u64', 'u32', 'u64', 'u64'],
  cuMemsetD32Async: ['i32', 'u64', 'u32', 'u64', 'u64'],
  cuStreamCreate: ['i32', 'ptr', 'u32'],
  cuStreamDestroy_v2: ['i32', 'u64'],
  cuStreamSynchronize: ['i32', 'u64'],
  cuStreamQuery: ['i32', 'u64'],
  cuStreamWaitEvent: ['i32', 'u64', 'u64', 'u32'],
  cuEventCreate: ['i32', 'ptr', 'u32'],
  cuEventDestroy_v2: ['i32', 'u64'],
  cuEventRecord: ['i32', 'u64', 'u64'],
  cuEventSynchronize: ['i32', 'u64'],
  cuEventQuery: ['i32', 'u64'],
  cuEventElapsedTime: ['i32', 'ptr', 'u64', 'u64'],
  cuModuleLoadData: ['i32', 'ptr', 'ptr'],
  cuModuleUnload: ['i32', 'u64'],
  cuModuleGetFunction: ['i32', 'ptr', 'u64', 'str'],
  cuFuncGetAttribute: ['i32', 'ptr', 'i32', 'u64'],
  cuFuncSetAttribute: ['i32', 'u64', 'i32', 'i32'],
  cuOccupancyMaxActiveBlocksPerMultiprocessor: ['i32', 'ptr', 'u64', 'i32', 'u64'],
  cuLaunchKernel: ['i32', 'u64', 'u32', 'u32', 'u32', 'u32', 'u32', 'u32', 'u32', 'u64', 'ptr', 'ptr'],
  cuLaunchKernelEx: ['i32', 'ptr', 'u64', 'ptr', 'ptr'],
  cuStreamBeginCapture_v2: ['i32', 'u64', 'i32'],
  cuStreamEndCapture: ['i32', 'u64', 'ptr'],
  cuGraphInstantiateWithFlags: ['i32', 'ptr', 'u64', 'u64'],
  cuGraphExecUpdate_v2: ['i32', 'u64', 'u64', 'ptr'],
  cuGraphLaunch: ['i32', 'u64', 'u64'],
  cuGraphDestroy: ['i32', 'u64'],
  cuGraphExecDestroy: ['i32', 'u64'],
  cuTensorMapEncodeTiled: ['i32', 'ptr', 'i32', 'u32', 'u64', 'ptr', 'ptr', 'ptr', 'ptr', 'i32', 'i32', 'i32', 'i32'],
} as const;
type Table = typeof functions;

/** What the user can do about the driver's more telling errors. */
const reopen = 'Load the model again; if it comes back, check the GPU (nvidia-smi, dmesg) and report it.';
const remedies: Readonly<Record<string, string>> = {
  CUDA_ERROR_OUT_OF_MEMORY: 'Free memory on the device, or lower the batch, the sequence length or the KV cache.',
  CUDA_ERROR_NO_DEVICE: 'Check that a GPU is there (nvidia-smi) and that CUDA_VISIBLE_DEVICES names it.',
  CUDA_ERROR_INVALID_DEVICE: 'Check the device number and CUDA_VISIBLE_DEVICES.',
  CUDA_ERROR_DEVICE_UNAVAILABLE: 'Another program holds the GPU for itself: end it, or choose another GPU.',
  CUDA_ERROR_NO_BINARY_FOR_GPU: 'The kernel was built for another architecture; rebuild the engine on this device.',
  CUDA_ERROR_INVALID_IMAGE: 'The kernel is damaged or for another architecture; rebuild the engine on this device.',
  CUDA_ERROR_INVALID_PTX: 'The kernel is damaged; rebuild the engine on this device.',
  CUDA_ERROR_UNSUPPORTED_PTX_VERSION: 'Update the NVIDIA driver.',
  CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: 'Reboot, or reload the NVIDIA kernel module: it differs from the driver library.',
  CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE:
    'Update the NVIDIA driver: this GPU does not run with the compatibility one.',
  CUDA_ERROR_ILLEGAL_ADDRESS: 'The device must be opened anew; please report this as a bug.',
  CUDA_ERROR_MISALIGNED_ADDRESS: 'The device must be opened anew; please report this as a bug.',
  CUDA_ERROR_ILLEGAL_INSTRUCTION: 'The device must be opened anew; please report this as a bug.',
  CUDA_ERROR_LAUNCH_FAILED: reopen,
  CUDA_ERROR_LAUNCH_TIMEOUT: reopen,
  CUDA_ERROR_HARDWARE_STACK_ERROR: reopen,
  CUDA_ERROR_ECC_UNCORRECTABLE: 'The memory of the GPU is damaged: reset or replace it, or choose another GPU.',
  CUDA_ERROR_NVLINK_UNCORRECTABLE: 'The link between the GPUs failed: check them (nvidia-smi nvlink), or use one GPU.',
  CUDA_ERROR_CONTAINED: reopen,
  CUDA_ERROR_EXTERNAL_DEVICE: reopen,
  CUDA_ERROR_UNKNOWN: reopen,
};

/** Attributes of cuDeviceGetAttribute (cuda.h: CUdevice_attribute). */
export const deviceAttributes = {
  maxSharedMemoryPerBlock: 97,
  clockKHz: 13,
  multiprocessors: 16,
  l2Bytes: 38,
  maxThreadsPerMultiprocessor: 39,
  computeMajor: 75,
  computeMinor: 76,
  sharedMemoryPerMultiprocessor: 81,
} as const;

/** Attributes of cuFuncGetAttribute (cuda.h: CUfunction_attribute). */
export const functionAttributes = {
  maxThreadsPerBlock: 0,
  staticShared: 1,
  localBytes: 3,
  registers: 4,
  maxDynamicShared: 8,
  nonPortableCluster: 14,
} as const;

export type TensorMapType = 'float16' | 'bfloat16' | 'float32' | 'uint8' | 'int32';
const tensorMapTypes: Record<TensorMapType, number> = { uint8: 0, int32: 3, float16: 6, float32: 7, bfloat16: 9 };
const swizzles = { none: 0, b32: 1, b64: 2, b128: 3 } as const;

/** A box copied by the tensor memory accelerator; dimensions from the innermost, strides in bytes from the second. */
export interface TensorMapSpec {
  readonly dtype: TensorMapType;
  readonly dims: readonly number[];
  readonly strides: readonly number[];
  readonly box: readonly number[];
  readonly swizzle: keyof typeof swizzles;
}

export interface LaunchShape {
  readonly grid: readonly [x: number, y: number, z: number];
  readonly block: readonly [x: number, y: number, z: number];
  readonly sharedBytes: number;
  /** Thread-block cluster (sm_90 and newer); absent: none. */
  readonly cluster?: readonly [x: number, y: number, z: number];
  /** The kernel may begin while the one before it ends; it waits with griddepcontrol (sm_90 and newer). */
  readonly overlap?: boolean;
}

/** The driver, initialised. One a process; opening it twice is cheap. */
export class CudaDriver implements Disposable {
  readonly #library: Library<Table>;
  readonly fn: Functions<Table>;
  readonly #out = new BigUint64Array(2);
  readonly #out32 = new Int32Array(2);

  private constructor(library: Library<Table>) {
    this.#library = library;
    this.fn = library.fn;
  }

  /** Opens and initialises the driver; throws TargetError when it is missing or finds no GPU. */
  static open(): CudaDriver {
    const library = openLibrary({
      what: "NVIDIA's driver library",
      names: ['libcuda.so.1', '/usr/lib/wsl/lib/libcuda.so.1', 'libcuda.so'],
      functions,
      remedy: "Install NVIDIA's driver, or use another target (target: 'cpu').",
    });
    const driver = new CudaDriver(library);
    try {
      driver.check('cuInit', driver.fn.cuInit(0));
    } catch (error) {
      driver[Symbol.dispose]();
      throw error;
    }
    return driver;
  }

  [Symbol.dispose](): void {
    this.#library[Symbol.dispose]();
  }

  /** Throws TargetError when `code` is not CUDA_SUCCESS. */
  check(call: string, code: number, where?: string): void {
    if (code === 0) return;
    const symbol = this.errorName(code);
    const remedy = remedies[symbol];
    throw new TargetError(`${call} failed: ${symbol} (${this.#errorText(code)})`, {
      ...(where === undefined ? {} : { where }),
      ...(remedy === undefined ? {} : { remedy }),
    });
  }

  /** The driver's symbolic name of an error code. */
  errorName(code: number): string {
    return this.fn.cuGetErrorName(code, this.#out) === 0 ? textAt(this.#out[0]!) : `CUDA error ${code}`;
  }

  #errorText(code: number): string {
    return this.fn.cuGetErrorString(code, this.#out) === 0 ? textAt(this.#out[0]!) : 'unknown to this driver';
  }

  /** Calls `fill` with room for one 64-bit result and returns it. */
  handle<T extends bigint>(call: string, fill: (out: BigUint64Array) => number, where?: string): T {
    this.check(call, fill(this.#out), where);
    return this.#out[0]! as T;
  }

  int(call: string, fill: (out: Int32Array) => number): number {
    this.check(call, fill(this.#out32));
    return this.#out32[0]!;
  }

  /** CUDA version the driver supports, e.g. 13000 for 13.0. */
  get version(): number {
    return this.int('cuDriverGetVersion', (out) => this.fn.cuDriverGetVersion(out));
  }

  get deviceCount(): number {
    return this.int('cuDeviceGetCount', (out) => this.fn.cuDeviceGetCount(out));
  }

  device(ordinal: number): DeviceId {
    return this.int('cuDeviceGet', (out) => this.fn.cuDeviceGet(out, ordinal)) as DeviceId;
  }

  deviceName(device: DeviceId): string {
    const text = new Uint8Array(256);
    this.check('cuDeviceGetName', this.fn.cuDeviceGetName(text, text.length, device));
    return textAt(addressOf(text));
  }

  totalMemory(device: DeviceId): number {
    return Number(this.handle('cuDeviceTotalMem', (out) => this.fn.cuDeviceTotalMem_v2(out, device)));
  }

  attribute(device: DeviceId, attribute: keyof typeof deviceAttributes): number {
    const id = deviceAttributes[attribute];
    return this.int('cuDeviceGetAttribute', (out) => this.fn.cuDeviceGetAttribute(out, id, device));
  }

  functionAttribute(func: FunctionHandle, attribute: keyof typeof functionAttributes): number {
    const id = functionAttributes[attribute];
    return this.int('cuFuncGetAttribute', (out) => this.fn.cuFuncGetAttribute(out, id, func));
  }

  setFunctionAttribute(func: FunctionHandle, attribute: keyof typeof functionAttributes, value: number): void {
    this.check('cuFuncSetAttribute', this.fn.cuFuncSetAttribute(func, functionAttributes[attribute], value));
  }

  /** Free and total bytes of the current context's device. */
  memoryInfo(): { free: number; total: number } {
    const free = new BigUint64Array(1);
    const total = new BigUint64Array(1);
    this.check('cuMemGetInfo', this.fn.cuMemGetInfo_v2(free, total));
    return { free: Number(free[0]), total: Number(total[0]) };
  }

  /** `parameters` is an array of addresses, one a kernel argument. */
  launch(func: FunctionHandle, shape: LaunchShape, stream: StreamHandle, parameters: Pointer, where: string): void {
    const { grid, block, sharedBytes } = shape;
    if (shape.cluster === undefined && shape.overlap !== true) {
      this.check(
        'cuLaunchKernel',
        this.fn.cuLaunchKernel(func, ...grid, ...block, sharedBytes, stream, parameters, null),
        where,
      );
      return;
    }
    const config = encodeLaunch(shape, stream);
    this.check('cuLaunchKernelEx', this.fn.cuLaunchKernelEx(config, func, parameters, null), where);
  }

  /** The 128 opaque bytes of a CUtensorMap, to be passed by value as a kernel argument. */
  tensorMap(address: DevicePtr, spec: TensorMapSpec): Uint8Array {
    const map = alignedBytes(128, 64);
    const rank = spec.dims.length;
    const code = this.fn.cuTensorMapEncodeTiled(
      map,
      tensorMapTypes[spec.dtype],
      rank,
      address,
      BigUint64Array.from(spec.dims, BigInt),
      BigUint64Array.from(spec.strides.length === 0 ? [0] : spec.strides, BigInt),
      Uint32Array.from(spec.box),
      new Uint32Array(rank).fill(1),
      0,
      swizzles[spec.swizzle],
      3, // promote to 256-byte sectors of the L2
      0,
    );
    this.check('cuTensorMapEncodeTiled', code, JSON.stringify(spec));
    return map;
  }
}

/** CUlaunchConfig with its attributes behind it in one buffer (cuda.h). */
function encodeLaunch(shape: LaunchShape, stream: StreamHandle): Uint8Array {
  const config = new DataView(new ArrayBuffer(64 + 2 * 72));
  const bytes = new Uint8Array(config.buffer);
  let end = 64;
  const attribute = (id: number, values: readonly number[]): void => {
    config.setUint32(end, id, true);
    for (const [i, value] of values.entries()) config.setUint32(end + 8 + i * 4, value, true);
    end += 72;
  };
  if (shape.cluster !== undefined) attribute(4, shape.cluster); // CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
  if (shape.overlap === true) attribute(6, [1]); // CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
  const words = [...shape.grid, ...shape.block, shape.sharedBytes];
  for (const [i, word] of words.entries()) config.setUint32(i * 4, word, true);
  config.setBigUint64(32, stream, true);
  config.setBigUint64(40, addressOf(bytes) + 64n, true);
  config.setUint32(48, (end - 64) / 72, true);
  return bytes;
}
