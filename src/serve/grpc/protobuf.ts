// Protocol Buffers' wire format by tables of fields (https://protobuf.dev/programming-guides/encoding): as much as the KServe protocol needs. gRPC's libraries would weigh half as
// much as all that TypeRT installs.

export type Scalar = 'bool' | 'int32' | 'int64' | 'uint32' | 'uint64' | 'float' | 'double' | 'string' | 'bytes';

export interface Field {
  readonly id: number;
  readonly type: Scalar | Schema;
  readonly kind?: 'repeated' | 'map';
}

/** Fields of a message by name. A map has text keys; its type is that of its values. */
export interface Schema {
  readonly [name: string]: Field;
}

export type Message = Readonly<Record<string, unknown>>;

export class ProtobufError extends Error {}

const wireTypes: Readonly<Record<Scalar, 0 | 1 | 2 | 5>> = {
  bool: 0,
  int32: 0,
  int64: 0,
  uint32: 0,
  uint64: 0,
  double: 1,
  string: 2,
  bytes: 2,
  float: 5,
};

const utf8 = new TextDecoder();
/** Messages in messages at most. */
const deepest = 16;

class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length;
  }

  varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) throw new ProtobufError('the message ends in mid-number');
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asUintN(64, value);
    }
    throw new ProtobufError('a number of more than ten bytes');
  }

  bytes(length = Number(this.varint())): Uint8Array {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw new ProtobufError('the message ends in mid-field');
    const part = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return part;
  }

  scalar(type: Scalar): unknown {
    switch (type) {
      case 'bool':
        return this.varint() !== 0n;
      case 'int32':
        return Number(BigInt.asIntN(32, this.varint()));
      case 'uint32':
        return Number(BigInt.asUintN(32, this.varint()));
      case 'int64':
        return safe(BigInt.asIntN(64, this.varint()));
      case 'uint64':
        return safe(this.varint());
      case 'float':
        return this.#number(4);
      case 'double':
        return this.#number(8);
      case 'string':
        return utf8.decode(this.bytes());
      case 'bytes':
        return this.bytes();
      default:
        return type satisfies never;
    }
  }

  #number(length: 4 | 8): number {
    const at = this.#at;
    this.bytes(length);
    return length === 4 ? this.#view.getFloat32(at, true) : this.#view.getFloat64(at, true);
  }

  skip(wireType: number): void {
    if (wireType === 0) this.varint();
    else if (wireType === 1) this.bytes(8);
    else if (wireType === 2) this.bytes();
    else if (wireType === 5) this.bytes(4);
    else throw new ProtobufError(`unknown wire type ${wireType}`);
  }
}

function safe(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** Reads a message. Fields that it lacks are absent, lists and maps empty; unknown fields are skipped. Throws ProtobufError. */
export function decode(schema: Schema, bytes: Uint8Array, depth = 0): Record<string, unknown> {
  if (depth > deepest) throw new ProtobufError('messages are nested too deep');
  const message: Record<string, unknown> = {};
  const byId = new Map<number, readonly [string, Field]>();
  for (const [name, field] of Object.entries(schema)) {
    byId.set(field.id, [name, field]);
    if (field.kind === 'repeated') message[name] = [];
    if (field.kind === 'map') message[name] = new Map<string, unknown>();
  }
  const reader = new Reader(bytes);
  while (!reader.done) {
    const tag = Number(reader.varint());
    const wireType = tag & 7;
    const [name, field] = byId.get(tag >>> 3) ?? [];
    if (name === undefined || field === undefined) {
      reader.skip(wireType);
      continue;
    }
    const { type, kind } = field;
    if (kind === 'map') {
      const entry = decode({ key: { id: 1, type: 'string' }, value: { id: 2, type } }, reader.bytes(), depth + 1);
      (message[name] as Map<string, unknown>).set(String(entry.key ?? ''), entry.value);
    } else if (typeof type === 'object') {
      const inner = decode(type, reader.bytes(), depth + 1);
      if (kind === 'repeated') (message[name] as unknown[]).push(inner);
      else message[name] = inner;
    } else if (kind === 'repeated' && wireType === 2 && wireTypes[type] !== 2) {
      // Packed: the numbers one after the other.
      const packed = new Reader(reader.bytes());
      while (!packed.done) (message[name] as unknown[]).push(packed.scalar(type));
    } else {
      if (wireType !== wireTypes[type]) throw new ProtobufError(`field ${name} has wire type ${wireType}`);
      const value = reader.scalar(type);
      if (kind === 'repeated') (message[name] as unknown[]).push(value);
      else message[name] = value;
    }
  }
  return message;
}

function varint(value: bigint): Uint8Array {
  const out: number[] = [];
  let rest = BigInt.asUintN(64, value);
  while (rest >= 128n) {
    out.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  out.push(Number(rest));
  return Uint8Array.from(out);
}

function number(bytes: 4 | 8, value: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(bytes));
  if (bytes === 4) view.setFloat32(0, value, true);
  else view.setFloat64(0, value, true);
  return new Uint8Array(view.buffer);
}

function scalar(type: Scalar, value: unknown): Uint8Array {
  switch (type) {
    case 'bool':
      return varint(value ? 1n : 0n);
    case 'float':
      return number(4, Number(value));
    case 'double':
      return number(8, Number(value));
    case 'string':
      return Buffer.from(String(value), 'utf8');
    case 'bytes':
      return value as Uint8Array;
    default:
      return varint(BigInt(value as number | bigint));
  }
}

function* write(schema: Schema, message: Message): Generator<Uint8Array> {
  for (const [name, { id, type, kind }] of Object.entries(schema)) {
    const value = message[name];
    if (value === undefined || value === null) continue;
    const tag = (wireType: number) => varint(BigInt((id << 3) | wireType));
    const framed = (bytes: Uint8Array) => [tag(2), varint(BigInt(bytes.length)), bytes];
    if (kind === 'map') {
      for (const [key, entry] of value as Map<string, unknown>)
        yield* framed(encode({ key: { id: 1, type: 'string' }, value: { id: 2, type } }, { key, value: entry }));
      continue;
    }
    const list = kind === 'repeated' ? (value as readonly unknown[]) : [value];
    if (typeof type === 'object') for (const each of list) yield* framed(encode(type, each as Message));
    else if (wireTypes[type] === 2) for (const each of list) yield* framed(scalar(type, each));
    else if (kind === 'repeated') {
      if (list.length > 0) yield* framed(Buffer.concat(list.map((each) => scalar(type, each))));
    } else yield* [tag(wireTypes[type]), scalar(type, value)];
  }
}

/** Writes a message; fields that are undefined are left out. */
export function encode(schema: Schema, message: Message): Uint8Array {
  return Buffer.concat([...write(schema, message)]);
}
