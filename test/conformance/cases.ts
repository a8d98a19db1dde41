// One graph that holds every op many times over, with sizes that do not fit any vector, views into wider tensors and every weight format; and the
// seeded data that it runs on. Run on two targets, the results must agree.
import {
  byteLength,
  type DType,
  dtypes,
  type FloatDType,
  isBlockDType,
  toBFloat16Bits,
  toFloat16Bits,
} from '../../src/base/dtype.ts';
import { evaluate } from '../../src/base/expr.ts';
import { type Graph, GraphBuilder, type NodeInputs, type Value } from '../../src/define/graph/graph.ts';
import type { Activation, Op, OpAttrs } from '../../src/define/graph/ops.ts';
import type { CacheDType } from '../../src/targets/plan.ts';

/** A small generator of numbers (mulberry32), so that every run sees the same data. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export interface Conformance {
  /** Of activations. */
  readonly dtype: FloatDType;
  readonly graph: Graph;
  readonly weights: ReadonlyMap<string, Uint8Array>;
  readonly inputs: ReadonlyMap<string, Float32Array | Int32Array>;
  /** Allowed |Δ| of an output, as a share of the largest magnitude in it (at least 0.1). */
  readonly tolerances: ReadonlyMap<string, number>;
  /** Dtype of the KV cache; float32 when it is not told. */
  readonly cacheDType?: CacheDType;
}

const count = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Random bytes that are a tensor of `dtype`: scales of block formats are kept small and finite. */
function weightBytes(dtype: DType, shape: readonly number[], next: () => number): Uint8Array {
  const n = count(shape);
  const bytes = new Uint8Array(byteLength(dtype, n));
  if (isBlockDType(dtype)) {
    for (let i = 0; i < bytes.length; i++) bytes[i] = Math.floor(next() * 256);
    const half = (at: number) => {
      const bits = toFloat16Bits((next() - 0.3) * 0.02);
      bytes[at] = bits & 255;
      bytes[at + 1] = bits >> 8;
    };
    const unit = dtypes[dtype].blockBytes;
    const twoHalves = /^q[45]_[1k]$|^w.z/.test(dtype);
    for (let at = 0; at < bytes.length; at += unit) {
      if (dtype === 'q6_k') half(at + 208);
      else half(at);
      if (twoHalves) half(at + 2);
    }
    return bytes;
  }
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < n; i++) {
    const value = next() * 2 - 1;
    if (dtype === 'float32') view.setFloat32(i * 4, value, true);
    else view.setUint16(i * 2, dtype === 'bfloat16' ? toBFloat16Bits(value) : toFloat16Bits(value), true);
  }
  return bytes;
}

/** Outputs that a kernel may leave unwritten. */
const room: ReadonlySet<string> = new Set(['normed', 'rotated']);
/** What narrow results may differ by: their last bits, after sums of rounded numbers. */
const rounding: Record<FloatDType, number> = { float32: 0, bfloat16: 2e-2, float16: 3e-3 };
/** What keys and values that are rounded the other way cost, as a share of the range. */
const cacheTolerance: Readonly<Record<CacheDType, number>> = { float32: 0, bfloat16: 5e-3, float16: 1e-3, int8: 1e-2 };

export class CaseBuilder {
  readonly builder = new GraphBuilder('conformance');
  readonly weights = new Map<string, Uint8Array>();
  readonly inputs = new Map<string, Float32Array | Int32Array>();
  readonly outputs: Record<string, Value> = {};
  readonly tolerances = new Map<string, number>();
  readonly next: () => number;
  /** Of activations. */
  readonly dtype: FloatDType;
  #names = 0;

  constructor(seed: number, dtype: FloatDType = 'float32') {
    this.next = random(seed);
    this.dtype = dtype;
  }

  name(text: string): string {
    return `${text}.${this.#names++}`;
  }

  weight(dtype: DType, shape: readonly number[]): Value {
    const name = this.name(`weight.${dtype}`);
    this.weights.set(name, weightBytes(dtype, shape, this.next));
    return this.builder.weight(name, dtype, shape, { kind: 'source', name });
  }

