// Kernels as WebAssembly, for machines without a C compiler: one module for all plans, in shared memory, walked by worker threads. The sources are
// those of the native kernels (src/kernels/generic/kernels.c); scripts/build-wasm.mjs makes the module.
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { gunzipSync } from 'node:zlib';
import { TargetError } from '../../base/errors.ts';
import type { KernelHost, StepCall } from './host.ts';
import { weightFormats } from './kernels.ts';
import { panelBytes } from './layout.ts';
import type { PackRows } from './pack.ts';
import { launchBytes } from './table.ts';
import { wasmConfig, wasmKernel } from './wasm-table.ts';

interface Exports {
  readonly __heap_base: { readonly value: number };
  typert_launch_bytes(): number;
  typert_packed_bytes(format: number, rows: bigint, columns: bigint): bigint;
  typert_pack(format: number, share: number, from: number, to: number, rows: bigint, columns: bigint): void;
  typert_copy_blocks(source: number, target: number, blockBytes: bigint, from: number, to: number, count: number): void;
  typert_pool_bytes(): number;
  typert_local_bytes(): number;
  typert_pool_init(pool: number, count: number, local: number): void;
  typert_pool_stop(pool: number): void;
  typert_step(pool: number, launches: number, count: number, values: number, scratch: number, times: number): void;
}

const pageBytes = 65536;
/** All that 32-bit addresses reach. */
const maxPages = 65536;
/** Enough for the module's own data and stack. */
const firstPages = 64;
const stackBytes = 1 << 20;
const alignment = 64;

let compiled: WebAssembly.Module | undefined;

function wasmModule(): WebAssembly.Module {
  compiled ??= new WebAssembly.Module(gunzipSync(readFileSync(new URL('./wasm/kernels.wasm.gz', import.meta.url))));
  return compiled;
}

/** The module in a memory of its own, and that memory's pieces: given out in order, freed together. */
class Instance {
  readonly memory = new WebAssembly.Memory({ initial: firstPages, maximum: maxPages, shared: true });
  readonly fn: Exports;
  #top: number;
  /** Memory from here on has never been used, and is zero. */
  #fresh: number;

  constructor() {
    const made = new WebAssembly.Instance(wasmModule(), { env: { memory: this.memory, now: () => performance.now() } });
    this.fn = made.exports as unknown as Exports;
    if (this.fn.typert_launch_bytes() !== launchBytes)
      throw new TargetError('the WebAssembly kernels have another layout of launches than this program');
    this.#top = this.fn.__heap_base.value;
    this.#fresh = this.#top;
  }

  /** Zeroed memory. */
  take(what: string, bytes: number): number {
    const at = Math.ceil(this.#top / alignment) * alignment;
    const end = at + Math.max(bytes, alignment);
    const missing = Math.ceil((end - this.memory.buffer.byteLength) / pageBytes);
    try {
      if (missing > 0) this.memory.grow(missing);
    } catch (cause) {
      throw new TargetError('out of memory', {
        where: what,
        expected: `${bytes} bytes; kernels without a C compiler reach 4 GiB in all`,
        got: `${Math.max(0, maxPages * pageBytes - at)} bytes at most`,
        remedy: 'Install a C compiler (apt install gcc), or use a smaller model, maxSeqLen or kvCacheConfig.maxTokens',
        cause,
      });
    }
    if (at < this.#fresh) this.bytes(at, Math.min(end, this.#fresh) - at).fill(0);
    this.#top = end;
    this.#fresh = Math.max(this.#fresh, end);
    return at;
  }

  bytes(at: number, count: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, at, count);
  }

  /** Bytes of the caller where kernels can read them, until `release`. */
  lend(data: ArrayBufferView): number {
    const at = this.take('arguments', data.byteLength);
    this.bytes(at, data.byteLength).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    return at;
  }

  /** Calls `use` and takes back what it took. */
  scoped<Result>(use: () => Result): Result {
    const top = this.#top;
    try {
      return use();
    } finally {
      this.#top = top;
    }
  }
}

function packer(instance: Instance): PackRows {
  return (dtype, from, rows, columns) =>
    instance.scoped(() => {
      const { id, share = 1 } = weightFormats[dtype]!;
      const bytes = panelBytes(dtype, rows, columns);
      const got = Number(instance.fn.typert_packed_bytes(id, BigInt(rows), BigInt(columns)));
      if (got !== bytes)
        throw new TargetError('the WebAssembly kernels have another layout of weights than this program', {
          where: dtype,
          expected: `${bytes} bytes`,
          got: `${got} bytes`,
        });
      const source = instance.lend(from);
      const to = instance.take('weights', bytes);
      instance.fn.typert_pack(id, share, source, to, BigInt(rows), BigInt(columns));
      return instance.bytes(to, bytes).slice();
    });
}

/** Opens the module for what it packs with. */
export async function openWasmPacker(): Promise<{ readonly pack: PackRows } & Disposable> {
  return { pack: packer(new Instance()), [Symbol.dispose]: () => {} };
}

/** Starts a thread of the pool; resolves when it waits for steps. */
async function startThread(instance: Instance, pool: number, index: number): Promise<Worker> {
  const stack = instance.take('stack', stackBytes) + stackBytes;
  const worker = new Worker(new URL('./wasm-thread.mjs', import.meta.url), {
    workerData: { module: wasmModule(), memory: instance.memory, pool, index, stack },
    name: 'typert kernels',
  });
  await once(worker, 'message');
  worker.unref();
  return worker;
}

/** Opens the kernels on a pool of `threads` threads, of which the caller of a step is one. */
export async function openWasmHost(threads: number): Promise<KernelHost> {
  const instance = new Instance();
  const { fn } = instance;
  const pool = instance.take('pool', fn.typert_pool_bytes());
  fn.typert_pool_init(pool, threads, instance.take('pool', threads * fn.typert_local_bytes()));
  const workers = await Promise.all(
    Array.from({ length: threads - 1 }, async (_, i) => await startThread(instance, pool, i + 1)),
  );
  const step = ({ launches, count, values, scratch, times }: StepCall): void =>
    fn.typert_step(pool, Number(launches), count, Number(values), Number(scratch), Number(times));
  return {
    threads,
    allocate: (what, bytes) => BigInt(instance.take(what, bytes)),
    bytesAt: (address, bytes) => instance.bytes(Number(address), bytes),
    map: () => undefined,
    pack: packer(instance),
    kernelOf: wasmKernel,
    configOf: wasmConfig,
    copyBlocks: (source, target, blockBytes, from, to) =>
      instance.scoped(() =>
        fn.typert_copy_blocks(
          Number(source),
          Number(target),
          BigInt(blockBytes),
          instance.lend(from),
          instance.lend(to),
          Math.min(from.length, to.length),
        ),
      ),
    step,
    // Engines run in a thread of their own, which has nothing else to do meanwhile.
    stepAside: async (call) => step(call),
    async [Symbol.asyncDispose]() {
      fn.typert_pool_stop(pool);
      await Promise.all(workers.map(async (worker) => await worker.terminate()));
    },
  };
}
