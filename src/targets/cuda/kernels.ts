// How each op of a plan becomes launches on CUDA: sizes of the step at hand in, plain launches out.
import type { FloatDType } from '../../base/dtype.ts';
import { TargetError } from '../../base/errors.ts';
import { type Dims, evaluate } from '../../base/expr.ts';
import type { Op, OpAttrs } from '../../define/graph/ops.ts';
import {
  type AttentionConfig,
  type AttentionProblem,
  attentionLaunch,
  attentionWorkspace,
  decodeRows,
} from '../../kernels/attention/cuda.ts';
import { ropeCacheLaunch } from '../../kernels/attention/cuda-rope.ts';
import type { CudaArch, CudaKernel, CudaLaunch } from '../../kernels/cuda-kernel.ts';
import { copyBlocksLaunch, gatherLaunch } from '../../kernels/gather/cuda.ts';
import { type LtSteps, ltSteps } from '../../kernels/matmul/cublaslt.ts';
import { type MatmulProblem, matmulLaunch, matmulWorkspace } from '../../kernels/matmul/cuda.ts';
import { expertsLaunches, routeLaunch } from '../../kernels/moe/cuda.ts';
import { normLaunch } from '../../kernels/norm/cuda.ts';
import { type PointwiseProblem, pointwiseLaunch } from '../../kernels/pointwise/cuda.ts';
import { sampleLaunch } from '../../kernels/sample/cuda.ts';
import { type DevicePtr, offsetPtr } from '../ffi/cuda-driver.ts';
import type { Plan, PlanStep } from '../plan.ts';
import type { Buffers } from './launch.ts';
import type { LtLaunch } from './products.ts';
import type { Tactics } from './tactics.ts';

/** A tensor of the step at hand: [rows, columns], rows `stride` elements apart. */
export interface StepTensor {
  readonly ptr: DevicePtr;
  readonly rows: number;
  readonly columns: number;
  readonly stride: number;
}

/** What a launch maker may ask of the step. */
export interface StepView {
  readonly arch: CudaArch;
  readonly tactics: Tactics;
  readonly dtype: FloatDType;
  readonly tokensPerBlock: number;
  readonly maxBlocksPerSequence: number;
  readonly numBlocks: number;
  readonly dims: { readonly T: number; readonly R: number; readonly L: number };
  tensor(name: string): StepTensor;
  optional(name: string): StepTensor | undefined;
  /** The tokens that the step before sampled, [L]. */
  readonly sampled: DevicePtr | undefined;
  /** The cache of a layer. */
  cache(layer: number): DevicePtr;
  /** Room that launches in order may share, at least `bytes` large. */
  scratch(bytes: number): DevicePtr;
  /** Counters that every kernel leaves at zero. */
  counters(bytes: number): DevicePtr;
}

export interface BoundLaunch {
  readonly launch: CudaLaunch;
  readonly buffers: Buffers;
}

/** A product that goes to cuBLASLt. */
export interface BoundProduct {
  readonly product: LtLaunch;
  readonly buffers: Buffers;
}
export type BoundWork = BoundLaunch | BoundProduct;

type Maker<K extends Op> = (step: StepView, attrs: OpAttrs[K]) => readonly BoundWork[];

const bind = (launch: CudaLaunch, buffers: Buffers): readonly BoundLaunch[] => [{ launch, buffers }];

/** Pointers of the tensors that are there, by their names (or new names). */
function pointers(step: StepView, names: Readonly<Record<string, string>>): Buffers {
  const found: Record<string, DevicePtr> = {};
  for (const [as, name] of Object.entries(names)) {
    const tensor = step.optional(name);
    if (tensor !== undefined) found[as] = tensor.ptr;
  }
  return found;
}

