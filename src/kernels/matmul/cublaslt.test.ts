// What of a product goes to cuBLASLt, and what its own kernel does afterwards.
import { expect, test } from 'vitest';
import { ltSteps } from './cublaslt.ts';
import type { MatmulProblem } from './cuda.ts';

const arch = { sm: 90, multiprocessors: 132, maxSharedBytes: 232448 };
const plain: MatmulProblem = {
  dtype: 'bfloat16',
  m: 64,
  n: 512,
  k: 256,
  ldx: 256,
  ldy: 520,
  bias: true,
  residual: false,
  gated: false,
  activation: 'none',
};

test('bias and residual are its own', () => {
  expect(ltSteps(plain, arch)).toEqual({
    product: { dtype: 'bfloat16', m: 64, n: 512, k: 256, ldx: 256, ldy: 520, bias: true, residual: false },
    wideBytes: 0,
  });
  const added = ltSteps({ ...plain, residual: true, ldr: 600 }, arch);
  expect(added?.product).toMatchObject({ residual: true, ldr: 600, ldy: 520 });
});

test('an activation follows in place', () => {
  const steps = ltSteps({ ...plain, activation: 'gelu_tanh' }, arch)!;
  expect(steps.product.n).toBe(512);
  expect(steps.tail?.kernel.name).toBe('pointwise_bf16_activation_geluTanh');
});

test('a gated product is a wide one and the gate', () => {
  const steps = ltSteps({ ...plain, gated: true, activation: 'silu' }, arch)!;
  expect(steps.product).toMatchObject({ n: 1024, ldy: 1024 });
  expect(steps.wideBytes).toBe(64 * 1024 * 2);
  expect(steps.tail?.kernel.name).toBe('pointwise_bf16_gated_silu');
});

test('what it cannot do is left to own kernels', () => {
  expect(ltSteps({ ...plain, activation: 'silu', residual: true }, arch)).toBeUndefined();
  expect(ltSteps({ ...plain, gated: true, m: 1 << 20 }, arch)).toBeUndefined();
  expect(ltSteps({ ...plain, somethingNew: { eps: 1 } } as MatmulProblem, arch)).toBeUndefined();
});
