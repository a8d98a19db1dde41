// A plan on the CPU: memory laid out, weights in panels, and a step that is one native call.

import { debugging } from '../../base/debug.ts';
import { track } from '../../base/dispose.ts';
import { TargetError } from '../../base/errors.ts';
import { type Dims, evaluate } from '../../base/expr.ts';
import { toFloat32 } from '../../define/checkpoint/cast.ts';
import type { CacheSpec } from '../../define/graph/attention.ts';
import { addressOf, alignedBytes, callAsync, memoryAt } from '../ffi/library.ts';
import type { Phase, Plan, PlanStep, PlanTensor } from '../plan.ts';
import type { HostArray, Program, ProgramMemory, ProgramSource } from '../target.ts';
import { cpuKernel, weightFormats } from './kernels.ts';
import type { CpuLibrary } from './native.ts';
import type { Stub } from './stub.ts';
import { launchBytes, StepSizes, writeLaunches } from './table.ts';

/** Steps that are expected to take longer run on a thread of their own: handing one over costs some thirty microseconds. */
const syncMilliseconds = 1.5;

function capacity(tensor: PlanTensor, limits: Dims): number {
  const shape = tensor.shape.map((dim) => evaluate(dim, limits));
  const rows = shape.slice(0, -1).reduce((a, b) => a * b, 1);
  const columns = shape.at(-1) ?? 1;
  return tensor.stride === undefined ? rows * columns : (rows - 1) * tensor.stride + columns;
}

function limitsOf(plan: Plan): Dims {
  return { T: plan.limits.maxNumTokens, R: plan.limits.maxBatchSize, L: plan.limits.maxNumLogits };
}

function layerBytes({ numKvHeads, headDim, valueDim }: CacheSpec, tokensPerBlock: number): number {
  return numKvHeads * tokensPerBlock * (headDim + valueDim) * 4;
}

/** Native memory of a program, freed together. */
class Memory {
  readonly #library: CpuLibrary;
  readonly #blocks: { readonly address: bigint; readonly bytes: number }[] = [];

  constructor(library: CpuLibrary) {
    this.#library = library;
  }

