// How each op of a plan becomes launches on CUDA: sizes of the step at hand in, plain launches out.
import { TargetError } from '../../base/errors.ts';
import type { Op, OpAttrs } from '../../define/graph/ops.ts';
import type { CudaKernel } from '../../kernels/cuda-kernel.ts';
import { copyBlocksLaunch, gatherLaunch } from '../../kernels/gather/cuda.ts';
import { type LtSteps, ltSteps } from '../../kernels/matmul/cublaslt.ts';
import { type MatmulProblem, matmulLaunch, matmulWorkspace, normsWhileReading } from '../../kernels/matmul/cuda.ts';
import {
  type ExpertsProblem,
  expertsConfig,
  expertsLaunches,
  expertsWorkspace,
  routeLaunch,
} from '../../kernels/moe/cuda.ts';
import { normLaunch } from '../../kernels/norm/cuda.ts';
import { type PointwiseProblem, pointwiseLaunch } from '../../kernels/pointwise/cuda.ts';
import { sampleLaunches, sampleWorkspace } from '../../kernels/sample/cuda.ts';
import { type DevicePtr, offsetPtr } from '../ffi/cuda-driver.ts';
import type { PlanStep } from '../plan.ts';
import { pagedAttention, ropeAttention, ropeCache } from './attention.ts';
import type { Buffers } from './launch.ts';
import {
  type BoundLaunch,
  type BoundProduct,
  type BoundWork,
  bind,
  type Maker,
  pointers,
  type StepView,
} from './step.ts';

/** A product, by the tactic chosen for its size. */
function matmulLaunches(
  step: StepView,
  problem: MatmulProblem,
  buffers: Buffers,
  norm?: OpAttrs['matmul']['norm'],
): readonly BoundWork[] {
  const chosen = step.tactics.matmul(problem);
  const steps = chosen.kind === 'cublaslt' ? ltSteps(problem, step.arch) : undefined;
  if (chosen.kind === 'cublaslt' && steps !== undefined) return ltLaunches(step, steps, chosen.algorithm, buffers);
  const config = chosen.kind === 'cublaslt' ? chosen.own : chosen;
  const { partial, counters } = matmulWorkspace(problem, config);
  const workspace = partial === 0 ? {} : { partial: step.scratch(partial), counters: step.counters(counters) };
  return bind(matmulLaunch(problem, config, step.arch, norm), { ...buffers, ...workspace });
}

function ltLaunches(step: StepView, steps: LtSteps, algorithm: string, buffers: Buffers): readonly BoundWork[] {
  const { product, wideBytes, tail } = steps;
  const wide = wideBytes === 0 ? buffers.y! : step.scratch(wideBytes);
  const first: BoundProduct = { product: { problem: product, algorithm }, buffers: { ...buffers, y: wide } };
  if (tail === undefined) return [first];
  const b = offsetPtr(wide, (product.n / 2) * (step.dtype === 'float32' ? 4 : 2));
  return [first, ...bind(tail, { a: wide, b, y: buffers.y! })];
}

const matmul: Maker<'matmul'> = (step, { gated, norm: normed }) => {
  const [x, w, y] = [step.tensor('x'), step.tensor('weight'), step.tensor('y')];
  const residual = step.optional('residual');
  const problem: MatmulProblem = {
    dtype: step.dtype,
    m: x.rows,
    n: y.columns,
    k: w.columns,
    ldx: x.stride,
    ldy: y.stride,
    bias: step.optional('bias') !== undefined,
    residual: residual !== undefined,
    ldr: residual?.stride ?? 0,
    gated: gated !== undefined,
    activation: gated ?? 'none',
  };
  const names = { x: 'x', w: 'weight', bias: 'bias', residual: 'residual', norm: 'normWeight', y: 'y' };
  const buffers = pointers(step, names);
  if (normed === undefined) return matmulLaunches(step, problem, buffers);
  const weight = step.optional('normWeight') !== undefined;
  if (normsWhileReading(problem, step.arch))
    return matmulLaunches(step, { ...problem, norm: weight ? 'weighted' : 'plain' }, buffers, normed);
  const room = step.tensor('normed');
  const shape = { rows: x.rows, columns: x.columns, ldx: x.stride, ldr: 0, lds: 0, ldy: room.stride };
  const first = normLaunch({
    kind: 'rms',
    dtype: step.dtype,
    ...shape,
    ...normed,
    weight,
    bias: false,
    residual: false,
  });
  return [
    ...bind(first, { ...pointers(step, { x: 'x', weight: 'normWeight' }), y: room.ptr }),
    ...matmulLaunches(step, { ...problem, ldx: room.stride }, { ...buffers, x: room.ptr }),
  ];
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

const sample: Maker<'sample'> = (step) => {
  const logits = step.tensor('logits');
  const names = ['logits', 'temperature', 'topK', 'topP', 'minP', 'seedLow', 'seedHigh', 'counter', 'token', 'logprob'];
  const problem = { dtype: step.dtype, rows: logits.rows, vocab: logits.columns, ld: logits.stride };
  const workspace = step.scratch(sampleWorkspace(problem));
  const buffers = { ...pointers(step, Object.fromEntries(names.map((name) => [name, name]))), workspace };
  return sampleLaunches(problem).map((launch) => ({ launch, buffers }));
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
  const problem: ExpertsProblem = {
    dtype: step.dtype,
    activation: kind,
    tokens: x.rows,
    experts: down.rows / x.columns,
    topK,
    hidden: x.columns,
    inner,
    ldx: x.stride,
    ldy: y.stride,
  };
  const config = expertsConfig(problem, step.arch);
  const names = { x: 'x', gateUp: 'gateUp', down: 'down', experts: 'experts', weights: 'weights', y: 'y' };
  const buffers = { ...pointers(step, names), workspace: step.scratch(expertsWorkspace(problem, config)) };
  return expertsLaunches(problem, config).map((launch) => ({ launch, buffers }));
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
  ropeCache: (step, attrs) => ropeCache(step, attrs, step.tensor('y')),
  pagedAttention: (step, attrs) => pagedAttention(step, attrs, step.tensor('q')),
  ropeAttention,
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
