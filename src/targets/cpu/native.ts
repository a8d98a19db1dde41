// Kernels as native code: compiled from the plan's stub or found in the kernel cache, opened, and run on a pool of native threads.
import { join } from 'node:path';
import { readEnv } from '../../base/env.ts';
import { TargetError } from '../../base/errors.ts';
import { callAsync, type FunctionTable, type Library, memoryAt, openLibrary } from '../ffi/library.ts';
import { KernelCache } from '../jit/cache.ts';
import { ccCompiler, cpuFlags, findCCompiler } from '../jit/cc-compiler.ts';
import { packageKernels } from '../jit/sources.ts';
import type { Plan } from '../plan.ts';
import type { KernelHost, StepCall } from './host.ts';
import { weightFormats } from './kernels.ts';
import { panelBytes } from './layout.ts';
import type { PackRows } from './pack.ts';
import { makeStub } from './stub.ts';
import { launchBytes } from './table.ts';

const functions = {
  typert_pool_open: ['u64', 'i32', 'ptr'],
  typert_pool_count: ['i32', 'u64'],
  typert_pool_close: ['void', 'u64'],
  typert_step: ['void', 'u64', 'u64', 'i32', 'u64', 'u64', 'u64'],
  typert_alloc: ['u64', 'u64', 'i32'],
  typert_free: ['void', 'u64', 'u64'],
  typert_map: ['u64', 'str', 'u64'],
  typert_unmap: ['void', 'u64', 'u64'],
  typert_packed_bytes: ['i64', 'i32', 'i64', 'i64'],
  typert_pack: ['void', 'i32', 'i32', 'ptr', 'ptr', 'i64', 'i64'],
  typert_copy_blocks: ['void', 'u64', 'u64', 'i64', 'ptr', 'ptr', 'i32'],
  typert_launch_bytes: ['i32'],
} as const satisfies FunctionTable;

type CpuLibrary = Library<typeof functions>;

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

function openStub(path: string): CpuLibrary {
  const library = openLibrary({
    what: 'the compiled CPU kernels',
    names: [path],
    functions,
    remedy: 'Remove the folder: it is compiled again',
  });
  if (library.fn.typert_launch_bytes() !== launchBytes)
    throw new TargetError('the kernels have another layout of launches than this program', { where: path });
  return library;
}

function packer({ fn }: CpuLibrary): PackRows {
  return (dtype, from, rows, columns) => {
    const { id, share = 1 } = weightFormats[dtype]!;
    const bytes = panelBytes(dtype, rows, columns);
    const got = Number(fn.typert_packed_bytes(id, rows, columns));
    if (got !== bytes)
      throw new TargetError('the kernels have another layout of weights than this program', {
        where: dtype,
        expected: `${bytes} bytes`,
        got: `${got} bytes`,
      });
    const to = new Uint8Array(bytes);
    fn.typert_pack(id, share, from, to, rows, columns);
    return to;
  };
}

/** Opens a plan's library for what it packs with. */
export async function openNativePacker(plan: Plan): Promise<{ readonly pack: PackRows } & Disposable> {
  const library = openStub(await compileStub(makeStub(plan).text));
  return { pack: packer(library), [Symbol.dispose]: () => library[Symbol.dispose]() };
}

/** Compiles and opens a plan's kernels, on a pool of threads pinned to `cpus` (-1: to none). */
export async function openNativeHost(plan: Plan, cpus: Int32Array): Promise<KernelHost> {
  const stub = makeStub(plan);
  const library = openStub(await compileStub(stub.text));
  const { fn } = library;
  const pool = BigInt(fn.typert_pool_open(cpus.length, cpus));
  if (pool === 0n) throw new TargetError('no memory for the threads of the CPU target');
  const blocks: { readonly address: bigint; readonly bytes: number }[] = [];
  const maps: typeof blocks = [];
  const args = ({ launches, count, values, scratch, times }: StepCall) =>
    [pool, launches, count, values, scratch, times] as const;
  return {
    threads: cpus.length,
    allocate(what, bytes, pages = 'huge') {
      const size = Math.max(bytes, 64);
      const address = BigInt(fn.typert_alloc(size, pages === 'huge' ? 1 : 0));
      if (address === 0n) throw new TargetError('out of memory', { where: what, expected: `${bytes} bytes` });
      blocks.push({ address, bytes: size });
      return address;
    },
    bytesAt: (address, bytes) => new Uint8Array(memoryAt(address, bytes)),
    map(path, bytes) {
      const address = BigInt(fn.typert_map(path, bytes));
      if (address === 0n) return undefined;
      maps.push({ address, bytes });
      return address;
    },
    pack: packer(library),
    kernelOf: (step) => stub.kernelOf.get(step)!,
    configOf: () => [],
    copyBlocks: (source, target, blockBytes, from, to) =>
      fn.typert_copy_blocks(source, target, blockBytes, from, to, from.length),
    step: (call) => fn.typert_step(...args(call)),
    stepAside: async (call) => await callAsync(fn.typert_step, ...args(call)),
    async [Symbol.asyncDispose]() {
      fn.typert_pool_close(pool);
      for (const { address, bytes } of blocks.splice(0)) fn.typert_free(address, bytes);
      for (const { address, bytes } of maps.splice(0)) fn.typert_unmap(address, bytes);
      library[Symbol.dispose]();
    },
  };
}