  floats(shape: readonly number[], scale = 2): Value {
    // Inputs of a step are float32: activations of other dtypes are made of weights.
    if (this.dtype !== 'float32')
      return this.builder.op('scale', this.name('x'), { x: this.weight(this.dtype, shape) }, { factor: scale }).y!;
    return this.numbers(shape, scale);
  }

  /** A step input of float32. */
  numbers(shape: readonly number[], scale = 1): Value {
    const name = this.name('x');
    this.inputs.set(
      name,
      Float32Array.from({ length: count(shape) }, () => (this.next() * 2 - 1) * scale),
    );
    return this.builder.input(name, 'float32', shape);
  }

  ints(values: readonly number[], shape: readonly number[] = [values.length]): Value {
    const name = this.name('ids');
    this.inputs.set(name, Int32Array.from(values));
    return this.builder.input(name, 'int32', shape);
  }

  /** A tensor that is a window into a wider one; views are made of activations, so the wide one is a copy. */
  view(rows: number, columns: number, wide: number, start: number): Value {
    const base = this.builder.op('scale', this.name('wide'), { x: this.floats([rows, wide]) }, { factor: 1 });
    return this.builder.op('slice', this.name('view'), { x: base.y! }, { start, size: columns }).y!;
  }

  /** Adds the op and asks for all its outputs. */
  check<K extends Op>(op: K, label: string, inputs: NodeInputs, attrs: OpAttrs[K], tolerance = 2e-5): Value {
    const scope = this.name(`${op} ${label}`);
    const made = this.builder.op(op, scope, inputs, attrs);
    for (const [name, value] of Object.entries(made)) {
      if (room.has(name)) continue;
      this.outputs[`${scope} ${name}`] = value;
      this.tolerances.set(`${scope} ${name}`, value.dtype === 'int32' ? 0 : Math.max(tolerance, rounding[this.dtype]));
    }
    return Object.values(made)[0]!;
  }

  finish(cacheDType: CacheDType = this.dtype): Conformance {
    return {
      dtype: this.dtype,
      cacheDType,
      graph: this.builder.finish(this.outputs),
      weights: this.weights,
      inputs: this.inputs,
      tolerances: new Map(
        [...this.tolerances].map(([name, most]) => [name, Math.max(most, cacheTolerance[cacheDType])]),
      ),
    };
  }
}

const activations: readonly Activation[] = [
  'silu',
  'gelu',
  'gelu_tanh',
  'quick_gelu',
  'relu',
  'relu2',
  'sigmoid',
  'tanh',
];
const blockDTypes: readonly DType[] = [
  ...(['q8_0', 'q4_0', 'q4_1', 'q5_0', 'q5_1', 'q4_k', 'q5_k', 'q6_k'] as const),
  ...(['w8_64', 'w8_128', 'w8z_32', 'w8z_64', 'w8z_128', 'w4_64', 'w4_128', 'w4z_64', 'w4z_128'] as const),
];

export function pointCases(c: CaseBuilder): void {
  for (const [rows, columns] of [
    [1, 1],
    [3, 17],
    [2, 64],
    [5, 333],
    [1, 5000],
  ] as const) {
    const label = `${rows}x${columns}`;
    const x = () => c.floats([rows, columns], 6);
    for (const kind of activations) c.check('activation', `${kind} ${label}`, { x: x() }, { kind });
    c.check(
      'gated',
      label,
      { gate: c.view(rows, columns, columns + 7, 3), up: c.view(rows, columns, columns + 20, 11) },
      { kind: 'silu' },
    );
    c.check('add', label, { a: x(), b: c.view(rows, columns, columns + 5, 1) }, {});
    c.check('mul', label, { a: x(), b: x() }, {});
    c.check('scale', label, { x: x() }, { factor: 0.37 });
    c.check('softcap', label, { x: c.view(rows, columns, columns * 2, columns) }, { cap: 3 });
    c.check('rmsnorm', label, { x: x(), weight: c.weight('float32', [columns]) }, { eps: 1e-5, weightOffset: 1 });
    c.check(
      'rmsnorm',
      `${label} residual`,
      { x: c.view(rows, columns, columns + 9, 4), weight: c.weight('bfloat16', [columns]), residual: x() },
      { eps: 1e-6, weightOffset: 0 },
    );
    c.check(
      'layernorm',
      label,
      { x: x(), weight: c.weight('float16', [columns]), bias: c.weight('float32', [columns]), residual: x() },
      { eps: 1e-5 },
      1e-4,
    );
    c.check(
      'gatherRows',
      label,
      { x: c.view(rows, columns, columns + 3, 2), rows: c.ints([rows - 1, 0, rows - 1]) },
      {},
    );
  }
}

