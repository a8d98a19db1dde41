// The CPU's kernel of every op: its C file, what it is specialised by, and how a launch is described to it. The C side of each is in
// src/kernels/<op>/cpu.c.
import { type DType, isBlockDType } from '../../base/dtype.ts';
import { type Dims, evaluate } from '../../base/expr.ts';
import type { HeadNorm } from '../../define/graph/attention.ts';
import type { Node } from '../../define/graph/graph.ts';
import type { OpAttrs } from '../../define/graph/ops.ts';
import type { PlainOp } from '../../kernels/reference-table.ts';
import { cacheDTypeOf, type Plan, type PlanStep } from '../plan.ts';
import type { CacheSupport } from '../target.ts';

/** Weight formats that kernels read in panels, by dtype (include/cpu/weights.h). */
export interface WeightFormat {
  readonly name: string;
  readonly id: number;
  /** Groups of 32 columns that share a scale in the engine's blocks; in panels each has its own. */
  readonly share?: number;
}
export const weightFormats: Partial<Record<DType, WeightFormat>> = {
  float32: { name: 'W_F32', id: 0 },
  bfloat16: { name: 'W_BF16', id: 1 },
  float16: { name: 'W_F16', id: 2 },
  q8_0: { name: 'W_Q8_0', id: 3 },
  q4_0: { name: 'W_Q4_0', id: 4 },
  q4_1: { name: 'W_Q4_1', id: 5 },
  q5_0: { name: 'W_Q5_0', id: 6 },
  q5_1: { name: 'W_Q5_1', id: 7 },
  q4_k: { name: 'W_Q4_K', id: 8 },
  q5_k: { name: 'W_Q5_K', id: 9 },
  q6_k: { name: 'W_Q6_K', id: 10 },
  w8_64: { name: 'W_Q8_0', id: 3, share: 2 },
  w8_128: { name: 'W_Q8_0', id: 3, share: 4 },
  w8z_32: { name: 'W_Q8_Z', id: 11 },
  w8z_64: { name: 'W_Q8_Z', id: 11, share: 2 },
  w8z_128: { name: 'W_Q8_Z', id: 11, share: 4 },
  w4_64: { name: 'W_Q4_0', id: 4, share: 2 },
  w4_128: { name: 'W_Q4_0', id: 4, share: 4 },
  w4z_64: { name: 'W_Q4_1', id: 5, share: 2 },
  w4z_128: { name: 'W_Q4_1', id: 5, share: 4 },
};

/** What a kernel is compiled for: plain data in the plan. */
export type Config = Readonly<Record<string, string | number>>;

export interface CpuKernel<K extends PlainOp> {
  readonly file: string;
  /** Inputs in the order of the C side's arguments, where it does not take all that the op may have. */
  readonly inputs?: readonly string[];
  /** Outputs in the order of the C side's arguments. */
  readonly outputs: readonly string[];
  /** Inputs that are weights in panels. */
  readonly packed?: readonly string[];
  config?(node: Node<K>): Config;
  /** The C function: a macro with arguments that defines it, or a name that is there already. */
  instance(
    config: Config,
    plan: Plan,
  ): string | { readonly macro: string; readonly args: readonly (string | number)[] };
  ints?(attrs: OpAttrs[K]): readonly number[];
  floats?(attrs: OpAttrs[K]): readonly number[];
  /** Bytes that the threads of a launch share. */
  scratch?(step: PlanStep<K>, plan: Plan, limits: Dims, threads: number): number;
}

const format = (dtype: DType): string => weightFormats[dtype]?.name ?? dtype;

/** Size of dim `axis` of an argument, with symbols at their limits. */
function size(step: PlanStep, plan: Plan, limits: Dims, arg: string, axis: number): number {
  return evaluate(plan.tensors[step.args[arg]!]!.shape[axis]!, limits);
}

const normFloats = (norm: HeadNorm | undefined): number[] => [norm?.eps ?? 0, norm?.weightOffset ?? 0];

