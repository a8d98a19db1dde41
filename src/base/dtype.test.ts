import { describe, expect, test } from 'vitest';
import {
  byteLength,
  fromBFloat16Bits,
  fromFloat16Bits,
  roundArray,
  roundTo,
  toBFloat16Bits,
  toFloat16Bits,
} from './dtype.ts';

describe('narrow floats', () => {
  test('every half and bfloat16 survives the round trip', () => {
    for (let bits = 0; bits < 65536; bits++) {
      const half = fromFloat16Bits(bits);
      if (!Number.isNaN(half)) expect(toFloat16Bits(half)).toBe(bits);
      const brain = fromBFloat16Bits(bits);
      if (!Number.isNaN(brain)) expect(toBFloat16Bits(brain)).toBe(bits);
    }
  });

  test('rounds to the nearest, ties to even', () => {
    expect(roundTo('bfloat16', 1 + 2 ** -8)).toBe(1);
    expect(roundTo('bfloat16', 1 + 3 * 2 ** -8)).toBe(1 + 2 ** -6);
    expect(roundTo('float16', 1 + 2 ** -11)).toBe(1);
    expect(roundTo('float16', 1 + 3 * 2 ** -11)).toBe(1 + 2 ** -9);
    expect(roundTo('float16', 2 ** -25)).toBe(0);
    expect(roundTo('float16', 3 * 2 ** -25)).toBe(2 ** -23);
    expect(roundTo('float16', 65520)).toBe(Number.POSITIVE_INFINITY);
    expect(roundTo('float16', 65519)).toBe(65504);
  });

  test('NaN and infinity stay what they are', () => {
    const data = Float32Array.of(Number.NaN, Number.POSITIVE_INFINITY, -1.1);
    roundArray('bfloat16', data);
    expect(Number.isNaN(data[0]!)).toBe(true);
    expect(data[1]).toBe(Number.POSITIVE_INFINITY);
    expect(data[2]).toBe(roundTo('bfloat16', -1.1));
    expect(Number.isNaN(fromFloat16Bits(toFloat16Bits(Number.NaN)))).toBe(true);
  });

  test('block formats count whole blocks', () => {
    expect(byteLength('q4_1', 64)).toBe(40);
    expect(byteLength('q6_k', 512)).toBe(420);
    expect(byteLength('bfloat16', 3)).toBe(6);
  });
});