export function matmulCases(c: CaseBuilder, rows: readonly number[]): void {
  for (const m of rows) {
    for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
      for (const [n, k] of [
        [1, 1],
        [16, 33],
        [65, 64],
        [130, 257],
        [64, 1100],
      ] as const)
        c.check(
          'matmul',
          `${dtype} ${m}x${k}x${n}`,
          { x: c.view(m, k, k + 5, 2), weight: c.weight(dtype, [n, k]), bias: c.weight('float32', [n]) },
          {},
        );
    }
    for (const dtype of blockDTypes) {
      // Activations are bytes there: a hundredth of the range is what that costs, more where one number is all the range.
      for (const [n, k] of [
        [1, 256],
        [33, 512],
        [70, 768],
      ] as const)
        c.check(
          'matmul',
          `${dtype} ${m}x${k}x${n}`,
          { x: c.floats([m, k]), weight: c.weight(dtype, [n, k]) },
          {},
          n === 1 ? 0.15 : 1.5e-2,
        );
      c.check(
        'matmul',
        `${dtype} ${m}x768x70, activations as they are`,
        { x: c.floats([m, 768]), weight: c.weight(dtype, [70, 768]) },
        { exact: true },
        1e-5,
      );
    }
  }
  for (const dtype of [...blockDTypes, 'float32', 'bfloat16', 'float16'] as const)
    c.check(
      'embedding',
      dtype,
      { ids: c.ints([4, 0, 36, 4]), table: c.weight(dtype, [37, 256]) },
      { dtype: c.dtype },
      1e-6,
    );
}

export function moeCases(c: CaseBuilder): void {
  for (const [tokens, experts, topK, hidden, inner] of [
    [1, 4, 2, 32, 48],
    [37, 8, 3, 65, 33],
    [9, 40, 4, 136, 72],
    [150, 3, 2, 64, 136],
    [90, 3, 1, 64, 40],
    [5, 2, 1, 256, 64],
  ] as const) {
    const label = `${tokens} tokens ${experts} experts`;
    for (const scoring of ['softmax', 'sigmoid'] as const)
      c.check(
        'moeRoute',
        `${label} ${scoring}`,
        { logits: c.floats([tokens, experts]), bias: c.weight(c.dtype, [experts]) },
        { topK, scoring, normalize: scoring === 'softmax', scale: 1.5 },
      );
    const routed = c.builder.op(
      'moeRoute',
      c.name('route'),
      { logits: c.floats([tokens, experts]) },
      { topK, scoring: 'softmax', normalize: true, scale: 1 },
    );
    const weights = { weights: routed.weights, experts: routed.experts };
    c.check(
      'moeExperts',
      label,
      {
        x: c.floats([tokens, hidden]),
        ...weights,
        gateUp: c.weight('bfloat16', [experts, 2 * inner, hidden]),
        down: c.weight(c.dtype, [experts, hidden, inner]),
      },
      { kind: 'silu' },
      1e-4,
    );
    if (hidden % 256 === 0)
      c.check(
        'moeExperts',
        `${label} blocks, activations as they are`,
        {
          x: c.floats([tokens, hidden]),
          ...weights,
          gateUp: c.weight('w4z_128', [experts, 2 * inner, hidden]),
          down: c.weight('w8z_64', [experts, hidden, inner]),
        },
        { kind: 'silu', exact: true },
        1e-4,
      );
    if (hidden % 256 === 0)
      c.check(
        'moeExperts',
        `${label} blocks`,
        {
          x: c.floats([tokens, hidden]),
          ...weights,
          gateUp: c.weight('q4_0', [experts, 2 * inner, hidden]),
          down: c.weight('q8_0', [experts, hidden, inner]),
        },
        { kind: 'gelu' },
        1.5e-2,
      );
  }
}

