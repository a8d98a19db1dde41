// What a user brings along: logits processors in the user's thread, time limits, a topP that changes on the way.
import { describe, expect, it } from 'vitest';
import { FakeSession, type FakeSessionOptions } from '../../../test/support/fake-session.ts';
import { openResources } from '../../base/dispose.ts';
import { RequestError } from '../../base/errors.ts';
import type { LogitsProcessorCall, SamplingParams } from '../decode/sampling-params.ts';
import { connectInThread } from './connect.ts';
import { Executor } from './executor.ts';
import type { ExecutorOptions } from './protocol.ts';

const prompt = [1, 2, 3, 4, 5, 6];

async function open(options: FakeSessionOptions = {}, executorOptions: Partial<ExecutorOptions> = {}) {
  const fake = new FakeSession(options);
  const session = { engineDir: 'none', target: 'reference' } as const;
  const connect = connectInThread(async () => fake);
  return { fake, executor: await Executor.create({ session, ...executorOptions }, connect) };
}

async function tokensOf(executor: Executor, samplingParams: SamplingParams): Promise<readonly number[]> {
  return (await executor.enqueue({ promptTokenIds: prompt, samplingParams }).result()).outputs[0]!.tokenIds;
}

/** Lets only these tokens through, in this order. */
const spell =
  (word: readonly number[]) =>
  ({ logits, tokenIds, promptLength }: LogitsProcessorCall): void => {
    const token = word[(tokenIds.length - promptLength) % word.length]!;
    const kept = logits[token]!;
    logits.fill(Number.NEGATIVE_INFINITY);
    logits[token] = kept;
  };

describe("the user's logits processors", () => {
  it('decide what is generated, each for its own request, at once or later', async () => {
    const { executor } = await open();
    await using _ = executor;
    const calls: LogitsProcessorCall[] = [];
    const [first, second, plain] = await Promise.all([
      tokensOf(executor, { maxTokens: 4, logitsProcessor: spell([7, 8, 9]) }),
      tokensOf(executor, {
        maxTokens: 4,
        logitsProcessor: [
          async (call) => {
            await new Promise((resolve) => setTimeout(resolve, 1));
            calls.push({ ...call, logits: call.logits.slice() });
            call.logits[30] = 100;
          },
          (call) => {
            call.logits[31] = 200;
          },
        ],
      }),
      tokensOf(executor, { maxTokens: 4 }),
    ]);
    expect([first, second]).toEqual([
      [7, 8, 9, 7],
      [31, 31, 31, 31],
    ]);
    expect(plain).toEqual(await tokensOf(executor, { maxTokens: 4 }));
    expect(calls.map(({ tokenIds }) => [...tokenIds])).toEqual(
      [0, 1, 2, 3].map((count) => [...prompt, ...new Array(count).fill(31)]),
    );
    expect(calls[0]).toMatchObject({ index: 0, promptLength: 6 });
    // Penalties and bans come after; log-probabilities are the model's own.
    const banned = await tokensOf(executor, { maxTokens: 2, logitsProcessor: spell([7]), badTokenIds: [31] });
    expect(banned).toEqual([7, 7]);
    const { outputs } = await executor
      .enqueue({ promptTokenIds: prompt, samplingParams: { maxTokens: 1, logprobs: 0, logitsProcessor: spell([7]) } })
      .result();
    expect(outputs[0]!.logprobs![0]![0]!.logprob).toBeLessThan(-1);
  });

  it('work on beams', async () => {
    const { executor } = await open();
    await using _ = executor;
    const logitsProcessor = spell([3, 1, 4, 1, 5]);
    expect(await tokensOf(executor, { useBeamSearch: true, bestOf: 2, maxTokens: 5, logitsProcessor })).toEqual([
      3, 1, 4, 1, 5,
    ]);
  });

  it('may be one for all requests of a step', async () => {
    const sizes: number[] = [];
    const batchedLogitsProcessor = (calls: readonly LogitsProcessorCall[]) => {
      sizes.push(calls.length);
      for (const call of calls) spell([call.tokenIds[0]!])(call);
    };
    const { executor } = await open({ stepTime: 1 }, { batchedLogitsProcessor });
    await using _ = executor;
    const results = await Promise.all(
      [4, 5, 6].map((first) =>
        executor
          .enqueue({ promptTokenIds: [first, 1], samplingParams: { maxTokens: 3, applyBatchedLogitsProcessor: true } })
          .result(),
      ),
    );
    expect(results.map(({ outputs }) => outputs[0]!.tokenIds)).toEqual([4, 5, 6].map((id) => [id, id, id]));
    expect(Math.max(...sizes)).toBe(3);
    const { executor: without } = await open();
    await using __ = without;
    await expect(tokensOf(without, { applyBatchedLogitsProcessor: true })).rejects.toThrow('batchedLogitsProcessor');
    expect(() =>
      executor.enqueue({
        promptTokenIds: [1],
        samplingParams: { applyBatchedLogitsProcessor: true, logitsProcessor: () => {} },
      }),
    ).toThrow('either the own or the batched');
  });

  it('end their request alone when they throw, with the cause', async () => {
    const { executor } = await open();
    await using _ = executor;
    const cause = new TypeError('off by one');
    let count = 0;
    const bad = executor.enqueue({
      promptTokenIds: prompt,
      samplingParams: {
        maxTokens: 20,
        logitsProcessor: () => {
          if (++count === 3) throw cause;
        },
      },
    });
    const fine = executor.enqueue({ promptTokenIds: prompt, samplingParams: { maxTokens: 20 } });
    const error = await bad.result().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(RequestError);
    expect(error).toMatchObject({ message: 'the logits processor failed: off by one', cause });
    expect((await fine.result()).outputs[0]!.tokenIds).toHaveLength(20);
    expect((await executor.statistics()).kvCacheStats.usedNumBlocks).toBe(0);
  });

  it('hold nobody up for a request that has ended, nor the executor at its end', async () => {
    const { executor, fake } = await open();
    const never = () => new Promise<void>(() => {});
    const stuck = executor.enqueue({ promptTokenIds: prompt, samplingParams: { logitsProcessor: never } });
    await new Promise((resolve) => setTimeout(resolve, 10));
    stuck.cancel();
    expect(await tokensOf(executor, { maxTokens: 3 })).toHaveLength(3);
    const last = executor.enqueue({ promptTokenIds: prompt, samplingParams: { logitsProcessor: never } });
    await new Promise((resolve) => setTimeout(resolve, 10));
    await executor[Symbol.asyncDispose]();
    await expect(last.result()).rejects.toThrow('disposed');
    expect([fake.disposed, openResources()]).toEqual([true, {}]);
  });
});

