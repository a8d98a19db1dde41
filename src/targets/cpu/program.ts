// A plan on the CPU: memory laid out, weights in panels, and a step that is one native call.

import { debugging } from '../../base/debug.ts';
import { track } from '../../base/dispose.ts';
import { TargetError } from '../../base/errors.ts';
import { type Dims, evaluate } from '../../base/expr.ts';
import { hostMemory } from '../host-memory.ts';
import {
  cacheDTypeOf,
  cachePools,
  layerBlockBytes,
  type Phase,
  type Plan,
  type PlanStep,
  type PlanTensor,
  poolOf,
} from '../plan.ts';
import {
  type BlockCopies,
  type HostArray,
  type Program,
  type ProgramMemory,
  type ProgramSource,
  poolBlocks,
} from '../target.ts';
import type { KernelHost } from './host.ts';
import { cpuCache, cpuKernel } from './kernels.ts';
import { launchBytes, StepSizes, writeLaunches } from './table.ts';
import { placeWeights } from './weights.ts';

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

interface Launches {
  readonly steps: readonly PlanStep[];
  readonly table: bigint;
  /** Nanoseconds that each launch took in all the steps that were measured. */
  readonly times: { readonly address: bigint; readonly values: BigInt64Array };
  /** Milliseconds a token took when last run; undefined before. */
  perToken: number | undefined;
}

/** Takes pieces at multiples of 64 from a stretch of the host's memory. */
class Stretch {
  readonly #base: bigint;
  #used = 0;

  constructor(base: bigint) {
    this.#base = base;
  }

  take(bytes: number): bigint {
    const address = this.#base + BigInt(this.#used);
    this.#used += roundUp(bytes);
    return address;
  }
}

const roundUp = (bytes: number): number => Math.ceil(Math.max(bytes, 1) / 64) * 64;
const maxSymbols = 1024;

export class CpuProgram implements Program {
  readonly memory: ProgramMemory;
  readonly numBlocks: number;
  readonly #plan: Plan;
  readonly #host: KernelHost;
  readonly #addresses: readonly bigint[];
  readonly #inputs = new Map<string, { readonly floats: Float32Array; readonly ints: Int32Array }>();
  readonly #caches: { readonly address: bigint; readonly second: bigint; readonly blockBytes: number }[];
  readonly #launches: { readonly [P in Phase]: Launches };
  readonly #sizes = new StepSizes();
  readonly #values: { readonly address: bigint; readonly data: BigInt64Array };
  readonly #scratch: bigint;
  readonly #close = track('program');
  #closed = false;
  /** The step that runs now; a program is closed after it. */
  #running: Promise<void> = Promise.resolve();

