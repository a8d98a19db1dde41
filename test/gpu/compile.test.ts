// Every kernel template compiles for every architecture TypeRT serves, with no GPU: NVRTC alone, fetched by `node scripts/cuda-tools.mjs`.
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import type { FloatDType } from '../../src/base/dtype.ts';
import {
  type AttentionProblem,
  attentionKernel,
  decodeCandidates,
  type FreshHeads,
  prefillCandidates,
  withFreshHeads,
} from '../../src/kernels/attention/cuda.ts';
import { ropeCacheLaunch } from '../../src/kernels/attention/cuda-rope.ts';
import { type CudaArch, type CudaKernel, cudaArchFlag, cudaStub } from '../../src/kernels/cuda-kernel.ts';
import { copyBlocksLaunch, gatherLaunch } from '../../src/kernels/gather/cuda.ts';
import { type MatmulProblem, matmulKernel, normsWhileReading } from '../../src/kernels/matmul/cuda.ts';
import { matmulCandidates } from '../../src/kernels/matmul/cuda-candidates.ts';
import { expertsConfig, expertsLaunches, routeLaunch } from '../../src/kernels/moe/cuda.ts';
import { normLaunch } from '../../src/kernels/norm/cuda.ts';
import { pointwiseLaunch } from '../../src/kernels/pointwise/cuda.ts';
import { sampleLaunches } from '../../src/kernels/sample/cuda.ts';
import { Nvrtc } from '../../src/targets/ffi/nvrtc.ts';
import { KernelCache } from '../../src/targets/jit/cache.ts';
import { cudaFlags } from '../../src/targets/jit/nvrtc-compiler.ts';
import { packageKernels } from '../../src/targets/jit/sources.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const nvrtc = Nvrtc.find([`${root}/.cuda/nvidia/cu13/lib`]);
const archs: readonly CudaArch[] = [
  { sm: 80, multiprocessors: 108, maxSharedBytes: 166912 },
  { sm: 86, multiprocessors: 82, maxSharedBytes: 101376 },
  { sm: 89, multiprocessors: 128, maxSharedBytes: 101376 },
  { sm: 90, multiprocessors: 132, maxSharedBytes: 232448 },
  { sm: 100, multiprocessors: 148, maxSharedBytes: 232448 },
  { sm: 120, multiprocessors: 170, maxSharedBytes: 101376 },
];

