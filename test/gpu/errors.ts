// What goes wrong on a real GPU: each error has its type, the driver's symbol and what to do; a request that fails leaves the others alone.
// node test/gpu/errors.ts   (needs a GPU, NVRTC and the build in dist/; the last part breaks this process's context on purpose)
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LLM } from 'typert';
import { openResources } from '../../src/base/dispose.ts';
import { CompileError, TargetError } from '../../src/base/errors.ts';
import { CudaDevice } from '../../src/targets/cuda/device.ts';
import { PreparedLaunch } from '../../src/targets/cuda/launch.ts';
import type { DevicePtr } from '../../src/targets/ffi/cuda-driver.ts';
import { Nvrtc } from '../../src/targets/ffi/nvrtc.ts';

let failures = 0;
function check(name: string, ok: boolean, detail = ''): void {
  if (!ok) failures++;
  console.log(`${ok ? 'ok   ' : 'WRONG'} ${name}${detail === '' ? '' : `: ${detail.slice(0, 300)}`}`);
}

/** The error that `work` ends with. */
async function errorOf(work: () => unknown): Promise<Error | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

async function expectError(name: string, type: new (...args: never[]) => Error, words: RegExp, work: () => unknown) {
  const error = await errorOf(work);
  check(name, error instanceof type && words.test(error.message), error?.message ?? 'no error');
}

const folder = mkdtempSync(join(tmpdir(), 'typert-gpu-errors-'));
const model = 'models/storyteller-7m';
const nvrtc = Nvrtc.find();
if (nvrtc === undefined) throw new Error('NVRTC was not found');
const compile = (text: string, arch: string): Uint8Array =>
  nvrtc.compile({ name: 'probe.cu', text, includes: new Map() }, [`--gpu-architecture=${arch}`]).binary;
const wild = 'extern "C" __global__ void wild(int* p) { p[1 << 28] = 1; }';

// Memory, binaries and compilers, one device each, and nothing open afterwards.
{
  using device = new CudaDevice();
  const { total } = device.driver.memoryInfo();
  await expectError(
    'out of memory',
    TargetError,
    /the world, \d+ bytes: cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY.*Free memory/,
    () => device.allocate(2 * total, 'the world'),
  );
  const other = device.info.sm === 80 ? 'sm_90a' : 'sm_80';
  const foreign = device.info.sm === 80 || device.info.sm >= 90;
  if (foreign)
    await expectError(
      'a foreign cubin',
      TargetError,
      /cuModuleLoadData failed: CUDA_ERROR_(NO_BINARY_FOR_GPU|INVALID_IMAGE).*rebuild/,
      () => device.loadKernel('wild', compile(wild, other)),
    );
  await expectError('no cubin at all', TargetError, /CUDA_ERROR_INVALID_IMAGE.*rebuild/, () =>
    device.loadKernel('wild', Buffer.from('not a cubin, but long enough to be looked at by the driver'.repeat(9))),
  );
  await expectError(
    'a kernel that is not in its cubin',
    TargetError,
    /tame: cuModuleGetFunction failed: CUDA_ERROR_NOT_FOUND/,
    () => device.loadKernel('tame', compile(wild, `sm_${device.info.sm}`)),
  );
  await expectError('a kernel that does not compile', CompileError, /does not compile:.*nothing/s, () =>
    compile('extern "C" __global__ void wild() { nothing; }', `sm_${device.info.sm}`),
  );
  await expectError(
    'no such device',
    TargetError,
    /no such CUDA device; expected a number from 0/,
    () => new CudaDevice(99),
  );
}
check(
  'nothing is open',
  Object.keys(openResources()).filter((kind) => kind !== 'library libnvrtc.so.13').length === 0,
  JSON.stringify(openResources()),
);

