// Writer of safetensors files, streaming: one tensor's bytes are in memory at a time. Checkpoints and engines are written with it.
import { statSync, unlinkSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { CheckpointError } from '../../base/errors.ts';
import { fileError } from './file.ts';
import { maxHeaderBytes } from './safetensors.ts';

/** Tensors start at multiples of this where sizes allow: what SIMD loads, cuBLASLt and mapped pages like. */
const alignment = 64;

/** Bytes an element takes, for the dtypes the format knows. */
const elementBytes: Readonly<Record<string, number>> = {
  F64: 8,
  I64: 8,
  U64: 8,
  C64: 8,
  F32: 4,
  I32: 4,
  U32: 4,
  F16: 2,
  BF16: 2,
  I16: 2,
  U16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  F8_E8M0: 1,
};

/** A tensor to be written, in safetensors' words. */
export interface TensorToWrite {
  readonly name: string;
  /** As safetensors spells it: F32, BF16, U8 … */
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: number;
}

/** The bytes of a tensor, whole or in pieces. */
export type Produced = Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

function check(path: string, tensor: TensorToWrite): void {
  const size = elementBytes[tensor.dtype];
  const bytes = tensor.shape.reduce((product, n) => product * n, size ?? Number.NaN);
  if (size !== undefined && bytes === tensor.bytes && tensor.name !== '__metadata__') return;
  throw new CheckpointError('cannot be written', {
    where: `${path}: tensor ${tensor.name}`,
    expected:
      size === undefined
        ? `a dtype of ${Object.keys(elementBytes).join(', ')}`
        : `${bytes} bytes for [${tensor.shape}]`,
    got: size === undefined ? tensor.dtype : `${tensor.bytes} bytes`,
    remedy: 'Give the tensor the dtype, shape and bytes that belong together',
  });
}

/**
 * The order in which tensors lie in the file. The format allows no holes, so those whose size is a multiple of 64 come first and all start
 * aligned; the rest follow by falling element size (each then starts at a multiple of its element), then by name, as in Python's safetensors.
 */
export function layoutOrder<T extends TensorToWrite>(tensors: readonly T[]): T[] {
  const rank = (tensor: T): number => (tensor.bytes % alignment === 0 ? 16 : (elementBytes[tensor.dtype] ?? 1));
  return [...tensors].sort((a, b) => rank(b) - rank(a) || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

function header(
  path: string,
  ordered: readonly TensorToWrite[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  // Built as text, entry by entry: an object would put names that look like integers first.
  const entries: string[] = [];
  if (Object.keys(metadata).length > 0) entries.push(`"__metadata__":${JSON.stringify(metadata)}`);
  const seen = new Set<string>();
  let at = 0;
  for (const tensor of ordered) {
    check(path, tensor);
    if (seen.has(tensor.name)) {
      throw new CheckpointError('cannot be written', {
        where: path,
        expected: 'names that differ',
        got: `${tensor.name} twice`,
        remedy: 'Rename one',
      });
    }
    seen.add(tensor.name);
    const value = { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [at, at + tensor.bytes] };
    entries.push(`${JSON.stringify(tensor.name)}:${JSON.stringify(value)}`);
    at += tensor.bytes;
  }
  const json = new TextEncoder().encode(`{${entries.join(',')}}`);
  const total = Math.ceil((8 + json.length) / alignment) * alignment;
  if (total - 8 > maxHeaderBytes) {
    throw new CheckpointError('header is too long', {
      where: path,
      expected: `at most ${maxHeaderBytes} bytes`,
      got: `${total - 8} bytes`,
      remedy: 'Write fewer tensors or less metadata into one file',
    });
  }
  const bytes = new Uint8Array(total).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(total - 8), true);
  bytes.set(json, 8);
  return bytes;
}

/** Writes all of `bytes` (the system may take a part at a time) at `position`. */
async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, Math.min(bytes.length - done, 1 << 30), position + done);
    if (bytesWritten === 0) throw Object.assign(new Error('the system wrote nothing'), { code: 'ENOSPC' });
    done += bytesWritten;
  }
}

/**
 * Writes a safetensors file: the header (metadata and all tensors) first, then each tensor's bytes as `produce` hands them out, in the order
 * of `layoutOrder`. Throws CheckpointError when the disk is full, something else fails or a tensor's bytes are not as many as announced; the
 * unfinished file is removed then. Errors of `produce` pass through. Returns the file's size in bytes.
 */
export async function writeSafetensors<T extends TensorToWrite>(
  path: string,
  tensors: readonly T[],
  metadata: Readonly<Record<string, string>>,
  produce: (tensor: T) => Produced | Promise<Produced>,
): Promise<number> {
  const ordered = layoutOrder(tensors);
  const head = header(path, ordered, metadata);
  let file: FileHandle;
  try {
    file = await open(path, 'w');
  } catch (error) {
    throw fileError('cannot be written', path, error);
  }
  try {
    const put = async (bytes: Uint8Array, position: number): Promise<void> => {
      try {
        await writeAll(file, bytes, position);
      } catch (error) {
        throw fileError('cannot be written', path, error);
      }
    };
    await put(head, 0);
    let at = head.length;
    for (const tensor of ordered) {
      const end = at + tensor.bytes;
      const made = await produce(tensor);
      const pieces = made instanceof Uint8Array ? [made] : made;
      for await (const piece of pieces) {
        if (at + piece.length > end) throw wrongLength(path, tensor, tensor.bytes - (end - at) + piece.length);
        await put(piece, at);
        at += piece.length;
      }
      if (at !== end) throw wrongLength(path, tensor, tensor.bytes - (end - at));
    }
    try {
      await file.sync();
    } catch (error) {
      // Devices and some network file systems cannot sync; a full disk must still be told.
      if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw fileError('cannot be written', path, error);
    }
    await file.close();
    return at;
  } catch (error) {
    await file.close().catch(() => {});
    if (statSync(path, { throwIfNoEntry: false })?.isFile()) unlinkSync(path);
    throw error;
  }
}

function wrongLength(path: string, tensor: TensorToWrite, got: number): CheckpointError {
  return new CheckpointError('wrong number of bytes', {
    where: `${path}: tensor ${tensor.name}`,
    expected: `${tensor.bytes} bytes`,
    got: `${got} bytes`,
    remedy: 'This is a fault of the code that produced the tensor: please report it',
  });
}
