// Reader of safetensors files (https://github.com/huggingface/safetensors, "Format"): 8 bytes of header length, a JSON header, and tensors
// without holes. Only the header is read on opening; every rule of the format is checked then.
import { basename, dirname, join } from 'node:path';
import { byteLength, type DType, dtypes } from '../../base/dtype.ts';
import { CheckpointError } from '../../base/errors.ts';
import { PositionalFile } from './file.ts';
import { isObject, type JsonObject, kindOf, parseJsonObject, readBounded } from './json.ts';
import type { TensorInfo, TensorSource } from './tensors.ts';

/** The format's own limit on the header, bytes. */
export const maxHeaderBytes = 100_000_000;
const again = 'The file is damaged or incomplete: fetch or write it again';

/** safetensors name → dtype. Block formats share U8 with uint8, which is what a U8 tensor reads as. */
const dtypeOf = new Map<string, DType>(
  (Object.keys(dtypes) as DType[])
    .filter((dtype) => dtypes[dtype].blockSize === 1)
    .map((dtype) => [dtypes[dtype].safetensors, dtype]),
);

export interface SafetensorsSource extends TensorSource {
  /** `__metadata__` of the file (of the first shard, when sharded). */
  readonly metadata: Readonly<Record<string, string>>;
}

/** One file, of which the places are known. */
export interface SafetensorsFileSource extends SafetensorsSource {
  /** Bytes of the file. */
  readonly bytes: number;
  /** The tensor's first byte in the file. Throws CheckpointError when it is not there. */
  offsetOf(name: string): number;
}

interface Entry extends TensorInfo {
  /** First byte in the file. */
  readonly at: number;
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function parseEntry(
  name: string,
  value: unknown,
  path: string,
  dataBytes: number,
): { begin: number; end: number; info: TensorInfo } {
  const where = `${path}: tensor ${kindOf(name)}`;
  const refuse = (what: string, expected: string, got: string, remedy = again): never => {
    throw new CheckpointError(what, { where, expected, got, remedy });
  };
  if (!isObject(value))
    return refuse('is not described', 'an object with dtype, shape and data_offsets', kindOf(value));
  const dtype = typeof value.dtype === 'string' ? dtypeOf.get(value.dtype) : undefined;
  if (dtype === undefined) {
    return refuse(
      'unknown dtype',
      `one of ${[...dtypeOf.keys()].join(', ')}`,
      kindOf(value.dtype),
      'Convert the checkpoint to one of these',
    );
  }
  const { shape, data_offsets: offsets } = value;
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    return refuse(
      'bad shape',
      'a list of sizes that are non-negative integers',
      Array.isArray(shape) ? `[${shape.slice(0, 8).map(kindOf)}]` : kindOf(shape),
    );
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    return refuse(
      'bad data_offsets',
      'two non-negative integers',
      Array.isArray(offsets) ? `[${offsets.slice(0, 8).map(kindOf)}]` : kindOf(offsets),
    );
  }
  const [begin, end] = offsets as [number, number];
  if (begin > end || end > dataBytes) {
    return refuse('bad data_offsets', `begin ≤ end ≤ ${dataBytes}, the bytes after the header`, `[${begin}, ${end}]`);
  }
  // Products beyond 2^53 lose their low digits but stay beyond any file's size, so the comparison stays right.
  const elements = (shape as number[]).reduce((product, n) => product * n, 1);
  const bytes = byteLength(dtype, elements);
  if (bytes !== end - begin) {
    return refuse(
      'size does not match its shape',
      `${bytes} bytes for ${value.dtype} [${shape.slice(0, 8)}${shape.length > 8 ? ', …' : ''}]`,
      `${end - begin} bytes`,
    );
  }
  return { begin, end, info: { name, dtype, shape: shape as number[], bytes } };
}

function parseMetadata(value: unknown, path: string): Record<string, string> {
  if (value === undefined) return {};
  if (!isObject(value) || !Object.values(value).every((text) => typeof text === 'string')) {
    throw new CheckpointError('bad __metadata__', {
      where: path,
      expected: 'an object of strings',
      got: kindOf(value),
      remedy: again,
    });
  }
  return value as Record<string, string>;
}

function parseHeader(header: JsonObject, path: string, dataAt: number, dataBytes: number): Map<string, Entry> {
  const entries = Object.entries(header)
    .filter(([name]) => name !== '__metadata__')
    .map(([name, value]) => parseEntry(name, value, path, dataBytes))
    .sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = 0;
  let before = 'the header';
  const tensors = new Map<string, Entry>();
  for (const { begin, end, info } of entries) {
    if (begin !== at) {
      throw new CheckpointError(begin < at ? 'tensors overlap' : 'there is a hole between tensors', {
        where: `${path}: tensor ${kindOf(info.name)}`,
        expected: `data at ${at}, right after ${before}`,
        got: `data at ${begin}`,
        remedy: again,
      });
    }
    tensors.set(info.name, { ...info, at: dataAt + begin });
    at = end;
    before = kindOf(info.name);
  }
  if (at !== dataBytes) {
    throw new CheckpointError(at < dataBytes ? 'bytes after the last tensor' : 'is truncated', {
      where: path,
      expected: `${dataAt + at} bytes`,
      got: `${dataAt + dataBytes} bytes`,
      remedy: again,
    });
  }
  return tensors;
}

class SafetensorsFile implements SafetensorsFileSource {
  readonly label: string;
  readonly tensors: ReadonlyMap<string, Entry>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly #file: PositionalFile;