/** One kernel of each template and each of its flags, as the heuristics choose them on that architecture. */
function kernels(arch: CudaArch): CudaKernel[] {
  const found = new Map<string, CudaKernel>();
  const add = (kernel: CudaKernel): void => void found.set(kernel.name, kernel);
  const matmul = (dtype: FloatDType, m: number, gated: boolean, n = 4096, normed = false): void => {
    const problem: MatmulProblem = {
      dtype,
      m,
      n,
      k: normed ? 2048 : 4096,
      ldx: 4096,
      ldy: n,
      bias: true,
      residual: true,
      gated,
      activation: gated ? 'silu' : 'none',
      ...(normed ? { norm: 'weighted' } : {}),
    };
    if (normed && !normsWhileReading(problem, arch)) return;
    add(matmulKernel(problem, matmulCandidates(problem, arch)[0]!));
  };
  for (const m of [1, 12, 64, 200, 4096]) {
    matmul('bfloat16', m, false);
    matmul('float16', m, true);
  }
  for (const m of [1, 5, 64]) matmul('float32', m, m === 5);
  for (const m of [1, 16]) matmul('bfloat16', m, m === 1, 4096, true);
  for (const [dtype, headDim, flags, valueDim = headDim] of [
    ['bfloat16', 128, false],
    ['float16', 64, true],
    ['bfloat16', 80, true],
    ['float16', 256, false],
    ['float32', 48, true],
    ['bfloat16', 192, false, 128],
  ] as const) {
    const problem: AttentionProblem = {
      dtype,
      tokens: 8,
      requests: 8,
      heads: 8,
      kvHeads: 2,
      headDim,
      valueDim,
      ldq: 8 * headDim,
      ldy: 8 * valueDim,
      tokensPerBlock: 32,
      maxBlocksPerSequence: 64,
      numBlocks: 512,
      scale: 1,
      sinks: flags,
      alibi: flags,
      ...(flags ? { softcap: 30, window: 128 } : {}),
    };
    const fresh: FreshHeads = {
      norm: flags ? undefined : { kind: 'rms', eps: 1e-6, weightOffset: 0 },
      rope: { rotaryDim: 16, style: flags ? 'interleaved' : 'half', attentionFactor: 1 },
      ldk: 64,
      ldv: 64,
    };
    const decode = decodeCandidates(problem, arch)[0]!;
    const fused = withFreshHeads({ ...problem, requests: 64 }, decode, fresh, arch) ?? decode;
    for (const config of [decode, fused, ...prefillCandidates(problem, arch)]) add(attentionKernel(problem, config));
  }
  const strides = { ldx: 512, ldr: 512, lds: 512, ldy: 512 };
  const norm = { rows: 1, eps: 1e-5, weightOffset: 0, weight: true, bias: false, residual: true, ...strides };
  add(normLaunch({ ...norm, kind: 'rms', dtype: 'bfloat16', columns: 4096 }).kernel);
  add(normLaunch({ ...norm, kind: 'layer', dtype: 'float32', columns: 768 }).kernel);
  add(normLaunch({ ...norm, kind: 'layer', dtype: 'float16', columns: 100 }).kernel);
  const heads = { numHeads: 8, numKvHeads: 2, headDim: 128, valueDim: 128 };
  const rope = { tokens: 1, ldq: 1024, ldk: 256, ldv: 256, ldy: 1024, tokensPerBlock: 32 };
  const rotation = { rotaryDim: 64, attentionFactor: 1 };
  const headNorm = { kind: 'rms', eps: 1e-6, weightOffset: 0 } as const;
  add(
    ropeCacheLaunch({
      ...rope,
      dtype: 'bfloat16',
      attrs: { ...heads, norm: headNorm, rope: { ...rotation, style: 'half' } },
    }).kernel,
  );
  add(
    ropeCacheLaunch({ ...rope, dtype: 'float32', attrs: { ...heads, rope: { ...rotation, style: 'interleaved' } } })
      .kernel,
  );
  const gather = { rows: 1, columns: 64, tableRows: 9, ldt: 64, ldy: 64 };
  add(gatherLaunch({ ...gather, dtype: 'bfloat16', tableDType: 'bfloat16' }).kernel);
  add(gatherLaunch({ ...gather, dtype: 'float32', tableDType: 'float16' }).kernel);
  add(copyBlocksLaunch(1, 4096).kernel);
  const point = { rows: 1, columns: 64, lda: 64, ldb: 64, ldy: 64, factor: 1 };
  for (const op of ['gated', 'activation', 'add', 'mul', 'scale', 'softcap'] as const)
    add(pointwiseLaunch({ ...point, op, activation: 'gelu_tanh', dtype: 'bfloat16' }, arch).kernel);
  for (const dtype of ['bfloat16', 'float32'] as const)
    for (const { kernel } of sampleLaunches({ dtype, rows: 1, vocab: 1000, ld: 1000 })) add(kernel);
  const route = { tokens: 1, experts: 8, ld: 8, topK: 2, normalize: true, scale: 1, bias: true };
  add(routeLaunch({ ...route, dtype: 'bfloat16', scoring: 'softmax' }).kernel);
  add(routeLaunch({ ...route, dtype: 'float32', scoring: 'sigmoid' }).kernel);
  for (const [dtype, tokens] of [
    ['bfloat16', 1],
    ['float16', 100],
    ['bfloat16', 2000],
    ['float32', 1],
  ] as const) {
    const experts = { dtype, activation: 'silu', tokens, experts: 8, topK: 2, hidden: 64, inner: 64 } as const;
    const problem = { ...experts, ldx: 64, ldy: 64 };
    for (const { kernel } of expertsLaunches(problem, expertsConfig(problem, arch))) add(kernel);
  }
  return [...found.values()];
}

describe.skipIf(nvrtc === undefined)('CUDA kernels compile', () => {
  // Compiled kernels stay in the project's ignored folder: a second run compiles what changed.
  const folder = `${root}/.cuda/kernels`;

  test.each(archs)(
    'for sm_$sm',
    async (arch) => {
      mkdirSync(folder, { recursive: true });
      // The built compiler: its processes are JavaScript.
      const { NvrtcProcesses } = await import('../../dist/targets/jit/nvrtc-compiler.js');
      using compiler = new NvrtcProcesses(nvrtc!);
      const cache = new KernelCache(folder, compiler, packageKernels());
      const flags = cudaFlags(cudaArchFlag(arch.sm));
      await Promise.all(
        kernels(arch).map(async (kernel) => {
          const { binary } = await cache.get({ name: kernel.name, stub: cudaStub(kernel), flags });
          expect(binary.length, kernel.name).toBeGreaterThan(1000);
        }),
      );
    },
    600_000,
  );
});

test.runIf(nvrtc === undefined)(
  'CUDA kernels compile: skipped, NVRTC was not found (node scripts/cuda-tools.mjs)',
  () => {
    expect(nvrtc).toBeUndefined();
  },
);
