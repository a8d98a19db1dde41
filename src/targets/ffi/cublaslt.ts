// cuBLASLt, used as one more way to multiply where it is found; never required.
import type { FloatDType } from '../../base/dtype.ts';
import { TargetError } from '../../base/errors.ts';
import type { DevicePtr, StreamHandle } from './cuda-driver.ts';
import { findLibrary, type Library } from './library.ts';
import { cudaLibraryNames } from './nvrtc.ts';

const functions = {
  cublasLtCreate: ['i32', 'ptr'],
  cublasLtDestroy: ['i32', 'u64'],
  cublasLtGetVersion: ['u64'],
  cublasLtMatmulDescCreate: ['i32', 'ptr', 'i32', 'i32'],
  cublasLtMatmulDescDestroy: ['i32', 'u64'],
  cublasLtMatmulDescSetAttribute: ['i32', 'u64', 'i32', 'ptr', 'u64'],
  cublasLtMatrixLayoutCreate: ['i32', 'ptr', 'i32', 'u64', 'u64', 'i64'],
  cublasLtMatrixLayoutDestroy: ['i32', 'u64'],
  cublasLtMatmulPreferenceCreate: ['i32', 'ptr'],
  cublasLtMatmulPreferenceDestroy: ['i32', 'u64'],
  cublasLtMatmulPreferenceSetAttribute: ['i32', 'u64', 'i32', 'ptr', 'u64'],
  cublasLtMatmulAlgoGetHeuristic: ['i32', 'u64', 'u64', 'u64', 'u64', 'u64', 'u64', 'u64', 'i32', 'ptr', 'ptr'],
  cublasLtMatmulAlgoCheck: ['i32', 'u64', 'u64', 'u64', 'u64', 'u64', 'u64', 'ptr', 'ptr'],
  cublasLtMatmul: [
    'i32',
    'u64',
    'u64',
    'ptr',
    'u64',
    'u64',
    'u64',
    'u64',
    'ptr',
    'u64',
    'u64',
    'u64',
    'u64',
    'ptr',
    'u64',
    'u64',
    'u64',
  ],
} as const;

const dataTypes: Record<FloatDType, number> = { float32: 0, float16: 2, bfloat16: 14 };

/** y[m, n] = x[m, k] · w[n, k]ᵀ (+ bias[n]) (+ residual, rows ldr or else ldy apart). */
export interface LtProblem {
  readonly dtype: FloatDType;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly ldx: number;
  readonly ldy: number;
  readonly ldr?: number;
  readonly bias: boolean;
  readonly residual: boolean;
}
export interface LtBuffers {
  readonly x: DevicePtr;
  readonly w: DevicePtr;
  readonly y: DevicePtr;
  readonly bias?: DevicePtr;
  readonly residual?: DevicePtr;
}

/** What describes a product to the library. */
interface LtShape {
  readonly desc: bigint;
  readonly w: bigint;
  readonly x: bigint;
  readonly y: bigint;
  readonly residual: bigint;
}

/** A product with its algorithm chosen. */
export interface LtMatmul extends Disposable {
  /** The algorithm as the library describes it: opaque, and the same for the same version of it alone. */
  readonly algorithm: Uint8Array;
  issue(stream: StreamHandle, buffers: LtBuffers, workspace: DevicePtr): void;
}

/** Bytes of a cublasLtMatmulAlgo_t and of a cublasLtMatmulHeuristicResult_t. */
const algorithmBytes = 64;
const resultBytes = 96;

export class CublasLt implements Disposable {
  /** Bytes every product may use as workspace: what NVIDIA advises for Hopper. */
  static readonly workspaceBytes = 32 << 20;
  readonly #library: Library<typeof functions>;
  readonly #handle: bigint;
  readonly version: number;

  private constructor(library: Library<typeof functions>) {
    this.#library = library;
    this.#handle = this.#make('cublasLtCreate', (out) => library.fn.cublasLtCreate(out));
    this.version = Number(library.fn.cublasLtGetVersion());
  }

  /** The library when it is found; a CUDA context must be current. */
  static find(folders: readonly string[] = []): CublasLt | undefined {
    const library = findLibrary({
      what: 'cuBLASLt',
      names: cudaLibraryNames('libcublasLt', folders),
      functions,
      remedy: 'Install the CUDA toolkit, or do without: TypeRT has its own kernels.',
    });
    return library === undefined ? undefined : new CublasLt(library);
  }

  [Symbol.dispose](): void {
    this.#library.fn.cublasLtDestroy(this.#handle);
    this.#library[Symbol.dispose]();
  }