/** Rows of logits under every filter and some of them together; the draws are the same on every target, so the tokens are. */
export function sampleCases(c: CaseBuilder): void {
  const filters = [
    { temperature: 0, topK: 0, topP: 1, minP: 0 },
    { temperature: 1, topK: 0, topP: 1, minP: 0 },
    { temperature: 0.7, topK: 5, topP: 1, minP: 0 },
    { temperature: 1.3, topK: 0, topP: 0.9, minP: 0 },
    { temperature: 1, topK: 0, topP: 1, minP: 0.1 },
    { temperature: 0.8, topK: 40, topP: 0.95, minP: 0.02 },
    { temperature: 5, topK: 0, topP: 0.999, minP: 0 },
    { temperature: 1, topK: 1, topP: 1, minP: 0 },
  ];
  for (const vocab of [7, 1000, 4099]) {
    const rows = Array.from({ length: 5 * filters.length }, (_, i) => filters[i % filters.length]!);
    const numbers = (name: 'temperature' | 'topP' | 'minP') => {
      const value = c.numbers([rows.length]);
      c.inputs.set(
        value.name,
        Float32Array.from(rows, (row) => row[name]),
      );
      return value;
    };
    const words = () => c.ints(rows.map(() => Math.floor(c.next() * 4294967296) | 0));
    c.check(
      'sample',
      `vocabulary of ${vocab}`,
      {
        logits: c.floats([rows.length, vocab], 8),
        temperature: numbers('temperature'),
        topK: c.ints(rows.map(({ topK }) => topK)),
        topP: numbers('topP'),
        minP: numbers('minP'),
        seedLow: words(),
        seedHigh: words(),
        counter: c.ints(rows.map((_, i) => i)),
      },
      {},
    );
  }
}

