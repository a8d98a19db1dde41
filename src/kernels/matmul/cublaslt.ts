// A product by cuBLASLt, as plain data: what of the problem the library computes, and the pointwise kernel that does what it cannot.
import type { LtProblem } from '../../targets/ffi/cublaslt.ts';
import type { CudaArch, CudaLaunch } from '../cuda-kernel.ts';
import { pointwiseLaunch } from '../pointwise/cuda.ts';
import type { MatmulConfig, MatmulProblem } from './cuda.ts';

/** An algorithm of one version of the library, which describes it in hexadecimal digits. */
export type LtAlgorithm = {
  readonly kind: 'cublaslt';
  readonly version: number;
  readonly algorithm: string;
};

/** A tactic of cuBLASLt, and the own kernel that computes where that version is not found. */
export type LtConfig = LtAlgorithm & { readonly own: MatmulConfig };

export interface LtSteps {
  readonly product: LtProblem;
  /** Bytes for the product's result where it is not y itself: gate and up side by side. */
  readonly wideBytes: number;
  /** Reads the product's result as `a` (and its second half as `b`), writes `y`. */
  readonly tail?: CudaLaunch;
}

/** More than this is not written and read again for the sake of a product. */
const widest = 128 << 20;
const fields = new Set([...['dtype', 'm', 'n', 'k', 'ldx', 'ldy', 'ldr', 'bias', 'residual', 'gated', 'activation']]);

/** How cuBLASLt would compute the problem; undefined where it cannot. */
export function ltSteps(problem: MatmulProblem, arch: CudaArch): LtSteps | undefined {
  // What this file does not know of, cuBLASLt does not do.
  for (const [name, value] of Object.entries(problem)) if (!fields.has(name) && value !== undefined) return undefined;
  const { dtype, m, n, k, ldx, ldy, ldr, bias, residual, gated, activation } = problem;
  const base = { dtype, m, k, ldx, bias };
  const bytes = dtype === 'float32' ? 4 : 2;
  if ((activation !== 'none' || gated) && residual) return undefined;
  if (gated) {
    const wideBytes = m * 2 * n * bytes;
    if (wideBytes > widest) return undefined;
    const shape = { dtype, rows: m, columns: n, lda: 2 * n, ldb: 2 * n, ldy, factor: 1 };
    return {
      product: { ...base, n: 2 * n, ldy: 2 * n, residual: false },
      wideBytes,
      tail: pointwiseLaunch({ op: 'gated', activation, ...shape }, arch),
    };
  }
  const product = { ...base, n, ldy, residual, ...(ldr === undefined || !residual ? {} : { ldr }) };
  if (activation === 'none') return { product, wideBytes: 0 };
  const shape = { dtype, rows: m, columns: n, lda: ldy, ldb: 0, ldy, factor: 1 };
  return { product, wideBytes: 0, tail: pointwiseLaunch({ op: 'activation', activation, ...shape }, arch) };
}
