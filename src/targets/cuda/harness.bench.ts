// What the kernels' checks and benches share: a device, compiled kernels, random data, comparisons, times of graph replays, ceilings.
// Without a GPU it compiles everything that would run, so that a later run on a GPU finds the cache full.
import { mkdirSync } from 'node:fs';
import { byteLength, type FloatDType } from '../../base/dtype.ts';
import { type CudaArch, type CudaLaunch, cudaArchFlag, cudaStub, cudaTypes } from '../../kernels/cuda-kernel.ts';
import { fillLaunch } from '../../kernels/fill/cuda.ts';
import { CublasLt } from '../ffi/cublaslt.ts';
import type { DevicePtr } from '../ffi/cuda-driver.ts';
import { Nvrtc } from '../ffi/nvrtc.ts';
import { KernelCache } from '../jit/cache.ts';
import { cudaFlags, nvrtcCompiler } from '../jit/nvrtc-compiler.ts';
import { packageKernels } from '../jit/sources.ts';
import { CudaDevice, type DeviceBuffer, type LoadedKernel } from './device.ts';
import { type Buffers, PreparedLaunch } from './launch.ts';
import { Event, type Stream } from './stream.ts';

const folder = process.env.TYPERT_BENCH_CACHE ?? '.gpu/kernels';
export const compileOnly = process.argv.includes('--compile');
export const hopper: CudaArch = { sm: 90, multiprocessors: 132, maxSharedBytes: 232448 };

export class Harness {
  readonly arch: CudaArch;
  readonly device: CudaDevice | undefined;
  readonly stream: Stream | undefined;
  readonly #cache: KernelCache;
  readonly #kernels = new Map<string, LoadedKernel>();
  readonly #events: Event[] = [];
  compiled = 0;

  constructor() {
    const nvrtc = Nvrtc.find([`${process.cwd()}/.cuda/nvidia/cu13/lib`]);
    if (nvrtc === undefined) throw new Error('NVRTC was not found');
    mkdirSync(folder, { recursive: true });
    this.#cache = new KernelCache(folder, nvrtcCompiler(nvrtc), packageKernels());
    if (compileOnly) {
      this.arch = hopper;
      return;
    }
    this.device = new CudaDevice();
    this.stream = this.device.createStream();
    this.arch = this.device.info;
    this.#events = [new Event(this.device.driver), new Event(this.device.driver)];
  }

