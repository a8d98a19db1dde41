// The CUDA target: NVIDIA GPUs from compute capability 8.0 through the driver alone; NVRTC compiles kernels where it is found.
import { join } from 'node:path';
import { track } from '../../base/dispose.ts';
import { readEnv } from '../../base/env.ts';
import { TargetError } from '../../base/errors.ts';
import { type CudaKernel, cudaArchFlag, cudaStub } from '../../kernels/cuda-kernel.ts';
import { CudaDriver } from '../ffi/cuda-driver.ts';
import { Nvrtc } from '../ffi/nvrtc.ts';
import { type CompiledKernel, KernelCache } from '../jit/cache.ts';
import { cudaFlags, nvrtcCompiler } from '../jit/nvrtc-compiler.ts';
import { packageKernels } from '../jit/sources.ts';
import type { Device, DeviceOptions, Target, TargetStatus } from '../target.ts';
import { CudaDevice } from './device.ts';
import { cudaKernels } from './kernels.ts';
import { CudaProgram, cudaBytes } from './program.ts';

/** Binaries of kernels for one architecture. */
export interface CudaCompiler extends Disposable {
  compile(kernel: CudaKernel): Promise<CompiledKernel>;
}

/** Compiles for `sm` into the user's cache; throws TargetError when there is no NVRTC. */
export function openCompiler(sm: number): CudaCompiler {
  const nvrtc = Nvrtc.find();
  if (nvrtc === undefined)
    throw new TargetError('no compiler for CUDA kernels', {
      expected: 'libnvrtc.so of CUDA 12 or 13',
      remedy:
        'Install the CUDA toolkit, or the Python package nvidia-cuda-nvrtc and put its lib folder on LD_LIBRARY_PATH.',
    });
  const cache = new KernelCache(join(readEnv().cacheDir, 'kernels'), nvrtcCompiler(nvrtc), packageKernels());
  const flags = cudaFlags(cudaArchFlag(sm));
  return {
    compile: (kernel) => cache.get({ name: kernel.name, stub: cudaStub(kernel), flags }),
    [Symbol.dispose]: () => nvrtc[Symbol.dispose](),
  };
}

function probe(): TargetStatus {
  try {
    using driver = CudaDriver.open();
    const count = driver.deviceCount;
    if (count === 0)
      return {
        available: false,
        detail: 'the driver sees no GPU',
        remedy: 'Check nvidia-smi and CUDA_VISIBLE_DEVICES',
      };
    const device = driver.device(0);
    const sm = driver.attribute(device, 'computeMajor') * 10 + driver.attribute(device, 'computeMinor');
    const name = driver.deviceName(device);
    if (sm < 80)
      return { available: false, detail: `${name} is too old (sm_${sm})`, remedy: 'A GPU of sm_80 or newer is needed' };
    using nvrtc = Nvrtc.find();
    if (nvrtc === undefined)
      return { available: false, detail: `${name}, but no NVRTC`, remedy: 'Install the CUDA toolkit (libnvrtc)' };
    const cuda = `CUDA ${Math.floor(driver.version / 1000)}.${(driver.version % 1000) / 10}`;
    return {
      available: true,
      detail: `${name}${count > 1 ? ` and ${count - 1} more` : ''}, ${cuda}, ${nvrtc.version}`,
    };
  } catch (error) {
    if (!(error instanceof TargetError)) throw error;
    return { available: false, detail: error.message, remedy: error.remedy ?? "Install NVIDIA's driver" };
  }
}

export const cudaTarget: Target = {
  name: 'cuda',
  probe,
  // Tensor cores want 16 bits; a float32 checkpoint becomes bfloat16, which has its range.
  computeDType: (checkpoint) => (checkpoint === 'float32' ? 'bfloat16' : checkpoint),
  storageBytes: cudaBytes,
  keepsBlocks: () => false,
  epilogues: ['gated-matmul'],
  select(node) {
    if (!Object.hasOwn(cudaKernels, node.op)) return undefined;
    if ((node.op === 'ropeCache' || node.op === 'pagedAttention') && node.attrs.headDim > 256) return undefined;
    if (node.op === 'pagedAttention' && node.attrs.headDim !== node.attrs.valueDim) return undefined;
    return { name: `cuda/${node.op}`, config: {} };
  },
  open: async (options: DeviceOptions = {}): Promise<Device> => {
    const device = new CudaDevice(options.index ?? 0);
    let compiler: CudaCompiler;
    try {
      compiler = openCompiler(device.info.sm);
    } catch (error) {
      device[Symbol.dispose]();
      throw error;
    }
    const close = track('device');
    return {
      target: 'cuda',
      name: device.info.name,
      memory: () => ({ kind: 'device', ...device.driver.memoryInfo() }),
      load: async (source) => new CudaProgram(device, compiler, source),
      [Symbol.asyncDispose]: async () => {
        compiler[Symbol.dispose]();
        device[Symbol.dispose]();
        close();
      },
    };
  },
};
