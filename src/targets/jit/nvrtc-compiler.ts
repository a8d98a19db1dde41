// NVRTC as a compiler of the kernel cache.
import type { Nvrtc } from '../ffi/nvrtc.ts';
import type { Compiler } from './cache.ts';

/** Flags every CUDA kernel is compiled with. */
export function cudaFlags(arch: string): string[] {
  return [`--gpu-architecture=${arch}`, '--std=c++17', '--device-int128', '--extra-device-vectorization'];
}

export function nvrtcCompiler(nvrtc: Nvrtc): Compiler {
  return {
    version: nvrtc.version,
    sourceFile: 'kernel.cu',
    binaryFile: 'kernel.cubin',
    compile: async ({ name, text, includes, flags }) => nvrtc.compile({ name: `${name}.cu`, text, includes }, flags),
  };
}
