// A plan on the reference target: memory is typed arrays, a launch is a function call.

import { debug, debugging } from '../../base/debug.ts';
import { track } from '../../base/dispose.ts';
import { isFloatDType, roundArray } from '../../base/dtype.ts';
import { TargetError } from '../../base/errors.ts';
import { type Dims, evaluate } from '../../base/expr.ts';
import { toFloat32 } from '../../define/checkpoint/cast.ts';
import { ops } from '../../define/graph/ops.ts';
import { cacheOffset } from '../../kernels/attention/reference.ts';
import {
  blockElements,
  type RefArgs,
  type RefCache,
  type ReferenceKernel,
  type RefInts,
  type RefTensor,
} from '../../kernels/reference.ts';
import { type KernelOp, referenceKernels } from '../../kernels/reference-table.ts';
import { hostMemory } from '../host-memory.ts';
import {
  type CacheDType,
  cacheDTypeOf,
  cachePools,
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

/** A tensor's memory; the shape is filled in for each step. */
interface Slot {
  readonly tensor: PlanTensor;
  readonly floats: Float32Array;
  readonly ints: Int32Array;
}

/** The most elements a tensor can have: symbols at their limits. */
function capacity(tensor: PlanTensor, limits: Dims): number {
  const shape = tensor.shape.map((dim) => evaluate(dim, limits));
  const rows = shape.slice(0, -1).reduce((a, b) => a * b, 1);
  const cols = shape.at(-1) ?? 1;
  return tensor.stride === undefined ? rows * cols : (rows - 1) * tensor.stride + cols;
}

class StepArgs implements RefArgs {
  readonly #step: PlanStep;
  readonly #slots: readonly Slot[];
  readonly #caches: ReadonlyMap<number, RefCache>;
  #dims: Dims;

  constructor(step: PlanStep, slots: readonly Slot[], caches: ReadonlyMap<number, RefCache>, dims: Dims) {
    this.#step = step;
    this.#slots = slots;
    this.#caches = caches;
    this.#dims = dims;
  }

  at(dims: Dims): this {
    this.#dims = dims;
    return this;
  }

  #slot(name: string): Slot | undefined {
    const index = this.#step.args[name];
    return index === undefined ? undefined : this.#slots[index];
  }

  #shape(slot: Slot): number[] {
    return slot.tensor.shape.map((dim) => evaluate(dim, this.#dims));
  }

  optional(name: string): RefTensor | undefined {
    const slot = this.#slot(name);
    if (slot === undefined) return undefined;
    const shape = this.#shape(slot);
    return { data: slot.floats, shape, stride: slot.tensor.stride ?? shape.at(-1)! };
  }

  tensor(name: string): RefTensor {
    const tensor = this.optional(name);
    if (tensor === undefined)
      throw new TargetError('launch lacks an argument', {
        where: `${this.#step.scope} (${this.#step.op})`,
        expected: name,
      });
    return tensor;
  }

  ints(name: string): RefInts {
    const slot = this.#slot(name);
    if (slot === undefined)
      throw new TargetError('launch lacks an argument', {
        where: `${this.#step.scope} (${this.#step.op})`,
        expected: name,
      });
    return { data: slot.ints, shape: this.#shape(slot) };
  }

  get cache(): RefCache {
    const { attrs } = this.#step;
    const cache = 'layer' in attrs ? this.#caches.get(attrs.layer) : undefined;
    if (cache === undefined) throw new TargetError('op has no cache', { where: this.#step.scope });
    return cache;
  }
}

/** Rounds numbers to whole ones of a 127th of the largest. */
function roundToBytes(row: Float32Array): void {
  const most = row.reduce((top, x) => Math.max(top, Math.abs(x)), 0);
  if (most === 0) return;
  const [scale, inverse] = [Math.fround(most / 127), Math.fround(127 / most)];
  for (let i = 0; i < row.length; i++) row[i] = Math.floor(row[i]! * inverse + 0.5) * scale;
}

export class ReferenceProgram implements Program {
  readonly memory: ProgramMemory;
  readonly numBlocks: number;
  readonly #plan: Plan;
  readonly #slots: readonly Slot[];
  readonly #inputs = new Map<string, Slot>();
  readonly #caches = new Map<number, RefCache>();
  readonly #pools: { readonly data: Float32Array; readonly host: Float32Array; readonly size: number }[] = [];
  readonly #launches: { readonly [P in Phase]: readonly ((dims: Dims) => void)[] };
  readonly #close = track('program');
  /** Milliseconds and launches of each op in the steps that were timed; TYPERT_DEBUG shows them. */
  readonly #times = new Map<string, { ms: number; launches: number }>();

  constructor(source: ProgramSource) {
    const { plan, numHostBlocks = 0, readWeight, onWeight } = source;
    this.#plan = plan;
    const { maxNumTokens: T, maxBatchSize: R, maxNumLogits: L } = plan.limits;
    const limits: Dims = { T, R, L };
    const arena = new ArrayBuffer(plan.arenaBytes);
    let weightBytes = 0;
    let inputBytes = 0;
    const slot = (tensor: PlanTensor, buffer: ArrayBufferLike, offset: number, length: number): Slot => ({
      tensor,
      floats: new Float32Array(buffer, offset, length),
      ints: new Int32Array(buffer, offset, length),
    });
    this.#slots = plan.tensors.map((tensor) => {
      const length = capacity(tensor, limits);
      switch (tensor.storage.kind) {
        case 'arena':
          return slot(tensor, arena, tensor.storage.offset, length);
        case 'weight': {
          const data = readWeight(tensor.name);
          const floats = toFloat32({
            dtype: tensor.dtype,
            shape: tensor.shape.map((dim) => evaluate(dim, limits)),
            data,
          });
          weightBytes += floats.byteLength;
          onWeight?.(tensor.name, data.byteLength);
          return slot(tensor, floats.buffer, floats.byteOffset, length);
        }
        case 'input': {
          inputBytes += length * 4;
          const made = slot(tensor, new ArrayBuffer(length * 4), 0, length);
          this.#inputs.set(tensor.name, made);
          return made;
        }
        default:
          return tensor.storage satisfies never;
      }
    });
    const numBlocks = poolBlocks(source, hostMemory);
    this.numBlocks = numBlocks;
    let cacheBytes = 0;
    for (const [pool, spec] of cachePools(plan)) {
      const size = blockElements(spec, plan.tokensPerBlock);
      const data = new Float32Array(numBlocks * size);
      cacheBytes += data.byteLength;
      this.#pools.push({ data, host: new Float32Array(numHostBlocks * size), size });
      for (const layer of plan.caches)
        if (poolOf(layer) === pool)
          this.#caches.set(layer.layer, { ...layer, data, tokensPerBlock: plan.tokensPerBlock });
    }
    this.memory = { weights: weightBytes, arena: plan.arenaBytes, kvCache: cacheBytes, inputs: inputBytes };
    this.#launches = {
      forward: plan.phases.forward.map((step) => this.#launch(step)),
      sample: plan.phases.sample.map((step) => this.#launch(step)),
    };
  }

  #launch(step: PlanStep): (dims: Dims) => void {
    const args = new StepArgs(step, this.#slots, this.#caches, { T: 0, R: 0, L: 0 });
    const kernel = referenceKernels[step.op as KernelOp] as ReferenceKernel<KernelOp> | undefined;
    if (kernel === undefined) throw new TargetError('no reference kernel', { where: step.scope, got: step.op });
    // What the kernel wrote is rounded to its dtype: the narrow dtypes' arithmetic is float32 with rounded results.
    const inputs = new Set(ops[step.op].inputs.map((name) => name.replace('?', '')));
    const outputs = Object.entries(step.args).filter(([name]) => !inputs.has(name));
    const rounded = outputs
      .map(([, index]) => this.#slots[index]!)
      .filter(({ tensor }) => isFloatDType(tensor.dtype) && tensor.dtype !== 'float32');
    const cacheDType = cacheDTypeOf(this.#plan);
    return (dims) => {
      kernel(args.at(dims), step.attrs as never);
      for (const { tensor, floats } of rounded) {
        const used = tensor.shape.reduce<number>((n, dim) => n * evaluate(dim, dims), 1);
        if (isFloatDType(tensor.dtype)) roundArray(tensor.dtype, floats.subarray(0, used));
      }
      if (ops[step.op].cache === 'write' && cacheDType !== 'float32') this.#roundCache(args, cacheDType);
    };
  }

  /** Rounds the cache rows that this step wrote. */
  #roundCache(args: StepArgs, dtype: CacheDType): void {
    const { cache } = args;
    const { data: slots, shape } = args.ints('cacheSlots');
    const tokens = shape[0]!;
    const size = blockElements(cache, cache.tokensPerBlock);
    const blocks = new Set<number>();
    for (let t = 0; t < tokens; t++) blocks.add(Math.floor(slots[t]! / cache.tokensPerBlock));
    if (dtype !== 'int8') {
      for (const block of blocks) roundArray(dtype, cache.data.subarray(block * size, (block + 1) * size));
      return;
    }
    for (let t = 0; t < tokens; t++) {
      for (let head = 0; head < cache.numKvHeads; head++) {
        const key = cacheOffset(cache, 'key', slots[t]!, head);
        const value = cacheOffset(cache, 'value', slots[t]!, head);
        roundToBytes(cache.data.subarray(key, key + cache.headDim));
        roundToBytes(cache.data.subarray(value, value + cache.valueDim));
      }
    }
  }

  write(input: string, data: HostArray, count: number, at = 0): void {
    const slot = this.#inputs.get(input);
    // An input that no kernel reads was dropped by the compiler.
    if (slot === undefined) return;
    if (data instanceof Float32Array) slot.floats.set(data.subarray(0, count), at);
    else slot.ints.set(data.subarray(0, count), at);
  }

  async run(phase: Phase, dims: Dims, times?: Float64Array): Promise<void> {
    const launches = this.#launches[phase];
    if (times === undefined && !debugging(2)) {
      for (const launch of launches) launch(dims);
      return;
    }
    launches.forEach((launch, i) => {
      const { op } = this.#plan.phases[phase][i]!;
      const start = performance.now();
      launch(dims);
      const took = performance.now() - start;
      if (times !== undefined) times[i]! += took;
      const sum = this.#times.get(op) ?? { ms: 0, launches: 0 };
      this.#times.set(op, { ms: sum.ms + took, launches: sum.launches + 1 });
    });
  }

  #output(name: string): Slot {
    const index = this.#plan.outputs[name];
    if (index === undefined)
      throw new TargetError('no such output', { expected: Object.keys(this.#plan.outputs).join(', '), got: name });
    return this.#slots[index]!;
  }

  async read(output: string, into: HostArray): Promise<void> {
    const slot = this.#output(output);
    into.set((into instanceof Float32Array ? slot.floats : slot.ints).subarray(0, into.length));
  }

  async overwrite(output: string, data: Float32Array): Promise<void> {
    this.#output(output).floats.set(data);
  }

  async copyBlocks({ kind, from, to }: BlockCopies): Promise<void> {
    for (const { data, host, size } of this.#pools) {
      const source = kind === 'toDevice' ? host : data;
      const target = kind === 'toHost' ? host : data;
      from.forEach((block, i) => {
        target.set(source.subarray(block * size, (block + 1) * size), to[i]! * size);
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const times = [...this.#times].sort(([, a], [, b]) => b.ms - a.ms);
    for (const [op, { ms, launches }] of times)
      debug(2, () => `${op.padEnd(16)} ${ms.toFixed(1).padStart(9)} ms in ${launches} launches`);
    this.#close();
  }
}
