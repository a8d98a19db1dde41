// Times one config of a problem on the device: random data, weights and caches that change from launch to launch so that the L2 holds none of them,
// launches in a captured graph, the least of a few replays.
import { byteLength, type FloatDType } from '../../base/dtype.ts';
import { TargetError } from '../../base/errors.ts';
import {
  type AttentionConfig,
  type AttentionProblem,
  attentionLaunch,
  attentionWorkspace,
} from '../../kernels/attention/cuda.ts';
import type { CudaLaunch } from '../../kernels/cuda-kernel.ts';
import { fillLaunch } from '../../kernels/fill/cuda.ts';
import { type LtAlgorithm, type LtSteps, ltSteps } from '../../kernels/matmul/cublaslt.ts';
import { type MatmulConfig, type MatmulProblem, matmulLaunch, matmulWorkspace } from '../../kernels/matmul/cuda.ts';
import { type DevicePtr, offsetPtr } from '../ffi/cuda-driver.ts';
import type { CudaCompiler } from './binaries.ts';
import type { CudaDevice, DeviceBuffer, LoadedKernel } from './device.ts';
import { type Buffers, PreparedLaunch } from './launch.ts';
import type { LtProducts } from './products.ts';
import { Event, type Stream } from './stream.ts';
import type { OwnConfig, TacticProblem } from './tactics.ts';

/** What can be timed. */
export type Candidate = OwnConfig | LtAlgorithm;

/** Something that runs on a stream. */
interface Issuable {
  issue(stream: Stream): void;
}

const counterBytes = 1 << 20;
const integerBytes = 1 << 24;
const mostPool = 2 ** 31;
const numReplays = 3;
/** Contexts of requests in their generation phase, where the plan allows so many. */
const decodeContext = 1024;

export class TacticTimer implements Disposable {
  readonly #device: CudaDevice;
  readonly #compiler: CudaCompiler;
  readonly #dtype: FloatDType;
  readonly #products: LtProducts | undefined;
  readonly #stream: Stream;
  readonly #events: readonly Event[];
  /** Random values: inputs, weights, caches, and room for results. */
  readonly #pool: DeviceBuffer;
  readonly #counters: DeviceBuffer;
  readonly #integers: DeviceBuffer;
  readonly #kernels = new Map<string, Promise<LoadedKernel>>();
  readonly #loaded: LoadedKernel[] = [];
  #closed = false;
  #filled = false;
  #next = 0;

  constructor(device: CudaDevice, compiler: CudaCompiler, dtype: FloatDType, products?: LtProducts) {
    this.#products = products;
    this.#device = device;
    this.#compiler = compiler;
    this.#dtype = dtype;
    this.#stream = device.createStream();
    this.#events = Array.from({ length: numReplays + 1 }, () => new Event(device.driver));
    const { free } = device.driver.memoryInfo();
    this.#pool = device.allocate(Math.min(mostPool, Math.floor(free / 2)), 'room for timing');
    this.#counters = device.allocate(counterBytes, 'counters');
    this.#integers = device.allocate(integerBytes, 'step inputs');
    this.#stream.fill(this.#counters.ptr, 0, counterBytes);
  }

