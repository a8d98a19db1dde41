// The op table: what ops exist, their attributes, inputs and shape rules. Everything that treats ops alike (verifier, printer, passes,
// memory plan, targets) reads the properties declared here.
import { type DType, type FloatDType, isFloatDType } from '../../base/dtype.ts';
import { GraphError } from '../../base/errors.ts';
import { type Expr, mul, printShape, type Shape, sameExpr, sameShape } from '../../base/expr.ts';
import type { AttentionAttrs, PagedAttentionAttrs, RopeCacheAttrs } from './attention.ts';

/** Names of the activation functions, Hugging Face's spellings made one. */
export type Activation = 'silu' | 'gelu' | 'gelu_tanh' | 'quick_gelu' | 'relu' | 'relu2' | 'sigmoid' | 'tanh';

/** Attributes of every op: plain data, all of it known at build. */
export interface OpAttrs {
  /** y[t] = table[ids[t]] */
  embedding: { readonly dtype: FloatDType };
  /**
   * y = x · weightᵀ + bias; x [M, K], weight [N, K], bias [N]. The compiler asks targets that have them for more: with `gated` the weight
   * stacks gate over up and y [M, N/2] is activation(gate) · up; a `residual` like y is added last; with `norm` it is not x that is
   * multiplied but its rmsnorm, for which `normed` is room (a kernel may leave it unwritten).
   */
  matmul: {
    readonly gated?: Activation;
    readonly norm?: { readonly eps: number; readonly weightOffset: number };
    /** Activations stay floats where the weight is quantised. */
    readonly exact?: true;
  };
  /** y = x / rms(x) · (weight + weightOffset) over groups of `size` columns; with a residual, x + residual is normed and also put out. Zhang & Sennrich 2019. */
  rmsnorm: { readonly eps: number; readonly weightOffset: number };
  /** y = (x − mean) / √(var + eps) · weight + bias; with a residual as `rmsnorm`. Ba et al. 2016. */
  layernorm: { readonly eps: number };
  activation: { readonly kind: Activation };
  /** y = activation(gate) · up. Shazeer 2020. */
  gated: { readonly kind: Activation };
  add: Record<never, never>;
  mul: Record<never, never>;
  scale: { readonly factor: number };
  /** y = cap · tanh(x / cap) */
  softcap: { readonly cap: number };
  /** Columns [start, start + size): a view, nothing is computed. */
  slice: { readonly start: number; readonly size: number };
  /** y[l] = x[rows[l]] */
  gatherRows: Record<never, never>;
  /** Self-attention over the paged cache, as models say it; lowered to ropeCache and pagedAttention. */
  attention: AttentionAttrs;
  /** Norms and rotates q and k, writes k and v into the layer's cache, puts out q. */
  ropeCache: RopeCacheAttrs;
  /** Attention of the step's queries over the layer's cache. Vaswani et al. 2017; Kwon et al. 2023 for paging. */
  pagedAttention: PagedAttentionAttrs;
  /** Both in one, for targets that have it; `rotated` is room for q (a kernel may leave it unwritten). */
  ropeAttention: AttentionAttrs;
  /** Top-k experts of each token: router logits [T, E] → weights and expert ids [T, k]. */
  moeRoute: {
    readonly topK: number;
    readonly scoring: 'softmax' | 'sigmoid';
    /** Whether the k weights are divided by their sum. */
    readonly normalize: boolean;
    readonly scale: number;
  };
  /** Σₖ weight · down(activation(gate(x)) · up(x)) over each token's experts; gateUp [E, 2I, H] (gate first), down [E, H, I]. */
  moeExperts: {
    readonly kind: Activation;
    /** As of `matmul`. */
    readonly exact?: true;
  };
  /** One token a row of logits, by the step's sampling inputs. */
  sample: Record<never, never>;
}

/** The name of an op. */
export type Op = keyof OpAttrs;

/** What shape rules work on: a value without its name. */
export interface TensorType {
  readonly dtype: DType;
  readonly shape: Shape;
}

/** Thrown-away helper that rules use to speak of the node at hand. */
export interface RuleContext {
  fail(expected: string, got: string): never;
}