  /** Takes the host over: it is closed with the program, or when this fails by whoever called. */
  constructor(source: ProgramSource, host: KernelHost) {
    const { plan, numHostBlocks = 0 } = source;
    this.#plan = plan;
    this.#host = host;
    try {
      const limits = limitsOf(plan);
      const arena = host.allocate('activations', plan.arenaBytes);
      const weights = placeWeights(source, host);
      const inputBytes = plan.tensors.map((tensor) =>
        tensor.storage.kind === 'input' ? capacity(tensor, limits) * 4 : 0,
      );
      const phases = Object.values(plan.phases);
      const tableBytes = phases.reduce((sum, { length }) => sum + 2 * roundUp(length * launchBytes), 64);
      const small = inputBytes.reduce((sum, bytes) => sum + roundUp(bytes), maxSymbols * 8 + tableBytes);
      const stretch = new Stretch(host.allocate('step inputs', small, 'small'));
      this.#addresses = plan.tensors.map((tensor, index) => {
        switch (tensor.storage.kind) {
          case 'arena':
            return arena + BigInt(tensor.storage.offset);
          case 'weight':
            return weights.addresses.get(index)!;
          case 'input': {
            const bytes = inputBytes[index]!;
            const address = stretch.take(bytes);
            const { buffer, byteOffset } = host.bytesAt(address, bytes);
            this.#inputs.set(tensor.name, {
              floats: new Float32Array(buffer, byteOffset, bytes / 4),
              ints: new Int32Array(buffer, byteOffset, bytes / 4),
            });
            return address;
          }
          default:
            return tensor.storage satisfies never;
        }
      });
      const numBlocks = poolBlocks(source, hostMemory);
      this.numBlocks = numBlocks;
      const pools = new Map(
        Array.from(cachePools(plan), ([pool, spec]) => {
          const blockBytes = layerBlockBytes(spec, plan, cpuCache.bytes(cacheDTypeOf(plan)));
          const address = host.allocate('KV cache', numBlocks * blockBytes, 'small');
          // On this target both pools are the host's memory: the second is where content stays that the first has no room for.
          const second = host.allocate('second KV cache', numHostBlocks * blockBytes, 'small');
          return [pool, { address, second, blockBytes }] as const;
        }),
      );
      const layers = new Map(plan.caches.map((spec) => [spec.layer, pools.get(poolOf(spec))!]));
      this.#caches = [...pools.values()];
      const steps = [...plan.phases.forward, ...plan.phases.sample];
      const scratch = steps.reduce(
        (most, step) =>
          Math.max(most, cpuKernel(step.op)!.scratch?.(step as PlanStep<never>, plan, limits, host.threads) ?? 0),
        0,
      );
      this.#scratch = host.allocate('scratch', scratch);
      const longs = (address: bigint, count: number): BigInt64Array => {
        const { buffer, byteOffset } = host.bytesAt(address, count * 8);
        return new BigInt64Array(buffer, byteOffset, count);
      };
      const launches = (phase: Phase): Launches => {
        const steps = plan.phases[phase];
        const table = stretch.take(steps.length * launchBytes);
        writeLaunches(host.bytesAt(table, Math.max(1, steps.length) * launchBytes), steps, {
          tensors: plan.tensors,
          addresses: this.#addresses,
          sizes: this.#sizes,
          kernelOf: (step) => host.kernelOf(step, plan),
          configOf: (step) => host.configOf(step, plan),
          cacheOf: (layer) => layers.get(layer)!.address,
        });
        const address = stretch.take(steps.length * 8);
        const times = { address, values: longs(address, Math.max(1, steps.length)) };
        return { steps, table, times, perToken: undefined };
      };
      this.#launches = { forward: launches('forward'), sample: launches('sample') };
      if (this.#sizes.count > maxSymbols)
        throw new TargetError('too many sizes that only a step knows', {
          expected: `at most ${maxSymbols}`,
          got: String(this.#sizes.count),
        });
      const values = stretch.take(maxSymbols * 8);
      this.#values = { address: values, data: longs(values, maxSymbols) };
      this.memory = {
        weights: weights.bytes,
        inputs: inputBytes.reduce((a, b) => a + b, 0),
        arena: plan.arenaBytes,
        kvCache: this.#caches.reduce((sum, { blockBytes }) => sum + blockBytes * numBlocks, 0),
      };
    } catch (error) {
      this.#close();
      throw error;
    }
  }

  write(input: string, data: HostArray, count: number, at = 0): void {
    const place = this.#inputs.get(input);
    // An input that no kernel reads was dropped by the compiler.
    if (place === undefined) return;
    if (data instanceof Float32Array) place.floats.set(data.subarray(0, count), at);
    else place.ints.set(data.subarray(0, count), at);
  }

  async run(phase: Phase, dims: Dims, times?: Float64Array): Promise<void> {
    if (this.#closed) throw new TargetError('program is closed');
    const launches = this.#launches[phase];
    if (launches.steps.length === 0) return;
    const host = this.#host;
    this.#sizes.fill(this.#values.data, dims);
    const measured = times === undefined ? undefined : launches.times.values.slice();
    const call = {
      launches: launches.table,
      count: launches.steps.length,
      values: this.#values.address,
      scratch: this.#scratch,
      times: measured !== undefined || debugging(2) ? launches.times.address : 0n,
    };
    const tokens = phase === 'forward' ? dims.T : dims.L;
    const start = performance.now();
    if (launches.perToken !== undefined && launches.perToken * tokens < syncMilliseconds) {
      host.step(call);
    } else {
      this.#running = host.stepAside(call);
      await this.#running;
    }
    launches.perToken = (performance.now() - start) / Math.max(1, tokens);
    measured?.forEach((before, i) => {
      times![i]! += Number(launches.times.values[i]! - before) / 1e6;
    });
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
    const { buffer, byteOffset } = this.#host.bytesAt(address, into.byteLength);
    into.set(
      into instanceof Float32Array
        ? new Float32Array(buffer, byteOffset, into.length)
        : new Int32Array(buffer, byteOffset, into.length),
    );
  }

  view(output: string): Float32Array {
    const { address, elements } = this.#output(output);
    const { buffer, byteOffset } = this.#host.bytesAt(address, elements * 4);
    return new Float32Array(buffer, byteOffset, elements);
  }

  async overwrite(output: string, data: Float32Array): Promise<void> {
    const { buffer, byteOffset } = this.#host.bytesAt(this.#output(output).address, data.byteLength);
    new Float32Array(buffer, byteOffset, data.length).set(data);
  }

  async copyBlocks({ kind, from, to }: BlockCopies): Promise<void> {
    for (const { address, second, blockBytes } of this.#caches) {
      const source = kind === 'toDevice' ? second : address;
      const target = kind === 'toHost' ? second : address;
      this.#host.copyBlocks(source, target, blockBytes, from, to);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    // Memory must outlive the threads that read it.
    await this.#running.catch(() => {});
    for (const launches of Object.values(this.#launches)) report(launches);
    await this.#host[Symbol.asyncDispose]();
    this.#close();
  }
}

/** Where the time went, by kernel, on the standard error. */
function report({ steps, times }: Launches): void {
  if (!debugging(2)) return;
  const sums = new Map<string, number>();
  steps.forEach(({ kernel }, i) => {
    const name = `${kernel.name} ${Object.values(kernel.config).join(' ')}`;
    sums.set(name, (sums.get(name) ?? 0) + Number(times.values[i]) / 1e6);
  });
  const total = [...sums.values()].reduce((a, b) => a + b, 0);
  for (const [name, ms] of [...sums].sort((a, b) => b[1] - a[1]))
    process.stderr.write(
      `${ms.toFixed(1).padStart(10)} ms ${((100 * ms) / total).toFixed(1).padStart(5)} %  ${name}\n`,
    );
}