  /** `pages`: huge ones make reading through quicker, small ones the first touch of memory of which little is used. */
  allocate(what: string, bytes: number, pages: 'huge' | 'small' = 'huge'): bigint {
    const address = BigInt(this.#library.fn.typert_alloc(Math.max(bytes, 64), pages === 'huge' ? 1 : 0));
    if (address === 0n) throw new TargetError('out of memory', { where: what, expected: `${bytes} bytes` });
    this.#blocks.push({ address, bytes: Math.max(bytes, 64) });
    return address;
  }

  free(): void {
    for (const { address, bytes } of this.#blocks.splice(0)) this.#library.fn.typert_free(address, bytes);
  }
}

interface Launches {
  readonly steps: readonly PlanStep[];
  readonly table: Uint8Array;
  /** Nanoseconds that each launch took in all, where TYPERT_DEBUG asks for them. */
  readonly times: BigInt64Array | null;
  readonly count: number;
  /** Milliseconds a token took when last run; undefined before. */
  perToken: number | undefined;
}

export class CpuProgram implements Program {
  readonly memory: ProgramMemory;
  readonly #plan: Plan;
  readonly #library: CpuLibrary;
  readonly #pool: bigint;
  readonly #memory: Memory;
  readonly #addresses: readonly bigint[];
  readonly #inputs = new Map<string, { readonly floats: Float32Array; readonly ints: Int32Array }>();
  readonly #caches: { readonly address: bigint; readonly blockBytes: number }[];
  readonly #launches: { readonly [P in Phase]: Launches };
  readonly #sizes = new StepSizes();
  readonly #values: BigInt64Array;
  readonly #scratch: bigint;
  readonly #close = track('program');
  #closed = false;

  constructor(source: ProgramSource, library: CpuLibrary, stub: Stub, cpus: Int32Array) {
    const { plan, numBlocks } = source;
    this.#plan = plan;
    this.#library = library;
    this.#memory = new Memory(library);
    if (library.fn.typert_launch_bytes() !== launchBytes)
      throw new TargetError('the kernels have another layout of launches than this program');
    const pool = BigInt(library.fn.typert_pool_open(cpus.length, cpus));
    this.#pool = pool;
    try {
      const limits = limitsOf(plan);
      const arena = this.#memory.allocate('activations', plan.arenaBytes);
      const packed = packedWeights(plan);
      const sizes = { weights: 0, inputs: 0 };
      // All weights stand in one stretch: on huge pages small ones are read as fast as large ones.
      const places = plan.tensors.map((tensor, index) => {
        if (tensor.storage.kind !== 'weight') return { at: 0, bytes: 0 };
        const bytes = this.#weightBytes(tensor, packed.has(index));
        const at = sizes.weights;
        sizes.weights += Math.ceil(bytes / 64) * 64;
        return { at, bytes };
      });
      const weights = this.#memory.allocate('weights', sizes.weights + prefetchBytes);
      this.#addresses = plan.tensors.map((tensor, index) => {
        switch (tensor.storage.kind) {
          case 'arena':
            return arena + BigInt(tensor.storage.offset);
          case 'weight': {
            const { at, bytes } = places[index]!;
            const address = weights + BigInt(at);
            this.#loadWeight(tensor, packed.has(index), source, address, bytes);
            return address;
          }
          case 'input': {
            const data = alignedBytes(capacity(tensor, limits) * 4, 64);
            const { buffer, byteOffset, byteLength } = data;
            this.#inputs.set(tensor.name, {
              floats: new Float32Array(buffer, byteOffset, byteLength / 4),
              ints: new Int32Array(buffer, byteOffset, byteLength / 4),
            });
            sizes.inputs += byteLength;
            return addressOf(data);
          }
          default:
            return tensor.storage satisfies never;
        }
      });
      const layers = new Map(
        plan.caches.map((spec) => {
          const blockBytes = layerBytes(spec, plan.tokensPerBlock);
          const address = this.#memory.allocate('KV cache', numBlocks * blockBytes, 'small');
          return [spec.layer, { address, blockBytes }] as const;
        }),
      );
      this.#caches = [...layers.values()];
      const steps = [...plan.phases.forward, ...plan.phases.sample];
      const scratch = steps.reduce(
        (most, step) =>
          Math.max(most, cpuKernel(step.op)!.scratch?.(step as PlanStep<never>, plan, limits, cpus.length) ?? 0),
        0,
      );
      this.#scratch = this.#memory.allocate('scratch', scratch);
      const launches = (phase: Phase): Launches => {
        const table = alignedBytes(Math.max(1, plan.phases[phase].length) * launchBytes, 64);
        writeLaunches(table, plan.phases[phase], {
          tensors: plan.tensors,
          addresses: this.#addresses,
          sizes: this.#sizes,
          kernelOf: (step) => stub.kernelOf.get(step)!,
          cacheOf: (layer) => layers.get(layer)!.address,
        });
        const times = debugging(2) ? new BigInt64Array(plan.phases[phase].length) : null;
        return { steps: plan.phases[phase], table, times, count: plan.phases[phase].length, perToken: undefined };
      };
      this.#launches = { forward: launches('forward'), sample: launches('sample') };
      this.#values = new BigInt64Array(Math.max(1, this.#sizes.count));
      this.memory = {
        weights: sizes.weights,
        inputs: sizes.inputs,
        arena: plan.arenaBytes,
        kvCache: this.#caches.reduce((sum, { blockBytes }) => sum + blockBytes * numBlocks, 0),
      };
    } catch (error) {
      library.fn.typert_pool_close(pool);
      this.#memory.free();
      this.#close();
      throw error;
    }
  }

  /** Bytes of a weight in memory: matrices in panels of their own dtype, vectors as float32. */
  #weightBytes(tensor: PlanTensor, packed: boolean): number {
    const shape = tensor.shape as readonly number[];
    if (!packed) return 4 * shape.reduce((a, b) => a * b, 1);
    const format = weightFormats[tensor.dtype];
    if (format === undefined)
      throw new TargetError('weights of this dtype have no CPU kernel', { where: tensor.name, got: tensor.dtype });
    const count = shape.slice(0, -2).reduce((a, b) => a * b, 1);
    return count * Number(this.#library.fn.typert_packed_bytes(format.id, shape.at(-2)!, shape.at(-1)!));
  }

  #loadWeight(tensor: PlanTensor, packed: boolean, source: ProgramSource, address: bigint, bytes: number): void {
    const data = source.readWeight(tensor.name);
    source.onWeight?.(tensor.name, data.byteLength);
    const shape = tensor.shape as readonly number[];
    const format = weightFormats[tensor.dtype];
    if (!packed || format === undefined) {
      new Float32Array(memoryAt(address, bytes)).set(toFloat32({ dtype: tensor.dtype, shape, data }));
      return;
    }
    const [rows, columns] = [shape.at(-2)!, shape.at(-1)!];
    const count = shape.slice(0, -2).reduce((a, b) => a * b, 1);
    const stored = data.byteLength / count;
    for (let i = 0; i < count; i++) {
      const part = data.subarray(i * stored, (i + 1) * stored);
      this.#library.fn.typert_pack(format.id, part, address + BigInt((i * bytes) / count), rows, columns);
    }
  }

  write(input: string, data: HostArray, count: number): void {
    const place = this.#inputs.get(input);
    // An input that no kernel reads was dropped by the compiler.
    if (place === undefined) return;
    if (data instanceof Float32Array) place.floats.set(data.subarray(0, count));
    else place.ints.set(data.subarray(0, count));
  }

  async run(phase: Phase, dims: Dims, times?: Float64Array): Promise<void> {
    if (this.#closed) throw new TargetError('program is closed');
    const launches = this.#launches[phase];
    if (launches.count === 0) return;
    this.#sizes.fill(this.#values, dims);
    const { typert_step: step } = this.#library.fn;
    const measured = times === undefined ? launches.times : new BigInt64Array(launches.count);
    const args = [this.#pool, launches.table, launches.count, this.#values, this.#scratch, measured] as const;
    const tokens = phase === 'forward' ? dims.T : dims.L;
    const start = performance.now();
    if (launches.perToken !== undefined && launches.perToken * tokens < syncMilliseconds) step(...args);
    else await callAsync(step, ...args);
    launches.perToken = (performance.now() - start) / Math.max(1, tokens);
    if (times !== undefined) for (let i = 0; i < launches.count; i++) times[i]! += Number(measured![i]) / 1e6;
  }

  #output(name: string): { readonly address: bigint; readonly elements: number } {
    const index = this.#plan.outputs[name];
    if (index === undefined)
      throw new TargetError('no such output', { expected: Object.keys(this.#plan.outputs).join(', '), got: name });
    return {
      address: this.#addresses[index]!,
      elements: capacity(this.#plan.tensors[index]!, limitsOf(this.#plan)),
    };
  }

  async read(output: string, into: HostArray): Promise<void> {
    const { address } = this.#output(output);
    const memory = memoryAt(address, into.byteLength);
    into.set(into instanceof Float32Array ? new Float32Array(memory) : new Int32Array(memory));
  }

  async overwrite(output: string, data: Float32Array): Promise<void> {
    new Float32Array(memoryAt(this.#output(output).address, data.byteLength)).set(data);
  }

  async copyBlocks(from: Int32Array, to: Int32Array): Promise<void> {
    for (const { address, blockBytes } of this.#caches)
      this.#library.fn.typert_copy_blocks(address, blockBytes, from, to, from.length);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const launches of Object.values(this.#launches)) report(launches);
    this.#library.fn.typert_pool_close(this.#pool);
    this.#memory.free();
    this.#close();
  }
}

/** Where the time went, by kernel, on the standard error. */
function report({ steps, times }: Launches): void {
  if (times === null) return;
  const sums = new Map<string, number>();
  steps.forEach(({ kernel }, i) => {
    const name = `${kernel.name} ${Object.values(kernel.config).join(' ')}`;
    sums.set(name, (sums.get(name) ?? 0) + Number(times[i]) / 1e6);
  });
  const total = [...sums.values()].reduce((a, b) => a + b, 0);
  for (const [name, ms] of [...sums].sort((a, b) => b[1] - a[1]))
    process.stderr.write(
      `${ms.toFixed(1).padStart(10)} ms ${((100 * ms) / total).toFixed(1).padStart(5)} %  ${name}\n`,
    );
}

/** Kernels ask for memory a little past the end of a weight. */
const prefetchBytes = 8192;

/** Tensors that kernels read as panels. Throws when a weight is also read otherwise. */
function packedWeights(plan: Plan): ReadonlySet<number> {
  const packed = new Set<number>();
  const plain = new Set<number>();
  for (const step of [...plan.phases.forward, ...plan.phases.sample]) {
    const names = cpuKernel(step.op)?.packed ?? [];
    for (const [name, index] of Object.entries(step.args)) (names.includes(name) ? packed : plain).add(index);
  }
  for (const index of packed) {
    if (plain.has(index) && plan.tensors[index]!.storage.kind === 'weight')
      throw new TargetError('a weight is read in two layouts', { where: plan.tensors[index]!.name });
  }
  return packed;
}
