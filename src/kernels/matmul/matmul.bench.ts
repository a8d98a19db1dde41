// Checks every product kernel against the plain one on random data, then times candidates at the shapes of an 8B Llama.
// node src/kernels/matmul/matmul.bench.ts [--compile] [--quick]
import { Harness } from '../../targets/cuda/harness.bench.ts';
import { CublasLt } from '../../targets/ffi/cublaslt.ts';
import type { DevicePtr } from '../../targets/ffi/cuda-driver.ts';
import {
  isVectorised,
  type MatmulConfig,
  type MatmulProblem,
  matmulKernel,
  matmulLaunch,
  matmulWorkspace,
} from './cuda.ts';
import { matmulCandidates } from './cuda-candidates.ts';

const h = new Harness();
const label = (config: MatmulConfig): string =>
  Object.entries(config)
    .map(([key, value]) => (key === 'kind' ? value : `${key}=${value}`))
    .join(' ');

const offset = (ptr: DevicePtr, bytes: number): DevicePtr => (ptr + BigInt(bytes)) as DevicePtr;

async function check(problem: MatmulProblem, only?: (config: MatmulConfig) => boolean): Promise<number> {
  const { dtype, m, n, k, ldx, ldy, gated } = problem;
  const bytes = dtype === 'float32' ? 4 : 2;
  const physical = gated ? 2 * n : n;
  using x = await h.random(dtype, m * ldx, 11);
  using w = await h.random(dtype, physical * k, 22, -0.1, 0.1);
  using bias = await h.random(dtype, physical, 33);
  using residual = await h.random(dtype, m * ldy, 44);
  using y = h.allocate(m * ldy * bytes);
  using expected = h.allocate(m * ldy * bytes);
  using partial = h.allocate(8 * 16 * physical * 4 + 64);
  using counters = h.allocate(physical + 64);
  h.stream?.fill(counters.ptr, 0, counters.bytes);
  const buffers = {
    x: x.ptr,
    w: w.ptr,
    bias: bias.ptr,
    residual: residual.ptr,
    partial: partial.ptr,
    counters: counters.ptr,
  };
  const plain: MatmulConfig = { kind: 'rows', tokens: 8, vectors: false };
  h.poison(expected);
  await h.run(matmulLaunch(problem, plain, h.arch), { ...buffers, y: expected.ptr });
  const limit = dtype === 'bfloat16' ? 4e-3 : dtype === 'float16' ? 6e-4 : 1e-5;
  let failures = 0;
  const seen = new Set<string>();
  for (const config of [...matmulCandidates(problem, h.arch), { kind: 'grid' } as MatmulConfig]) {
    const key = matmulKernel(problem, config).name + (config.kind === 'small' ? config.splits : '');
    if (seen.has(key) || (only !== undefined && !only(config))) continue;
    seen.add(key);
    h.poison(y);
    await h.run(matmulLaunch(problem, config, h.arch), { ...buffers, y: y.ptr });
    const { error, worst } = await h.compare(dtype, y.ptr, expected.ptr, m, n, ldy, ldy);
    if (!(error < limit)) {
      failures++;
      console.log(`WRONG ${JSON.stringify(problem)} ${label(config)} error ${error} worst ${worst}`);
    }
  }
  return failures;
}

const llama = {
  qkv: { n: 6144, k: 4096, gated: false },
  out: { n: 4096, k: 4096, gated: false },
  gateUp: { n: 14336, k: 4096, gated: true },
  down: { n: 4096, k: 14336, gated: false },
  head: { n: 128256, k: 4096, gated: false },
} as const;

function make(n: number, k: number, m: number, gated: boolean, extra: Partial<MatmulProblem> = {}): MatmulProblem {
  return {
    dtype: 'bfloat16',
    m,
    n,
    k,
    ldx: k,
    ldy: n,
    bias: false,
    residual: false,
    gated,
    activation: gated ? 'silu' : 'none',
    ...extra,
  };
}

interface Timing {
  readonly config: MatmulConfig;
  readonly us: number;
}

async function time(problem: MatmulProblem, configs: readonly MatmulConfig[]): Promise<Timing[]> {
  const { m, n, k, gated } = problem;
  const physical = gated ? 2 * n : n;
  const weightBytes = physical * k * 2;
  const copies = Math.max(1, Math.min(16, Math.ceil(4e8 / weightBytes)));
  using x = await h.random('bfloat16', m * k, 1);
  using w = await h.random('bfloat16', copies * physical * k, 2);
  using y = h.allocate(m * n * 2);
  using partial = h.allocate(8 * 16 * physical * 4);
  using counters = h.allocate(physical + 64);
  h.stream?.fill(counters.ptr, 0, counters.bytes);
  const timings: Timing[] = [];
  for (const config of configs) {
    const workspace = matmulWorkspace(problem, config);
    if (workspace.partial > partial.bytes) continue;
    const launches = [];
    for (let i = 0; i < copies; i++) {
      const prepared = await h.prepare(matmulLaunch(problem, config, h.arch), {
        x: x.ptr,
        w: offset(w.ptr, i * weightBytes),
        y: y.ptr,
        partial: partial.ptr,
        counters: counters.ptr,
      });
      if (prepared !== undefined) launches.push(prepared);
    }
    if (launches.length === 0) continue;
    const work = 2 * m * physical * k;
    timings.push({ config, us: h.time(launches, Math.max(copies, work > 1e11 ? 4 : 16), 5) });
  }
  return timings.sort((a, b) => a.us - b.us);
}

