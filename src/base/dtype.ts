// Element types of tensors: what computation uses (float32, bfloat16, float16, integers) and what weights may be stored in besides
// (GGUF's block formats). Block formats describe rows of `blockSize` elements in `blockBytes` bytes.

export const dtypes = {
  float32: { blockSize: 1, blockBytes: 4, safetensors: 'F32' },
  float16: { blockSize: 1, blockBytes: 2, safetensors: 'F16' },
  bfloat16: { blockSize: 1, blockBytes: 2, safetensors: 'BF16' },
  float64: { blockSize: 1, blockBytes: 8, safetensors: 'F64' },
  int64: { blockSize: 1, blockBytes: 8, safetensors: 'I64' },
  int32: { blockSize: 1, blockBytes: 4, safetensors: 'I32' },
  int16: { blockSize: 1, blockBytes: 2, safetensors: 'I16' },
  int8: { blockSize: 1, blockBytes: 1, safetensors: 'I8' },
  uint8: { blockSize: 1, blockBytes: 1, safetensors: 'U8' },
  bool: { blockSize: 1, blockBytes: 1, safetensors: 'BOOL' },
  // GGUF block formats (ggml-common.h): stored bit for bit, U8 in a safetensors file.
  q4_0: { blockSize: 32, blockBytes: 18, safetensors: 'U8' },
  q4_1: { blockSize: 32, blockBytes: 20, safetensors: 'U8' },
  q5_0: { blockSize: 32, blockBytes: 22, safetensors: 'U8' },
  q5_1: { blockSize: 32, blockBytes: 24, safetensors: 'U8' },
  q8_0: { blockSize: 32, blockBytes: 34, safetensors: 'U8' },
  q2_k: { blockSize: 256, blockBytes: 84, safetensors: 'U8' },
  q3_k: { blockSize: 256, blockBytes: 110, safetensors: 'U8' },
  q4_k: { blockSize: 256, blockBytes: 144, safetensors: 'U8' },
  q5_k: { blockSize: 256, blockBytes: 176, safetensors: 'U8' },
  q6_k: { blockSize: 256, blockBytes: 210, safetensors: 'U8' },
  // TypeRT's own weights of 8 and 4 bits in groups: a half of scale and, with a zero point (z), a half of minimum; then the numbers, by 32 as in
  // Q8_0 and Q4_0. The groups of 32 that are missing here are Q8_0, Q4_0 and Q4_1 bit for bit.
  w8_64: { blockSize: 64, blockBytes: 66, safetensors: 'U8' },
  w8_128: { blockSize: 128, blockBytes: 130, safetensors: 'U8' },
  w8z_32: { blockSize: 32, blockBytes: 36, safetensors: 'U8' },
  w8z_64: { blockSize: 64, blockBytes: 68, safetensors: 'U8' },
  w8z_128: { blockSize: 128, blockBytes: 132, safetensors: 'U8' },
  w4_64: { blockSize: 64, blockBytes: 34, safetensors: 'U8' },
  w4_128: { blockSize: 128, blockBytes: 66, safetensors: 'U8' },
  w4z_64: { blockSize: 64, blockBytes: 36, safetensors: 'U8' },
  w4z_128: { blockSize: 128, blockBytes: 68, safetensors: 'U8' },
} as const;

/** Every dtype that a tensor of a checkpoint, graph or engine may have. */
export type DType = keyof typeof dtypes;
/** The types that activations and arithmetic use. */
export type FloatDType = 'float32' | 'bfloat16' | 'float16';
export const floatDTypes: readonly FloatDType[] = ['float32', 'bfloat16', 'float16'];

export function isFloatDType(value: unknown): value is FloatDType {
  return value === 'float32' || value === 'bfloat16' || value === 'float16';
}

/** True for formats that pack several elements in a block (quantised). */
export function isBlockDType(dtype: DType): boolean {
  return dtypes[dtype].blockSize > 1;
}

/** Elements of a shape whose sizes are known. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}

/** Bytes of `count` elements; `count` must be a multiple of the format's block size. */
export function byteLength(dtype: DType, count: number): number {
  const { blockSize, blockBytes } = dtypes[dtype];
  return Math.ceil(count / blockSize) * blockBytes;
}

const scratchF32 = new Float32Array(1);
const scratchU32 = new Uint32Array(scratchF32.buffer);

/** float32 → bfloat16 bits, round to nearest even; NaN stays NaN. */
export function toBFloat16Bits(value: number): number {
  scratchF32[0] = value;
  const bits = scratchU32[0]!;
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

export function fromBFloat16Bits(bits: number): number {
  scratchU32[0] = bits << 16;
  return scratchF32[0]!;
}

/** float32 → IEEE half bits, round to nearest even; overflow becomes infinity. */
export function toFloat16Bits(value: number): number {
  scratchF32[0] = value;
  const bits = scratchU32[0]!;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Subnormal half: the value in units of 2^-24; Math.round's ties are mended to even.
    const units = Math.abs(scratchF32[0]!) * 16777216;
    const floor = Math.floor(units);
    const rest = units - floor;
    return sign | (rest > 0.5 || (rest === 0.5 && (floor & 1) === 1) ? floor + 1 : floor);
  }
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

export function fromFloat16Bits(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Rounds `value` to what `dtype` can hold. */
export function roundTo(dtype: FloatDType, value: number): number {
  if (dtype === 'bfloat16') return fromBFloat16Bits(toBFloat16Bits(value));
  if (dtype === 'float16') return fromFloat16Bits(toFloat16Bits(value));
  return Math.fround(value);
}

/** Rounds every element in place to what `dtype` can hold. */
export function roundArray(dtype: FloatDType, data: Float32Array): void {
  if (dtype === 'float32') return;
  if (dtype === 'bfloat16') {
    const bits = new Uint32Array(data.buffer, data.byteOffset, data.length);
    for (let i = 0; i < bits.length; i++) {
      const b = bits[i]!;
      bits[i] = (b & 0x7fffffff) > 0x7f800000 ? b | 0x400000 : (b + 0x7fff + ((b >>> 16) & 1)) & 0xffff0000;
    }
    return;
  }
  for (let i = 0; i < data.length; i++) data[i] = roundTo(dtype, data[i]!);
}
