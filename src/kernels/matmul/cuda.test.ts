// Plain data of CUDA products: every candidate fits the device, covers the problem and has a name of its own.
import { describe, expect, test } from 'vitest';
import type { CudaArch } from '../cuda-kernel.ts';
import { type MatmulProblem, matmulKernel, matmulLaunch, matmulSharedBytes } from './cuda.ts';
import { matmulCandidates } from './cuda-candidates.ts';

const archs: readonly CudaArch[] = [
  { sm: 80, multiprocessors: 108, maxSharedBytes: 166912 },
  { sm: 89, multiprocessors: 128, maxSharedBytes: 101376 },
  { sm: 90, multiprocessors: 132, maxSharedBytes: 232448 },
];

function problem(m: number, n: number, k: number, extra: Partial<MatmulProblem> = {}): MatmulProblem {
  const base = { dtype: 'bfloat16', ldx: k, ldy: n, bias: false, residual: false, gated: false } as const;
  return { ...base, m, n, k, activation: 'none', ...extra };
}

describe.each(archs)('on sm_$sm', (arch) => {
  test.each([1, 2, 8, 9, 16, 17, 64, 100, 256, 512, 1024, 8192])('%i rows have kernels that fit', (m) => {
    for (const [n, k] of [
      [64, 64],
      [4096, 4096],
      [14336, 4096],
      [200, 328],
    ] as const) {
      for (const gated of [false, true]) {
        const p = problem(m, n, k, { gated });
        const candidates = matmulCandidates(p, arch);
        expect(candidates.length).toBeGreaterThan(0);
        for (const config of candidates) {
          expect(matmulSharedBytes(config)).toBeLessThanOrEqual(arch.maxSharedBytes);
          const { grid, threads, cluster } = matmulLaunch(p, config, arch);
          expect(grid.every((size) => Number.isInteger(size) && size > 0)).toBe(true);
          expect(threads).toBeLessThanOrEqual(1024);
          if (cluster !== undefined) expect(grid[0] % cluster[0]).toBe(0);
        }
      }
    }
  });

  test('float32 and odd sizes go to the kernels without tensor cores', () => {
    for (const p of [problem(4, 64, 64, { dtype: 'float32' }), problem(4, 63, 64), problem(300, 64, 65, { ldx: 65 })])
      for (const { kind } of matmulCandidates(p, arch)) expect(['rows', 'grid']).toContain(kind);
  });
});

test('a symbol names one type', () => {
  const types = new Map<string, string>();
  for (const arch of archs)
    for (const m of [1, 16, 64, 512])
      for (const dtype of ['bfloat16', 'float16', 'float32'] as const)
        for (const gated of [false, true]) {
          const p = problem(m, 4096, 4096, { dtype, gated, activation: gated ? 'silu' : 'none' });
          for (const config of matmulCandidates(p, arch)) {
            const { name, type } = matmulKernel(p, config);
            expect(types.get(name) ?? type).toBe(type);
            expect(name).toMatch(/^\w+$/);
            types.set(name, type);
          }
        }
});
