// What a CUDA kernel is to the compiler: plain data, with no device and no compiler behind it. A kernel is a C++ class template with
// `Params`, `threads`, `minBlocks` and `run`; the stub names one instantiation, and nothing else of CUDA C++ is written in TypeScript.
import type { FloatDType } from '../base/dtype.ts';

/** One instantiation of a kernel template. */
export interface CudaKernel {
  /** The symbol in the binary, unique per instantiation. */
  readonly name: string;
  /** The file that defines the template, under src/kernels/. */
  readonly include: string;
  /** The C++ type: 'SmallMatmul<bf16, 8, 4, false>'. */
  readonly type: string;
}

/** Fields of the kernel's `Params` struct, in order; buffers by the name the op gives them. */
export type CudaArg =
  | { readonly kind: 'pointer'; readonly buffer: string; readonly offset?: number }
  | { readonly kind: 'null' }
  | { readonly kind: 'i32' | 'f32'; readonly value: number }
  | { readonly kind: 'tensorMap'; readonly buffer: string; readonly offset?: number; readonly spec: TensorMap };

/** A box that the tensor memory accelerator copies: dimensions from the innermost, strides in bytes from the second dimension. */
export interface TensorMap {
  readonly dtype: FloatDType;
  readonly dims: readonly number[];
  readonly strides: readonly number[];
  readonly box: readonly number[];
  readonly swizzle: 'none' | 'b32' | 'b64' | 'b128';
}

export interface CudaLaunch {
  readonly kernel: CudaKernel;
  readonly grid: readonly [number, number, number];
  readonly threads: number;
  readonly sharedBytes: number;
  readonly cluster?: readonly [number, number, number];
  /** The kernel waits for the one before it by itself (sm_90 and newer). */
  readonly overlap?: boolean;
  readonly args: readonly CudaArg[];
}

/** What a kernel choice may know of a device. */
export interface CudaArch {
  /** 90 for sm_90. */
  readonly sm: number;
  readonly multiprocessors: number;
  /** Shared memory one block may ask for, bytes. */
  readonly maxSharedBytes: number;
}

export const cudaTypes: Record<FloatDType, string> = { float32: 'float', bfloat16: 'bf16', float16: 'f16' };

/** A symbol name from the template's arguments. */
export function symbolName(prefix: string, ...parts: readonly (string | number | boolean)[]): string {
  return [prefix, ...parts.map((part) => (typeof part === 'boolean' ? Number(part) : part))].join('_');
}

/** The whole text that is compiled for a kernel. */
export function cudaStub(kernel: CudaKernel): string {
  return `#include "${kernel.include}"\nTYPERT_KERNEL(${kernel.name}, ${kernel.type})\n`;
}

/** The target in NVRTC's words: Hopper and newer need the architecture-specific set (wgmma, setmaxnreg, tcgen05). */
export function cudaArchFlag(sm: number): string {
  return sm >= 90 ? `sm_${sm}a` : `sm_${sm}`;
}
