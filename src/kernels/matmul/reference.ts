// y = x · weightᵀ + bias, in double precision, four rows of x at a time so that a weight is read once for them.

import type { OpAttrs } from '../../define/graph/ops.ts';
import { normTensor } from '../norm/reference.ts';
import { activations } from '../pointwise/reference.ts';
import type { RefArgs, ReferenceKernel, RefTensor } from '../reference.ts';

/** Inner products of `rows` (1 to 4) rows of x with one row of the weight; the result is left in `sums`. */
const sums = new Float64Array(4);

function dot1(x: Float32Array, x0: number, w: Float32Array, at: number, k: number): void {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  let i = 0;
  for (; i + 3 < k; i += 4) {
    a += x[x0 + i]! * w[at + i]!;
    b += x[x0 + i + 1]! * w[at + i + 1]!;
    c += x[x0 + i + 2]! * w[at + i + 2]!;
    d += x[x0 + i + 3]! * w[at + i + 3]!;
  }
  for (; i < k; i++) a += x[x0 + i]! * w[at + i]!;
  sums[0] = a + b + (c + d);
}

function dot4(x: Float32Array, x0: number, stride: number, w: Float32Array, at: number, k: number): void {
  const x1 = x0 + stride;
  const x2 = x1 + stride;
  const x3 = x2 + stride;
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  for (let i = 0; i < k; i++) {
    const weight = w[at + i]!;
    a += x[x0 + i]! * weight;
    b += x[x1 + i]! * weight;
    c += x[x2 + i]! * weight;
    d += x[x3 + i]! * weight;
  }
  sums[0] = a;
  sums[1] = b;
  sums[2] = c;
  sums[3] = d;
}

/** y[m, n] = Σₖ x[m, k] · w[n, k] + bias[n] for all m and n; `at` is where the weight matrix begins in `w`. */
export function multiply(
  x: Float32Array,
  xStride: number,
  rows: number,
  w: Float32Array,
  at: number,
  n: number,
  k: number,
  bias: Float32Array | undefined,
  y: Float32Array,
  yStride: number,
): void {
  let row = 0;
  for (; row + 3 < rows; row += 4) {
    for (let col = 0; col < n; col++) {
      dot4(x, row * xStride, xStride, w, at + col * k, k);
      const b = bias === undefined ? 0 : bias[col]!;
      const to = row * yStride + col;
      y[to] = sums[0]! + b;
      y[to + yStride] = sums[1]! + b;
      y[to + 2 * yStride] = sums[2]! + b;
      y[to + 3 * yStride] = sums[3]! + b;
    }
  }
  for (; row < rows; row++) {
    for (let col = 0; col < n; col++) {
      dot1(x, row * xStride, w, at + col * k, k);
      y[row * yStride + col] = sums[0]! + (bias === undefined ? 0 : bias[col]!);
    }
  }
}

/** What is multiplied: x, or its norm. */
function operand(args: RefArgs, norm: { readonly eps: number; readonly weightOffset: number } | undefined): RefTensor {
  const x = args.tensor('x');
  if (norm === undefined) return x;
  const normed = args.tensor('normed');
  normTensor('rms', x, normed, norm.eps, args.optional('normWeight')?.data, norm.weightOffset, undefined);
  return normed;
}

export const matmul: ReferenceKernel<'matmul'> = (args, attrs) => {
  multiplyAll(args, attrs);
  const residual = args.optional('residual');
  if (residual === undefined) return;
  const y = args.tensor('y');
  const [rows, cols] = y.shape as [number, number];
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < cols; c++) y.data[r * y.stride + c]! += residual.data[r * residual.stride + c]!;
};

function multiplyAll(args: RefArgs, { gated, norm }: OpAttrs['matmul']): void {
  const x = operand(args, norm);
  const weight = args.tensor('weight');
  const y = args.tensor('y');
  const [n, k] = weight.shape as [number, number];
  if (gated !== undefined) {
    const both = new Float32Array(n);
    const [activate, half] = [activations[gated], n / 2];
    for (let row = 0; row < x.shape[0]!; row++) {
      multiply(
        x.data.subarray(row * x.stride),
        x.stride,
        1,
        weight.data,
        0,
        n,
        k,
        args.optional('bias')?.data,
        both,
        n,
      );
      for (let i = 0; i < half; i++) y.data[row * y.stride + i] = Math.fround(activate(both[i]!)) * both[half + i]!;
    }
    return;
  }
  multiply(x.data, x.stride, x.shape[0]!, weight.data, 0, n, k, args.optional('bias')?.data, y.data, y.stride);
}
