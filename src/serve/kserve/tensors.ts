// Tensors of the KServe v2 protocol: flat data with a shape and a datatype, in JSON, and as little-endian bytes (the binary tensor data extension).

import { show } from '../../base/errors.ts';
import { ServeError } from '../errors.ts';

export type Element = number | bigint | boolean | string;

export interface Tensor {
  readonly name: string;
  readonly datatype: Datatype;
  readonly shape: readonly number[];
  /** Row-major. */
  readonly data: readonly Element[];
}

interface Codec {
  readonly bytes: number;
  readonly read: (view: DataView, at: number) => Element;
  readonly write: (view: DataView, at: number, value: Element) => void;
}

function number(bytes: number, read: Codec['read'], write: (view: DataView, at: number, value: number) => void): Codec {
  return { bytes, read, write: (view, at, value) => write(view, at, Number(value)) };
}

/** IEEE half precision → number. */
function half(bits: number): number {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * 2 ** -24 * fraction : sign * 2 ** (exponent - 25) * (1024 + fraction);
}

const codecs = {
  BOOL: {
    bytes: 1,
    read: (view, at) => view.getUint8(at) !== 0,
    write: (view, at, value) => view.setUint8(at, value ? 1 : 0),
  },
  INT8: number(
    1,
    (view, at) => view.getInt8(at),
    (view, at, value) => view.setInt8(at, value),
  ),
  INT16: number(
    2,
    (view, at) => view.getInt16(at, true),
    (view, at, value) => view.setInt16(at, value, true),
  ),
  INT32: number(
    4,
    (view, at) => view.getInt32(at, true),
    (view, at, value) => view.setInt32(at, value, true),
  ),
  INT64: {
    bytes: 8,
    read: (view, at) => view.getBigInt64(at, true),
    write: (view, at, value) => view.setBigInt64(at, BigInt(value), true),
  },
  UINT8: number(
    1,
    (view, at) => view.getUint8(at),
    (view, at, value) => view.setUint8(at, value),
  ),
  UINT16: number(
    2,
    (view, at) => view.getUint16(at, true),
    (view, at, value) => view.setUint16(at, value, true),
  ),
  UINT32: number(
    4,
    (view, at) => view.getUint32(at, true),
    (view, at, value) => view.setUint32(at, value, true),
  ),
  UINT64: {
    bytes: 8,
    read: (view, at) => view.getBigUint64(at, true),
    write: (view, at, value) => view.setBigUint64(at, BigInt(value), true),
  },
  FP16: number(
    2,
    (view, at) => half(view.getUint16(at, true)),
    () => refuse('FP16 outputs are not written'),
  ),
  FP32: number(
    4,
    (view, at) => view.getFloat32(at, true),
    (view, at, value) => view.setFloat32(at, value, true),
  ),
  FP64: number(
    8,
    (view, at) => view.getFloat64(at, true),
    (view, at, value) => view.setFloat64(at, value, true),
  ),
} satisfies Record<string, Codec>;

export type Datatype = keyof typeof codecs | 'BYTES';

function refuse(what: string, facts: { where?: string; expected?: string; got?: string } = {}): never {
  throw new ServeError(what, { status: 400, ...facts });
}

export function isDatatype(name: string): name is Datatype {
  return name === 'BYTES' || Object.hasOwn(codecs, name);
}

/** Elements that a shape holds; refuses shapes that no request of this size can have. */
export function sizeOf(shape: readonly number[], where: string): number {
  const bad = shape.some((dim) => !Number.isSafeInteger(dim) || dim < 0);
  const size = shape.reduce((product, dim) => product * dim, 1);
  if (bad || !Number.isSafeInteger(size)) refuse('not a shape', { where, got: show(shape) });
  return size;
}

const utf8 = new TextDecoder();
const toUtf8 = new TextEncoder();

/** Elements from bytes. BYTES elements carry their length in four bytes before them. */
export function fromBytes(datatype: Datatype, count: number, bytes: Uint8Array, where: string): Element[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (datatype !== 'BYTES') {
    const codec: Codec = codecs[datatype];
    if (bytes.length !== count * codec.bytes)
      refuse('data and shape disagree', {
        where,
        expected: `${count * codec.bytes} bytes`,
        got: `${bytes.length}`,
      });
    return Array.from({ length: count }, (_, i) => codec.read(view, i * codec.bytes));
  }
  const out: string[] = [];
  let at = 0;
  while (at < bytes.length) {
    const end = at + 4 + (at + 4 <= bytes.length ? view.getUint32(at, true) : Number.POSITIVE_INFINITY);
    if (end > bytes.length) refuse('the bytes end in mid-element', { where });
    out.push(utf8.decode(bytes.subarray(at + 4, end)));
    at = end;
  }
  if (out.length !== count)
    refuse('data and shape disagree', { where, expected: `${count} elements`, got: `${out.length}` });
  return out;
}

/** A tensor's elements as bytes. */
export function toBytes({ datatype, data }: Pick<Tensor, 'datatype' | 'data'>): Uint8Array {
  if (datatype !== 'BYTES') {
    const codec: Codec = codecs[datatype];
    const view = new DataView(new ArrayBuffer(data.length * codec.bytes));
    for (const [i, value] of data.entries()) codec.write(view, i * codec.bytes, value);
    return new Uint8Array(view.buffer);
  }
  return Buffer.concat(
    data.flatMap((value) => {
      const text = toUtf8.encode(String(value));
      const length = new Uint8Array(4);
      new DataView(length.buffer).setUint32(0, text.length, true);
      return [length, text];
    }),
  );
}

/** Elements from JSON: nested or flat, each of the datatype's kind. */
export function fromJson(datatype: Datatype, count: number, value: unknown, where: string): Element[] {
  const flat = (Array.isArray(value) ? value.flat(8) : [value]) as unknown[];
  if (flat.length !== count)
    refuse('data and shape disagree', { where, expected: `${count} elements`, got: `${flat.length}` });
  return flat.map((element) => toElement(datatype, element, where));
}

/** One JSON value as an element; refuses what is not of the kind. */
export function toElement(datatype: Datatype, value: unknown, where: string): Element {
  if (datatype === 'BYTES') {
    if (typeof value === 'string') return value;
  } else if (datatype === 'BOOL') {
    if (typeof value === 'boolean') return value;
    if (value === 0 || value === 1) return value === 1;
  } else if (typeof value === 'number' && Number.isFinite(value)) {
    if (datatype.startsWith('FP') || Number.isSafeInteger(value)) return value;
  }
  return refuse('wrong element', { where, expected: datatype, got: show(value) });
}

/** How an element stands in JSON. */
export function elementToJson(element: Element): number | boolean | string | null {
  if (typeof element === 'bigint') return Number(element);
  return typeof element === 'number' && !Number.isFinite(element) ? null : element;
}
