// A plan on a GPU: weights, arena and caches in its memory, steps as launches; steps of one token a request as captured graphs.
import { debug, debugging } from '../../base/debug.ts';
import { track } from '../../base/dispose.ts';
import { byteLength, fromBFloat16Bits, fromFloat16Bits, isFloatDType } from '../../base/dtype.ts';
import { TargetError } from '../../base/errors.ts';
import { type Dims, evaluate } from '../../base/expr.ts';
import { dummyDeviation } from '../../define/checkpoint/dummy.ts';
import { fillLaunch } from '../../kernels/fill/cuda.ts';
import { copyBlocksLaunch } from '../../kernels/gather/cuda.ts';
import { type DevicePtr, offsetPtr } from '../ffi/cuda-driver.ts';
import { cachePools, type Phase, type Plan, type PlanStep, type PlanTensor, poolOf } from '../plan.ts';
import {
  type BlockCopies,
  type HostArray,
  type Program,
  type ProgramMemory,
  type ProgramSource,
  poolBlocks,
} from '../target.ts';
import type { CudaCompiler } from './binaries.ts';
import { bucketOf } from './buckets.ts';
import { BlockCopier, type CachePool, exchangeBlocks } from './cache-pool.ts';
import type { CudaDevice, DeviceBuffer, LoadedKernel } from './device.ts';
import { StepInputs } from './inputs.ts';
import { stepLaunches } from './kernels.ts';
import { PreparedLaunch, type PreparedWork } from './launch.ts';
import { LaunchMarks, showTimes } from './marks.ts';
import { LtProducts, ltVersion } from './products.ts';
import { Results } from './results.ts';
import { type BoundWork, type StepTensor, type StepView, stepTensor } from './step.ts';
import { Event, type Graph, type Stream } from './stream.ts';
import { planScratch } from './survey.ts';
import { planTactics, type Tactics } from './tactics.ts';
import { DeviceWeights, narrow } from './weights.ts';

/** Bytes of an element on the device. */
export function cudaBytes(dtype: PlanTensor['dtype']): number {
  return byteLength(dtype, 1);
}

/** A step's launches for one set of sizes; the graph is captured when the sizes come again. */
interface Prepared {
  readonly launches: readonly PreparedWork[];
  /** The plan step that each launch belongs to. */
  readonly stepOf: readonly number[];
  graph?: Graph;
  uses: number;
}

/** Sizes of steps whose launches are kept. */
const maxPrepared = 256;

export class CudaProgram implements Program {
  readonly memory: ProgramMemory;
  readonly numBlocks: number;
  readonly queues = true;
  readonly #plan: Plan;
  readonly #device: CudaDevice;
  readonly #compiler: CudaCompiler;
  readonly #tactics: Tactics;
  readonly #stream: Stream;
  readonly #owned: DeviceBuffer[] = [];
  readonly #weights: DeviceWeights;
  readonly #products: LtProducts | undefined;
  readonly #addresses: DevicePtr[];
  readonly #caches = new Map<number, DevicePtr>();
  /** The memory behind the caches, and its second pool in page-locked memory of the host. */
  readonly #pools: CachePool[] = [];
  readonly #kernels = new Map<string, Promise<LoadedKernel>>();
  readonly #prepared = new Map<string, Prepared>();
  readonly #inputs: StepInputs;
  readonly #results: Results;
  #copier: BlockCopier | undefined;
  readonly #marks: LaunchMarks;
  readonly #scratch: { buffer: DeviceBuffer | undefined };
  readonly #counters: DeviceBuffer;
  readonly #close = track('program');
  #closed = false;

  /** Takes memory on the device and fills it. What was taken is given back when that fails. */
  static async load(device: CudaDevice, compiler: CudaCompiler, source: ProgramSource): Promise<CudaProgram> {
    const stream = device.createStream();
    let weights: DeviceWeights | undefined;
    let products: LtProducts | undefined;
    try {
      weights = await DeviceWeights.load(device, stream, source);
      const version = ltVersion(source.plan);
      if (version !== undefined) products = LtProducts.find(device, version);
      if (version !== undefined && products === undefined)
        debug(1, () => `cuBLASLt ${version} is not here: own kernels take its place`);
    } catch (error) {
      weights?.[Symbol.dispose]();
      stream[Symbol.dispose]();
      throw error;
    }
    return new CudaProgram(device, compiler, source, stream, weights, products);
  }

