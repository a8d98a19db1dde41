// How an engine's weight is made from a checkpoint's tensors: a small expression, kept symbolic until the weight is written, so that
// merging, splitting and transposing cost no memory before and one tensor at a time then.
import { byteLength, type DType, dtypes, elementCount, isBlockDType } from '../../base/dtype.ts';
import { CheckpointError } from '../../base/errors.ts';
import { castTensor } from './cast.ts';
import { dummyValues } from './dummy.ts';
import { missing } from './safetensors.ts';
import type { TensorData, TensorSource } from './tensors.ts';

/** The recipe of a weight over a checkpoint's tensors. */
export type WeightExpr =
  /** A tensor of the checkpoint, by name. */
  | { readonly kind: 'source'; readonly name: string }
  /** Joins along `axis`. */
  | { readonly kind: 'concat'; readonly axis: number; readonly parts: readonly WeightExpr[] }
  /** Joins along a new first axis. */
  | { readonly kind: 'stack'; readonly parts: readonly WeightExpr[] }
  /** Rows [`start`, `end`) along `axis`. */
  | {
      readonly kind: 'slice';
      readonly axis: number;
      readonly start: number;
      readonly end: number;
      readonly of: WeightExpr;
    }
  /** Same elements in the same order under another shape. */
  | { readonly kind: 'reshape'; readonly shape: readonly number[]; readonly of: WeightExpr }
  /** Swaps the last two axes. */
  | { readonly kind: 'transpose'; readonly of: WeightExpr }
  /** Random numbers (loadFormat 'dummy'). */
  | { readonly kind: 'random'; readonly shape: readonly number[]; readonly seed: number }
  /** Numbers known at build, float32 (rotary frequencies, ALiBi slopes). */
  | { readonly kind: 'values'; readonly shape: readonly number[]; readonly values: readonly number[] };

/** The tensor of that name. */
export const source = (name: string): WeightExpr => ({ kind: 'source', name });
/** Joins along `axis`. */
export const concat = (axis: number, parts: readonly WeightExpr[]): WeightExpr => ({ kind: 'concat', axis, parts });
/** Joins along a new first axis. */
export const stack = (parts: readonly WeightExpr[]): WeightExpr => ({ kind: 'stack', parts });
/** Entries [`start`, `end`) along `axis`. */
export const slice = (of: WeightExpr, axis: number, start: number, end: number): WeightExpr => ({
  kind: 'slice',
  axis,
  start,
  end,
  of,
});
/** The same elements in the same order under another shape. */
export const reshape = (of: WeightExpr, shape: readonly number[]): WeightExpr => ({ kind: 'reshape', shape, of });
/** Swaps the last two axes. */
export const transpose = (of: WeightExpr): WeightExpr => ({ kind: 'transpose', of });
/** Numbers known at build, float32; `shape` is that of a vector by default. */
export const values = (data: readonly number[], shape: readonly number[] = [data.length]): WeightExpr => ({
  kind: 'values',
  shape,
  values: data,
});

