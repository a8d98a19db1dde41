// TypeRT's own weights of 8 and 4 bits in groups of 32, 64 or 128, with and without a zero point: quantised round-to-nearest, and unpacked. A block is
// a half of scale, with a zero point a half of minimum, then the numbers, by 32: bytes, or nibbles with elements i and i + 16 in a byte. Groups of 32
// are GGUF's Q8_0, Q4_0 and Q4_1 where those say the same.
import { byteLength, type DType, dtypes, fromFloat16Bits, toFloat16Bits } from '../../base/dtype.ts';

/** Sizes of groups that there are. */
export const groupSizes = [32, 64, 128] as const;
export type GroupSize = (typeof groupSizes)[number];
export type GroupBits = 8 | 4;

/** What a block of such a dtype holds. */
export interface GroupFormat {
  readonly bits: GroupBits;
  readonly size: GroupSize;
  readonly zeroPoint: boolean;
}

const formats: Partial<Record<DType, GroupFormat>> = {
  q8_0: { bits: 8, size: 32, zeroPoint: false },
  w8_64: { bits: 8, size: 64, zeroPoint: false },
  w8_128: { bits: 8, size: 128, zeroPoint: false },
  w8z_32: { bits: 8, size: 32, zeroPoint: true },
  w8z_64: { bits: 8, size: 64, zeroPoint: true },
  w8z_128: { bits: 8, size: 128, zeroPoint: true },
  q4_0: { bits: 4, size: 32, zeroPoint: false },
  w4_64: { bits: 4, size: 64, zeroPoint: false },
  w4_128: { bits: 4, size: 128, zeroPoint: false },
  q4_1: { bits: 4, size: 32, zeroPoint: true },
  w4z_64: { bits: 4, size: 64, zeroPoint: true },
  w4z_128: { bits: 4, size: 128, zeroPoint: true },
};

/** What a dtype of groups holds; undefined for other dtypes. */
export function groupFormat(dtype: DType): GroupFormat | undefined {
  return formats[dtype];
}

/** The dtype of weights in such groups. */
export function groupDType({ bits, size, zeroPoint }: GroupFormat): DType {
  const found = Object.entries(formats).find(
    ([, format]) => format.bits === bits && format.size === size && format.zeroPoint === zeroPoint,
  );
  return found![0] as DType;
}

/** Scale and minimum of a group, as halves hold them: a number q means scale · q + minimum. */
function rangeOf(values: Float32Array, { bits, zeroPoint }: GroupFormat): { scale: number; minimum: number } {
  let [low, high, most] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
    if (Math.abs(value) > Math.abs(most)) most = value;
  }
  const half = (value: number): number => fromFloat16Bits(toFloat16Bits(value));
  if (!zeroPoint) {
    // Four bits reach from -8 to 7: the largest value gets the end that reaches further.
    return { scale: half(bits === 8 ? Math.abs(most) / 127 : most / -8), minimum: 0 };
  }
  const scale = half((high - low) / (2 ** bits - 1));
  // Bytes are signed: what the middle means is kept in their stead.
  return { scale, minimum: half(bits === 8 ? low + 128 * scale : low) };
}

/** Quantises whole groups: each number is the nearest that its group's scale reaches. */
export function quantizeGroups(dtype: DType, values: Float32Array): Uint8Array {
  const format = formats[dtype]!;
  const { bits, size, zeroPoint } = format;
  const out = new Uint8Array(byteLength(dtype, values.length));
  const view = new DataView(out.buffer);
  const head = zeroPoint ? 4 : 2;
  // Nibbles count from 0: without a zero point 8 stands for it.
  const [least, largest, shift] = bits === 8 ? [zeroPoint ? -128 : -127, 127, 0] : zeroPoint ? [0, 15, 0] : [-8, 7, 8];
  for (let from = 0, at = 0; from < values.length; from += size, at += dtypes[dtype].blockBytes) {
    const group = values.subarray(from, from + size);
    const { scale, minimum } = rangeOf(group, format);
    const inverse = scale === 0 ? 0 : 1 / scale;
    view.setUint16(at, toFloat16Bits(scale), true);
    if (zeroPoint) view.setUint16(at + 2, toFloat16Bits(minimum), true);
    for (let i = 0; i < size; i++) {
      const nearest = Math.round((group[i]! - minimum) * inverse);
      const q = Math.max(least, Math.min(nearest, largest)) + shift;
      if (bits === 8) out[at + head + i] = q;
      else out[at + head + (i >> 5) * 16 + (i & 15)]! |= (i & 16) === 0 ? q : q << 4;
    }
  }
  return out;
}

/** Unpacks whole groups to float32, rounding products as GGUF's formats do. */
export function dequantizeGroups(dtype: DType, bytes: Uint8Array, blocks: number, out: Float32Array): void {
  const { bits, size, zeroPoint } = formats[dtype]!;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const head = zeroPoint ? 4 : 2;
  const shift = bits === 4 && !zeroPoint ? 8 : 0;
  for (let block = 0, at = 0, to = 0; block < blocks; block++, at += dtypes[dtype].blockBytes, to += size) {
    const scale = fromFloat16Bits(view.getUint16(at, true));
    const minimum = zeroPoint ? fromFloat16Bits(view.getUint16(at + 2, true)) : 0;
    for (let i = 0; i < size; i++) {
      let q: number;
      if (bits === 8) q = view.getInt8(at + head + i);
      else q = ((bytes[at + head + (i >> 5) * 16 + (i & 15)]! >> ((i & 16) === 0 ? 0 : 4)) & 15) - shift;
      out[to + i] = Math.fround(scale * q) + minimum;
    }
  }
}
