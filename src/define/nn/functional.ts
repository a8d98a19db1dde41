// Functional ops: each records one op of the table into the graph being traced. `scope` names the node for people.
import type { AttentionAttrs } from '../graph/attention.ts';
import type { NodeInputs, Value } from '../graph/graph.ts';
import type { Activation, Op, OpAttrs } from '../graph/ops.ts';
import type { Parameter } from './module.ts';
import { operand, Tensor } from './tensor.ts';

type Input = Tensor | Parameter;

function record<K extends Op>(
  on: Tensor,
  op: K,
  scope: string,
  inputs: Record<string, Input | undefined>,
  attrs: OpAttrs[K],
): Record<string, Tensor> {
  const { trace } = on;
  const values: Record<string, Value | undefined> = {};
  for (const [name, input] of Object.entries(inputs)) values[name] = operand(trace, input);
  const outputs = trace.builder.op(op, scope, values as NodeInputs, attrs);
  return Object.fromEntries(Object.entries(outputs).map(([name, value]) => [name, new Tensor(trace, value)]));
}

/** ids [T] → [T, H] rows of `table` [V, H]. */
export function embedding(ids: Tensor, table: Parameter, scope: string): Tensor {
  return record(ids, 'embedding', scope, { ids, table }, { dtype: ids.trace.dtype }).y!;
}

/** x [M, K] · weight [N, K]ᵀ (+ bias [N]) → [M, N]. */
export function matmul(x: Tensor, weight: Input, bias: Input | undefined, scope: string): Tensor {
  return record(x, 'matmul', scope, { x, weight, bias }, {}).y!;
}

/** Root-mean-square norm over the columns; `weightOffset` is added to the weight (Gemma: 1). */
export function rmsNorm(x: Tensor, weight: Input | undefined, eps: number, scope: string, weightOffset = 0): Tensor {
  return record(x, 'rmsnorm', scope, { x, weight }, { eps, weightOffset }).y!;
}

/** Layer norm over the columns, with optional weight and bias. */
export function layerNorm(
  x: Tensor,
  weight: Input | undefined,
  bias: Input | undefined,
  eps: number,
  scope: string,
): Tensor {
  return record(x, 'layernorm', scope, { x, weight, bias }, { eps }).y!;
}

/** The activation of every element. */
export function activation(x: Tensor, kind: Activation, scope: string): Tensor {
  return record(x, 'activation', scope, { x }, { kind }).y!;
}

/** a + b, of equal shape and dtype. */
export function add(a: Tensor, b: Tensor, scope: string): Tensor {
  return record(a, 'add', scope, { a, b }, {}).y!;
}

/** a · b by element, of equal shape and dtype. */
export function mul(a: Tensor, b: Tensor, scope: string): Tensor {
  return record(a, 'mul', scope, { a, b }, {}).y!;
}

/** x · factor; x itself when the factor is 1. */
export function scale(x: Tensor, factor: number, scope: string): Tensor {
  return factor === 1 ? x : record(x, 'scale', scope, { x }, { factor }).y!;
}

/** cap · tanh(x / cap); x itself when there is no cap. */
export function softcap(x: Tensor, cap: number | undefined, scope: string): Tensor {
  return cap === undefined ? x : record(x, 'softcap', scope, { x }, { cap }).y!;
}

/** Columns [start, start + size). */
export function slice(x: Tensor, start: number, size: number, scope: string): Tensor {
  return record(x, 'slice', scope, { x }, { start, size }).y!;
}

/** x[rows]: [T, H], [L] → [L, H]. */
export function gatherRows(x: Tensor, rows: Tensor, scope: string): Tensor {
  return record(x, 'gatherRows', scope, { x, rows }, {}).y!;
}

/** Tensors and weights of `attention`. */
export interface AttentionInputs {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly qNorm?: Input | undefined;
  readonly kNorm?: Input | undefined;
  readonly frequencies?: Input | undefined;
  readonly sinks?: Input | undefined;
  readonly slopes?: Input | undefined;
}

/** Step inputs that attention needs. */
export interface AttentionStep {
  readonly positions: Tensor;
  readonly cacheSlots: Tensor;
  readonly requestOffsets: Tensor;
  readonly contextLengths: Tensor;
  readonly blockTables: Tensor;
}

/** Causal self-attention through the layer's paged cache: q [T, heads·headDim] → [T, heads·valueDim]. Declares the cache. */
export function attention(inputs: AttentionInputs, step: AttentionStep, attrs: AttentionAttrs, scope: string): Tensor {
  const { layer, numKvHeads, headDim, valueDim, window } = attrs;
  inputs.q.addCache({ layer, numKvHeads, headDim, valueDim, ...(window === undefined ? {} : { window }) });
  const { positions, cacheSlots, requestOffsets, contextLengths, blockTables } = step;
  return record(
    inputs.q,
    'attention',
    scope,
    { ...inputs, positions, cacheSlots, requestOffsets, contextLengths, blockTables },
    attrs,
  ).y!;
}

/** Router logits [T, E] → weights and expert ids [T, k]. */
export function moeRoute(
  logits: Tensor,
  attrs: OpAttrs['moeRoute'],
  scope: string,
  bias?: Input,
): { weights: Tensor; experts: Tensor } {
  const { weights, experts } = record(logits, 'moeRoute', scope, { logits, bias }, attrs);
  return { weights: weights!, experts: experts! };
}

/** Weighted sum of each token's experts. gateUp [E, 2I, H], down [E, H, I]. */
export function moeExperts(
  x: Tensor,
  routed: { weights: Tensor; experts: Tensor },
  gateUp: Input,
  down: Input,
  kind: Activation,
  scope: string,
): Tensor {
  return record(x, 'moeExperts', scope, { x, ...routed, gateUp, down }, { kind }).y!;
}
