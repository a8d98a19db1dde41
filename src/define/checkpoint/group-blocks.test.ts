// Weights in groups: what is unpacked is within half a step of what was quantised, at the bits that the format says.
import { describe, expect, test } from 'vitest';
import { byteLength, type DType, dtypes } from '../../base/dtype.ts';
import { castTensor, toFloat32 } from './cast.ts';
import { groupDType, groupFormat, groupSizes, quantizeGroups } from './group-blocks.ts';

const all: DType[] = ([8, 4] as const).flatMap((bits) =>
  groupSizes.flatMap((size) => [false, true].map((zeroPoint) => groupDType({ bits, size, zeroPoint }))),
);
const count = 256;
const wave = Float32Array.from({ length: count }, (_, i) => Math.sin(i * 1.7) * (1 + (i >> 5)) + 0.6);
const unpacked = (dtype: DType, data: Uint8Array): Float32Array => toFloat32({ dtype, shape: [count], data });

describe.each(all)('%s', (dtype) => {
  const { bits, size, zeroPoint } = groupFormat(dtype)!;

  test('has the bits that it says', () => {
    expect(all.filter((other) => other === dtype)).toHaveLength(1);
    expect(dtypes[dtype].blockSize).toBe(size);
    expect(dtypes[dtype].blockBytes).toBe((size * bits) / 8 + (zeroPoint ? 4 : 2));
  });

  test('gives back each number to half a step', () => {
    const data = quantizeGroups(dtype, wave);
    expect(data.length).toBe(byteLength(dtype, count));
    const back = unpacked(dtype, data);
    for (let from = 0; from < count; from += size) {
      const group = wave.subarray(from, from + size);
      const [low, high] = [Math.min(...group), Math.max(...group)];
      const most = Math.max(Math.abs(low), Math.abs(high));
      const step = zeroPoint ? (high - low) / (2 ** bits - 1) : bits === 8 ? most / 127 : most / 8;
      // Halves round scale and minimum; of four signed bits the far end of the smaller side is one step short.
      const slack = most * 2 ** -10 + (bits === 4 && !zeroPoint ? step / 2 : 0);
      group.forEach((value, i) => {
        expect(Math.abs(back[from + i]! - value)).toBeLessThanOrEqual(step / 2 + slack);
      });
    }
  });

  test('keeps what it has quantised once', () => {
    const back = unpacked(dtype, quantizeGroups(dtype, wave));
    const again = unpacked(dtype, quantizeGroups(dtype, back));
    const most = Math.max(...wave.map(Math.abs));
    again.forEach((value, i) => {
      expect(Math.abs(value - back[i]!)).toBeLessThan(most * 2e-3);
    });
  });

  test('of zeros is zeros, of one number that number', () => {
    expect(unpacked(dtype, quantizeGroups(dtype, new Float32Array(count))).every((value) => value === 0)).toBe(true);
    const same = unpacked(dtype, quantizeGroups(dtype, new Float32Array(count).fill(0.5)));
    for (const value of same) expect(value).toBeCloseTo(0.5, 3);
  });
});

test('GGUF’s groups are these, bit for bit', () => {
  const bytes = quantizeGroups(
    'q4_0',
    Float32Array.from({ length: 32 }, (_, i) => (i - 16) / 2),
  );
  // The largest magnitude is -8, at the end that reaches further: a scale of 1.
  expect([bytes[0], bytes[1]]).toEqual([0x00, 0x3c]);
  expect(bytes[2]! & 15).toBe(0);
  expect(bytes[2]! >> 4).toBe(8);
});

test('casting quantises floats, and does not quantise twice', () => {
  const floats = { dtype: 'float32', shape: [2, 128], data: new Uint8Array(wave.buffer) } as const;
  const packed = castTensor(floats, 'w4z_128');
  expect(packed).toMatchObject({ dtype: 'w4z_128', shape: [2, 128] });
  expect(() => castTensor(packed, 'w8_64')).toThrow(/no such conversion/);
});
