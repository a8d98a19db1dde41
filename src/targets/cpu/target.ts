// The CPU target: C kernels compiled for this machine, a step in one native call on a pool of threads.
import { track } from '../../base/dispose.ts';
import type { PlainOp } from '../../kernels/reference-table.ts';
import { hostMemory } from '../host-memory.ts';
import { findCCompiler } from '../jit/cc-compiler.ts';
import type { Device, DeviceOptions, ProgramSource, Target, TargetStatus } from '../target.ts';
import { cpuCache, cpuKernels, weightFormats } from './kernels.ts';
import { compileStub, openNativeHost, openNativePacker } from './native.ts';
import { panelPacking } from './pack.ts';
import { CpuProgram } from './program.ts';
import { makeStub } from './stub.ts';
import { threadCpus } from './threads.ts';
import { openWasmHost, openWasmPacker } from './wasm.ts';

/** How kernels come to be: compiled here, or the module that comes with the package. */
type Kernels = 'native' | 'wasm';

/** Native kernels where a compiler works; the WebAssembly module elsewhere. */
function kernelsHere(): { readonly kind: Kernels; readonly why: string } {
  if (process.platform === 'win32') return { kind: 'wasm', why: 'native ones are not made on Windows yet' };
  const compiler = findCCompiler();
  return compiler instanceof Error
    ? { kind: 'wasm', why: `no C compiler works: ${compiler.message}` }
    : { kind: 'native', why: compiler.version };
}

function probe(): TargetStatus {
  const { kind, why } = kernelsHere();
  const threads = `${threadCpus().length} threads`;
  if (kind === 'native') return { available: true, detail: `${threads}, kernels by ${why}` };
  return {
    available: true,
    detail: `${threads}, WebAssembly kernels (${why})`,
    remedy: process.platform === 'win32' ? 'Use WSL for full speed' : 'Install gcc or clang for full speed',
  };
}

/** The target with the kernels of one kind, or of the kind that suits this machine. */
export const cpuTargetWith = (kernels: () => Kernels): Target => ({
  name: 'cpu',
  probe,
  // Weights keep the checkpoint's bits either way; activations are float32.
  computeDType: () => 'float32',
  storageBytes: () => 4,
  keepsBlocks: (dtype) => weightFormats[dtype] !== undefined,
  cache: cpuCache,
  epilogues: [],
  select(node) {
    if (!Object.hasOwn(cpuKernels, node.op)) return undefined;
    const kernel = cpuKernels[node.op as PlainOp];
    const config = kernel.config?.(node as never) ?? {};
    return { name: `cpu/${node.op}`, config };
  },
  prepare: async (plan) => {
    if (kernels() === 'native') await compileStub(makeStub(plan).text);
    return { plan, tensors: new Map() };
  },
  packing: panelPacking(async (plan) => await (kernels() === 'native' ? openNativePacker(plan) : openWasmPacker())),
  open: async (options: DeviceOptions = {}): Promise<Device> => {
    const close = track('device');
    const cpus = threadCpus(options.threads);
    return {
      target: 'cpu',
      name: `CPU, ${cpus.length} threads`,
      memory: hostMemory,
      load: async (source: ProgramSource) => {
        const host = await (kernels() === 'native' ? openNativeHost(source.plan, cpus) : openWasmHost(cpus.length));
        try {
          return new CpuProgram(source, host);
        } catch (error) {
          await host[Symbol.asyncDispose]();
          throw error;
        }
      },
      [Symbol.asyncDispose]: async () => close(),
    };
  },
});

/** The CPU target of this machine. */
export const cpuTarget: Target = cpuTargetWith(() => kernelsHere().kind);
