// The CUDA target: NVIDIA GPUs from compute capability 8.0 through the driver alone; NVRTC compiles kernels where it is found.
import { track } from '../../base/dispose.ts';
import { TargetError } from '../../base/errors.ts';
import { CudaDriver } from '../ffi/cuda-driver.ts';
import { Nvrtc } from '../ffi/nvrtc.ts';
import type { Device, DeviceOptions, Target, TargetStatus } from '../target.ts';
import { nvrtcRemedy, PlanBinaries } from './binaries.ts';
import { CudaDevice, cudaVersion, driverTooOld, oldestDriver } from './device.ts';
import { cudaKernels } from './kernels.ts';
import { prepareCuda } from './prepare.ts';
import { CudaProgram, cudaBytes } from './program.ts';
import { engineKernels } from './survey.ts';
import { tacticDevice } from './tactics.ts';

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
    if (driver.version < oldestDriver) throw driverTooOld(driver.version);
    const device = driver.device(0);
    const sm = driver.attribute(device, 'computeMajor') * 10 + driver.attribute(device, 'computeMinor');
    const name = driver.deviceName(device);
    if (sm < 80)
      return { available: false, detail: `${name} is too old (sm_${sm})`, remedy: 'A GPU of sm_80 or newer is needed' };
    using nvrtc = Nvrtc.find([], Math.floor(driver.version / 1000));
    const cuda = `CUDA ${cudaVersion(driver.version)}`;
    const detail = `${name}${count > 1 ? ` and ${count - 1} more` : ''}, ${cuda}`;
    if (nvrtc === undefined) {
      const short = `${detail}, no NVRTC: engines that were built on this kind of GPU run, none can be built`;
      return { available: true, builds: false, detail: short, remedy: nvrtcRemedy };
    }
    return { available: true, detail: `${detail}, ${nvrtc.version}` };
  } catch (error) {
    if (!(error instanceof TargetError)) throw error;
    return { available: false, detail: error.summary, remedy: error.remedy ?? "Install NVIDIA's driver" };
  }
}

export const cudaTarget: Target = {
  name: 'cuda',
  probe,
  // Tensor cores want 16 bits; a float32 checkpoint becomes bfloat16, which has its range.
  computeDType: (checkpoint) => (checkpoint === 'float32' ? 'bfloat16' : checkpoint),
  storageBytes: cudaBytes,
  keepsBlocks: () => false,
  epilogues: ['gated-matmul', 'residual-matmul', 'norm-matmul', 'rope-attention'],
  makesRandomWeights: true,
  select(node) {
    if (!Object.hasOwn(cudaKernels, node.op)) return undefined;
    if ('headDim' in node.attrs && Math.max(node.attrs.headDim, node.attrs.valueDim) > 1024) return undefined;
    return { name: `cuda/${node.op}`, config: {} };
  },
  prepare: prepareCuda,
  machine() {
    using device = new CudaDevice();
    return tacticDevice(device.info);
  },
  open: async (options: DeviceOptions = {}): Promise<Device> => {
    const device = new CudaDevice(options.index ?? 0);
    const binaries: PlanBinaries[] = [];
    const close = track('device');
    return {
      target: 'cuda',
      name: device.info.name,
      memory: () => device.memory(),
      load: async (source) => {
        const { plan } = source;
        const kernels = new PlanBinaries(device.info, plan);
        binaries.push(kernels);
        await kernels.prepare(engineKernels(plan, device.info), (name) => source.readWeight(name));
        const program = await CudaProgram.load(device, kernels, source);
        await program.makeRandomWeights();
        return program;
      },
      [Symbol.asyncDispose]: async () => {
        for (const kernels of binaries) kernels[Symbol.dispose]();
        device[Symbol.dispose]();
        close();
      },
    };
  },
};