async function main(): Promise<void> {
  const quick = process.argv.includes('--quick');
  const part = process.argv.find((arg) => arg.startsWith('--part='))?.slice(7) ?? 'check,small,mid,large';
  if (part.includes('check')) {
    let failures = 0;
    for (const dtype of ['bfloat16', 'float16', 'float32'] as const) {
      for (const [m, n, k] of [
        [1, 264, 520],
        [3, 1032, 1160],
        [8, 512, 2048],
        [13, 264, 1032],
        [16, 1024, 4096],
        [37, 520, 328],
        [100, 1032, 1024],
        [129, 776, 520],
        [300, 1032, 712],
      ] as const) {
        if (dtype === 'float16' && m !== 8 && m !== 300 && m !== 37) continue;
        const plain = make(n, k, m, false, { dtype });
        const odd = { dtype, ldx: k + 8, ldy: n + 16, bias: true, residual: true, ldr: n + 16 } as const;
        const gated = make(n, k, m, true, { ...odd, residual: m % 2 === 1 });
        failures += await check(plain);
        if (dtype === 'bfloat16') {
          failures += await check({ ...plain, ...odd, activation: 'gelu_tanh' });
          failures += await check(gated);
        }
      }
    }
    console.log(failures === 0 ? 'all products agree' : `${failures} WRONG`);
  }
  const bandwidth = await h.readCeiling();
  const rate = await h.productCeiling();
  console.log(`read ${(bandwidth / 1e12).toFixed(3)} TB/s, product ${(rate / 1e12).toFixed(1)} TFLOP/s`);
  using lt = h.device === undefined ? undefined : CublasLt.find();
  const rowsOf: Record<string, readonly number[]> = {
    small: quick ? [1, 8] : [1, 4, 8, 16],
    mid: quick ? [64] : [32, 64, 128, 256],
    large: quick ? [2048] : [512, 1024, 2048, 8192],
  };
  for (const [size, rows] of Object.entries(rowsOf)) {
    if (!part.includes(size)) continue;
    for (const m of rows) {
      let total = 0;
      let floor = 0;
      for (const [name, { n, k, gated }] of Object.entries(llama)) {
        if (name === 'head' && m > 64) continue;
        const problem = make(n, k, m, gated);
        if (!isVectorised(problem)) continue;
        const candidates = matmulCandidates(problem, h.arch);
        const first = candidates[0]!;
        const timings = await time(problem, candidates);
        const physical = gated ? 2 * n : n;
        const lower = Math.max((physical * k * 2 + m * (n + k) * 2) / bandwidth, (2 * m * physical * k) / rate) * 1e6;
        const ltUs = lt === undefined ? Number.NaN : await h.ltTime(lt, m, physical, k);
        const best = timings[0];
        if (best === undefined) continue;
        total += best.us;
        floor += lower;
        const heuristic = timings.find(({ config }) => config === first);
        console.log(
          `${name} m=${m}: ${best.us.toFixed(2)} us = ${((100 * lower) / best.us).toFixed(1)}% (cuBLASLt ${ltUs.toFixed(2)}) ${label(best.config)}` +
            ` | heuristic ${heuristic?.us.toFixed(2)} ${label(first)} | then ${timings
              .slice(1, 4)
              .map(({ config, us }) => `${us.toFixed(2)} ${label(config)}`)
              .join(' ; ')}`,
        );
      }
      if (floor > 0)
        console.log(`  m=${m} total ${total.toFixed(1)} us, ${((100 * floor) / total).toFixed(1)}% of the floor`);
    }
  }
  if (part.includes('large')) {
    const problem = make(8192, 8192, 8192, false);
    for (const { config, us } of await time(problem, matmulCandidates(problem, h.arch)))
      console.log(
        `8192^3 ${label(config)}: ${us.toFixed(0)} us ${((2 * 8192 ** 3) / us / 1e6).toFixed(1)} TFLOP/s = ${((100 * 2 * 8192 ** 3) / us / 1e-6 / rate).toFixed(1)}%`,
      );
  }
  console.log(`${h.compiled} kernels compiled`);
}

await main();