/** Requests of a step: how many of each one's tokens are computed now, from an empty cache. */
export function attentionCases(c: CaseBuilder, tokensPerBlock: number): void {
  const lengths = [1, 19, 70, 5];
  const tokens = lengths.reduce((a, b) => a + b, 0);
  const perSequence = Math.ceil(Math.max(...lengths) / tokensPerBlock);
  const positions = lengths.flatMap((n) => Array.from({ length: n }, (_, i) => i));
  // Blocks of a sequence stand in descending order, so that none is where a contiguous cache would have it.
  const tables = lengths.flatMap((_, r) =>
    Array.from({ length: perSequence }, (_, i) => r * perSequence + perSequence - 1 - i),
  );
  const slots = lengths.flatMap((n, r) =>
    Array.from(
      { length: n },
      (_, p) => tables[r * perSequence + Math.floor(p / tokensPerBlock)]! * tokensPerBlock + (p % tokensPerBlock),
    ),
  );
  const offsets = [0];
  for (const n of lengths) offsets.push(offsets.at(-1)! + n);
  const at = c.ints(positions);
  const step = {
    positions: at,
    requestOffsets: c.ints(offsets),
    contextLengths: c.ints(lengths),
    blockTables: c.ints(tables, [lengths.length, perSequence]),
  };
  const cacheSlots = c.ints(slots);
  const shapes = [
    { numHeads: 4, numKvHeads: 2, headDim: 64, valueDim: 64 },
    { numHeads: 3, numKvHeads: 3, headDim: 80, valueDim: 80, window: 17 },
    { numHeads: 14, numKvHeads: 2, headDim: 24, valueDim: 40, softcap: 5, sinks: true },
    { numHeads: 8, numKvHeads: 1, headDim: 128, valueDim: 128, chunk: 16, norm: 'rms' },
    { numHeads: 2, numKvHeads: 1, headDim: 256, valueDim: 256, slopes: true, norm: 'layer' },
    { numHeads: 2, numKvHeads: 2, headDim: 5, valueDim: 3 },
    { numHeads: 6, numKvHeads: 2, headDim: 32, valueDim: 32, window: 9, sinkTokens: 5 },
    { numHeads: 4, numKvHeads: 4, headDim: 16, valueDim: 16, window: 21, sinkTokens: 40, softcap: 4 },
  ] as const;
  shapes.forEach((shape, layer) => {
    const { numHeads, numKvHeads, headDim, valueDim } = shape;
    const heads = { layer, numHeads, numKvHeads, headDim, valueDim };
    const label = `${numHeads}/${numKvHeads} heads of ${headDim}`;
    c.builder.cache({ layer, numKvHeads, headDim, valueDim });
    const rotaryDim = headDim < 8 ? 0 : layer === 1 ? 32 : headDim;
    const q = c.view(tokens, numHeads * headDim, numHeads * headDim + 10, 3);
    const normed = 'norm' in shape;
    const roped = c.check(
      'ropeCache',
      label,
      {
        q,
        k: c.floats([tokens, numKvHeads * headDim]),
        v: c.floats([tokens, numKvHeads * valueDim]),
        qNorm: normed ? c.weight('float32', [headDim]) : undefined,
        kNorm: normed ? c.weight('float32', [headDim]) : undefined,
        frequencies: rotaryDim === 0 ? undefined : c.weight('float32', [rotaryDim / 2]),
        positions: at,
        cacheSlots,
      },
      {
        ...heads,
        ...(normed ? { norm: { kind: shape.norm, eps: 1e-6, weightOffset: 0 } } : {}),
        ...(rotaryDim === 0
          ? {}
          : { rope: { rotaryDim, style: layer % 2 === 0 ? 'half' : 'interleaved', attentionFactor: 1.1 } }),
      },
    );
    c.check(
      'pagedAttention',
      label,
      {
        q: roped,
        sinks: 'sinks' in shape ? c.weight('float32', [numHeads]) : undefined,
        slopes: 'slopes' in shape ? c.weight('float32', [numHeads]) : undefined,
        ...step,
      },
      {
        ...heads,
        scale: headDim ** -0.5,
        ...('window' in shape ? { window: shape.window } : {}),
        ...('sinkTokens' in shape ? { sinkTokens: shape.sinkTokens } : {}),
        ...('chunk' in shape ? { chunk: shape.chunk } : {}),
        ...('softcap' in shape ? { softcap: shape.softcap } : {}),
      },
    );
  });
}

const fusedShapes: readonly (readonly [n: number, k: number])[] = [
  [64, 64],
  [264, 520],
  [96, 4096],
  [1032, 1160],
  [33, 65],
];

/** Products that norm what they read, gate or add what was there before. */
export function fusedMatmulCases(c: CaseBuilder, rows: readonly number[], shapes = fusedShapes): void {
  for (const m of rows) {
    for (const [n, k] of shapes) {
      const label = `${m}x${k}x${n}`;
      const { dtype } = c;
      // A row of its own size each, so that a norm of the wrong row is seen.
      const x = () => c.view(m, k, k + 8, 8);
      const weight = (count: number) => c.weight(dtype, [count, k]);
      const norm = { eps: 1e-5, weightOffset: 0 };
      const normWeight = () => c.weight(dtype, [k]);
      c.check(
        'matmul',
        `residual ${label}`,
        { x: x(), weight: weight(n), residual: c.view(m, n, n + 16, 8) },
        {},
        1e-4,
      );
      c.check('matmul', `norm ${label}`, { x: x(), weight: weight(n), normWeight: normWeight() }, { norm }, 1e-4);
      c.check(
        'matmul',
        `norm, bias, residual ${label}`,
        { x: x(), weight: weight(n), bias: c.weight(dtype, [n]), residual: c.floats([m, n]), normWeight: normWeight() },
        { norm: { eps: 0.3, weightOffset: 1 } },
        1e-4,
      );
      if (n % 8 !== 0) continue;
      c.check(
        'matmul',
        `gated ${label}`,
        { x: x(), weight: weight(2 * n), bias: c.weight(dtype, [2 * n]) },
        { gated: 'silu' },
        1e-4,
      );
      c.check('matmul', `norm, gated ${label}`, { x: x(), weight: weight(2 * n) }, { gated: 'gelu_tanh', norm }, 1e-4);
    }
  }
}

