// The native library of a program: compiled from the plan's stub or found in the kernel cache, and opened.
import { join } from 'node:path';
import { readEnv } from '../../base/env.ts';
import { TargetError } from '../../base/errors.ts';
import { type FunctionTable, type Library, openLibrary } from '../ffi/library.ts';
import { KernelCache } from '../jit/cache.ts';
import { ccCompiler, cpuFlags, findCCompiler } from '../jit/cc-compiler.ts';
import { packageKernels } from '../jit/sources.ts';

const functions = {
  typert_pool_open: ['u64', 'i32', 'ptr'],
  typert_pool_count: ['i32', 'u64'],
  typert_pool_close: ['void', 'u64'],
  typert_step: ['void', 'u64', 'ptr', 'i32', 'ptr', 'u64', 'ptr'],
  typert_alloc: ['u64', 'u64', 'i32'],
  typert_free: ['void', 'u64', 'u64'],
  typert_packed_bytes: ['i64', 'i32', 'i64', 'i64'],
  typert_pack: ['void', 'i32', 'ptr', 'u64', 'i64', 'i64'],
  typert_copy_blocks: ['void', 'u64', 'i64', 'ptr', 'ptr', 'i32'],
  typert_launch_bytes: ['i32'],
} as const satisfies FunctionTable;

export type CpuLibrary = Library<typeof functions>;

/** How the kernels of this machine are compiled. */
export const nativeFlags: readonly string[] = [...cpuFlags, process.arch === 'x64' ? '-march=native' : '-mcpu=native'];

let cache: { readonly folder: string; readonly kernels: KernelCache } | undefined;

/** The cache of this process; throws TargetError when there is no compiler. */
function kernelCache(): { readonly folder: string; readonly kernels: KernelCache } {
  const folder = join(readEnv().cacheDir, 'kernels');
  if (cache?.folder === folder) return cache;
  const compiler = findCCompiler();
  if (compiler instanceof Error) {
    throw new TargetError('no C compiler works here', {
      expected: 'cc, gcc or clang',
      got: compiler.message,
      remedy: 'Install one (apt install gcc), or use --target reference',
    });
  }
  cache = { folder, kernels: new KernelCache(folder, ccCompiler(compiler), packageKernels()) };
  return cache;
}

/** Compiles a stub, or finds it compiled; the path of the shared object. */
export async function compileStub(text: string): Promise<string> {
  const { folder, kernels } = kernelCache();
  const { name, key } = await kernels.get({ name: 'cpu', stub: text, flags: nativeFlags });
  return join(folder, `${name}-${key}`, 'kernel.so');
}

export function openStub(path: string): CpuLibrary {
  return openLibrary({
    what: 'the compiled CPU kernels',
    names: [path],
    functions,
    remedy: 'Remove the folder: it is compiled again',
  });
}