/** A product, by the tactic chosen for its size. */
function matmulLaunches(step: StepView, problem: MatmulProblem, buffers: Buffers): readonly BoundWork[] {
  const chosen = step.tactics.matmul(problem);
  const steps = chosen.kind === 'cublaslt' ? ltSteps(problem, step.arch) : undefined;
  if (chosen.kind === 'cublaslt' && steps !== undefined) return ltLaunches(step, steps, chosen.algorithm, buffers);
  const config = chosen.kind === 'cublaslt' ? chosen.own : chosen;
  const { partial, counters } = matmulWorkspace(problem, config);
  const workspace = partial === 0 ? {} : { partial: step.scratch(partial), counters: step.counters(counters) };
  return bind(matmulLaunch(problem, config, step.arch), { ...buffers, ...workspace });
}

function ltLaunches(step: StepView, steps: LtSteps, algorithm: string, buffers: Buffers): readonly BoundWork[] {
  const { product, wideBytes, tail } = steps;
  const wide = wideBytes === 0 ? buffers.y! : step.scratch(wideBytes);
  const first: BoundProduct = { product: { problem: product, algorithm }, buffers: { ...buffers, y: wide } };
  if (tail === undefined) return [first];
  const b = offsetPtr(wide, (product.n / 2) * (step.dtype === 'float32' ? 4 : 2));
  return [first, ...bind(tail, { a: wide, b, y: buffers.y! })];
}

const matmul: Maker<'matmul'> = (step, { gated }) => {
  const [x, w, y] = [step.tensor('x'), step.tensor('weight'), step.tensor('y')];
  const problem: MatmulProblem = {
    dtype: step.dtype,
    m: x.rows,
    n: y.columns,
    k: w.columns,
    ldx: x.stride,
    ldy: y.stride,
    bias: step.optional('bias') !== undefined,
    residual: false,
    gated: gated !== undefined,
    activation: gated ?? 'none',
  };
  return matmulLaunches(step, problem, pointers(step, { x: 'x', w: 'weight', bias: 'bias', y: 'y' }));
};

function norm(kind: 'rms' | 'layer', step: StepView, eps: number, weightOffset: number): readonly BoundLaunch[] {
  const [x, y] = [step.tensor('x'), step.tensor('y')];
  const residual = step.optional('residual');
  const launch = normLaunch({
    kind,
    dtype: step.dtype,
    rows: x.rows,
    columns: x.columns,
    ldx: x.stride,
    ldr: residual?.stride ?? 0,
    lds: residual === undefined ? 0 : step.tensor('sum').stride,
    ldy: y.stride,
    eps,
    weightOffset,
    weight: step.optional('weight') !== undefined,
    bias: step.optional('bias') !== undefined,
    residual: residual !== undefined,
  });
  const names = { x: 'x', residual: 'residual', weight: 'weight', bias: 'bias', sum: 'sum', y: 'y' };
  return bind(launch, pointers(step, names));
}

function pointwise(
  op: PointwiseProblem['op'],
  step: StepView,
  inputs: readonly [a: string, b?: string],
  extra: Partial<Pick<PointwiseProblem, 'activation' | 'factor'>> = {},
): readonly BoundLaunch[] {
  const [a, y] = [step.tensor(inputs[0]), step.tensor('y')];
  const b = inputs[1] === undefined ? undefined : step.tensor(inputs[1]);
  const problem: PointwiseProblem = {
    op,
    activation: 'none',
    dtype: step.dtype,
    rows: a.rows,
    columns: a.columns,
    lda: a.stride,
    ldb: b?.stride ?? 0,
    ldy: y.stride,
    factor: 1,
    ...extra,
  };
  return bind(pointwiseLaunch(problem, step.arch), { a: a.ptr, y: y.ptr, ...(b === undefined ? {} : { b: b.ptr }) });
}