/** One token of each request after keys that are in the cache, and a step of prompts and such tokens: rotation and attention in one. */
export function ropeAttentionCases(c: CaseBuilder, tokensPerBlock: number): void {
  const shapes = [
    { numHeads: 64, numKvHeads: 4, dim: 64 },
    { numHeads: 32, numKvHeads: 8, dim: 128, norm: 'rms' },
    { numHeads: 52, numKvHeads: 4, dim: 80, window: 17, interleaved: true },
    { numHeads: 32, numKvHeads: 2, dim: 128, chunk: 16, rotary: 32 },
    { numHeads: 16, numKvHeads: 1, dim: 256, slopes: true, norm: 'layer' },
    { numHeads: 88, numKvHeads: 8, dim: 48, softcap: 5, sinks: true, rotary: 0 },
    { numHeads: 4, numKvHeads: 2, dim: 64, norm: 'rms' },
    { numHeads: 2, numKvHeads: 2, dim: 5 },
    { numHeads: 8, numKvHeads: 4, dim: 64, interleaved: true, norm: 'layer' },
  ] as const;
  shapes.forEach((shape, layer) => {
    const { numHeads, numKvHeads, dim } = shape;
    c.builder.cache({ layer, numKvHeads, headDim: dim, valueDim: dim });
    const rotaryDim = 'rotary' in shape ? shape.rotary : dim < 8 ? 0 : dim;
    const normed = 'norm' in shape;
    const heads = { layer, numHeads, numKvHeads, headDim: dim, valueDim: dim };
    const weights = {
      qNorm: normed ? c.weight(c.dtype, [dim]) : undefined,
      kNorm: normed ? c.weight(c.dtype, [dim]) : undefined,
      frequencies: rotaryDim === 0 ? undefined : c.weight('float32', [rotaryDim / 2]),
    };
    const style: 'half' | 'interleaved' = 'interleaved' in shape ? 'interleaved' : 'half';
    const first = {
      ...heads,
      ...(normed ? { norm: { kind: shape.norm, eps: 1e-6, weightOffset: 0.5 } } : {}),
      ...(rotaryDim === 0 ? {} : { rope: { rotaryDim, style, attentionFactor: 0.9 } }),
    } as const;
    const attrs = {
      ...first,
      scale: dim ** -0.5,
      ...('window' in shape ? { window: shape.window } : {}),
      ...('chunk' in shape ? { chunk: shape.chunk } : {}),
      ...('softcap' in shape ? { softcap: shape.softcap } : {}),
    };
    const extra = {
      sinks: 'sinks' in shape ? c.weight('float32', [numHeads]) : undefined,
      slopes: 'slopes' in shape ? c.weight('float32', [numHeads]) : undefined,
    };
    for (const fresh of [
      [1, 1, 1, 1, 1],
      [1, 30, 1, 5, 20],
    ]) {
      const lengths = [1, 64, 71, 5, 300];
      const perSequence = Math.ceil(Math.max(...lengths) / tokensPerBlock);
      const tables = lengths.flatMap((_, r) =>
        Array.from({ length: perSequence }, (_, i) => r * perSequence + perSequence - 1 - i),
      );
      const slot = (r: number, p: number): number =>
        tables[r * perSequence + Math.floor(p / tokensPerBlock)]! * tokensPerBlock + (p % tokensPerBlock);
      const span = (from: (r: number) => number, to: (r: number) => number): (readonly [number, number])[] =>
        lengths.flatMap((_, r) => Array.from({ length: to(r) - from(r) }, (_, i) => [r, from(r) + i] as const));
      const inputs = (tokens: readonly (readonly [number, number])[]) => {
        // As the projection leaves them: columns of one tensor.
        const wide = (numHeads + 2 * numKvHeads) * dim;
        const base = c.builder.op('scale', c.name('qkv'), { x: c.floats([tokens.length, wide]) }, { factor: 1 }).y!;
        const cut = (start: number, size: number): Value =>
          c.builder.op('slice', c.name('cut'), { x: base }, { start, size }).y!;
        return {
          q: cut(0, numHeads * dim),
          k: cut(numHeads * dim, numKvHeads * dim),
          v: cut((numHeads + numKvHeads) * dim, numKvHeads * dim),
          positions: c.ints(tokens.map(([, p]) => p)),
          cacheSlots: c.ints(tokens.map(([r, p]) => slot(r, p))),
        };
      };
      const past = (r: number): number => lengths[r]! - fresh[r]!;
      c.builder.op('ropeCache', c.name('past'), { ...inputs(span(() => 0, past)), ...weights }, first);
      const offsets = [0];
      for (const n of fresh) offsets.push(offsets.at(-1)! + n);
      c.check(
        'ropeAttention',
        `${numHeads}/${numKvHeads} heads of ${dim}, ${fresh} new`,
        {
          ...inputs(span(past, (r) => lengths[r]!)),
          ...weights,
          ...extra,
          requestOffsets: c.ints(offsets),
          contextLengths: c.ints(lengths),
          blockTables: c.ints(tables, [lengths.length, perSequence]),
        },
        attrs,
      );
    }
  });
}

