// Engines for CUDA without a GPU: before stand-ins for the driver and NVRTC the whole line runs, from build to tokens (which mean nothing).
// What is tested is what travels in the engine and what happens where it does not fit.
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { openEngine } from '../../src/compile/engine/read.ts';
import { Nvrtc } from '../../src/targets/ffi/nvrtc.ts';
import { kernelTensor } from '../../src/targets/plan.ts';
import { FakeGpu, hasCompiler } from '../support/fake-cuda.ts';
import { temporaryFolder } from '../support/temporary.ts';

const model = 'models/storyteller-7m';

describe.skipIf(!hasCompiler)('an engine built for a GPU', () => {
  const folder = temporaryFolder();
  const engine = join(folder, 'engine');
  const kernels = join(folder, 'cache', 'kernels');
  let gpu: FakeGpu;
  const generate = (vars: Record<string, string> = {}, found?: readonly ('cuda' | 'nvrtc')[]) =>
    gpu.run(['run', engine, 'Once', '-n', '3', '--json'], vars, found);

  beforeAll(async () => {
    gpu = new FakeGpu(folder);
    const built = await gpu.run(['build', model, '--target', 'cuda', '-o', engine]);
    expect(built.stderr + built.stdout).toContain('launches');
    expect(built.code).toBe(0);
  });

  test('carries tactics and every kernel of its plan', () => {
    using opened = openEngine(engine);
    const { kernels, tactics } = opened.plan;
    expect(kernels?.arch).toBe('sm_90a');
    expect(kernels?.compiler).toBe('nvrtc 13.0');
    expect(Object.keys(kernels!.sources).length).toBeGreaterThan(10);
    for (const name of Object.keys(kernels!.sources)) {
      const text = Buffer.from(opened.readWeight(kernelTensor(name))).toString();
      expect(text).toContain(`TYPERT_KERNEL(${name},`);
    }
    expect(tactics?.device).toBe('Fake GPU, sm_90, 132 multiprocessors');
    for (const ranges of Object.values(tactics!.problems)) {
      const sizes = ranges.map(({ upTo }) => upTo);
      expect(sizes).toEqual([...sizes].sort((a, b) => a - b));
    }
  });

  test('puts the bytes of its weights on the device', async () => {
    const { equal, different, reported, open } = await gpu.script('weights', [engine]);
    expect(equal).toBeGreaterThan(40);
    // Rotary frequencies are stored in the plan's dtype and read as float32.
    expect(different).toBeLessThanOrEqual(1);
    expect(reported).toBe(Number(equal) + Number(different));
    expect(open).toEqual({});
  });

  test('runs with the driver alone', async () => {
    rmSync(kernels, { recursive: true, force: true });
    const { code, stderr } = await generate({}, ['cuda']);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    expect(existsSync(kernels)).toBe(false);
  });

  test('has its kernels compiled for another architecture where NVRTC is found', async () => {
    rmSync(kernels, { recursive: true, force: true });
    const { code, stderr } = await generate({ FAKE_CUDA_SM: '80' });
    expect(stderr).toBe('');
    expect(code).toBe(0);
    expect(readdirSync(kernels).length).toBeGreaterThan(10);
  });

  test.skipIf(Nvrtc.find() !== undefined)('says what is missing where it is not', async () => {
    rmSync(kernels, { recursive: true, force: true });
    const { code, stderr } = await generate({ FAKE_CUDA_SM: '80' }, ['cuda']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/expected a kernel for sm_80, or NVRTC; got an engine built for sm_90a\. Install/);
    const doctor = await gpu.run(['doctor'], {}, ['cuda']);
    expect(doctor.stdout).toMatch(
      /✓ target cuda +Fake GPU, CUDA 13\.0, no NVRTC: engines .* run, none can be built\n +→/,
    );
    const built = await gpu.run(['build', model, '--target', 'cuda', '-o', join(folder, 'other')], {}, ['cuda']);
    expect(built.code).toBe(1);
    expect(built.stderr).toMatch(/target cuda does not work here.*NVRTC/);
  });
});