  /** Owns `stream`, `weights` and `products` from here on. */
  private constructor(
    device: CudaDevice,
    compiler: CudaCompiler,
    source: ProgramSource,
    stream: Stream,
    weights: DeviceWeights,
    products: LtProducts | undefined,
  ) {
    const { plan, numHostBlocks = 0 } = source;
    this.#plan = plan;
    this.#device = device;
    this.#compiler = compiler;
    this.#tactics = planTactics(plan, device.info, products !== undefined);
    this.#products = products;
    this.#stream = stream;
    this.#weights = weights;
    this.#marks = new LaunchMarks(this.#stream, () => new Event(device.driver));
    this.#scratch = { buffer: undefined };
    const limits = limitsOf(plan);

    try {
      const inputs = plan.tensors.filter(({ storage }) => storage.kind === 'input');
      this.#inputs = new StepInputs(
        device,
        stream,
        inputs.map((tensor) => ({ name: tensor.name, bytes: elementsOf(tensor, limits) * 4 })),
      );
      this.#results = new Results(device, this.#stream);
      this.#counters = this.#own(1 << 20, 'counters');
      this.#stream.fill(this.#counters.ptr, 0, this.#counters.bytes);

      const arena = this.#own(plan.arenaBytes, 'activations');
      this.#addresses = plan.tensors.map((tensor, index) => {
        switch (tensor.storage.kind) {
          case 'arena':
            return offsetPtr(arena.ptr, tensor.storage.offset);
          case 'input':
            return this.#inputs.address(tensor.name);
          case 'weight':
            return weights.address(index);
          default:
            return tensor.storage satisfies never;
        }
      });
      const scratch = planScratch(plan, device.info, this.#tactics);
      if (scratch > 0) this.#scratchOf(scratch);
      const numBlocks = poolBlocks(source, () => device.memory());
      this.numBlocks = numBlocks;
      let cacheBytes = 0;
      for (const [pool, { numKvHeads, headDim, valueDim }] of cachePools(plan)) {
        const blockBytes = numKvHeads * plan.tokensPerBlock * (headDim + valueDim) * cudaBytes(plan.dtype);
        // One block more than the pool has: rows that only fill a step up write there.
        const buffer = this.#own(blockBytes * (numBlocks + 1), 'KV cache');
        this.#stream.fill(buffer.ptr, 0, buffer.bytes);
        cacheBytes += buffer.bytes;
        const host = numHostBlocks === 0 ? undefined : device.allocatePinned(blockBytes * numHostBlocks);
        this.#pools.push({ ptr: buffer.ptr, host, blockBytes });
        for (const spec of plan.caches) if (poolOf(spec) === pool) this.#caches.set(spec.layer, buffer.ptr);
      }
      this.memory = {
        weights: weights.bytes,
        arena: plan.arenaBytes,
        kvCache: cacheBytes,
        inputs: this.#inputs.bytes,
        scratch: (this.#scratch.buffer?.bytes ?? 0) + this.#counters.bytes,
      };
      this.#stream.synchronize();
    } catch (error) {
      this.#free();
      throw error;
    }
  }

  #own(bytes: number, what: string): DeviceBuffer {
    const buffer = this.#device.allocate(bytes, what);
    this.#owned.push(buffer);
    return buffer;
  }

  /** Fills the weights that the engine does not hold. */
  async makeRandomWeights(): Promise<void> {
    for (const [index, { storage, shape, dtype }] of this.#plan.tensors.entries()) {
      if (storage.kind !== 'weight' || storage.random === undefined || !isFloatDType(dtype)) continue;
      const count = (shape as readonly number[]).reduce((a, b) => a * b, 1);
      const width = Math.sqrt(3) * dummyDeviation;
      const launch = fillLaunch(dtype, count, storage.random, -width, width);
      (await this.#bind({ launch, buffers: { y: this.#addresses[index]! } })).issue(this.#stream);
    }
    this.#stream.synchronize();
  }

  fillUp(rows: number): number {
    const { maxBatchSize, maxNumTokens, maxNumLogits } = this.#plan.limits;
    return bucketOf(rows, Math.min(maxBatchSize, maxNumTokens, maxNumLogits));
  }

  write(input: string, data: HostArray, count: number, at = 0): void {
    this.#inputs.write(input, data, count, at);
  }

  async run(phase: Phase, dims: Dims, times?: Float64Array): Promise<void> {
    const prepared = await this.#prepare(phase, dims);
    this.#inputs.upload();
    if (times !== undefined) {
      this.#marks.issue(prepared.launches);
      await this.#marks.reached();
      this.#marks.addTo(times, prepared.stepOf);
      return;
    }
    if (debugging(2)) showTimes(prepared.launches, this.#stream);
    else this.#issue(prepared, phase === 'sample' || dims.T === dims.R);
  }

  async runStep(dims: Dims): Promise<void> {
    if (dims.T === dims.R && !debugging(2)) {
      const prepared = await this.#prepare('step', dims);
      this.#inputs.upload();
      this.#issue(prepared, true);
    } else {
      await this.run('forward', dims);
      await this.run('sample', dims);
    }
  }

  /** Sizes that come again, when they may, are captured and replayed. */
  #issue(prepared: Prepared, comesAgain: boolean): void {
    const stream = this.#stream;
    prepared.uses++;
    const issue = (): void => {
      for (const launch of prepared.launches) launch.issue(stream);
    };
    if (prepared.uses > 1 && comesAgain) prepared.graph ??= stream.capture(issue);
    if (prepared.graph === undefined) issue();
    else stream.launch(prepared.graph);
  }

  async #prepare(phase: Phase | 'step', dims: Dims): Promise<Prepared> {
    if (this.#closed) throw new TargetError('program is closed');
    const key = `${phase} ${dims.T} ${dims.R} ${dims.L}`;
    const known = this.#prepared.get(key);
    if (known !== undefined) return known;
    const launches: PreparedWork[] = [];
    const stepOf: number[] = [];
    const { forward, sample } = this.#plan.phases;
    const steps = phase === 'step' ? [...forward, ...sample] : this.#plan.phases[phase];
    for (const [index, step] of steps.entries()) {
      for (const bound of stepLaunches(step, this.#view(step, dims))) {
        launches.push(await this.#bind(bound));
        stepOf.push(index);
      }
    }
    if (this.#prepared.size >= maxPrepared) {
      const [oldest, entry] = this.#prepared.entries().next().value!;
      this.#stream.synchronize();
      entry.graph?.[Symbol.dispose]();
      this.#prepared.delete(oldest);
    }
    const prepared: Prepared = { launches, stepOf, uses: 0 };
    this.#prepared.set(key, prepared);
    return prepared;
  }

  #view(step: PlanStep, dims: Dims): StepView {
    const plan = this.#plan;
    const optional = (name: string): StepTensor | undefined => {
      const index = step.args[name];
      return index === undefined ? undefined : stepTensor(plan, index, dims, this.#addresses[index]!);
    };
    return {
      arch: this.#device.info,
      tactics: this.#tactics,
      dtype: plan.dtype,
      tokensPerBlock: plan.tokensPerBlock,
      maxBlocksPerSequence: plan.maxBlocksPerSequence,
      numBlocks: this.numBlocks,
      dims,
      optional,
      tensor: (name) => {
        const tensor = optional(name);
        if (tensor === undefined)
          throw new TargetError('launch lacks an argument', { where: `${step.scope} (${step.op})`, expected: name });
        return tensor;
      },
      sampled: plan.outputs.token === undefined ? undefined : this.#addresses[plan.outputs.token],
      cache: (layer) => this.#caches.get(layer)!,
      scratch: (bytes) => this.#scratchOf(bytes),
      counters: (bytes) => {
        if (bytes > this.#counters.bytes)
          throw new TargetError('too many counters', { where: step.scope, got: `${bytes} bytes` });
        return this.#counters.ptr;
      },
    };
  }

  /** Room for partial sums. Grown for a larger step; older launches keep their smaller room, which stays allocated. */
  #scratchOf(bytes: number): DevicePtr {
    const { buffer } = this.#scratch;
    if (buffer !== undefined && buffer.bytes >= bytes) return buffer.ptr;
    const grown = this.#own(Math.max(bytes, 2 * (buffer?.bytes ?? 0)), 'scratch');
    this.#scratch.buffer = grown;
    return grown.ptr;
  }

  async #bind(work: BoundWork): Promise<PreparedWork> {
    // Only tactics of a library that is open give products.
    if ('product' in work) return this.#products!.prepare(work.product, work.buffers);
    const { launch, buffers } = work;
    const { kernel, sharedBytes } = launch;
    let loaded = this.#kernels.get(kernel.name);
    if (loaded === undefined) {
      loaded = this.#compiler.compile(kernel).then(({ binary, compiled, milliseconds }) => {
        debug(
          3,
          () => `kernel ${kernel.name}: ${compiled ? `compiled in ${milliseconds.toFixed(0)} ms` : 'from the cache'}`,
        );
        return this.#device.loadKernel(kernel.name, binary, sharedBytes);
      });
      this.#kernels.set(kernel.name, loaded);
    }
    return new PreparedLaunch(this.#device, await loaded, launch, buffers);
  }

  #output(name: string): { readonly ptr: DevicePtr; readonly tensor: PlanTensor } {
    const index = this.#plan.outputs[name];
    if (index === undefined)
      throw new TargetError('no such output', { expected: Object.keys(this.#plan.outputs).join(', '), got: name });
    return { ptr: this.#addresses[index]!, tensor: this.#plan.tensors[index]! };
  }

  async read(output: string, into: HostArray): Promise<void> {
    const { ptr, tensor } = this.#output(output);
    const bytes = into.length * cudaBytes(tensor.dtype);
    if (bytes === 0) return;
    await this.#results.read(ptr, bytes, (raw) => {
      if (tensor.dtype === 'bfloat16' || tensor.dtype === 'float16') widen(raw, tensor.dtype, into);
      else new Uint8Array(into.buffer, into.byteOffset, into.byteLength).set(raw);
    });
  }

  async overwrite(output: string, data: Float32Array): Promise<void> {
    const { ptr, tensor } = this.#output(output);
    if (!isFloatDType(tensor.dtype)) throw new TargetError('output is not of numbers', { where: output });
    this.#stream.synchronize();
    this.#device.upload(ptr, narrow(data, tensor.dtype));
  }

  async copyBlocks({ kind, from, to }: BlockCopies): Promise<void> {
    if (from.length === 0) return;
    if (kind !== 'device') {
      for (const pool of this.#pools) exchangeBlocks(this.#stream, pool, kind, from, to);
      return;
    }
    const pieces = (this.#copier ??= new BlockCopier(this.#device, this.#stream)).upload(from, to);
    for (const { count, buffers } of pieces) {
      for (const { ptr, blockBytes } of this.#pools) {
        const launch = copyBlocksLaunch(count, blockBytes);
        (await this.#bind({ launch, buffers: { ...buffers, cache: ptr } })).issue(this.#stream);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#stream.settle();
    for (const { graph } of this.#prepared.values()) graph?.[Symbol.dispose]();
    for (const kernel of this.#kernels.values())
      await kernel.then((loaded) => loaded[Symbol.dispose]()).catch(() => {});
    this.#free();
  }

  /** Gives back what it holds, also where it was not finished. */
  #free(): void {
    for (const buffer of this.#owned) buffer[Symbol.dispose]();
    for (const { host } of this.#pools) host?.[Symbol.dispose]();
    this.#weights[Symbol.dispose]();
    this.#products?.[Symbol.dispose]();
    this.#inputs?.[Symbol.dispose]();
    this.#copier?.[Symbol.dispose]();
    this.#results?.[Symbol.dispose]();
    this.#marks[Symbol.dispose]();
    this.#stream[Symbol.dispose]();
    this.#close();
  }
}

function limitsOf({ limits }: Plan): Dims {
  return { T: limits.maxNumTokens, R: limits.maxBatchSize, L: limits.maxNumLogits };
}

function elementsOf(tensor: PlanTensor, dims: Dims): number {
  return tensor.shape.reduce<number>((product, dim) => product * evaluate(dim, dims), 1);
}

function widen(raw: Uint8Array, dtype: 'bfloat16' | 'float16', into: HostArray): void {
  const value = dtype === 'bfloat16' ? fromBFloat16Bits : fromFloat16Bits;
  const words = new Uint16Array(raw.buffer, raw.byteOffset, into.length);
  for (let i = 0; i < words.length; i++) into[i] = value(words[i]!);
}
