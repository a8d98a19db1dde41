// Conversion of whole tensors between dtypes.
import {
  byteLength,
  type DType,
  elementCount,
  fromFloat16Bits,
  isBlockDType,
  toBFloat16Bits,
  toFloat16Bits,
} from '../../base/dtype.ts';
import { CheckpointError } from '../../base/errors.ts';
import { dequantize } from './gguf-blocks.ts';
import { groupFormat, quantizeGroups } from './group-blocks.ts';
import type { TensorData } from './tensors.ts';

/** Bytes at an address that typed arrays accept. */
function aligned(bytes: Uint8Array, size: number): Uint8Array {
  return bytes.byteOffset % size === 0 ? bytes : bytes.slice();
}

function typed<View>(
  Type: { new (buffer: ArrayBuffer, offset: number, length: number): View; BYTES_PER_ELEMENT: number },
  data: Uint8Array,
): View {
  const bytes = aligned(data, Type.BYTES_PER_ELEMENT);
  return new Type(bytes.buffer as ArrayBuffer, bytes.byteOffset, Math.floor(bytes.length / Type.BYTES_PER_ELEMENT));
}

let halves: Float32Array | undefined;
/** Every half's value, by its bits. */
function halfTable(): Float32Array {
  halves ??= Float32Array.from({ length: 65536 }, (_, bits) => fromFloat16Bits(bits));
  return halves;
}

/** The tensor's values as float32 (block formats are unpacked). */
export function toFloat32(tensor: TensorData): Float32Array {
  const { dtype, data } = tensor;
  const n = elementCount(tensor.shape);
  switch (dtype) {
    case 'float32':
      return typed(Float32Array, data);
    case 'float64':
      return Float32Array.from(typed(Float64Array, data));
    case 'bfloat16': {
      const from = typed(Uint16Array, data);
      const bits = new Uint32Array(n);
      for (let i = 0; i < n; i++) bits[i] = from[i]! << 16;
      return new Float32Array(bits.buffer);
    }
    case 'float16': {
      const from = typed(Uint16Array, data);
      const table = halfTable();
      const out = new Float32Array(n);
      for (let i = 0; i < n; i++) out[i] = table[from[i]!]!;
      return out;
    }
    case 'int8':
      return Float32Array.from(typed(Int8Array, data));
    case 'uint8':
    case 'bool':
      return Float32Array.from(data);
    case 'int16':
      return Float32Array.from(typed(Int16Array, data));
    case 'int32':
      return Float32Array.from(typed(Int32Array, data));
    case 'int64':
      return Float32Array.from(typed(BigInt64Array, data), Number);
    default:
      return dequantize(dtype, data, n);
  }
}

/** The tensor in `dtype`; itself when it is that already. Of block formats only groups can be a destination: they are quantised. */
export function castTensor(tensor: TensorData, dtype: DType): TensorData {
  if (tensor.dtype === dtype) return tensor;
  if (groupFormat(dtype) !== undefined && !isBlockDType(tensor.dtype))
    return { dtype, shape: tensor.shape, data: quantizeGroups(dtype, toFloat32(tensor)) };
  if (isBlockDType(dtype) || !(dtype === 'float32' || dtype === 'bfloat16' || dtype === 'float16')) {
    throw new CheckpointError('no such conversion', {
      expected: 'float32, bfloat16 or float16',
      got: `${tensor.dtype} → ${dtype}`,
    });
  }
  const from = toFloat32(tensor);
  const { shape } = tensor;
  if (dtype === 'float32') return { dtype, shape, data: new Uint8Array(from.buffer, from.byteOffset, from.byteLength) };
  const bits = new Uint16Array(byteLength(dtype, from.length) / 2);
  const convert = dtype === 'bfloat16' ? toBFloat16Bits : toFloat16Bits;
  for (let i = 0; i < from.length; i++) bits[i] = convert(from[i]!);
  return { dtype, shape, data: new Uint8Array(bits.buffer) };
}
