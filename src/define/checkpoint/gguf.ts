// Reader of GGUF files, versions 2 and 3 little-endian (ggml's docs/gguf.md): typed metadata and tensor descriptions, read through a small
// window; tensor data is read by position. Counts and lengths are compared with what is left of the file before anything is allocated.
import { byteLength, type DType, dtypes } from '../../base/dtype.ts';
import { CheckpointError } from '../../base/errors.ts';
import { PositionalFile } from './file.ts';
import { checkRange, missing } from './safetensors.ts';
import type { TensorInfo, TensorSource } from './tensors.ts';

export type GgufValue = number | bigint | boolean | string | readonly GgufValue[];

export interface GgufSource extends TensorSource {
  readonly version: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
}

const again = 'The file is damaged or incomplete: fetch it again';
const windowBytes = 1 << 18;
/** Far above any real file; keeps a damaged count in a huge file from filling memory. */
const maxItems = 1 << 24;
const maxStringBytes = 1 << 26;

/** ggml_type → dtype. */
const tensorTypes: Readonly<Record<number, DType>> = {
  0: 'float32',
  1: 'float16',
  2: 'q4_0',
  3: 'q4_1',
  6: 'q5_0',
  7: 'q5_1',
  8: 'q8_0',
  10: 'q2_k',
  11: 'q3_k',
  12: 'q4_k',
  13: 'q5_k',
  14: 'q6_k',
  24: 'int8',
  25: 'int16',
  26: 'int32',
  27: 'int64',
  28: 'float64',
  30: 'bfloat16',
};
/** ggml types that exist but are not read, by name, so that the message can name them. */
const otherTypes: Readonly<Record<number, string>> = {
  4: 'Q4_2',
  5: 'Q4_3',
  9: 'Q8_1',
  15: 'Q8_K',
  16: 'IQ2_XXS',
  17: 'IQ2_XS',
  18: 'IQ3_XXS',
  19: 'IQ1_S',
  20: 'IQ4_NL',
  21: 'IQ3_S',
  22: 'IQ2_S',
  23: 'IQ4_XS',
  29: 'IQ1_M',
  34: 'TQ1_0',
  35: 'TQ2_0',
  39: 'MXFP4',
  40: 'NVFP4',
};

/** Bytes of the metadata types 0–12; strings and arrays by the least they can take. */
const valueBytes = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8] as const;

/** Reads forward through a file, a window at a time. */
class Cursor {
  at = 0;
  readonly #file: PositionalFile;
  #window: Uint8Array = new Uint8Array(0);
  #view: DataView = new DataView(new ArrayBuffer(0));
  #start = 0;

  constructor(file: PositionalFile) {
    this.#file = file;
  }

  get left(): number {
    return this.#file.size - this.at;
  }

  refuse(what: string, expected: string, got: string, remedy = again): never {
    throw new CheckpointError(what, { where: `${this.#file.path} (byte ${this.at})`, expected, got, remedy });
  }