function gather(step: StepView, ids: string, table: string, sampled?: DevicePtr): readonly BoundLaunch[] {
  const [from, y] = [step.tensor(table), step.tensor('y')];
  const launch = gatherLaunch({
    dtype: step.dtype,
    tableDType: step.dtype,
    rows: y.rows,
    columns: y.columns,
    tableRows: from.rows,
    ldt: from.stride,
    ldy: y.stride,
    ...(sampled === undefined ? {} : { sampled: true }),
  });
  const buffers = { ids: step.tensor(ids).ptr, table: from.ptr, y: y.ptr };
  return bind(launch, sampled === undefined ? buffers : { ...buffers, sampled });
}

const pagedAttention: Maker<'pagedAttention'> = (step, attrs) => {
  const [q, y] = [step.tensor('q'), step.tensor('y')];
  const { T: tokens, R: requests } = step.dims;
  const problem: AttentionProblem = {
    dtype: step.dtype,
    tokens,
    requests,
    heads: attrs.numHeads,
    kvHeads: attrs.numKvHeads,
    headDim: attrs.headDim,
    ldq: q.stride,
    ldy: y.stride,
    tokensPerBlock: step.tokensPerBlock,
    maxBlocksPerSequence: step.maxBlocksPerSequence,
    numBlocks: step.numBlocks,
    scale: attrs.scale,
    ...(attrs.softcap === undefined ? {} : { softcap: attrs.softcap }),
    ...(attrs.window === undefined ? {} : { window: attrs.window }),
    ...(attrs.chunk === undefined ? {} : { chunk: attrs.chunk }),
    ...(attrs.sinkTokens === undefined ? {} : { sinkTokens: attrs.sinkTokens }),
    sinks: step.optional('sinks') !== undefined,
    alibi: step.optional('slopes') !== undefined,
  };
  const names = ['q', 'y', 'sinks', 'slopes', 'positions', 'requestOffsets', 'contextLengths', 'blockTables'];
  const buffers = {
    ...pointers(step, Object.fromEntries(names.map((name) => [name, name]))),
    cache: step.cache(attrs.layer),
  };
  const make = (config: AttentionConfig, skip: number): BoundLaunch => {
    const { partial, counters } = attentionWorkspace(problem, config);
    const workspace = partial === 0 ? {} : { partial: step.scratch(partial), counters: step.counters(counters) };
    return { launch: attentionLaunch(problem, config, skip), buffers: { ...buffers, ...workspace } };
  };
  const decode = step.tactics.decode(problem);
  if (decode.kind === 'plain') return [make(step.tactics.prefill(problem), 0)];
  if (tokens === requests) return [make(decode, 0)];
  const prefill = step.tactics.prefill(problem);
  // The plain kernel computes every token, so that nothing is left to the decode kernel.
  if (prefill.kind === 'plain') return [make(prefill, 0)];
  return [make(prefill, decodeRows), make(decode, 0)];
};

const ropeCache: Maker<'ropeCache'> = (step, attrs) => {
  const [q, k, v, y] = [step.tensor('q'), step.tensor('k'), step.tensor('v'), step.tensor('y')];
  const launch = ropeCacheLaunch({
    dtype: step.dtype,
    attrs,
    tokens: q.rows,
    ldq: q.stride,
    ldk: k.stride,
    ldv: v.stride,
    ldy: y.stride,
    tokensPerBlock: step.tokensPerBlock,
  });
  const names = {
    q: 'q',
    k: 'k',
    v: 'v',
    qNorm: 'qNorm',
    kNorm: 'kNorm',
    frequencies: 'frequencies',
    positions: 'positions',
    slots: 'cacheSlots',
    y: 'y',
  };
  return bind(launch, { ...pointers(step, names), cache: step.cache(attrs.layer) });
};

const sample: Maker<'sample'> = (step) => {
  const logits = step.tensor('logits');
  const names = ['logits', 'temperature', 'topK', 'topP', 'minP', 'seedLow', 'seedHigh', 'counter', 'token', 'logprob'];
  const launch = sampleLaunch({ dtype: step.dtype, rows: logits.rows, vocab: logits.columns, ld: logits.stride });
  return bind(launch, pointers(step, Object.fromEntries(names.map((name) => [name, name]))));
};