// A model for whose cache there is no room: something else holds the device's memory.
{
  using device = new CudaDevice();
  using hog = device.allocate(device.driver.memoryInfo().free - (48 << 20), 'what another program holds');
  check('the device is full', hog.bytes > 0);
  await expectError('a cache that does not fit', Error, /CUDA_ERROR_OUT_OF_MEMORY|no memory for/, async () => {
    const llm = await LLM.load(model, {
      ...{ target: 'cuda', cacheDir: folder, tune: false },
      kvCacheConfig: { maxTokens: 2 ** 20 },
      maxBatchSize: 512,
    });
    await llm[Symbol.asyncDispose]();
  });
}

// Eight requests at once: one fails by itself, one is cancelled, one is refused; the others are as they are alone.
{
  await using llm = await LLM.load(model, { target: 'cuda', dtype: 'float32', cacheDir: folder, tune: false });
  const generate = async (prompt: string, extra: object = {}, cancel = false): Promise<readonly number[]> => {
    let tokens: readonly number[] = [];
    const sampling = { maxTokens: 32, temperature: 0, ignoreEos: true, ...extra };
    for await (const part of llm.generateAsync(prompt, sampling)) {
      tokens = part.outputs[0]!.tokenIds;
      if (cancel && tokens.length > 4) break;
    }
    return tokens;
  };
  const prompts = Array.from({ length: 8 }, (_, i) => `Once upon a time there were ${i + 2} foxes`);
  const alone = await generate(prompts[0]!);
  const results = await Promise.allSettled(
    prompts.map((prompt, i) => {
      if (i === 3)
        return generate(prompt, {
          logitsProcessor: () => {
            throw new RangeError('this processor fails');
          },
        });
      if (i === 5) return generate(prompt, { maxTokens: 1 << 20 });
      return generate(prompt, {}, i === 6);
    }),
  );
  const reason = (i: number): string => String((results[i] as PromiseRejectedResult).reason);
  check(
    'the request whose processor fails',
    results[3]!.status === 'rejected' && /this processor fails/.test(reason(3)),
    reason(3),
  );
  check('the request that asks for too much', results[5]!.status === 'rejected' || results[5]!.value.length > 32);
  const others = [0, 1, 2, 4, 7].map((i) => results[i]!);
  check(
    'the others',
    others.every((result) => result.status === 'fulfilled' && result.value.length === 32),
  );
  const first = results[0]!;
  check(
    'the first is as it was alone',
    first.status === 'fulfilled' && JSON.stringify(first.value) === JSON.stringify(alone),
  );
}

// A wrong address breaks the process's context: every request of an engine beside it ends with the driver's symbol.
{
  const llm = await LLM.load(model, { target: 'cuda', cacheDir: folder, tune: false });
  const running = errorOf(async () => {
    for (let i = 0; i < 200; i++) await llm.generate(['Once upon a time'], { maxTokens: 64, ignoreEos: true });
  });
  const device = new CudaDevice();
  const kernel = device.loadKernel('wild', compile(wild, `sm_${device.info.sm}`));
  using stream = device.createStream();
  const args = [{ kind: 'pointer', buffer: 'p' }] as const;
  const shape = { grid: [1, 1, 1], threads: 1, sharedBytes: 0, args } as const;
  const launch = { kernel: { name: 'wild', include: '', type: '' }, ...shape };
  new PreparedLaunch(device, kernel, launch, { p: (1n << 62n) as DevicePtr }).issue(stream);
  await expectError('a wrong address', TargetError, /cuStreamSynchronize failed: CUDA_ERROR_\w+ .*\. \w/, () =>
    stream.synchronize(),
  );
  const lost = await running;
  check(
    'the engine that lost its device',
    lost?.name === 'ExecutorError' && /CUDA_ERROR_/.test(lost.message),
    lost?.message ?? 'it went on',
  );
  await errorOf(() => llm[Symbol.asyncDispose]());
}
rmSync(folder, { recursive: true, force: true });
console.log(failures === 0 ? 'all errors are as they should be' : `${failures} WRONG`);
process.exit(failures === 0 ? 0 : 1);