export interface OpSpec<Attrs> {
  /** Inputs by name; a '?' marks those that may be absent. Order is the printed order. */
  readonly inputs: readonly string[];
  /** Shape rule: checks inputs, gives the outputs' types by name. */
  readonly infer: (
    inputs: Readonly<Record<string, TensorType | undefined>>,
    attrs: Attrs,
    rule: RuleContext,
  ) => Readonly<Record<string, TensorType>>;
  /** Output is a window into `x`; the plan gives it no memory of its own. */
  readonly view?: true;
  /** Reads or writes the layer's KV cache (`attrs.layer`): 'write' must run before 'read' of the same layer. */
  readonly cache?: 'read' | 'write';
  /** Inputs that are indices (int32) rather than activations. */
  readonly phase?: 'sample';
}

function need(inputs: Readonly<Record<string, TensorType | undefined>>, name: string, rule: RuleContext): TensorType {
  const type = inputs[name];
  if (type === undefined) return rule.fail(`input '${name}'`, 'nothing');
  return type;
}

function rank(type: TensorType, n: number, name: string, rule: RuleContext): TensorType {
  if (type.shape.length !== n) rule.fail(`${name} of rank ${n}`, printShape(type.shape));
  return type;
}

function activationInput(
  inputs: Readonly<Record<string, TensorType | undefined>>,
  name: string,
  rule: RuleContext,
): TensorType {
  const type = rank(need(inputs, name, rule), 2, name, rule);
  if (!isFloatDType(type.dtype)) rule.fail(`${name} of a float dtype`, type.dtype);
  return type;
}

function width(type: TensorType): Expr {
  return type.shape[type.shape.length - 1]!;
}

function expectDim(actual: Expr | undefined, expected: Expr, what: string, rule: RuleContext): void {
  if (actual === undefined || !sameExpr(actual, expected)) rule.fail(`${what} = ${String(expected)}`, String(actual));
}

function vector(
  inputs: Readonly<Record<string, TensorType | undefined>>,
  name: string,
  size: Expr,
  rule: RuleContext,
): void {
  const type = inputs[name];
  if (type !== undefined) expectDim(rank(type, 1, name, rule).shape[0], size, `length of ${name}`, rule);
}

function pair(
  inputs: Readonly<Record<string, TensorType | undefined>>,
  a: string,
  b: string,
  rule: RuleContext,
): TensorType {
  const left = activationInput(inputs, a, rule);
  const right = activationInput(inputs, b, rule);
  if (!sameShape(left.shape, right.shape) || left.dtype !== right.dtype) {
    rule.fail(`${b} like ${a}: ${left.dtype}${printShape(left.shape)}`, `${right.dtype}${printShape(right.shape)}`);
  }
  return left;
}

/** Norms share their rule: y like x, and the sum when there is a residual. */
function norm(inputs: Readonly<Record<string, TensorType | undefined>>, rule: RuleContext): Record<string, TensorType> {
  const x = inputs.residual === undefined ? activationInput(inputs, 'x', rule) : pair(inputs, 'x', 'residual', rule);
  vector(inputs, 'weight', width(x), rule);
  vector(inputs, 'bias', width(x), rule);
  return inputs.residual === undefined ? { y: x } : { y: x, sum: x };
}

function heads(type: TensorType, expected: number, name: string, rule: RuleContext): void {
  expectDim(width(type), expected, `columns of ${name}`, rule);
}

const attentionInputs = [
  'q',
  'k',
  'v',
  'qNorm?',
  'kNorm?',
  'frequencies?',
  'sinks?',
  'slopes?',
  'positions',
  'cacheSlots',
  'requestOffsets',
  'contextLengths',
  'blockTables',
] as const;

function attention(
  inputs: Readonly<Record<string, TensorType | undefined>>,
  attrs: AttentionAttrs,
  rule: RuleContext,
): { y: TensorType } {
  const q = activationInput(inputs, 'q', rule);
  heads(q, attrs.numHeads * attrs.headDim, 'q', rule);
  heads(activationInput(inputs, 'k', rule), attrs.numKvHeads * attrs.headDim, 'k', rule);
  heads(activationInput(inputs, 'v', rule), attrs.numKvHeads * attrs.valueDim, 'v', rule);
  if (attrs.numHeads % attrs.numKvHeads !== 0)
    rule.fail('heads to be a multiple of kv heads', `${attrs.numHeads} and ${attrs.numKvHeads}`);
  if (attrs.rope !== undefined) vector(inputs, 'frequencies', attrs.rope.rotaryDim / 2, rule);
  vector(inputs, 'sinks', attrs.numHeads, rule);
  vector(inputs, 'slopes', attrs.numHeads, rule);
  return { y: { dtype: q.dtype, shape: [q.shape[0]!, attrs.numHeads * attrs.valueDim] } };
}

