// GGUF's block formats, unpacked to float32 (layouts: ggml's ggml-common.h; meaning: dequantize_row_* in ggml-quants.c). Products are rounded
// to float32 where ggml rounds them, so results are ggml's bit for bit.
import { byteLength, type DType, dtypes, fromFloat16Bits } from '../../base/dtype.ts';
import { CheckpointError } from '../../base/errors.ts';
import { dequantizeGroups } from './group-blocks.ts';

const f = Math.fround;
/** Unpacks `blocks` blocks of `bytes` into `out`. */
type Unpack = (bytes: Uint8Array, blocks: number, out: Float32Array) => void;

function half(bytes: Uint8Array, at: number): number {
  return fromFloat16Bits(bytes[at]! | (bytes[at + 1]! << 8));
}

function int8(value: number): number {
  return (value << 24) >> 24;
}

/** Blocks of 32 with a scale and nibbles: element i in the low, i + 16 in the high half of byte i. */
const q4_0: Unpack = (bytes, blocks, out) => {
  for (let block = 0, at = 0, to = 0; block < blocks; block++, at += 18, to += 32) {
    const d = half(bytes, at);
    for (let i = 0; i < 16; i++) {
      const q = bytes[at + 2 + i]!;
      out[to + i] = d * ((q & 15) - 8);
      out[to + 16 + i] = d * ((q >> 4) - 8);
    }
  }
};

const q4_1: Unpack = (bytes, blocks, out) => {
  for (let block = 0, at = 0, to = 0; block < blocks; block++, at += 20, to += 32) {
    const d = half(bytes, at);
    const m = half(bytes, at + 2);
    for (let i = 0; i < 16; i++) {
      const q = bytes[at + 4 + i]!;
      out[to + i] = f(d * (q & 15)) + m;
      out[to + 16 + i] = f(d * (q >> 4)) + m;
    }
  }
};

/** As Q4_0, with the fifth bits of all 32 elements in four bytes. */
const q5_0: Unpack = (bytes, blocks, out) => {
  for (let block = 0, at = 0, to = 0; block < blocks; block++, at += 22, to += 32) {
    const d = half(bytes, at);
    const high = bytes[at + 2]! | (bytes[at + 3]! << 8) | (bytes[at + 4]! << 16) | (bytes[at + 5]! << 24);
    for (let i = 0; i < 16; i++) {
      const q = bytes[at + 6 + i]!;
      out[to + i] = d * (((q & 15) | (((high >>> i) & 1) << 4)) - 16);
      out[to + 16 + i] = d * (((q >> 4) | (((high >>> (i + 16)) & 1) << 4)) - 16);
    }
  }
};

const q5_1: Unpack = (bytes, blocks, out) => {
  for (let block = 0, at = 0, to = 0; block < blocks; block++, at += 24, to += 32) {
    const d = half(bytes, at);
    const m = half(bytes, at + 2);
    const high = bytes[at + 4]! | (bytes[at + 5]! << 8) | (bytes[at + 6]! << 16) | (bytes[at + 7]! << 24);
    for (let i = 0; i < 16; i++) {
      const q = bytes[at + 8 + i]!;
      out[to + i] = f(d * ((q & 15) | (((high >>> i) & 1) << 4))) + m;
      out[to + 16 + i] = f(d * ((q >> 4) | (((high >>> (i + 16)) & 1) << 4))) + m;
    }
  }
};

const q8_0: Unpack = (bytes, blocks, out) => {
  for (let block = 0, at = 0, to = 0; block < blocks; block++, at += 34, to += 32) {
    const d = half(bytes, at);
    for (let i = 0; i < 32; i++) out[to + i] = d * int8(bytes[at + 2 + i]!);
  }
};

/** 16 groups of 16: scale and minimum in the nibbles of bytes 0–15, two bits an element in bytes 16–79, then the super-block's two scales. */
const q2_k: Unpack = (bytes, blocks, out) => {
  for (let block = 0, at = 0, to = 0; block < blocks; block++, at += 84, to += 256) {
    const d = half(bytes, at + 80);
    const dmin = half(bytes, at + 82);
    for (let group = 0; group < 16; group++) {
      const scales = bytes[at + group]!;
      const scale = f(d * (scales & 15));
      const minimum = f(dmin * (scales >> 4));
      const from = at + 16 + (group >> 3) * 32 + (group & 1) * 16;
      const shift = ((group >> 1) & 3) * 2;
      for (let i = 0; i < 16; i++) out[to + group * 16 + i] = f(scale * ((bytes[from + i]! >> shift) & 3)) - minimum;
    }
  }
};

/** 16 groups of 16: inverted third bits in bytes 0–31, two low bits in 32–95, sixteen 6-bit scales in 96–107, the scale in 108. */
const q3_k: Unpack = (bytes, blocks, out) => {
  for (let block = 0, at = 0, to = 0; block < blocks; block++, at += 110, to += 256) {
    const d = half(bytes, at + 108);
    const packed = at + 96;
    for (let group = 0; group < 16; group++) {
      const low = group < 8 ? bytes[packed + group]! & 15 : bytes[packed + group - 8]! >> 4;
      const high = (bytes[packed + 8 + (group & 3)]! >> ((group >> 2) * 2)) & 3;
      const scale = f(d * ((low | (high << 4)) - 32));
      const from = at + 32 + (group >> 3) * 32 + (group & 1) * 16;
      const mask = at + (group & 1) * 16;
      const shift = ((group >> 1) & 3) * 2;
      const bit = group >> 1;
      for (let i = 0; i < 16; i++) {
        const q = ((bytes[from + i]! >> shift) & 3) - (((bytes[mask + i]! >> bit) & 1) === 1 ? 0 : 4);
        out[to + group * 16 + i] = scale * q;
      }
    }
  }
};

