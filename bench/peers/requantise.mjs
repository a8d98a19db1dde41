// Writes a GGUF file anew with its matrices in another format: the same metadata, the same numbers rounded once more.
import { closeSync, openSync, readSync, writeSync } from 'node:fs';

const types = {
  float32: { id: 0 },
  q4_0: { id: 2 },
  q4_1: { id: 3 },
  q8_0: { id: 8 },
};
const alignment = 32;
const scalarBytes = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
const kinds = { string: 8, array: 9 };

/** Bytes of the metadata, from the first key to behind the last value. */
function metadataOf(path) {
  const file = openSync(path, 'r');
  const head = Buffer.alloc(64 << 20);
  readSync(file, head, 0, head.length, 0);
  closeSync(file);
  let at = 24;
  const u32 = () => head.readUInt32LE((at += 4) - 4);
  const u64 = () => Number(head.readBigUInt64LE((at += 8) - 8));
  const skip = (kind) => {
    if (kind === kinds.string) {
      const length = u64();
      at += length;
    } else if (kind === kinds.array) for (let of = u32(), left = u64(); left > 0; left--) skip(of);
    else at += scalarBytes[kind];
  };
  const count = Number(head.readBigUInt64LE(16));
  for (let i = 0; i < count; i++) {
    skip(kinds.string);
    skip(u32());
  }
  return { count, bytes: head.subarray(24, at) };
}

const u32 = (value) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const u64 = (value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};

/** Writes `to`: `source` opened from `from`, `convert(data, dtype)` gives the bytes of a matrix in `dtype`. */
export function requantise(from, to, source, dtype, convert) {
  const metadata = metadataOf(from);
  const tensors = [...source.tensors.values()].map(({ name, shape }) => {
    const kept = shape.length === 1 ? 'float32' : dtype;
    return { name, shape, dtype: kept, data: convert(source, name, kept) };
  });
  const parts = [Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(metadata.count), metadata.bytes];
  let offset = 0;
  for (const { name, shape, dtype: kept, data } of tensors) {
    const text = Buffer.from(name);
    parts.push(u64(text.length), text, u32(shape.length), ...[...shape].reverse().map(u64), u32(types[kept].id));
    parts.push(u64(offset));
    offset += Math.ceil(data.length / alignment) * alignment;
  }
  const file = openSync(to, 'w');
  const put = (bytes) => {
    writeSync(file, bytes);
    writeSync(file, Buffer.alloc((alignment - (bytes.length % alignment)) % alignment));
  };
  put(Buffer.concat(parts));
  for (const { data } of tensors) put(data);
  closeSync(file);
}