type OpTable = { readonly [K in Op]: OpSpec<OpAttrs[K]> };

/** The op table: inputs, shape rule and properties of every op. */
export const ops: OpTable = {
  embedding: {
    inputs: ['ids', 'table'],
    infer: (inputs, { dtype }, rule) => {
      const ids = rank(need(inputs, 'ids', rule), 1, 'ids', rule);
      const table = rank(need(inputs, 'table', rule), 2, 'table', rule);
      return { y: { dtype, shape: [ids.shape[0]!, table.shape[1]!] } };
    },
  },
  matmul: {
    inputs: ['x', 'weight', 'bias?', 'residual?', 'normWeight?'],
    infer: (inputs, { gated, norm: normed }, rule) => {
      const x = activationInput(inputs, 'x', rule);
      const weight = rank(need(inputs, 'weight', rule), 2, 'weight', rule);
      expectDim(weight.shape[1], width(x), 'columns of weight', rule);
      const rows = weight.shape[0] as number;
      vector(inputs, 'bias', rows, rule);
      if (gated !== undefined && rows % 2 !== 0) rule.fail('an even number of rows of a gated weight', String(rows));
      const y: TensorType = { dtype: x.dtype, shape: [x.shape[0]!, gated === undefined ? rows : rows / 2] };
      const { residual, normWeight } = inputs;
      if (residual !== undefined && (residual.dtype !== y.dtype || !sameShape(residual.shape, y.shape)))
        rule.fail(`residual of ${y.dtype}${printShape(y.shape)}`, `${residual.dtype}${printShape(residual.shape)}`);
      if (normWeight !== undefined && normed === undefined) rule.fail('attribute norm beside normWeight', 'nothing');
      vector(inputs, 'normWeight', width(x), rule);
      return normed === undefined ? { y } : { y, normed: x };
    },
  },
  rmsnorm: { inputs: ['x', 'weight?', 'residual?'], infer: (inputs, _attrs, rule) => norm(inputs, rule) },
  layernorm: { inputs: ['x', 'weight?', 'bias?', 'residual?'], infer: (inputs, _attrs, rule) => norm(inputs, rule) },
  activation: { inputs: ['x'], infer: (inputs, _attrs, rule) => ({ y: activationInput(inputs, 'x', rule) }) },
  gated: { inputs: ['gate', 'up'], infer: (inputs, _attrs, rule) => ({ y: pair(inputs, 'gate', 'up', rule) }) },
  add: { inputs: ['a', 'b'], infer: (inputs, _attrs, rule) => ({ y: pair(inputs, 'a', 'b', rule) }) },
  mul: { inputs: ['a', 'b'], infer: (inputs, _attrs, rule) => ({ y: pair(inputs, 'a', 'b', rule) }) },
  scale: { inputs: ['x'], infer: (inputs, _attrs, rule) => ({ y: activationInput(inputs, 'x', rule) }) },
  softcap: { inputs: ['x'], infer: (inputs, _attrs, rule) => ({ y: activationInput(inputs, 'x', rule) }) },
  slice: {
    inputs: ['x'],
    view: true,
    infer: (inputs, { start, size }, rule) => {
      const x = activationInput(inputs, 'x', rule);
      const columns = width(x);
      if (typeof columns !== 'number' || start < 0 || size <= 0 || start + size > columns) {
        rule.fail(`columns ${start} to ${start + size} of x`, printShape(x.shape));
      }
      return { y: { dtype: x.dtype, shape: [x.shape[0]!, size] } };
    },
  },
  gatherRows: {
    inputs: ['x', 'rows'],
    infer: (inputs, _attrs, rule) => {
      const x = activationInput(inputs, 'x', rule);
      const rows = rank(need(inputs, 'rows', rule), 1, 'rows', rule);
      return { y: { dtype: x.dtype, shape: [rows.shape[0]!, width(x)] } };
    },
  },
  attention: { inputs: attentionInputs, infer: attention },
  ropeCache: {
    inputs: ['q', 'k', 'v', 'qNorm?', 'kNorm?', 'frequencies?', 'positions', 'cacheSlots'],
    cache: 'write',
    infer: (inputs, attrs, rule) => {
      const q = activationInput(inputs, 'q', rule);
      heads(q, attrs.numHeads * attrs.headDim, 'q', rule);
      heads(activationInput(inputs, 'k', rule), attrs.numKvHeads * attrs.headDim, 'k', rule);
      heads(activationInput(inputs, 'v', rule), attrs.numKvHeads * attrs.valueDim, 'v', rule);
      vector(inputs, 'qNorm', attrs.headDim, rule);
      vector(inputs, 'kNorm', attrs.headDim, rule);
      if (attrs.rope !== undefined) vector(inputs, 'frequencies', attrs.rope.rotaryDim / 2, rule);
      return { y: q };
    },
  },
  pagedAttention: {
    inputs: ['q', 'sinks?', 'slopes?', 'positions', 'requestOffsets', 'contextLengths', 'blockTables'],
    cache: 'read',
    infer: (inputs, attrs, rule) => {
      const q = activationInput(inputs, 'q', rule);
      heads(q, attrs.numHeads * attrs.headDim, 'q', rule);
      vector(inputs, 'sinks', attrs.numHeads, rule);
      vector(inputs, 'slopes', attrs.numHeads, rule);
      return { y: { dtype: q.dtype, shape: [q.shape[0]!, attrs.numHeads * attrs.valueDim] } };
    },
  },
  ropeAttention: {
    inputs: attentionInputs,
    cache: 'write',
    infer: (inputs, attrs, rule) => ({
      ...attention(inputs, attrs, rule),
      rotated: activationInput(inputs, 'q', rule),
    }),
  },
  moeRoute: {
    inputs: ['logits', 'bias?'],
    infer: (inputs, { topK }, rule) => {
      const logits = activationInput(inputs, 'logits', rule);
      const experts = width(logits);
      if (typeof experts !== 'number' || topK < 1 || topK > experts)
        rule.fail(`topK from 1 to ${String(experts)}`, String(topK));
      vector(inputs, 'bias', experts, rule);
      const shape: Shape = [logits.shape[0]!, topK];
      return { weights: { dtype: 'float32', shape }, experts: { dtype: 'int32', shape } };
    },
  },
  moeExperts: {
    inputs: ['x', 'weights', 'experts', 'gateUp', 'down'],
    infer: (inputs, _attrs, rule) => {
      const x = activationInput(inputs, 'x', rule);
      const gateUp = rank(need(inputs, 'gateUp', rule), 3, 'gateUp', rule);
      const down = rank(need(inputs, 'down', rule), 3, 'down', rule);
      expectDim(gateUp.shape[2], width(x), 'columns of gateUp', rule);
      expectDim(gateUp.shape[1], mul(down.shape[2]!, 2), 'rows of gateUp', rule);
      expectDim(down.shape[1], width(x), 'rows of down', rule);
      expectDim(down.shape[0], gateUp.shape[0]!, 'experts of down', rule);
      return { y: x };
    },
  },
  sample: {
    inputs: ['logits', 'temperature', 'topK', 'topP', 'minP', 'seedLow', 'seedHigh', 'counter'],
    phase: 'sample',
    infer: (inputs, _attrs, rule) => {
      const logits = activationInput(inputs, 'logits', rule);
      const shape: Shape = [logits.shape[0]!];
      return { token: { dtype: 'int32', shape }, logprob: { dtype: 'float32', shape } };
    },
  },
};

/** Input names of an op without the '?' marks, and which of them may be absent. */
export function inputNames(op: Op): readonly { readonly name: string; readonly optional: boolean }[] {
  return ops[op].inputs.map((text) => ({ name: text.replace('?', ''), optional: text.endsWith('?') }));
}

/** Output types of an op on these inputs; throws GraphError naming `where` when a rule is broken. */
export function inferOp<K extends Op>(
  op: K,
  inputs: Readonly<Record<string, TensorType | undefined>>,
  attrs: OpAttrs[K],
  where: string,
): Readonly<Record<string, TensorType>> {
  const rule: RuleContext = {
    fail(expected, got) {
      throw new GraphError('shape rule broken', { where: `${where} (${op})`, expected, got });
    },
  };
  const known = inputNames(op);
  for (const name of Object.keys(inputs)) {
    if (!known.some((input) => input.name === name))
      rule.fail(`inputs ${known.map((input) => input.name).join(', ')}`, `'${name}'`);
  }
  for (const { name, optional } of known)
    if (!optional && inputs[name] === undefined) rule.fail(`input '${name}'`, 'nothing');
  return (ops[op] as OpSpec<OpAttrs[K]>).infer(inputs, attrs, rule);
}
