// The CPU target: C kernels compiled for this machine, a step in one native call on a pool of threads.
import { freemem, totalmem } from 'node:os';
import { track } from '../../base/dispose.ts';
import type { KernelOp } from '../../kernels/reference-table.ts';
import { findCCompiler } from '../jit/cc-compiler.ts';
import type { Device, DeviceOptions, ProgramSource, Target, TargetStatus } from '../target.ts';
import { cpuKernels, weightFormats } from './kernels.ts';
import { compileStub, openNativeHost, openNativePacker } from './native.ts';
import { panelPacking } from './pack.ts';
import { CpuProgram } from './program.ts';
import { makeStub } from './stub.ts';
import { threadCpus } from './threads.ts';

function probe(): TargetStatus {
  const compiler = findCCompiler();
  if (compiler instanceof Error) {
    return {
      available: false,
      detail: `no C compiler works (${compiler.message})`,
      remedy: 'Install gcc or clang; until then the reference target answers, slowly',
    };
  }
  if (process.platform === 'win32') {
    return { available: false, detail: 'not on Windows yet', remedy: 'Use WSL, or the reference target' };
  }
  return { available: true, detail: `${threadCpus().length} threads, kernels by ${compiler.version}` };
}

export const cpuTarget: Target = {
  name: 'cpu',
  probe,
  // Weights keep the checkpoint's bits either way; activations are float32.
  computeDType: () => 'float32',
  storageBytes: () => 4,
  keepsBlocks: (dtype) => weightFormats[dtype] !== undefined,
  epilogues: [],
  select(node) {
    if (!Object.hasOwn(cpuKernels, node.op)) return undefined;
    const kernel = cpuKernels[node.op as KernelOp];
    const config = kernel.config?.(node as never) ?? {};
    return { name: `cpu/${node.op}`, config };
  },
  prepare: async (plan) => {
    await compileStub(makeStub(plan).text);
    return { plan, tensors: new Map() };
  },
  packing: panelPacking(openNativePacker),
  open: async (options: DeviceOptions = {}): Promise<Device> => {
    const close = track('device');
    const cpus = threadCpus(options.threads);
    return {
      target: 'cpu',
      name: `CPU, ${cpus.length} threads`,
      memory: () => ({ kind: 'host', total: totalmem(), free: freemem() }),
      load: async (source: ProgramSource) => {
        const host = await openNativeHost(source.plan, cpus);
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
};