  /** Makes `bytes` bytes at `at` readable; returns their place in the window and moves on. */
  #take(bytes: number): number {
    if (bytes > this.left)
      this.refuse('is truncated', `${bytes} more bytes of GGUF header`, `${this.left} bytes until the file's end`);
    if (this.at < this.#start || this.at + bytes > this.#start + this.#window.length) {
      this.#window = this.#file.read(this.at, Math.min(this.left, Math.max(bytes, windowBytes)));
      this.#view = new DataView(this.#window.buffer, this.#window.byteOffset);
      this.#start = this.at;
    }
    const place = this.at - this.#start;
    this.at += bytes;
    return place;
  }

  u32(): number {
    const place = this.#take(4);
    return this.#view.getUint32(place, true);
  }

  u64(): bigint {
    const place = this.#take(8);
    return this.#view.getBigUint64(place, true);
  }

  /** A u64 that counts things of at least `leastBytes` bytes each: it cannot exceed what is left of the file. */
  count(what: string, leastBytes: number, most = maxItems): number {
    const value = this.u64();
    const limit = Math.min(most, Math.floor(this.left / leastBytes));
    if (value > BigInt(limit))
      this.refuse(`absurd ${what}`, `at most ${limit} in what is left of the file`, `${value}`);
    return Number(value);
  }

  string(what: string): string {
    const length = this.count(`length of ${what}`, 1, maxStringBytes);
    const place = this.#take(length);
    // Not fatal: tokens of byte-level vocabularies are UTF-8, but some writers cut names and descriptions.
    return Buffer.from(this.#window.buffer, this.#window.byteOffset + place, length).toString('utf8');
  }

  scalar(type: number, key: string): GgufValue {
    if (type === 8) return this.string(`the value of ${key}`);
    const place = this.#take(valueBytes[type as 0]);
    const view = this.#view;
    switch (type) {
      case 0:
        return view.getUint8(place);
      case 1:
        return view.getInt8(place);
      case 2:
        return view.getUint16(place, true);
      case 3:
        return view.getInt16(place, true);
      case 4:
        return view.getUint32(place, true);
      case 5:
        return view.getInt32(place, true);
      case 6:
        return view.getFloat32(place, true);
      case 7: {
        const value = view.getUint8(place);
        if (value > 1) this.refuse(`bad boolean in ${key}`, '0 or 1', `${value}`);
        return value === 1;
      }
      case 10:
        return narrow(view.getBigUint64(place, true));
      case 11:
        return narrow(view.getBigInt64(place, true));
      default:
        return view.getFloat64(place, true);
    }
  }

  value(key: string, depth = 0): GgufValue {
    const type = this.#type(key);
    if (type !== 9) return this.scalar(type, key);
    return this.#array(key, depth);
  }

  #type(key: string): number {
    const type = this.u32();
    if (type > 12) this.refuse(`unknown type of ${key}`, 'a GGUF value type from 0 to 12', `${type}`);
    return type;
  }

  #array(key: string, depth: number): GgufValue[] {
    if (depth > 3) this.refuse(`${key} is nested too deeply`, 'arrays at most 4 deep', 'more');
    const type = this.#type(key);
    const count = this.count(`count of ${key}`, valueBytes[type]!);
    const items: GgufValue[] = [];
    for (let i = 0; i < count; i++) items.push(type === 9 ? this.#array(key, depth + 1) : this.scalar(type, key));
    return items;
  }
}

function narrow(value: bigint): number | bigint {
  return value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
}

function readVersion(cursor: Cursor): number {
  const magic = cursor.u32();
  if (magic !== 0x46554747)
    cursor.refuse(
      'is not a GGUF file',
      'the letters GGUF at its start',
      `0x${magic.toString(16).padStart(8, '0')}`,
      'Give a .gguf file, or fetch it again',
    );
  const version = cursor.u32();
  if (version === 2 || version === 3) return version;
  if (version === 1)
    cursor.refuse(
      'is of GGUF version 1',
      'version 2 or 3',
      'version 1',
      'Convert it with a newer llama.cpp, or fetch a newer file of the model',
    );
  if (version !== 0 && (version & 0xffff) === 0) {
    cursor.refuse(
      'is big-endian',
      'a little-endian GGUF',
      'one in the other byte order',
      'Convert it with gguf-py (gguf-convert-endian), or fetch the little-endian file',
    );
  }
  cursor.refuse(
    'is of an unknown GGUF version',
    'version 2 or 3',
    `version ${version}`,
    'Update TypeRT, or fetch a file of version 3',
  );
}

function readMetadata(cursor: Cursor, count: number): Map<string, GgufValue> {
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < count; i++) {
    const key = cursor.string('a key');
    if (metadata.has(key)) cursor.refuse('a key comes twice', 'keys that differ', JSON.stringify(key.slice(0, 60)));
    metadata.set(key, cursor.value(JSON.stringify(key.slice(0, 60))));
  }
  return metadata;
}

interface Entry extends TensorInfo {
  /** First byte, relative to the data section until placed, then in the file. */
  readonly at: number;
}

