// Where the kernels' machine code comes from: the engine that carries it, else the user's cache, else NVRTC. The compiler is looked for only when
// it is needed, so that an engine runs where there is none.
import { join } from 'node:path';
import { debug } from '../../base/debug.ts';
import { readEnv } from '../../base/env.ts';
import { TargetError } from '../../base/errors.ts';
import { type CudaKernel, cudaArchFlag, cudaStub } from '../../kernels/cuda-kernel.ts';
import { Nvrtc } from '../ffi/nvrtc.ts';
import { type CompiledKernel, KernelCache } from '../jit/cache.ts';
import { cudaFlags, NvrtcProcesses, nvrtcCompiler } from '../jit/nvrtc-compiler.ts';
import { hashTexts, includeClosure, packageKernels } from '../jit/sources.ts';
import { kernelTensor, type Plan, type PlanKernels } from '../plan.ts';
import type { CudaDeviceInfo } from './device.ts';

/** Binaries of kernels for one architecture. */
export interface CudaCompiler extends Disposable {
  compile(kernel: CudaKernel): Promise<CompiledKernel>;
}

/** A compiler, and what it is. */
export interface KernelCompiler extends CudaCompiler {
  readonly version: string;
}

const tree = packageKernels();

/** By the file of a template: a hash of all that it includes. */
const closures = new Map<string, string>();

/** A hash of all that is compiled for a kernel: its stub and every file it includes. */
export function sourceHash(kernel: CudaKernel): string {
  const stub = cudaStub(kernel);
  let closure = closures.get(kernel.include);
  if (closure === undefined) {
    closure = hashTexts([...includeClosure(tree, stub, kernel.name)].flat());
    closures.set(kernel.include, closure);
  }
  return hashTexts([stub, closure]);
}

/** What a compiler must know of a device. */
export type CompilerTarget = Pick<CudaDeviceInfo, 'sm' | 'driverVersion'>;

const cudaMajor = ({ driverVersion }: CompilerTarget): number => Math.floor(driverVersion / 1000);

/** Compiles for a device into the user's cache, several kernels at a time; undefined when there is no NVRTC that its driver goes with. */
export function findCompiler(
  target: CompilerTarget,
  folder: string = join(readEnv().cacheDir, 'kernels'),
): KernelCompiler | undefined {
  const nvrtc = Nvrtc.find([], cudaMajor(target));
  if (nvrtc === undefined) return undefined;
  const compiler = NvrtcProcesses.possible ? new NvrtcProcesses(nvrtc) : nvrtcCompiler(nvrtc);
  const cache = new KernelCache(folder, compiler, tree);
  const flags = cudaFlags(cudaArchFlag(target.sm));
  return {
    version: compiler.version,
    compile: (kernel) => cache.get({ name: kernel.name, stub: cudaStub(kernel), flags }),
    [Symbol.dispose]: () => {
      if (compiler instanceof NvrtcProcesses) compiler[Symbol.dispose]();
      nvrtc[Symbol.dispose]();
    },
  };
}

/** What helps where NVRTC is missing. */
export const nvrtcRemedy =
  'Install the CUDA toolkit, or the Python package nvidia-cuda-nvrtc with its lib folder on LD_LIBRARY_PATH';

/** As findCompiler; throws TargetError when there is no NVRTC. */
export function openCompiler(target: CompilerTarget): KernelCompiler {
  const found = findCompiler(target);
  if (found !== undefined) return found;
  throw new TargetError('no compiler for CUDA kernels', {
    expected: `libnvrtc.so of CUDA 12${cudaMajor(target) >= 13 ? ' or 13' : ', as the driver'}`,
    remedy: nvrtcRemedy,
  });
}

/** The major version of CUDA whose compiler made an engine's kernels. */
function compiledBy({ compiler }: PlanKernels): number {
  return Number(/\d+/.exec(compiler)?.[0] ?? 0);
}

/** The kernels of one plan on a device; what is compiled is compiled once. */
export class PlanBinaries implements CudaCompiler {
  readonly #target: CompilerTarget;
  readonly #stored: PlanKernels | undefined;
  readonly #binaries = new Map<string, CompiledKernel>();
  #compiler: KernelCompiler | undefined;

  constructor(target: CompilerTarget, { kernels }: Plan) {
    this.#target = target;
    this.#stored = kernels;
  }

  /** Has these kernels at hand from now on: what fits of the engine's tensors, which `read` gives, and the others compiled. */
  async prepare(kernels: readonly CudaKernel[], read: (tensor: string) => Uint8Array): Promise<void> {
    const stored = this.#stored;
    const foreign = stored?.arch !== cudaArchFlag(this.#target.sm) || compiledBy(stored) > cudaMajor(this.#target);
    const missing = kernels.filter((kernel) => {
      const { name } = kernel;
      const hash = this.#stored?.sources[name];
      if (foreign || hash === undefined || hash !== sourceHash(kernel)) return true;
      this.#binaries.set(name, { name, key: hash, binary: read(kernelTensor(name)), compiled: false, milliseconds: 0 });
      return false;
    });
    if (missing.length > 0) debug(1, () => `${missing.length} of ${kernels.length} kernels are not in the engine`);
    await Promise.all(missing.map((kernel) => this.compile(kernel)));
  }

  async compile(kernel: CudaKernel): Promise<CompiledKernel> {
    const known = this.#binaries.get(kernel.name);
    if (known !== undefined) return known;
    this.#compiler ??= findCompiler(this.#target);
    if (this.#compiler === undefined) throw this.#unavailable(kernel);
    const compiled = await this.#compiler.compile(kernel);
    this.#binaries.set(kernel.name, compiled);
    return compiled;
  }

  #unavailable(kernel: CudaKernel): TargetError {
    const arch = cudaArchFlag(this.#target.sm);
    const built = this.#stored?.arch;
    const got =
      built === undefined
        ? 'an engine without kernels'
        : built !== arch
          ? `an engine built for ${built}`
          : compiledBy(this.#stored!) > cudaMajor(this.#target)
            ? `kernels of ${this.#stored!.compiler}, which this driver for CUDA ${cudaMajor(this.#target)} does not run`
            : this.#stored?.sources[kernel.name] === undefined
              ? 'an engine without this kernel'
              : 'an engine of another TypeRT, whose kernel differs';
    return new TargetError('no machine code for a kernel, and no compiler to make it', {
      where: kernel.name,
      expected: `a kernel for ${arch}, or NVRTC`,
      got,
      remedy: `${nvrtcRemedy}; or build the engine on a machine with this kind of GPU`,
    });
  }

  [Symbol.dispose](): void {
    this.#compiler?.[Symbol.dispose]();
    this.#compiler = undefined;
  }
}