function pointwise<K extends 'activation' | 'gated' | 'add' | 'mul' | 'scale' | 'softcap'>(
  op: K,
  extra: Partial<CpuKernel<K>> = {},
): CpuKernel<K> {
  return {
    file: 'pointwise/cpu.c',
    outputs: ['y'],
    instance: ({ kind }) => ({ macro: 'POINTWISE', args: [op, kind ?? 'tanh'] }),
    ...extra,
  };
}

/** Activations as whole numbers: up to two bytes each, with a scale and three sums for every 32 (matmul/byte-rows.h). */
const wholeNumberBytes = 2 + 16 / 32;
const expertsBytes = 8192;
/** Spans of a context that threads share, rows of a block, and how many results of spans there is room for (attention/cpu.c). */
const attention = { spanTokens: 512, rows: 24, spans: 2048 };

/** Narrow weights come with a narrow cache; who asks for float32 gets it throughout. */
export const cpuCache: CacheSupport = {
  dtypes: ['float32', 'bfloat16', 'int8'],
  auto: (dtype, wide) => (dtype === 'float32' || wide ? 'float32' : 'bfloat16'),
  bytes: (dtype) => (dtype === 'float32' ? 4 : dtype === 'int8' ? 1 : 2),
};

export const cpuKernels: { readonly [K in PlainOp]: CpuKernel<K> } = {
  embedding: {
    file: 'embedding/cpu.c',
    outputs: ['y'],
    packed: ['table'],
    config: (node) => ({ weight: format(node.inputs.table!.dtype) }),
    instance: ({ weight }) => ({ macro: 'EMBEDDING', args: [weight!] }),
  },
  matmul: {
    file: 'matmul/cpu.c',
    // The others are of targets that fuse them.
    inputs: ['x', 'weight', 'bias'],
    outputs: ['y'],
    packed: ['weight'],
    config: ({ inputs, attrs }) => ({
      weight: format(inputs.weight!.dtype),
      ...(attrs.exact === undefined ? {} : { exact: 1 }),
    }),
    instance: ({ weight, exact }) => ({ macro: exact === 1 ? 'MATMUL_EXACT' : 'MATMUL', args: [weight!] }),
    scratch: (step, plan, limits) => {
      const { dtype } = plan.tensors[step.args.weight!]!;
      const [rows, columns] = [size(step, plan, limits, 'x', 0), size(step, plan, limits, 'x', 1)];
      if (isBlockDType(dtype)) return rows * columns * wholeNumberBytes;
      // Twice in bfloat16, in whole tiles (matmul/amx.h).
      return dtype === 'bfloat16' ? Math.ceil(rows / 16) * Math.ceil(columns / 32) * 2048 : 0;
    },
  },
  rmsnorm: {
    file: 'norm/cpu.c',
    outputs: ['y', 'sum'],
    instance: () => 'rmsnorm',
    floats: ({ eps, weightOffset }) => [eps, weightOffset],
  },
  layernorm: {
    file: 'norm/cpu.c',
    outputs: ['y', 'sum'],
    instance: () => 'layernorm',
    floats: ({ eps }) => [eps, 0],
  },
  activation: pointwise('activation', { config: ({ attrs }) => ({ kind: attrs.kind }) }),
  gated: pointwise('gated', { config: ({ attrs }) => ({ kind: attrs.kind }) }),
  add: pointwise('add'),
  mul: pointwise('mul'),
  scale: pointwise('scale', { floats: ({ factor }) => [factor] }),
  softcap: pointwise('softcap', { floats: ({ cap }) => [cap] }),
  gatherRows: { file: 'gather/cpu.c', outputs: ['y'], instance: () => 'gather_rows' },
  ropeCache: {
    file: 'attention/cpu.c',
    outputs: ['y'],
    config: ({ attrs: { numHeads, numKvHeads, headDim, valueDim, norm, rope } }) => ({
      numHeads,
      numKvHeads,
      headDim,
      valueDim,
      norm: norm?.kind ?? 'none',
      rotaryDim: rope?.rotaryDim ?? 0,
      style: rope?.style ?? 'half',
    }),
    instance: ({ numHeads, numKvHeads, headDim, valueDim, norm, rotaryDim, style }, plan) => ({
      macro: 'ROPE_CACHE',
      args: [
        numHeads!,
        numKvHeads!,
        headDim!,
        valueDim!,
        plan.tokensPerBlock,
        `CACHE_${cacheDTypeOf(plan)}`,
        String(norm).toUpperCase(),
        rotaryDim!,
        String(style).toUpperCase(),
      ],
    }),
    floats: ({ norm, rope }) => [...normFloats(norm), rope?.attentionFactor ?? 1],
  },
  pagedAttention: {
    file: 'attention/cpu.c',
    outputs: ['y'],
    config: ({ attrs: { numHeads, numKvHeads, headDim, valueDim, window, sinkTokens, chunk, softcap }, inputs }) => ({
      numHeads,
      numKvHeads,
      headDim,
      valueDim,
      window: window ?? 0,
      sinkTokens: sinkTokens ?? 0,
      chunk: chunk ?? 0,
      softcap: softcap === undefined ? 0 : 1,
      slopes: inputs.slopes === undefined ? 0 : 1,
    }),
    instance: ({ numHeads, numKvHeads, headDim, valueDim, window, sinkTokens = 0, chunk, softcap, slopes }, plan) => ({
      macro: 'PAGED_ATTENTION',
      args: [
        numHeads!,
        numKvHeads!,
        headDim!,
        valueDim!,
        plan.tokensPerBlock,
        `CACHE_${cacheDTypeOf(plan)}`,
        window!,
        sinkTokens,
        chunk!,
        softcap!,
        slopes!,
      ],
    }),
    floats: ({ scale, softcap }) => [scale, softcap ?? 0],
    // Results of spans, where few heads over long contexts are split among threads.
    scratch: ({ attrs: { numKvHeads, valueDim } }, { maxBlocksPerSequence, tokensPerBlock }, _limits, threads) => {
      const spans = Math.ceil((maxBlocksPerSequence * tokensPerBlock) / attention.spanTokens) + 1;
      const most = Math.min(attention.spans, (3 * threads + numKvHeads) * spans);
      return threads === 1 ? 0 : most * attention.rows * (valueDim + 2) * 4;
    },
  },
  moeRoute: {
    file: 'moe/cpu.c',
    outputs: ['weights', 'experts'],
    instance: () => 'moe_route',
    ints: ({ topK, scoring, normalize }) => [topK, scoring === 'sigmoid' ? 1 : 0, normalize ? 1 : 0],
    floats: ({ scale }) => [scale],
  },
  moeExperts: {
    file: 'moe/cpu.c',
    outputs: ['y'],
    packed: ['gateUp', 'down'],
    config: ({ attrs, inputs }) => ({
      kind: attrs.kind,
      up: format(inputs.gateUp!.dtype),
      down: format(inputs.down!.dtype),
      ...(attrs.exact === undefined ? {} : { exact: 1 }),
    }),
    instance: ({ kind, up, down, exact }) => ({ macro: 'MOE_EXPERTS_KERNEL', args: [kind!, up!, down!, exact ?? 0] }),
    scratch: (step, plan, limits) => {
      const pairs = limits.T * size(step, plan, limits, 'experts', 1);
      const hidden = size(step, plan, limits, 'down', 1);
      const inner = size(step, plan, limits, 'down', 2);
      return (
        expertsBytes +
        (pairs + 16) * 4 +
        pairs * (2 * inner + hidden) * 4 +
        pairs * Math.max(inner, hidden) * wholeNumberBytes
      );
    },
  },
  sample: {
    file: 'sample/cpu.c',
    outputs: ['token', 'logprob'],
    instance: () => 'sample',
    scratch: (step, plan, limits, threads) => threads * (size(step, plan, limits, 'logits', 1) + 16) * 4,
  },
};

/** A kernel's entry without its op's types, for code that treats all alike. */
export function cpuKernel(op: PlanStep['op']): CpuKernel<PlainOp> | undefined {
  return Object.hasOwn(cpuKernels, op) ? (cpuKernels[op as PlainOp] as unknown as CpuKernel<PlainOp>) : undefined;
}