function readTensorInfo(cursor: Cursor): Entry {
  const name = cursor.string('a tensor name');
  const label = `tensor ${JSON.stringify(name.slice(0, 60))}`;
  const axes = cursor.u32();
  if (axes > 4) cursor.refuse(`${label} has too many axes`, 'at most 4', `${axes}`);
  const sizes: number[] = [];
  for (let i = 0; i < axes; i++) {
    const size = cursor.u64();
    if (size > BigInt(Number.MAX_SAFE_INTEGER))
      cursor.refuse(`${label} has an absurd size`, 'less than 2^53 along an axis', `${size}`);
    sizes.push(Number(size));
  }
  const type = cursor.u32();
  const dtype = tensorTypes[type];
  if (dtype === undefined) {
    const known = Object.values(tensorTypes).join(', ');
    const name = otherTypes[type];
    cursor.refuse(
      `${label} is of a type that is not read`,
      known,
      name ?? `type ${type}`,
      name === undefined ? again : 'Use a file quantised to one of these (Q4_K_M and Q8_0 are common)',
    );
  }
  const offset = cursor.u64();
  if (offset > BigInt(Number.MAX_SAFE_INTEGER))
    cursor.refuse(`${label} lies outside the file`, 'an offset inside it', `${offset}`);
  const { blockSize } = dtypes[dtype];
  if ((sizes[0] ?? 1) % blockSize !== 0)
    cursor.refuse(
      `${label} does not fill its blocks`,
      `rows of a multiple of ${blockSize} elements for ${dtype}`,
      `${sizes[0]}`,
    );
  const elements = sizes.reduce((product, n) => product * n, 1);
  return { name, dtype, shape: sizes.reverse(), bytes: byteLength(dtype, elements), at: Number(offset) };
}

function readAlignment(cursor: Cursor, metadata: ReadonlyMap<string, GgufValue>): number {
  const alignment = metadata.get('general.alignment') ?? 32;
  if (
    typeof alignment === 'number' &&
    alignment >= 1 &&
    alignment <= 1 << 20 &&
    Number.isInteger(Math.log2(alignment))
  ) {
    return alignment;
  }
  return cursor.refuse('bad general.alignment', 'a power of two up to 1048576', String(alignment).slice(0, 60));
}

/** Checks that tensors are aligned, inside the file and apart; returns them by name, placed in the file. */
function place(
  cursor: Cursor,
  entries: readonly Entry[],
  dataAt: number,
  alignment: number,
  size: number,
): Map<string, Entry> {
  const tensors = new Map<string, Entry>();
  let end = 0;
  let before = 'the header';
  for (const entry of [...entries].sort((a, b) => a.at - b.at || a.bytes - b.bytes)) {
    const label = `tensor ${JSON.stringify(entry.name.slice(0, 60))}`;
    if (tensors.has(entry.name)) cursor.refuse('a tensor comes twice', 'names that differ', label);
    if (entry.at % alignment !== 0)
      cursor.refuse(`${label} is not aligned`, `an offset that is a multiple of ${alignment}`, `${entry.at}`);
    if (entry.at < end) cursor.refuse(`${label} overlaps ${before}`, `an offset of ${end} or more`, `${entry.at}`);
    if (dataAt + entry.at + entry.bytes > size) {
      cursor.refuse(
        `is truncated: ${label} lies outside the file`,
        `${dataAt + entry.at + entry.bytes} bytes`,
        `a file of ${size} bytes`,
      );
    }
    end = entry.at + entry.bytes;
    before = label;
    tensors.set(entry.name, { ...entry, at: dataAt + entry.at });
  }
  return tensors;
}

class GgufFile implements GgufSource {
  readonly label: string;
  readonly version: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, Entry>;
  readonly #file: PositionalFile;

  constructor(path: string) {
    this.label = path;
    const file = new PositionalFile(path);
    try {
      const cursor = new Cursor(file);
      this.version = readVersion(cursor);
      // A tensor's description takes at least 24 bytes, a key with its value 13.
      const tensorCount = cursor.count('tensor count', 24, 1 << 20);
      const keyCount = cursor.count('metadata count', 13, 1 << 20);
      this.metadata = readMetadata(cursor, keyCount);
      const alignment = readAlignment(cursor, this.metadata);
      const entries = Array.from({ length: tensorCount }, () => readTensorInfo(cursor));
      this.tensors = place(cursor, entries, Math.ceil(cursor.at / alignment) * alignment, alignment, file.size);
    } catch (error) {
      file[Symbol.dispose]();
      throw error;
    }
    this.#file = file;
  }

  read(name: string, offset = 0, length?: number): Uint8Array {
    const entry = this.tensors.get(name);
    if (entry === undefined) throw missing(this.label, name, this.tensors.size);
    const size = length ?? entry.bytes - offset;
    checkRange(this.label, entry, offset, size);
    return this.#file.read(entry.at + offset, size);
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

/** Opens a GGUF file as it is, under ggml's names; throws CheckpointError when it breaks the format or is of a version or type not read. */
export function openGguf(path: string): GgufSource {
  return new GgufFile(path);
}