describe.skipIf(!hasCompiler)('tuning', () => {
  const folder = temporaryFolder();
  const engine = join(folder, 'engine');
  const timings = join(folder, 'timings.json');
  const log = join(folder, 'launches');
  let gpu: FakeGpu;
  const build = async (...flags: readonly string[]) => {
    rmSync(log, { force: true });
    const vars = { FAKE_CUDA_LOG: log };
    const result = await gpu.run(['build', model, '--target', 'cuda', '-o', engine, ...flags], vars);
    expect(result.stderr + result.stdout).toContain('launches');
    using opened = openEngine(engine);
    const launched = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : [];
    return { problems: opened.plan.tactics!.problems, launched, stderr: result.stderr };
  };
  /** What the stand-in's clock says of a kernel. */
  const cost = (name: string) => 1 + ([...name].reduce((hash, c) => (hash * 33 + c.charCodeAt(0)) >>> 0, 5381) % 997);

  beforeAll(() => {
    gpu = new FakeGpu(folder);
  });

  test('without it no kernel is launched, and heuristics choose', async () => {
    const { launched, problems } = await build('--no-tune', '--timing-cache', timings);
    expect(launched).toEqual([]);
    expect(Object.keys(problems).length).toBeGreaterThan(3);
    expect(existsSync(timings)).toBe(false);
  });

  test('the fastest candidate is chosen at each size, and timings are reused', async () => {
    const tuned = await build('--timing-cache', timings);
    expect(tuned.launched.length).toBeGreaterThan(50);
    expect(tuned.stderr).toContain('time tactics');
    const { devices } = JSON.parse(readFileSync(timings, 'utf8'));
    const [problems] = Object.values(devices) as Record<string, Record<string, { us: number; config: object }[]>>[];
    let compared = 0;
    for (const [key, bySize] of Object.entries(problems!))
      for (const [size, lines] of Object.entries(bySize)) {
        const chosen = tuned.problems[key]!.find(({ upTo }) => upTo >= Number(size))!.config;
        const us = lines.find(({ config }) => JSON.stringify(config) === JSON.stringify(chosen))!.us;
        expect(us).toBeLessThanOrEqual(lines[0]!.us / 0.99);
        compared++;
      }
    expect(compared).toBeGreaterThan(30);
    const again = await build('--timing-cache', timings);
    expect(again.launched).toEqual([]);
    expect(again.problems).toEqual(tuned.problems);
  });

  test('leaves nothing open', async () => {
    const open = await gpu.script('tune', [model, engine, join(folder, 'fresh.json')]);
    expect(open).toEqual({});
  });

  test('times are those of the kernel', async () => {
    const { devices } = JSON.parse(readFileSync(timings, 'utf8'));
    const key = 'prefill bfloat16';
    const [problems] = Object.values(devices) as Record<
      string,
      Record<string, { us: number; config: { bn?: number } }[]>
    >[];
    const [, bySize] = Object.entries(problems!).find(([name]) => name.startsWith(key))!;
    const line = Object.values(bySize)[0]!.find(({ config }) => config.bn !== undefined)!;
    expect(line.us).toBeCloseTo(cost('WgmmaAttention_bf16_64_128_0'), -1);
  });

  test('an edited line decides', async () => {
    const text = readFileSync(timings, 'utf8');
    const edited = text.replaceAll(/"us":[\d.]+(?=,"config":\{"kind":"tile","warps":4)/g, '"us":0.001');
    expect(edited).not.toBe(text);
    writeFileSync(timings, edited);
    const { problems, launched } = await build('--timing-cache', timings);
    expect(launched).toEqual([]);
    const [, ranges] = Object.entries(problems).find(([key]) => key.startsWith('prefill'))!;
    expect(ranges.map(({ config }) => config)).toEqual([{ kind: 'tile', warps: 4 }]);
  });

  test('a damaged file ends the build before anything is timed', async () => {
    const damaged = join(folder, 'damaged.json');
    writeFileSync(damaged, '[]');
    const { code, stderr } = await gpu.run([
      ...['build', model, '--target', 'cuda', '-o', engine],
      ...['--timing-cache', damaged],
    ]);
    expect(code).toBe(1);
    expect(stderr).toContain('timing cache cannot be read');
  });
});

describe.skipIf(!hasCompiler)('cuBLASLt as a tactic', () => {
  const folder = temporaryFolder();
  const engine = join(folder, 'engine');
  const timings = join(folder, 'timings.json');
  const log = join(folder, 'launches');
  const all = ['cuda', 'nvrtc', 'cublaslt'] as const;
  let gpu: FakeGpu;
  const build = async (...flags: readonly string[]) => {
    const args = ['build', model, '--target', 'cuda', '-o', engine, '--timing-cache', timings, ...flags];
    const { code, stderr } = await gpu.run(args, {}, all);
    expect(`${code} ${code === 0 ? '' : stderr}`).toBe('0 ');
    using opened = openEngine(engine);
    return Object.values(opened.plan.tactics!.problems).flatMap((ranges) => ranges.map(({ config }) => config));
  };
  const launches = async (found: readonly ('cuda' | 'nvrtc' | 'cublaslt')[], vars: Record<string, string> = {}) => {
    rmSync(log, { force: true });
    // A prompt long enough for sizes that go to the library.
    const args = ['run', engine, 'word '.repeat(40), '-n', '2', '--json'];
    const { code, stderr } = await gpu.run(args, { FAKE_CUDA_LOG: log, ...vars }, found);
    expect(`${code} ${stderr}`).toBe('0 ');
    return readFileSync(log, 'utf8').split('\n');
  };

  beforeAll(async () => {
    gpu = new FakeGpu(folder);
    const configs = await build();
    expect(configs.filter(({ kind }) => kind === 'cublaslt').length).toBeGreaterThan(3);
  });

  test('is chosen where it wins, for large sizes, and launched', async () => {
    const launched = await launches(['cuda', 'cublaslt']);
    expect(launched).toContain('cublaslt');
    expect(launched.filter((name) => name === 'pointwise_bf16_gated_silu').length).toBeGreaterThan(0);
  });

  test('gives way to own kernels, which the engine carries, where it is absent or of another version', async () => {
    for (const [found, vars] of [
      [['cuda'], {}],
      [['cuda', 'cublaslt'], { FAKE_LT_VERSION: '120900' }],
    ] as const) {
      rmSync(join(folder, 'cache', 'kernels'), { recursive: true, force: true });
      const launched = await launches(found, vars);
      expect(launched).not.toContain('cublaslt');
      expect(launched.length).toBeGreaterThan(50);
    }
  });

  test('is left out by --no-cublaslt, whatever the timings say', async () => {
    const configs = await build('--no-cublaslt');
    expect(configs.map(({ kind }) => kind)).not.toContain('cublaslt');
  });

  test('is not taken where own kernels are faster', async () => {
    const slow = join(folder, 'slow.json');
    const args = ['build', model, '--target', 'cuda', '-o', engine, '--timing-cache', slow];
    expect((await gpu.run(args, { FAKE_LT_US: '5000' }, all)).code).toBe(0);
    using opened = openEngine(engine);
    expect(JSON.stringify(opened.plan.tactics)).not.toContain('cublaslt');
  });
});