/** The 6-bit scale of group `group` (0–7) of Q4_K and Q5_K, twelve bytes at `at`. */
function scale6(bytes: Uint8Array, at: number, group: number): number {
  if (group < 4) return bytes[at + group]! & 63;
  return (bytes[at + group + 4]! & 15) | ((bytes[at + group - 4]! >> 6) << 4);
}

function minimum6(bytes: Uint8Array, at: number, group: number): number {
  if (group < 4) return bytes[at + group + 4]! & 63;
  return (bytes[at + group + 4]! >> 4) | ((bytes[at + group]! >> 6) << 4);
}

/** 8 groups of 32; even groups in the low, odd ones in the high nibbles of 32 bytes. */
const q4_k: Unpack = (bytes, blocks, out) => {
  for (let block = 0, at = 0, to = 0; block < blocks; block++, at += 144, to += 256) {
    const d = half(bytes, at);
    const dmin = half(bytes, at + 2);
    for (let group = 0; group < 8; group++) {
      const scale = f(d * scale6(bytes, at + 4, group));
      const minimum = f(dmin * minimum6(bytes, at + 4, group));
      const from = at + 16 + (group >> 1) * 32;
      const shift = (group & 1) * 4;
      for (let i = 0; i < 32; i++) out[to + group * 32 + i] = f(scale * ((bytes[from + i]! >> shift) & 15)) - minimum;
    }
  }
};

/** As Q4_K, with the fifth bit of group g in bit g of 32 bytes. */
const q5_k: Unpack = (bytes, blocks, out) => {
  for (let block = 0, at = 0, to = 0; block < blocks; block++, at += 176, to += 256) {
    const d = half(bytes, at);
    const dmin = half(bytes, at + 2);
    for (let group = 0; group < 8; group++) {
      const scale = f(d * scale6(bytes, at + 4, group));
      const minimum = f(dmin * minimum6(bytes, at + 4, group));
      const from = at + 48 + (group >> 1) * 32;
      const shift = (group & 1) * 4;
      for (let i = 0; i < 32; i++) {
        const q = ((bytes[from + i]! >> shift) & 15) | (((bytes[at + 16 + i]! >> group) & 1) << 4);
        out[to + group * 32 + i] = f(scale * q) - minimum;
      }
    }
  }
};

/** 16 groups of 16: four low bits in bytes 0–127, two high bits in 128–191, int8 scales in 192–207, the scale in 208. */
const q6_k: Unpack = (bytes, blocks, out) => {
  for (let block = 0, at = 0, to = 0; block < blocks; block++, at += 210, to += 256) {
    const d = half(bytes, at + 208);
    for (let group = 0; group < 16; group++) {
      const scale = f(d * int8(bytes[at + 192 + group]!));
      const part = group >> 3;
      const quarter = (group >> 1) & 3;
      const low = at + part * 64 + (quarter & 1) * 32 + (group & 1) * 16;
      const high = at + 128 + part * 32 + (group & 1) * 16;
      const lowShift = (quarter >> 1) * 4;
      for (let i = 0; i < 16; i++) {
        const q = ((bytes[low + i]! >> lowShift) & 15) | (((bytes[high + i]! >> (quarter * 2)) & 3) << 4);
        out[to + group * 16 + i] = scale * (q - 32);
      }
    }
  }
};

/** Formats of TypeRT's own, beside GGUF's. */
const groups = Object.fromEntries(
  (['w8_64', 'w8_128', 'w8z_32', 'w8z_64', 'w8z_128', 'w4_64', 'w4_128', 'w4z_64', 'w4z_128'] as const).map((dtype) => [
    dtype,
    ((bytes, blocks, out) => dequantizeGroups(dtype, bytes, blocks, out)) satisfies Unpack,
  ]),
);

const unpackers: Partial<Record<DType, Unpack>> = {
  ...groups,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
};

/**
 * Unpacks `count` elements stored in blocks of `dtype` to float32. Throws CheckpointError when `dtype` is not a block format, `count` does not
 * fill its blocks, or `data` holds fewer bytes.
 */
export function dequantize(dtype: DType, data: Uint8Array, count: number): Float32Array {
  const unpack = unpackers[dtype];
  const { blockSize } = dtypes[dtype];
  if (unpack === undefined || count % blockSize !== 0 || data.length < byteLength(dtype, count)) {
    throw new CheckpointError('cannot be unpacked', {
      where: dtype,
      expected:
        unpack === undefined
          ? `a block format (${Object.keys(unpackers).join(', ')})`
          : `${byteLength(dtype, count)} bytes, whole blocks of ${blockSize}`,
      got: unpack === undefined ? dtype : `${data.length} bytes for ${count} elements`,
      remedy: 'Read whole blocks of a quantised tensor',
    });
  }
  const out = new Float32Array(count);
  unpack(data, count / blockSize, out);
  return out;
}