  constructor(path: string) {
    this.label = path;
    const file = new PositionalFile(path);
    try {
      if (file.size < 8) {
        throw new CheckpointError('is truncated', {
          where: path,
          expected: 'a safetensors file of at least 8 bytes',
          got: `${file.size} bytes`,
          remedy: again,
        });
      }
      const length = new DataView(file.read(0, 8).buffer).getBigUint64(0, true);
      if (length > BigInt(maxHeaderBytes)) {
        throw new CheckpointError('header is too long', {
          where: path,
          expected: `a safetensors header of at most ${maxHeaderBytes} bytes`,
          got: `${length} bytes`,
          remedy: 'This is not a safetensors file, or it is damaged: fetch or write it again',
        });
      }
      const headerBytes = Number(length);
      if (headerBytes > file.size - 8) {
        throw new CheckpointError('is truncated', {
          where: path,
          expected: `a header of ${headerBytes} bytes`,
          got: `a file of ${file.size} bytes`,
          remedy: again,
        });
      }
      const header = parseJsonObject(file.read(8, headerBytes), { where: `${path} (header)`, remedy: again });
      this.metadata = parseMetadata(header.__metadata__, path);
      this.tensors = parseHeader(header, path, 8 + headerBytes, file.size - 8 - headerBytes);
    } catch (error) {
      file[Symbol.dispose]();
      throw error;
    }
    this.#file = file;
  }

  get bytes(): number {
    return this.#file.size;
  }

  offsetOf(name: string): number {
    return this.#entry(name).at;
  }

  #entry(name: string): Entry {
    const entry = this.tensors.get(name);
    if (entry === undefined) throw missing(this.label, name, this.tensors.size);
    return entry;
  }

  read(name: string, offset = 0, length?: number): Uint8Array {
    const entry = this.#entry(name);
    const size = length ?? entry.bytes - offset;
    checkRange(this.label, entry, offset, size);
    return this.#file.read(entry.at + offset, size);
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

/** The error for a tensor that a source does not hold. */
export function missing(label: string, name: string, others: number): CheckpointError {
  return new CheckpointError('missing tensor', {
    where: label,
    expected: `a tensor named ${name}`,
    got: `${others} other tensors`,
    remedy: 'The checkpoint is incomplete or of another architecture than its config says',
  });
}

/** Throws CheckpointError when [`offset`, `offset + length`) is not inside the tensor's stored bytes. */
export function checkRange(label: string, info: TensorInfo, offset: number, length: number): void {
  if (isCount(offset) && isCount(length) && offset + length <= info.bytes) return;
  throw new CheckpointError('read outside a tensor', {
    where: `${label}: tensor ${info.name}`,
    expected: `a range within ${info.bytes} bytes`,
    got: `${length} bytes at ${offset}`,
    remedy: 'The tensor is smaller than the reader believes: check its shape',
  });
}

/** Opens one safetensors file; throws CheckpointError when it breaks any rule of the format. */
export function openSafetensors(path: string): SafetensorsFileSource {
  return new SafetensorsFile(path);
}

/**
 * Opens the files that a `model.safetensors.index.json` names, as one source. The index must name plain files of its own folder, and
 * every tensor must be in the file it is said to be in. Throws CheckpointError.
 */
export function shardedSafetensors(indexPath: string): SafetensorsSource & { readonly files: readonly string[] } {
  const folder = dirname(indexPath);
  const remedy = 'Fetch the checkpoint again, with all its files';
  const map = parseJsonObject(readBounded(indexPath, maxHeaderBytes), { where: indexPath, remedy }).weight_map;
  if (!isObject(map) || Object.keys(map).length === 0) {
    throw new CheckpointError('bad index', {
      where: indexPath,
      expected: 'weight_map, an object of tensor name → file name',
      got: kindOf(map),
      remedy,
    });
  }
  const shardOf = new Map<string, string>();
  for (const [name, file] of Object.entries(map)) {
    if (typeof file !== 'string' || file !== basename(file) || !file.endsWith('.safetensors') || /[\\\0]/.test(file)) {
      throw new CheckpointError('bad index', {
        where: `${indexPath}: tensor ${kindOf(name)}`,
        expected: 'the name of a .safetensors file in the same folder',
        got: kindOf(file),
        remedy,
      });
    }
    shardOf.set(name, file);
  }
  const shards = new Map<string, SafetensorsSource>();
  const close = (): void => {
    for (const shard of shards.values()) shard[Symbol.dispose]();
  };
  const tensors = new Map<string, TensorInfo>();
  try {
    for (const [name, file] of shardOf) {
      let shard = shards.get(file);
      if (shard === undefined) shards.set(file, (shard = openSafetensors(join(folder, file))));
      const info = shard.tensors.get(name);
      if (info === undefined) {
        throw new CheckpointError('missing tensor', {
          where: join(folder, file),
          expected: `tensor ${name}, which ${basename(indexPath)} places there`,
          got: `${shard.tensors.size} other tensors`,
          remedy,
        });
      }
      tensors.set(name, info);
    }
  } catch (error) {
    close();
    throw error;
  }
  return {
    label: folder,
    tensors,
    files: [...shards.keys()].map((file) => join(folder, file)),
    metadata: [...shards.values()][0]!.metadata,
    read: (name, offset, length) => {
      const shard = shards.get(shardOf.get(name) ?? '');
      if (shard === undefined) throw missing(folder, name, tensors.size);
      return shard.read(name, offset, length);
    },
    [Symbol.dispose]: close,
  };
}