  [Symbol.dispose](): void {
    this.#stream.settle();
    this.#closed = true;
    for (const kernel of this.#loaded) kernel[Symbol.dispose]();
    for (const buffer of [this.#pool, this.#counters, this.#integers]) buffer[Symbol.dispose]();
    for (const event of this.#events) event[Symbol.dispose]();
    this.#stream[Symbol.dispose]();
  }

  /** Microseconds, or undefined where the problem does not fit the device. What takes over twice `limit` is timed roughly. */
  async time(of: TacticProblem, config: Candidate, limit = Number.POSITIVE_INFINITY): Promise<number | undefined> {
    if (!this.#filled) {
      const launch = fillLaunch(this.#dtype, Math.floor(this.#pool.bytes / byteLength(this.#dtype, 1)), 1, -1, 1);
      (await this.#prepare(launch, { y: this.#pool.ptr })).issue(this.#stream);
      this.#filled = true;
    }
    this.#next = 0;
    const launches =
      of.op === 'matmul'
        ? await this.#matmul(of.problem, config as MatmulConfig | LtAlgorithm)
        : await this.#attention(of.problem, config as AttentionConfig);
    return launches === undefined ? undefined : this.#measure(launches, limit);
  }

  /** A piece of the pool; undefined when there is none left. */
  #take(bytes: number): DevicePtr | undefined {
    const at = this.#next;
    const end = at + Math.ceil(bytes / 256) * 256;
    if (end > this.#pool.bytes) return undefined;
    this.#next = end;
    return offsetPtr(this.#pool.ptr, at);
  }

  async #prepare(launch: CudaLaunch, buffers: Buffers): Promise<PreparedLaunch> {
    const { name } = launch.kernel;
    let kernel = this.#kernels.get(name);
    if (kernel === undefined) {
      kernel = this.#load(launch);
      this.#kernels.set(name, kernel);
    }
    return new PreparedLaunch(this.#device, await kernel, launch, buffers);
  }

  async #load({ kernel, sharedBytes }: CudaLaunch): Promise<LoadedKernel> {
    const { binary } = await this.#compiler.compile(kernel);
    if (this.#closed) throw new TargetError('timing has ended', { where: kernel.name });
    const loaded = this.#device.loadKernel(kernel.name, binary, sharedBytes);
    this.#loaded.push(loaded);
    return loaded;
  }

  /** Buffers by name; those the timer does not know are random values with room for `spareBytes`. */
  #complete(launch: CudaLaunch, known: Readonly<Record<string, DevicePtr | undefined>>, spare: DevicePtr): Buffers {
    const buffers: Record<string, DevicePtr> = {};
    for (const arg of launch.args) if ('buffer' in arg) buffers[arg.buffer] = known[arg.buffer] ?? spare;
    return buffers;
  }

  async #matmul(problem: MatmulProblem, config: MatmulConfig | LtAlgorithm): Promise<Issuable[] | undefined> {
    const library = config.kind === 'cublaslt' ? ltSteps(problem, this.#device.info) : undefined;
    const size = byteLength(this.#dtype, 1);
    const { m, n, k, ldx, ldy, ldr = 0, gated } = problem;
    const physical = gated ? 2 * n : n;
    const workspace = config.kind === 'cublaslt' ? { partial: 0, counters: 0 } : matmulWorkspace(problem, config);
    const wide = this.#take(library?.wideBytes ?? 0);
    const x = this.#take(m * ldx * size);
    const y = this.#take(m * ldy * size);
    const partial = this.#take(workspace.partial);
    const spare = this.#take(Math.max(m * Math.max(ldx, ldy, ldr), 2 * Math.max(n, k)) * 4);
    const weights = this.#copies(physical * k * size);
    if ([wide, x, y, partial, spare].includes(undefined) || weights.length === 0 || workspace.counters > counterBytes)
      return undefined;
    if (config.kind === 'cublaslt')
      return library === undefined
        ? undefined
        : await this.#library(library, config, { wide: wide!, x: x!, y: y!, spare: spare! }, weights);
    const launch = matmulLaunch(problem, config, this.#device.info);
    const known = { x, y, partial, counters: this.#counters.ptr };
    return await Promise.all(
      weights.map((w) => this.#prepare(launch, this.#complete(launch, { ...known, w }, spare!))),
    );
  }

  /** A product by cuBLASLt with the kernel behind it. */
  async #library(
    { product, wideBytes, tail }: LtSteps,
    { algorithm }: LtAlgorithm,
    { wide, x, y, spare }: Readonly<Record<'wide' | 'x' | 'y' | 'spare', DevicePtr>>,
    weights: readonly DevicePtr[],
  ): Promise<Issuable[]> {
    const result = wideBytes === 0 ? y : wide;
    const half = offsetPtr(result, (product.n / 2) * byteLength(this.#dtype, 1));
    const after = tail === undefined ? undefined : await this.#prepare(tail, { a: result, b: half, y });
    return weights.map((w) => {
      const buffers = { x, w, y: result, bias: spare, residual: spare };
      const first = this.#products!.prepare({ problem: product, algorithm }, buffers);
      return {
        issue: (stream) => {
          first.issue(stream);
          after?.issue(stream);
        },
      };
    });
  }

  /** As many pieces as it takes to outgrow the L2 threefold, or as fit. */
  #copies(bytes: number): DevicePtr[] {
    const wanted = Math.max(1, Math.min(64, Math.ceil((3 * this.#device.info.l2Bytes) / bytes)));
    const pieces: DevicePtr[] = [];
    while (pieces.length < wanted) {
      const piece = this.#take(bytes);
      if (piece === undefined) break;
      pieces.push(piece);
    }
    return pieces;
  }

  async #attention(problem: AttentionProblem, config: AttentionConfig): Promise<Issuable[] | undefined> {
    const size = byteLength(this.#dtype, 1);
    const { tokens, requests, heads, kvHeads, headDim, ldq, ldy, tokensPerBlock, maxBlocksPerSequence } = problem;
    const generation = tokens === requests;
    const longest = maxBlocksPerSequence * tokensPerBlock;
    const context = generation ? Math.min(decodeContext, longest) : Math.ceil(tokens / requests);
    if (context > longest) return undefined;
    const workspace = attentionWorkspace(problem, config);
    const q = this.#take(tokens * Math.max(ldq, heads * headDim) * size);
    const y = this.#take(tokens * ldy * size);
    const partial = this.#take(workspace.partial);
    const spare = this.#take(Math.max(tokens * ldq, headDim, heads) * 4);
    const blocksEach = Math.ceil(context / tokensPerBlock);
    const blockBytes = 2 * kvHeads * tokensPerBlock * headDim * size;
    const caches = this.#copies(requests * blocksEach * blockBytes);
    if ([q, y, partial, spare].includes(undefined) || caches.length === 0 || workspace.counters > counterBytes)
      return undefined;
    const known = { q, y, partial, counters: this.#counters.ptr };
    const integers = this.#upload(problem, context, blocksEach);
    if (integers === undefined) return undefined;
    const sized = { ...problem, numBlocks: requests * blocksEach };
    const launch = attentionLaunch(sized, config, 0);
    return await Promise.all(
      caches.map((cache) => this.#prepare(launch, this.#complete(launch, { ...known, ...integers, cache }, spare!))),
    );
  }

  /** The step's description: requests of equal contexts, each in blocks of its own. */
  #upload(
    { tokens, requests, tokensPerBlock, maxBlocksPerSequence }: AttentionProblem,
    context: number,
    blocksEach: number,
  ): Record<string, DevicePtr> | undefined {
    const fresh = tokens / requests;
    const arrays: Record<string, Int32Array> = {
      requestOffsets: Int32Array.from({ length: requests + 1 }, (_, r) => Math.round(r * fresh)),
      contextLengths: new Int32Array(requests).fill(context),
      positions: new Int32Array(tokens),
      slots: new Int32Array(tokens),
      blockTables: new Int32Array(requests * maxBlocksPerSequence),
    };
    for (let r = 0; r < requests; r++) {
      const [begin, end] = [arrays.requestOffsets![r]!, arrays.requestOffsets![r + 1]!];
      for (let token = begin; token < end; token++) {
        const position = context - end + token;
        arrays.positions![token] = position;
        arrays.slots![token] = r * blocksEach * tokensPerBlock + position;
      }
      for (let b = 0; b < blocksEach; b++) arrays.blockTables![r * maxBlocksPerSequence + b] = r * blocksEach + b;
    }
    this.#stream.synchronize();
    const places: Record<string, DevicePtr> = {};
    let at = 0;
    for (const [name, values] of Object.entries(arrays)) {
      if (at + values.byteLength > integerBytes) return undefined;
      places[name] = offsetPtr(this.#integers.ptr, at);
      this.#device.upload(places[name]!, values);
      at += Math.ceil(values.byteLength / 256) * 256;
    }
    return places;
  }

  #measure(launches: readonly Issuable[], limit: number): number {
    const stream = this.#stream;
    let next = 0;
    const rough = this.#between(() => launches[next++ % launches.length]!.issue(stream), 1);
    if (rough > 2 * limit && rough > 200) return rough;
    // Enough launches for half a millisecond, and all the weights in turn.
    const count = Math.max(launches.length, Math.min(64, Math.ceil(500 / Math.max(rough, 1))));
    using graph = stream.capture(() => {
      for (let i = 0; i < count; i++) launches[i % launches.length]!.issue(stream);
    });
    return this.#between(() => stream.launch(graph), numReplays) / count;
  }

  /** Microseconds of the shortest of `times` runs. One more goes before them: while the device computes it, the next are handed over. */
  #between(run: () => void, times: number): number {
    const events = this.#events;
    run();
    events[0]!.record(this.#stream);
    for (let i = 1; i <= times; i++) {
      run();
      events[i]!.record(this.#stream);
    }
    events[times]!.synchronize();
    let best = Number.POSITIVE_INFINITY;
    for (let i = 1; i <= times; i++) best = Math.min(best, events[i]!.since(events[i - 1]!) * 1000);
    return best;
  }
}
