import { describe, expect, test } from 'vitest';
import { UsageError } from '../base/errors.ts';
import { silent } from '../base/progress.ts';
import { resolveOptions } from './options.ts';

test('nothing said: the defaults that hold for every model', () => {
  expect(resolveOptions()).toEqual({
    target: 'auto',
    dtype: 'auto',
    maxBeamWidth: 16,
    skipTokenizerInit: false,
    loadFormat: 'auto',
    progress: silent,
    kvCacheConfig: { tokensPerBlock: 32 },
    schedulerConfig: { capacitySchedulerPolicy: 'guaranteed_no_evict' },
  });
});

test('what is said stands, inner defaults are filled in, undefined counts as left out', () => {
  const signal = AbortSignal.timeout(1e6);
  const options = resolveOptions({
    ...{ target: 'cpu', dtype: 'float32', maxBatchSize: 8, seed: 0, signal },
    kvCacheConfig: { maxTokens: 4096, tokensPerBlock: 16 },
    ...({ maxSeqLen: undefined, maxBeamWidth: undefined } as object),
  });
  expect(options).toMatchObject({ target: 'cpu', dtype: 'float32', maxBatchSize: 8, maxBeamWidth: 16, seed: 0 });
  expect(options.signal).toBe(signal);
  expect(options.kvCacheConfig).toMatchObject({ maxTokens: 4096, tokensPerBlock: 16 });
  expect('maxSeqLen' in options).toBe(false);
});

test("TensorRT-LLM's spelling of policies is understood", () => {
  const schedulerConfig = { capacitySchedulerPolicy: 'MAX_UTILIZATION' as never };
  expect(resolveOptions({ schedulerConfig }).schedulerConfig.capacitySchedulerPolicy).toBe('max_utilization');
});

describe('wrong options are refused', () => {
  test.each<[object, RegExp]>([
    [{ maxBatchsize: 3 }, /maxBatchsize: unknown option.*maxBatchSize/],
    [{ max_seq_len: 3 }, /max_seq_len: unknown option.*maxSeqLen/],
    [{ kvCacheConfig: { tokenPerBlock: 3 } }, /kvCacheConfig\.tokenPerBlock: unknown option.*tokensPerBlock/],
    [{ schedulerConfig: { policy: 'x' } }, /schedulerConfig\.policy: unknown option.*capacitySchedulerPolicy/],
    [{ target: 'gpu' }, /target: .*"auto"\|"cuda"\|"cpu"\|"reference".*got "gpu"/],
    [{ dtype: 'int8' }, /dtype: .*float32/],
    [{ maxBatchSize: 0 }, /maxBatchSize: /],
    [{ maxNumTokens: 1.5 }, /maxNumTokens: .*whole number.*got 1\.5/],
    [{ maxSeqLen: Number.NaN }, /maxSeqLen: /],
    [{ maxBeamWidth: 17 }, /maxBeamWidth: .*16.*got 17/],
    [{ seed: -1 }, /seed: /],
    [{ kvCacheConfig: { freeGpuMemoryFraction: 0 } }, /kvCacheConfig\.freeGpuMemoryFraction: /],
    [{ kvCacheConfig: { freeGpuMemoryFraction: 1.1 } }, /kvCacheConfig\.freeGpuMemoryFraction: /],
    [{ kvCacheConfig: { tokensPerBlock: 24 } }, /power of two; got 24/],
    [{ kvCacheConfig: 3 }, /kvCacheConfig: /],
    [{ schedulerConfig: { capacitySchedulerPolicy: 'best' } }, /capacitySchedulerPolicy: .*guaranteed_no_evict/],
    [{ progress: true }, /progress: .*function/],
    [{ signal: {} }, /signal: .*AbortSignal/],
    [{ revision: '' }, /revision: /],
    [[], /options: /],
    [null as unknown as object, /options: /],
  ])('%j', (options, message) => {
    expect(() => resolveOptions(options)).toThrow(UsageError);
    expect(() => resolveOptions(options)).toThrow(message);
  });

  test('a token never appears in the message', () => {
    expect(() => resolveOptions({ token: { secret: 'hf_abc' } as never })).toThrow(/^token: (?!.*hf_abc)/);
  });
});
