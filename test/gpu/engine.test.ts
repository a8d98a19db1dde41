// Engines for CUDA without a GPU: before stand-ins for the driver and NVRTC the whole line runs, from build to tokens (which mean nothing).
// What is tested is what travels in the engine and what happens where it does not fit.
import { existsSync, readdirSync, rmSync } from 'node:fs';
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