/** One token each of requests with long contexts: few heads, whose contexts are split among threads. */
export function longCases(c: CaseBuilder, tokensPerBlock = 16): void {
  const lengths = [1100, 701];
  const counts = lengths.map((n) => Math.ceil(n / tokensPerBlock));
  const perSequence = Math.max(...counts);
  const firsts = [0, counts[0]!];
  const slots = lengths.flatMap((n, r) => Array.from({ length: n }, (_, p) => firsts[r]! * tokensPerBlock + p));
  const shapes = [
    { numHeads: 4, numKvHeads: 2, headDim: 32, valueDim: 32, sinks: true },
    { numHeads: 2, numKvHeads: 1, headDim: 24, valueDim: 40, window: 600, slopes: true },
  ];
  shapes.forEach(({ sinks, slopes, window, ...shape }, i) => {
    const { numHeads, numKvHeads, headDim, valueDim } = shape;
    const heads = { layer: 16 + i, ...shape };
    c.builder.cache({ layer: heads.layer, numKvHeads, headDim, valueDim });
    const tokens = slots.length;
    c.check(
      'ropeCache',
      `long contexts of ${headDim}`,
      {
        q: c.floats([tokens, numHeads * headDim]),
        k: c.floats([tokens, numKvHeads * headDim]),
        v: c.floats([tokens, numKvHeads * valueDim]),
        positions: c.ints(lengths.flatMap((n) => Array.from({ length: n }, (_, p) => p))),
        cacheSlots: c.ints(slots),
      },
      heads,
    );
    c.check(
      'pagedAttention',
      `long contexts of ${headDim}`,
      {
        q: c.floats([2, numHeads * headDim]),
        sinks: sinks ? c.weight('float32', [numHeads]) : undefined,
        slopes: slopes ? c.weight('float32', [numHeads]) : undefined,
        positions: c.ints(lengths.map((n) => n - 1)),
        requestOffsets: c.ints([0, 1, 2]),
        contextLengths: c.ints(lengths),
        blockTables: c.ints(
          counts.flatMap((count, r) =>
            Array.from({ length: perSequence }, (_, b) => firsts[r]! + Math.min(b, count - 1)),
          ),
          [2, perSequence],
        ),
      },
      { ...heads, scale: headDim ** -0.5, ...(window === undefined ? {} : { window }) },
    );
  });
}

export function elementsOf(value: Value): number {
  return value.shape.reduce<number>((n, dim) => n * evaluate(dim, { T: 1, R: 1, L: 1 }), 1);
}
