// cuBLASLt on a device: its handle, its workspace, and products made ready for a stream.
import { TargetError } from '../../base/errors.ts';
import { CublasLt, type LtBuffers, type LtMatmul, type LtProblem } from '../ffi/cublaslt.ts';
import type { Plan } from '../plan.ts';
import type { CudaDevice, DeviceBuffer } from './device.ts';
import type { Buffers, PreparedWork } from './launch.ts';
import type { Stream } from './stream.ts';

/** A product that cuBLASLt computes. */
export interface LtLaunch {
  readonly problem: LtProblem;
  /** Hexadecimal digits. */
  readonly algorithm: string;
}

export class LtProducts implements Disposable {
  readonly version: number;
  readonly #library: CublasLt;
  readonly #workspace: DeviceBuffer;
  readonly #known = new Map<string, LtMatmul>();

  private constructor(library: CublasLt, workspace: DeviceBuffer) {
    this.#library = library;
    this.#workspace = workspace;
    this.version = library.version;
  }

  /** Opens the library where it is found and, when `version` is given, is that one. The device is the current one. */
  static find(device: CudaDevice, version?: number): LtProducts | undefined {
    const library = CublasLt.find();
    if (library === undefined) return undefined;
    if (version !== undefined && library.version !== version) {
      library[Symbol.dispose]();
      return undefined;
    }
    try {
      return new LtProducts(library, device.allocate(CublasLt.workspaceBytes, 'workspace of cuBLASLt'));
    } catch (error) {
      library[Symbol.dispose]();
      throw error;
    }
  }

  /** The algorithms that the library thinks best for a problem, in hexadecimal digits. */
  algorithms(problem: LtProblem, count: number): string[] {
    return this.#library.matmuls(problem, count).map((matmul) => {
      matmul[Symbol.dispose]();
      return Buffer.from(matmul.algorithm).toString('hex');
    });
  }

  /** Makes a product ready; throws TargetError when the library does not have the algorithm. */
  prepare({ problem, algorithm }: LtLaunch, buffers: Buffers): PreparedWork {
    const key = `${JSON.stringify(problem)} ${algorithm}`;
    let matmul = this.#known.get(key);
    if (matmul === undefined) {
      matmul = this.#library.matmul(problem, Buffer.from(algorithm, 'hex'));
      if (matmul === undefined)
        throw new TargetError('cuBLASLt does not have an algorithm that the engine was tuned with', {
          where: key,
          remedy: 'Build the engine again, or with --no-cublaslt',
        });
      this.#known.set(key, matmul);
    }
    const { x, w, y } = buffers;
    if (x === undefined || w === undefined || y === undefined)
      throw new TargetError('a product names a buffer that is not there', { where: key, expected: 'x, w and y' });
    const given: LtBuffers = {
      ...{ x, w, y },
      ...(problem.bias && buffers.bias !== undefined ? { bias: buffers.bias } : {}),
      ...(problem.residual && buffers.residual !== undefined ? { residual: buffers.residual } : {}),
    };
    const ready = matmul;
    const workspace = this.#workspace.ptr;
    return { name: 'cublaslt', issue: (stream: Stream) => ready.issue(stream.handle, given, workspace) };
  }

  [Symbol.dispose](): void {
    for (const matmul of this.#known.values()) matmul[Symbol.dispose]();
    this.#workspace[Symbol.dispose]();
    this.#library[Symbol.dispose]();
  }
}

/** The version of cuBLASLt that the plan's tactics want; undefined where they want none. */
export function ltVersion({ tactics }: Plan): number | undefined {
  for (const ranges of Object.values(tactics?.problems ?? {}))
    for (const { config } of ranges) if (config.kind === 'cublaslt') return config.version as number;
  return undefined;
}