interface Meta {
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** The stored dtype and shape an expression will have, without reading data. Throws CheckpointError when a tensor is missing or shapes do not fit. */
export function weightMeta(expr: WeightExpr, from: TensorSource): Meta {
  switch (expr.kind) {
    case 'source': {
      const info = from.tensors.get(expr.name);
      if (info === undefined) throw missing(from.label, expr.name, from.tensors.size);
      return info;
    }
    case 'concat': {
      const metas = expr.parts.map((part) => weightMeta(part, from));
      const first = metas[0]!;
      for (const meta of metas) {
        if (
          meta.shape.length !== first.shape.length ||
          meta.shape.some((n, i) => i !== expr.axis && n !== first.shape[i])
        ) {
          throw new CheckpointError('tensors do not join', {
            where: from.label,
            expected: `[${first.shape}] but for axis ${expr.axis}`,
            got: `[${meta.shape}]`,
          });
        }
      }
      const shape = first.shape.map((n, i) =>
        i === expr.axis ? metas.reduce((sum, meta) => sum + meta.shape[i]!, 0) : n,
      );
      return { dtype: commonDType(metas.map((meta) => meta.dtype)), shape };
    }
    case 'stack': {
      const metas = expr.parts.map((part) => weightMeta(part, from));
      return { dtype: commonDType(metas.map((meta) => meta.dtype)), shape: [expr.parts.length, ...metas[0]!.shape] };
    }
    case 'slice': {
      const { dtype, shape } = weightMeta(expr.of, from);
      if (expr.axis >= shape.length || expr.end > shape[expr.axis]!) {
        throw new CheckpointError('tensor is too small', {
          where: `${from.label}: ${describe(expr.of)}`,
          expected: `at least ${expr.end} along axis ${expr.axis}`,
          got: `[${shape}]`,
        });
      }
      const blocked = isBlockDType(dtype) && expr.axis === shape.length - 1;
      const size = dtypes[dtype].blockSize;
      const aligned = !blocked || (expr.start % size === 0 && expr.end % size === 0);
      return {
        dtype: aligned ? dtype : 'float32',
        shape: shape.map((n, i) => (i === expr.axis ? expr.end - expr.start : n)),
      };
    }
    case 'reshape': {
      const { dtype, shape } = weightMeta(expr.of, from);
      if (elementCount(shape) !== elementCount(expr.shape)) {
        throw new CheckpointError('wrong shape', {
          where: `${from.label}: ${describe(expr.of)}`,
          expected: `${elementCount(expr.shape)} elements for [${expr.shape}]`,
          got: `[${shape}]`,
        });
      }
      return {
        dtype: isBlockDType(dtype) && expr.shape.at(-1)! % dtypes[dtype].blockSize !== 0 ? 'float32' : dtype,
        shape: expr.shape,
      };
    }
    case 'transpose': {
      const { dtype, shape } = weightMeta(expr.of, from);
      return {
        dtype: isBlockDType(dtype) ? 'float32' : dtype,
        shape: [...shape.slice(0, -2), shape.at(-1)!, shape.at(-2)!],
      };
    }
    case 'random':
    case 'values':
      return { dtype: 'float32', shape: expr.shape };
    default:
      return expr satisfies never;
  }
}

/** What joined tensors are stored in: their own type when they agree, else float32, which holds every one of them exactly. */
function commonDType(list: readonly DType[]): DType {
  return list.every((dtype) => dtype === list[0]) ? list[0]! : 'float32';
}

/** Names the source tensors of an expression, for messages. */
export function describe(expr: WeightExpr): string {
  if (expr.kind === 'source') return expr.name;
  if (expr.kind === 'values') return 'computed values';
  if (expr.kind === 'random') return 'random values';
  return 'parts' in expr ? expr.parts.map(describe).join(' + ') : describe(expr.of);
}

/** Elements read and converted at a time. */
const piece = 1 << 20;

/** The elements of a weight from `start` on, as float or block bytes: whole rows of blocks only. */
function* readPieces(name: string, from: TensorSource, start: number, end: number): Generator<TensorData> {
  const { dtype } = from.tensors.get(name)!;
  for (let at = start; at < end; at += piece) {
    const next = Math.min(at + piece, end);
    const offset = byteLength(dtype, at);
    yield { dtype, shape: [next - at], data: from.read(name, offset, byteLength(dtype, next) - offset) };
  }
}

function randomPiece(seed: number, at: number, end: number, most = piece): TensorData {
  const values = dummyValues(seed, at, Math.min(most, end - at));
  return { dtype: 'float32', shape: [values.length], data: new Uint8Array(values.buffer) };
}

/** The seed of a weight that is random through and through; undefined for others. */
export function randomSeed(expr: WeightExpr): number | undefined {
  if (expr.kind === 'random') return expr.seed;
  if ('of' in expr) return randomSeed(expr.of);
  if (!('parts' in expr)) return undefined;
  const seeds = expr.parts.map(randomSeed);
  return seeds.includes(undefined) ? undefined : seeds[0];
}

/** A weight's bytes in `dtype`, in order and in pieces: what is joined or cut by rows is never in memory whole. */
export function* streamWeight(expr: WeightExpr, from: TensorSource, dtype: DType): Generator<Uint8Array> {
  const { shape } = weightMeta(expr, from);
  if (expr.kind === 'stack' || (expr.kind === 'concat' && elementCount(shape.slice(0, expr.axis)) === 1)) {
    for (const part of expr.parts) yield* streamWeight(part, from, dtype);
  } else if (expr.kind === 'reshape') {
    yield* streamWeight(expr.of, from, dtype);
  } else if (expr.kind === 'random') {
    const count = elementCount(shape);
    for (let at = 0; at < count; at += piece) yield castTensor(randomPiece(expr.seed, at, count), dtype).data;
  } else if (expr.kind === 'source') {
    for (const part of readPieces(expr.name, from, 0, elementCount(shape))) yield castTensor(part, dtype).data;
  } else if (expr.kind === 'slice' && expr.axis === 0 && expr.of.kind === 'source') {
    const row = elementCount(shape.slice(1));
    for (const part of readPieces(expr.of.name, from, expr.start * row, expr.end * row))
      yield castTensor(part, dtype).data;
  } else {
    yield castTensor(readWeight(expr, from), dtype).data;
  }
}

/** Computes a weight. Memory: the result plus at most its largest part. */
export function readWeight(expr: WeightExpr, from: TensorSource): TensorData {
  const meta = weightMeta(expr, from);
  const { dtype, shape } = meta;
  switch (expr.kind) {
    case 'source':
      return { dtype, shape, data: from.read(expr.name) };
    case 'random':
      return { ...randomPiece(expr.seed, 0, elementCount(shape), elementCount(shape)), shape };
    case 'values':
      return { dtype, shape, data: new Uint8Array(Float32Array.from(expr.values).buffer) };
    case 'reshape':
      return { dtype, shape, data: castTensor(readWeight(expr.of, from), dtype).data };
    case 'stack': {
      const data = new Uint8Array(byteLength(dtype, elementCount(shape)));
      let at = 0;
      for (const part of expr.parts) {
        const bytes = castTensor(readWeight(part, from), dtype).data;
        data.set(bytes, at);
        at += bytes.length;
      }
      return { dtype, shape, data };
    }
    case 'concat': {
      // Row-major: the axes before `axis` count runs, one of each part in turn.
      const runs = elementCount(shape.slice(0, expr.axis));
      const runBytes = byteLength(dtype, elementCount(shape.slice(expr.axis)));
      const data = new Uint8Array(runs * runBytes);
      let at = 0;
      for (const part of expr.parts) {
        const bytes = castTensor(readWeight(part, from), dtype).data;
        const size = bytes.length / runs;
        for (let run = 0; run < runs; run++)
          data.set(bytes.subarray(run * size, (run + 1) * size), run * runBytes + at);
        at += size;
      }
      return { dtype, shape, data };
    }
    case 'slice':
      return sliceWeight(expr, from, meta);
    case 'transpose': {
      const of = castTensor(readWeight(expr.of, from), dtype);
      return { dtype, shape, data: transposeBytes(of.data, of.shape, dtypes[dtype].blockBytes) };
    }
    default:
      return expr satisfies never;
  }
}

function sliceWeight(
  expr: Extract<WeightExpr, { kind: 'slice' }>,
  from: TensorSource,
  { dtype, shape }: Meta,
): TensorData {
  const inner = weightMeta(expr.of, from);
  const runs = elementCount(inner.shape.slice(0, expr.axis));
  const rowElements = elementCount(inner.shape.slice(expr.axis + 1));
  const rowBytes = byteLength(dtype, rowElements * (expr.end - expr.start));
  const offset = byteLength(dtype, rowElements * expr.start);
  if (expr.of.kind === 'source' && runs === 1 && inner.dtype === dtype) {
    return { dtype, shape, data: from.read(expr.of.name, offset, rowBytes) };
  }
  const whole = castTensor(readWeight(expr.of, from), dtype).data;
  const runBytes = whole.length / runs;
  const data = new Uint8Array(runs * rowBytes);
  for (let run = 0; run < runs; run++)
    data.set(whole.subarray(run * runBytes + offset, run * runBytes + offset + rowBytes), run * rowBytes);
  return { dtype, shape, data };
}

function transposeBytes(bytes: Uint8Array, shape: readonly number[], size: number): Uint8Array {
  const [rows, cols] = [shape.at(-2)!, shape.at(-1)!];
  const out = new Uint8Array(bytes.length);
  const View = size === 1 ? Uint8Array : size === 2 ? Uint16Array : size === 4 ? Uint32Array : BigUint64Array;
  const aligned = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  const from = new View(aligned.buffer as ArrayBuffer, aligned.byteOffset, bytes.length / size);
  const to = new View(out.buffer, 0, out.length / size);
  for (let base = 0; base < from.length; base += rows * cols) {
    for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) to[base + c * rows + r] = from[base + r * cols + c]!;
  }
  return out;
}
