// Sampling on CUDA, two launches: a scan of all logits by chunks, then one block a row that draws (cuda-scan.cuh, cuda-pick.cuh).
import type { FloatDType } from '../../base/dtype.ts';
import { type CudaArg, type CudaLaunch, cudaTypes, symbolName } from '../cuda-kernel.ts';

export interface SampleProblem {
  readonly dtype: FloatDType;
  readonly rows: number;
  readonly vocab: number;
  readonly ld: number;
}

/** As in cuda-common.cuh. */
const chunkSize = 8192;
const chunkBytes = 16;
const groupBytes = (chunkSize / 64) * 4;

/** Bytes of workspace: what the scan leaves for the draw. */
export function sampleWorkspace({ rows, vocab }: SampleProblem): number {
  return rows * Math.ceil(vocab / chunkSize) * (chunkBytes + groupBytes);
}

/** Buffers: logits, temperature, topK, topP, minP, seedLow, seedHigh, counter, token, logprob, workspace. */
export function sampleLaunches(problem: SampleProblem): readonly CudaLaunch[] {
  const { dtype, rows, vocab, ld } = problem;
  const type = cudaTypes[dtype];
  const names = ['logits', 'temperature', 'topK', 'topP', 'minP', 'seedLow', 'seedHigh', 'counter', 'token', 'logprob'];
  const chunks = Math.ceil(vocab / chunkSize);
  const args: readonly CudaArg[] = [
    ...names.map((buffer): CudaArg => ({ kind: 'pointer', buffer })),
    { kind: 'pointer', buffer: 'workspace' },
    { kind: 'pointer', buffer: 'workspace', offset: rows * chunks * chunkBytes },
    { kind: 'i32', value: vocab },
    { kind: 'i32', value: ld },
  ];
  const make = (name: string, template: string) => ({
    name: symbolName(name, type),
    include: `sample/cuda-${name === 'sample_scan' ? 'scan' : 'pick'}.cuh`,
    type: `${template}<${type}>`,
  });
  const base = { overlap: true, args };
  return [
    { ...base, kernel: make('sample_scan', 'SampleScan'), grid: [chunks, rows, 1], threads: 256, sharedBytes: 0 },
    { ...base, kernel: make('sample_pick', 'SamplePick'), grid: [rows, 1, 1], threads: 1024, sharedBytes: pickBytes },
  ];
}

/** Keys, tokens and groups of 8192 candidates, and a little more. */
const pickBytes = 8192 * 10 + 1024;