describe('limits of a request', () => {
  it('ends what takes too long with what it has', async () => {
    const { executor } = await open({ stepTime: 5 });
    await using _ = executor;
    const request = { promptTokenIds: prompt, samplingParams: { maxTokens: 50, n: 2, temperature: 1, seed: 3 } };
    const { outputs } = await executor.enqueue({ ...request, allottedTimeMs: 60 }).result();
    expect(outputs.map(({ finishReason }) => finishReason)).toEqual(['timeout', 'timeout']);
    expect(outputs[0]!.tokenIds.length).toBeGreaterThan(1);
    expect(outputs[0]!.tokenIds.length).toBeLessThan(40);
    const beams = { promptTokenIds: prompt, samplingParams: { maxTokens: 50, useBeamSearch: true, n: 2 } };
    const searched = await executor.enqueue({ ...beams, allottedTimeMs: 60 }).result();
    expect(searched.outputs[0]!.finishReason).toBe('timeout');
    expect(searched.outputs[0]!.tokenIds.length).toBeGreaterThan(1);
    const quick = await executor
      .enqueue({ promptTokenIds: prompt, samplingParams: { maxTokens: 2 }, allottedTimeMs: 10_000 })
      .result();
    expect(quick.outputs[0]!.finishReason).toBe('length');
    for (const allottedTimeMs of [0, -1, Number.NaN, '1' as never])
      expect(() => executor.enqueue({ ...request, allottedTimeMs })).toThrow('allottedTimeMs');
  });

  it('lets topP decay, down to topPMin, and begin anew', async () => {
    const { fake, executor } = await open();
    await using _ = executor;
    const seen: number[] = [];
    const forward = fake.forward.bind(fake);
    fake.forward = async (batch, times) => {
      if (batch.numLogits > 0) seen.push(batch.sampling.topP[0]!);
      await forward(batch, times);
    };
    const logitsProcessor = spell([7, 8, 9, 7, 8, 8, 8, 8]);
    const params = { maxTokens: 8, temperature: 1, topP: 0.8, topPDecay: 0.5, topPMin: 0.15, topPResetIds: 9 };
    await tokensOf(executor, { ...params, logitsProcessor });
    const expected = [0.8, 0.4, 0.2, 0.8, 0.4, 0.2, 0.15, 0.15];
    seen.forEach((value, i) => {
      expect(value).toBeCloseTo(expected[i]!, 6);
    });
    expect(seen).toHaveLength(8);
  });
});