  async kernel(launch: CudaLaunch): Promise<LoadedKernel | undefined> {
    const { kernel } = launch;
    const known = this.#kernels.get(kernel.name);
    if (known !== undefined) return known;
    const compiled = await this.#cache.get({
      name: kernel.name,
      stub: cudaStub(kernel),
      flags: cudaFlags(cudaArchFlag(this.arch.sm)),
    });
    if (compiled.compiled) this.compiled++;
    if (this.device === undefined) return undefined;
    const loaded = this.device.loadKernel(kernel.name, compiled.binary, launch.sharedBytes);
    this.#kernels.set(kernel.name, loaded);
    return loaded;
  }

  async prepare(launch: CudaLaunch, buffers: Buffers): Promise<PreparedLaunch | undefined> {
    const kernel = await this.kernel(launch);
    return kernel === undefined ? undefined : new PreparedLaunch(this.device!, kernel, launch, buffers);
  }

  async run(launch: CudaLaunch, buffers: Buffers): Promise<void> {
    (await this.prepare(launch, buffers))?.issue(this.stream!);
  }

  allocate(bytes: number): DeviceBuffer {
    if (this.device === undefined) return { ptr: 0n as DevicePtr, bytes, [Symbol.dispose]: () => {} };
    return this.device.allocate(bytes);
  }

  /** A buffer of `count` uniform values in [low, high). */
  async random(dtype: FloatDType, count: number, seed: number, low = -1, high = 1): Promise<DeviceBuffer> {
    const buffer = this.allocate(byteLength(dtype, count));
    await this.run(fillLaunch(dtype, count, seed, low, high), { y: buffer.ptr });
    return buffer;
  }

  upload(data: Int32Array | Float32Array | Uint16Array): DeviceBuffer {
    const buffer = this.allocate(data.byteLength);
    this.device?.upload(buffer.ptr, data);
    return buffer;
  }

  /** Fills with NaN bytes. */
  poison(buffer: DeviceBuffer): void {
    this.stream?.fill(buffer.ptr, 0xff, buffer.bytes);
  }

  /** ‖a − b‖ / ‖b‖ over [rows, columns]; Infinity when `a` holds a value that is not finite. */
  async compare(
    dtype: FloatDType,
    a: DevicePtr,
    b: DevicePtr,
    rows: number,
    columns: number,
    lda = columns,
    ldb = columns,
  ): Promise<{ error: number; worst: number }> {
    using result = this.allocate(16);
    this.stream?.fill(result.ptr, 0, 16);
    await this.run(
      {
        kernel: { name: `compare_${dtype}`, include: 'fill/cuda.cuh', type: `CompareTensors<${cudaTypes[dtype]}>` },
        grid: [256, 1, 1],
        threads: 256,
        sharedBytes: 0,
        args: [
          ...['a', 'b', 'result'].map((buffer) => ({ kind: 'pointer', buffer }) as const),
          ...[rows, columns, lda, ldb].map((value) => ({ kind: 'i32', value }) as const),
        ],
      },
      { a, b, result: result.ptr },
    );
    if (this.device === undefined) return { error: 0, worst: 0 };
    this.stream!.synchronize();
    const out = new Float32Array(4);
    this.device.download(result.ptr, out);
    if (out[3]! > 0) return { error: Number.POSITIVE_INFINITY, worst: out[3]! };
    return { error: Math.sqrt(out[0]! / Math.max(out[1]!, 1e-30)), worst: out[2]! };
  }

  /** Microseconds of one of `launches`, issued in turn in a captured graph: the median of several replays. */
  time(launches: readonly { issue(stream: Stream): void }[], total = launches.length, replays = 7): number {
    if (this.device === undefined) return Number.NaN;
    const stream = this.stream!;
    using graph = stream.capture(() => {
      for (let i = 0; i < total; i++) launches[i % launches.length]!.issue(stream);
    });
    const [start, end] = this.#events as [Event, Event];
    const times: number[] = [];
    stream.launch(graph);
    for (let i = 0; i < replays; i++) {
      start.record(stream);
      stream.launch(graph);
      end.record(stream);
      end.synchronize();
      times.push((end.since(start) * 1000) / total);
    }
    return times.sort((a, b) => a - b)[replays >> 1]!;
  }

  /** Bytes per second of reading 4 GiB. */
  async readCeiling(): Promise<number> {
    const bytes = 4 * 2 ** 30;
    using x = await this.random('bfloat16', compileOnly ? 16 : bytes / 2, 1);
    using y = this.allocate(4);
    const args = [
      { kind: 'pointer', buffer: 'x' },
      { kind: 'pointer', buffer: 'y' },
      { kind: 'i32', value: bytes / 16 },
      { kind: 'i32', value: 0 },
    ] as const;
    const kernel = { name: 'read_all', include: 'fill/cuda.cuh', type: 'ReadAll' };
    let best = 0;
    for (const blocks of [4, 8, 16]) {
      const grid = [this.arch.multiprocessors * blocks, 1, 1] as const;
      const prepared = await this.prepare({ kernel, grid, threads: 512, sharedBytes: 0, args }, { x: x.ptr, y: y.ptr });
      if (prepared !== undefined) best = Math.max(best, (bytes / this.time([prepared], 2)) * 1e6);
    }
    return best;
  }

  /** FLOP per second of cuBLASLt's 8192³ bf16 product on random data; 0 when it is not found. */
  async productCeiling(size = 8192): Promise<number> {
    if (this.device === undefined) return 0;
    using lt = CublasLt.find();
    if (lt === undefined) return 0;
    return (2 * size ** 3) / (await this.ltTime(lt, size, size, size)) / 1e-6;
  }

  /** Microseconds of the best of eight cuBLASLt algorithms. */
  async ltTime(lt: CublasLt, m: number, n: number, k: number): Promise<number> {
    const copies = Math.max(1, Math.min(16, Math.ceil(2e8 / (n * k * 2))));
    using x = await this.random('bfloat16', m * k, 1);
    using w = await this.random('bfloat16', copies * n * k, 2);
    using y = this.allocate(m * n * 2);
    using workspace = this.allocate(CublasLt.workspaceBytes);
    let best = Number.POSITIVE_INFINITY;
    const problem = { dtype: 'bfloat16', m, n, k, ldx: k, ldy: n, bias: false, residual: false } as const;
    for (const matmul of lt.matmuls(problem, 8)) {
      const launches = Array.from({ length: copies }, (_, i) => ({
        issue: (stream: Stream) => {
          const weight = (w.ptr + BigInt(i * n * k * 2)) as DevicePtr;
          matmul.issue(stream.handle, { x: x.ptr, w: weight, y: y.ptr }, workspace.ptr);
        },
      }));
      const us = this.time(launches, Math.max(copies, m * n * k > 1e11 ? 5 : 16), 5);
      best = Math.min(best, us);
      matmul[Symbol.dispose]();
    }
    return best;
  }
}