const moeRoute: Maker<'moeRoute'> = (step, { topK, scoring, normalize, scale }) => {
  const logits = step.tensor('logits');
  const launch = routeLaunch({
    dtype: step.dtype,
    tokens: logits.rows,
    experts: logits.columns,
    ld: logits.stride,
    topK,
    scoring,
    normalize,
    scale,
    bias: step.optional('bias') !== undefined,
  });
  return bind(launch, pointers(step, { logits: 'logits', bias: 'bias', weights: 'weights', experts: 'experts' }));
};

const moeExperts: Maker<'moeExperts'> = (step, { kind }) => {
  const [x, y, down, experts] = [step.tensor('x'), step.tensor('y'), step.tensor('down'), step.tensor('experts')];
  const [topK, inner] = [experts.columns, down.columns];
  const launches = expertsLaunches({
    dtype: step.dtype,
    activation: kind,
    tokens: x.rows,
    topK,
    hidden: x.columns,
    inner,
    ldx: x.stride,
    ldy: y.stride,
  });
  const names = { x: 'x', gateUp: 'gateUp', down: 'down', experts: 'experts', weights: 'weights', y: 'y' };
  const buffers = { ...pointers(step, names), inner: step.scratch(x.rows * topK * inner * 4) };
  return launches.map((launch) => ({ launch, buffers }));
};

/** The ops that CUDA computes. */
export const cudaKernels: { readonly [K in Op]?: Maker<K> } = {
  embedding: (step) => gather(step, 'ids', 'table', step.sampled),
  gatherRows: (step) => gather(step, 'rows', 'x'),
  matmul,
  rmsnorm: (step, { eps, weightOffset }) => norm('rms', step, eps, weightOffset),
  layernorm: (step, { eps }) => norm('layer', step, eps, 0),
  activation: (step, { kind }) => pointwise('activation', step, ['x'], { activation: kind }),
  gated: (step, { kind }) => pointwise('gated', step, ['gate', 'up'], { activation: kind }),
  add: (step) => pointwise('add', step, ['a', 'b']),
  mul: (step) => pointwise('mul', step, ['a', 'b']),
  scale: (step, { factor }) => pointwise('scale', step, ['x'], { factor }),
  softcap: (step, { cap }) => pointwise('softcap', step, ['x'], { factor: cap }),
  ropeCache,
  pagedAttention,
  moeRoute,
  moeExperts,
  sample,
};

/** The launches of a step of the plan; a step without rows (no logits wanted) has none. Throws TargetError when CUDA lacks the op. */
export function stepLaunches(step: PlanStep, view: StepView): readonly BoundWork[] {
  const make = cudaKernels[step.op];
  if (make === undefined) throw new TargetError('no CUDA kernel', { where: step.scope, got: step.op });
  const rows = step.op === 'sample' || step.op === 'gatherRows' ? view.dims.L : view.dims.T;
  if (rows === 0) return [];
  return make(view, step.attrs as never).filter(
    (work) => 'product' in work || work.launch.grid.every((size) => size > 0),
  );
}

/** An argument of a step at these sizes. */
export function stepTensor(plan: Plan, index: number, dims: Dims, ptr: DevicePtr): StepTensor {
  const tensor = plan.tensors[index]!;
  const shape = tensor.shape.map((dim) => evaluate(dim, dims));
  const columns = shape.at(-1) ?? 1;
  const rows = shape.slice(0, -1).reduce((a, b) => a * b, 1);
  return { ptr, rows, columns, stride: tensor.stride ?? columns };
}

/** Kernels that the runtime launches whatever the plan. */
export const runtimeKernels: readonly CudaKernel[] = [copyBlocksLaunch(1, 16).kernel];

/** Inputs that kernels read as float32 whatever the plan's dtype. */
export const floatInputs: ReadonlySet<string> = new Set([
  'frequencies',
  'sinks',
  'slopes',
  'temperature',
  'topP',
  'minP',
]);
