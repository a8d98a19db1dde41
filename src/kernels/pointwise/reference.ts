// Ops on elements: activations, sums, products, factors, soft caps.
import type { Activation } from '../../define/graph/ops.ts';
import type { RefArgs, ReferenceKernel } from '../reference.ts';

/** Error function to double precision: its series near zero, the continued fraction of erfc beyond. */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  if (a < 2.5) {
    let term = a;
    let sum = a;
    for (let n = 1; Math.abs(term) > 1e-17 * sum; n++) {
      term *= -(a * a) / n;
      sum += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / ((a + fraction) * Math.sqrt(Math.PI)));
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

export const activations: Readonly<Record<Activation, (x: number) => number>> = {
  silu: (x) => x * sigmoid(x),
  gelu: (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  quick_gelu: (x) => x * sigmoid(1.702 * x),
  relu: (x) => Math.max(x, 0),
  relu2: (x) => Math.max(x, 0) ** 2,
  sigmoid,
  tanh: Math.tanh,
};

function map(args: RefArgs, input: string, f: (x: number) => number): void {
  const x = args.tensor(input);
  const y = args.tensor('y');
  const [rows, cols] = x.shape as [number, number];
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) y.data[r * y.stride + c] = f(x.data[r * x.stride + c]!);
  }
}

function zip(args: RefArgs, left: string, right: string, f: (a: number, b: number) => number): void {
  const a = args.tensor(left);
  const b = args.tensor(right);
  const y = args.tensor('y');
  const [rows, cols] = a.shape as [number, number];
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) y.data[r * y.stride + c] = f(a.data[r * a.stride + c]!, b.data[r * b.stride + c]!);
  }
}

export const activation: ReferenceKernel<'activation'> = (args, { kind }) => map(args, 'x', activations[kind]);
export const gated: ReferenceKernel<'gated'> = (args, { kind }) => {
  const f = activations[kind];
  zip(args, 'gate', 'up', (gate, up) => Math.fround(f(gate)) * up);
};
export const add: ReferenceKernel<'add'> = (args) => zip(args, 'a', 'b', (a, b) => a + b);
export const mul: ReferenceKernel<'mul'> = (args) => zip(args, 'a', 'b', (a, b) => a * b);
export const scale: ReferenceKernel<'scale'> = (args, { factor }) => map(args, 'x', (x) => x * factor);
export const softcap: ReferenceKernel<'softcap'> = (args, { cap }) => map(args, 'x', (x) => cap * Math.tanh(x / cap));
