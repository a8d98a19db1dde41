// What goes wrong with a GPU, before stand-ins for the driver and NVRTC that let it go wrong: each error has its type, the driver's symbol and what to do.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { FakeGpu, hasCompiler } from '../support/fake-cuda.ts';
import { temporaryFolder } from '../support/temporary.ts';

const model = 'models/storyteller-7m';

describe.skipIf(!hasCompiler)('errors of a GPU', () => {
  const folder = temporaryFolder();
  const engine = join(folder, 'engine');
  let gpu: FakeGpu;
  const run = async (vars: Record<string, string>, ...args: readonly string[]) => {
    const command = args.length > 0 ? args : ['run', engine, 'Once', '-n', '3'];
    const { code, stderr, stdout } = await gpu.run(command, vars);
    return { code, said: stderr.trim(), stdout };
  };

  beforeAll(async () => {
    gpu = new FakeGpu(folder);
    const built = await gpu.run(['build', model, '--target', 'cuda', '-o', engine, '--no-tune']);
    expect(built.code).toBe(0);
  });

  test('no driver: the doctor says so, `auto` takes another target, `cuda` is refused', async () => {
    const doctor = await gpu.run(['doctor'], {}, []);
    expect(doctor.code).toBe(0);
    if (!doctor.stdout.includes('✗ target cuda')) return; // A machine with a real one.
    expect(doctor.stdout).toMatch(
      /✗ target cuda +NVIDIA's driver library was not found; .*\n +→ Install NVIDIA's driver/,
    );
    const asked = await gpu.run(['run', model, 'Once', '-n', '2', '--target', 'cuda'], {}, []);
    expect(asked.code).toBe(1);
    expect(asked.stderr).toMatch(
      /target cuda does not work here; got NVIDIA's driver library was not found.*Install NVIDIA's driver/,
    );
    expect(asked.stderr.match(/Install NVIDIA's driver/g)).toHaveLength(1);
    expect((await gpu.run(['run', model, 'Once', '-n', '2'], {}, [])).code).toBe(0);
  });

  test.each([
    ['no GPU', { FAKE_CUDA_FAIL: 'cuInit:0:100' }, /CUDA_ERROR_NO_DEVICE.*CUDA_VISIBLE_DEVICES/],
    ['none visible', { FAKE_CUDA_DEVICES: '0' }, /the driver sees no GPU.*CUDA_VISIBLE_DEVICES/],
    [
      'a driver that is too old',
      { FAKE_CUDA_DRIVER: '11040' },
      /driver is too old; expected .*12\.0.*got .*11\.4\. Update the driver/,
    ],
    [
      'library and kernel module that differ',
      { FAKE_CUDA_FAIL: 'cuInit:0:803' },
      /CUDA_ERROR_SYSTEM_DRIVER_MISMATCH.*Reboot/,
    ],
    ['a GPU that is too old', { FAKE_CUDA_SM: '75' }, /too old.*sm_80/],
    [
      'a GPU that another program holds',
      { FAKE_CUDA_FAIL: 'cuDevicePrimaryCtxRetain:0:46' },
      /CUDA_ERROR_DEVICE_UNAVAILABLE.*Another program/,
    ],
    [
      'no room for the weights',
      { FAKE_CUDA_MEMORY: '8000000' },
      /cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY|no memory/,
    ],
    [
      'no page-locked memory',
      { FAKE_CUDA_FAIL: 'cuMemHostAlloc:0:2' },
      /cuMemHostAlloc failed: CUDA_ERROR_OUT_OF_MEMORY.*Free memory/,
    ],
    [
      'a kernel that the driver refuses',
      { FAKE_CUDA_FAIL: 'cuModuleLoadData:3:209' },
      /cuModuleLoadData failed: CUDA_ERROR_NO_BINARY_FOR_GPU.*rebuild the engine/,
    ],
    [
      'a GPU that fails at a launch',
      { FAKE_CUDA_FAIL: 'cuLaunch:10:719' },
      /CUDA_ERROR_LAUNCH_FAILED.*Load the model again/,
    ],
    ['a wrong address', { FAKE_CUDA_FAIL: 'cuEventQuery:2:700' }, /CUDA_ERROR_ILLEGAL_ADDRESS/],
    [
      'memory that is broken',
      { FAKE_CUDA_FAIL: 'cuMemcpyDtoHAsync_v2:0:214' },
      /CUDA_ERROR_ECC_UNCORRECTABLE.*reset or replace/,
    ],
  ])('%s', async (_name, vars, words) => {
    const { code, said } = await run(vars);
    expect(said).toMatch(words);
    expect(code).toBe(1);
    // One line for people, no stack.
    expect(said).not.toMatch(/\n\s+at /);
  });

  test('a kernel that does not compile: the compiler’s words, and where they are kept', async () => {
    const args = ['build', model, '--target', 'cuda', '-o', join(folder, 'never'), '--no-tune'];
    const { code, said } = await run({ FAKE_NVRTC_FAIL: 'norm_', TYPERT_CACHE: join(folder, 'other') }, ...args);
    expect(code).toBe(1);
    expect(said).toMatch(/kernel norm_\w+ does not compile.*identifier "nothing" is undefined/s);
    const kept = /(\S+failed\/norm_\w+)/.exec(said)?.[1];
    expect(readFileSync(join(kept!, 'kernel.cu'), 'utf8')).toContain('TYPERT_KERNEL(norm_');
    expect(readFileSync(join(kept!, 'error.txt'), 'utf8')).toContain('undefined');
  });

  test('a candidate that does not compile is no candidate', async () => {
    const args = ['build', model, '--target', 'cuda', '-o', join(folder, 'tuned')];
    const cache = join(folder, 'third');
    const { code, said } = await run({ FAKE_NVRTC_FAIL: 'TileAttention', TYPERT_CACHE: cache }, ...args);
    expect(`${code} ${code === 0 ? '' : said}`).toBe('0 ');
    expect(readFileSync(join(cache, 'timings.json'), 'utf8')).not.toContain('"kind":"tile","warps"');
  });

  test('kernels of a newer CUDA than the driver: compiled by one that it goes with, or refused', async () => {
    const { code, said } = await run({ FAKE_CUDA_DRIVER: '12040' });
    expect(code).toBe(1);
    expect(said).toMatch(/got kernels of nvrtc 13\.0, which this driver for CUDA 12 does not run/);
  });

  test('a damaged kernel in the engine', async () => {
    const file = join(engine, 'rank0.engine');
    const whole = readFileSync(file);
    const damaged = Buffer.from(whole);
    for (let at = damaged.indexOf('\x7fELFFAKE'); at >= 0; at = damaged.indexOf('\x7fELFFAKE', at + 1)) damaged[at] = 0;
    writeFileSync(file, damaged);
    const { code, said } = await run({});
    writeFileSync(file, whole);
    expect(code).toBe(1);
    expect(said).toMatch(/cuModuleLoadData failed: CUDA_ERROR_INVALID_IMAGE.*rebuild the engine/);
  });

  interface Outcome {
    readonly tokens?: number;
    readonly error?: string;
    readonly message?: string;
  }

  test('a request that fails leaves the others alone', async () => {
    const { results, open } = await gpu.script('requests', [engine]);
    const outcomes = results as Outcome[];
    expect(outcomes.map(({ tokens }) => tokens)).toEqual([24, 24, 24, undefined, 24, expect.any(Number), 24, 24]);
    expect(outcomes[3]?.message).toContain('this processor fails');
    expect(open).toEqual({});
  });

  test('a device that is lost ends every request with the driver’s symbol, and nothing stays open', async () => {
    const lost = await gpu.script('requests', [engine], { FAKE_CUDA_FAIL: 'cuEventRecord:40:719' });
    // The one that fails by itself and the one that is cancelled may have ended before.
    const others = (lost.results as Outcome[]).filter((_, i) => i !== 3 && i !== 5);
    for (const outcome of others) {
      expect(outcome.error).toBe('ExecutorError');
      expect(outcome.message).toContain('CUDA_ERROR_LAUNCH_FAILED');
    }
    expect(lost.open).toEqual({});
  });

  test('a model that does not fit gives back what it took', async () => {
    const { loading, open } = await gpu.script('requests', [engine], { FAKE_CUDA_MEMORY: '20000000' });
    expect((loading as Outcome).message).toMatch(
      /\d+ bytes: cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY|no memory for/,
    );
    expect(open).toEqual({});
  });
});
