// Root-mean-square and layer norm over columns, with an optional residual that is added first and put out as `sum`.
import type { RefArgs, ReferenceKernel, RefTensor } from '../reference.ts';

/** Norms `size` columns of a row in place of `to`. */
export function normRow(
  kind: 'rms' | 'layer',
  from: Float32Array,
  at: number,
  size: number,
  eps: number,
  weight: Float32Array | undefined,
  weightOffset: number,
  bias: Float32Array | undefined,
  to: Float32Array,
  toAt: number,
): void {
  let mean = 0;
  if (kind === 'layer') {
    for (let i = 0; i < size; i++) mean += from[at + i]!;
    mean /= size;
  }
  let squares = 0;
  for (let i = 0; i < size; i++) squares += (from[at + i]! - mean) ** 2;
  const inverse = 1 / Math.sqrt(squares / size + eps);
  for (let i = 0; i < size; i++) {
    const normed = Math.fround((from[at + i]! - mean) * inverse);
    to[toAt + i] =
      (weight === undefined ? normed : normed * (weight[i]! + weightOffset)) + (bias === undefined ? 0 : bias[i]!);
  }
}

/** x, or x + residual written to `sum`. */
function withResidual(args: RefArgs): RefTensor {
  const x = args.tensor('x');
  const residual = args.optional('residual');
  if (residual === undefined) return x;
  const sum = args.tensor('sum');
  const [rows, cols] = x.shape as [number, number];
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++)
      sum.data[r * sum.stride + c] = x.data[r * x.stride + c]! + residual.data[r * residual.stride + c]!;
  }
  return sum;
}

/** Norms the rows of `x` into `y`. */
export function normTensor(
  kind: 'rms' | 'layer',
  x: RefTensor,
  y: RefTensor,
  eps: number,
  weight: Float32Array | undefined,
  weightOffset: number,
  bias: Float32Array | undefined,
): void {
  const [rows, cols] = x.shape as [number, number];
  for (let r = 0; r < rows; r++)
    normRow(kind, x.data, r * x.stride, cols, eps, weight, weightOffset, bias, y.data, r * y.stride);
}

function normRows(kind: 'rms' | 'layer', args: RefArgs, eps: number, weightOffset: number): void {
  const x = withResidual(args);
  const bias = kind === 'layer' ? args.optional('bias')?.data : undefined;
  normTensor(kind, x, args.tensor('y'), eps, args.optional('weight')?.data, weightOffset, bias);
}

export const rmsnorm: ReferenceKernel<'rmsnorm'> = (args, { eps, weightOffset }) =>
  normRows('rms', args, eps, weightOffset);
export const layernorm: ReferenceKernel<'layernorm'> = (args, { eps }) => normRows('layer', args, eps, 0);