  #check(call: string, code: number): void {
    if (code !== 0) throw new TargetError(`${call} failed: cuBLAS status ${code}`);
  }

  #make(call: string, fill: (out: BigUint64Array) => number): bigint {
    const out = new BigUint64Array(1);
    this.#check(call, fill(out));
    return out[0]!;
  }

  /** Up to `count` algorithms that cuBLASLt thinks best, best first. */
  matmuls(problem: LtProblem, count: number): LtMatmul[] {
    const { fn } = this.#library;
    const shape = this.#describe(problem);
    const preference = this.#make('cublasLtMatmulPreferenceCreate', (out) => fn.cublasLtMatmulPreferenceCreate(out));
    const bytes = BigUint64Array.of(BigInt(CublasLt.workspaceBytes));
    // CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES
    fn.cublasLtMatmulPreferenceSetAttribute(preference, 1, bytes, 8);
    const results = new Uint8Array(resultBytes * count);
    const returned = new Int32Array(1);
    const { desc, w, x, y } = shape;
    const code = fn.cublasLtMatmulAlgoGetHeuristic(
      this.#handle,
      desc,
      w,
      x,
      y,
      y,
      preference,
      count,
      results,
      returned,
    );
    fn.cublasLtMatmulPreferenceDestroy(preference);
    this.#forget(shape);
    return Array.from({ length: code === 0 ? returned[0]! : 0 }, (_, i) =>
      this.#matmul(problem, results.slice(i * resultBytes, i * resultBytes + algorithmBytes)),
    );
  }

  /** The product by an algorithm found before; undefined when this library or device does not have it. */
  matmul(problem: LtProblem, algorithm: Uint8Array): LtMatmul | undefined {
    if (algorithm.length !== algorithmBytes) return undefined;
    const shape = this.#describe(problem);
    const { desc, w, x, y } = shape;
    const result = new Uint8Array(resultBytes);
    const code = this.#library.fn.cublasLtMatmulAlgoCheck(this.#handle, desc, w, x, y, y, algorithm, result);
    this.#forget(shape);
    return code === 0 ? this.#matmul(problem, algorithm) : undefined;
  }

  #matmul(problem: LtProblem, algorithm: Uint8Array): LtMatmul {
    const { fn } = this.#library;
    const shape = this.#describe(problem);
    const { desc, w, x, y } = shape;
    const alpha = Float32Array.of(1);
    const beta = Float32Array.of(problem.residual ? 1 : 0);
    let closed = false;
    return {
      algorithm,
      issue: (stream, buffers, workspace) => {
        // CUBLASLT_MATMUL_DESC_BIAS_POINTER
        if (buffers.bias !== undefined) this.#set(desc, 8, BigUint64Array.of(buffers.bias));
        const c = buffers.residual ?? buffers.y;
        const status = fn.cublasLtMatmul(
          this.#handle,
          desc,
          alpha,
          buffers.w,
          w,
          buffers.x,
          x,
          beta,
          c,
          problem.residual ? shape.residual : y,
          buffers.y,
          y,
          algorithm,
          workspace,
          CublasLt.workspaceBytes,
          stream,
        );
        this.#check('cublasLtMatmul', status);
      },
      [Symbol.dispose]: () => {
        if (closed) return;
        closed = true;
        this.#forget(shape);
      },
    };
  }

  #set(desc: bigint, attribute: number, value: ArrayBufferView): void {
    const { fn } = this.#library;
    this.#check(
      'cublasLtMatmulDescSetAttribute',
      fn.cublasLtMatmulDescSetAttribute(desc, attribute, value, value.byteLength),
    );
  }

  /** Column-major, so transposed: yᵀ[n, m] = (wᵀ)ᵀ · xᵀ. */
  #describe({ dtype, m, n, k, ldx, ldy, ldr, bias }: LtProblem): LtShape {
    const { fn } = this.#library;
    const type = dataTypes[dtype];
    // CUBLAS_COMPUTE_32F: full float32, TF32 off.
    const desc = this.#make('cublasLtMatmulDescCreate', (out) => fn.cublasLtMatmulDescCreate(out, 68, 0));
    const layout = (rows: number, columns: number, ld: number): bigint =>
      this.#make('cublasLtMatrixLayoutCreate', (out) => fn.cublasLtMatrixLayoutCreate(out, type, rows, columns, ld));
    this.#set(desc, 3, Int32Array.of(1)); // CUBLASLT_MATMUL_DESC_TRANSA = CUBLAS_OP_T
    if (bias) this.#set(desc, 7, Int32Array.of(4)); // CUBLASLT_MATMUL_DESC_EPILOGUE = CUBLASLT_EPILOGUE_BIAS
    return {
      desc,
      w: layout(k, n, k),
      x: layout(k, m, ldx),
      y: layout(n, m, ldy),
      residual: layout(n, m, ldr ?? ldy),
    };
  }

  #forget({ desc, w, x, y, residual }: LtShape): void {
    const { fn } = this.#library;
    for (const handle of [w, x, y, residual]) fn.cublasLtMatrixLayoutDestroy(handle);
    fn.cublasLtMatmulDescDestroy(desc);
  }
}
