// The executor's face to its user, over a message channel to an engine in this thread and, for crashes, over real worker threads.
import { describe, expect, it } from 'vitest';
import { FakeSession, type FakeSessionOptions } from '../../../test/support/fake-session.ts';
import { openResources } from '../../base/dispose.ts';
import { ExecutorError, RequestError, TargetError, UsageError } from '../../base/errors.ts';
import type { SamplingParams } from '../decode/sampling-params.ts';
import { blockHashes } from '../kv/block-keys.ts';
import { connectInThread, connectWorker } from './connect.ts';
import { Executor } from './executor.ts';
import type { RequestHandle } from './handle.ts';
import { bestSequences, type Response } from './outputs.ts';
import type { ExecutorOptions } from './protocol.ts';

const session = { engineDir: 'none', target: 'reference' } as const;

async function open(options: FakeSessionOptions = {}, executorOptions: Partial<ExecutorOptions> = {}) {
  const fake = new FakeSession(options);
  const executor = await Executor.create(
    { session, ...executorOptions },
    connectInThread(async () => fake),
  );
  return { fake, executor };
}

const prompt = [1, 2, 3, 4, 5, 6];

async function collect(handle: RequestHandle): Promise<Response[]> {
  const responses: Response[] = [];
  for await (const response of handle) responses.push(response);
  return responses;
}

async function tokensOf(executor: Executor, samplingParams: SamplingParams): Promise<readonly number[]> {
  return (await executor.enqueue({ promptTokenIds: prompt, samplingParams }).result()).outputs[0]!.tokenIds;
}

const nextStep = () => new Promise((resolve) => setTimeout(resolve, 5));

describe('Executor', () => {
  it('streams the tokens that its result holds, and leaves nothing open', async () => {
    const { fake, executor } = await open({ stepTime: 1 });
    const handle = executor.enqueue({ promptTokenIds: Int32Array.from(prompt), samplingParams: { maxTokens: 9 } });
    const responses = await collect(handle);
    const result = await handle.result();
    expect(responses.flatMap(({ outputs }) => outputs[0]?.tokenIds ?? [])).toEqual(result.outputs[0]!.tokenIds);
    expect(responses.length).toBeGreaterThan(3);
    expect(responses.map(({ finished }) => finished).indexOf(true)).toBe(responses.length - 1);
    expect(responses.at(-1)!.outputs[0]!.finishReason).toBe('length');
    expect(result).toMatchObject({ requestId: handle.requestId, outputs: [{ index: 0, finishReason: 'length' }] });
    expect(result.promptTokenIds).toEqual(Int32Array.from(prompt));
    await executor[Symbol.asyncDispose]();
    await executor[Symbol.asyncDispose]();
    expect(fake.disposed).toBe(true);
    expect(openResources()).toEqual({});
  });

  it('gives a slow reader fewer, larger responses', async () => {
    const { executor } = await open();
    await using _ = executor;
    const handle = executor.enqueue({ promptTokenIds: prompt, samplingParams: { maxTokens: 40 } });
    await handle.ended;
    const responses = await collect(handle);
    expect(responses).toHaveLength(1);
    expect(responses[0]!.outputs[0]!.tokenIds).toHaveLength(40);
  });

  it('never reads logits for requests that do not need them', async () => {
    const { fake, executor } = await open();
    await using _ = executor;
    await tokensOf(executor, { temperature: 0.8, topK: 5, topP: 0.9 });
    expect([fake.numReads, fake.numWrites]).toEqual([0, 0]);
    await tokensOf(executor, { logprobs: 2 });
    expect([fake.numReads > 0, fake.numWrites]).toEqual([true, 0]);
    await tokensOf(executor, { repetitionPenalty: 1.1 });
    expect(fake.numWrites).toBeGreaterThan(0);
  });

  it('returns log-probabilities and logits of prompt and output, the same whatever the chunks', async () => {
    const samplingParams: SamplingParams = {
      maxTokens: 5,
      logprobs: 3,
      promptLogprobs: 2,
      returnContextLogits: true,
      returnGenerationLogits: true,
      returnPerfMetrics: true,
      repetitionPenalty: 1.5,
    };
    const run = async (limits: FakeSessionOptions) => {
      const { executor } = await open(limits);
      await using _ = executor;
      const others = [1, 2, 3].map((token) =>
        executor.enqueue({ promptTokenIds: [token], samplingParams: { maxTokens: 20 } }).result(),
      );
      const handle = executor.enqueue({ promptTokenIds: prompt, samplingParams });
      const responses = await collect(handle);
      await Promise.all(others);
      return { result: await handle.result(), responses };
    };
    const whole = await run({});
    const { outputs, contextLogits, promptLogprobs, perfMetrics } = whole.result;
    const [output] = outputs;
    expect(contextLogits!.shape).toEqual([6, 32]);
    expect(output!.generationLogits!.shape).toEqual([5, 32]);
    expect(output!.generationLogits!.data).toHaveLength(5 * 32);
    expect(promptLogprobs!.map((entries) => entries[0]?.tokenId)).toEqual([undefined, 2, 3, 4, 5, 6]);
    expect(promptLogprobs!.slice(1).every(({ length }) => length === 2 || length === 3)).toBe(true);
    expect(output!.logprobs!.map(([first]) => first!.tokenId)).toEqual(output!.tokenIds);
    const sum = output!.logprobs!.reduce((total, [first]) => total + first!.logprob, 0);
    expect(output!.cumulativeLogprob).toBeCloseTo(sum, 10);
    expect(whole.responses.flatMap((response) => response.contextLogits ?? [])).toHaveLength(1);
    expect(perfMetrics!.lastTokenTime).toBeGreaterThanOrEqual(perfMetrics!.firstTokenTime!);
    for (const limits of [
      { maxNumTokens: 4, maxBatchSize: 4 },
      { maxNumLogits: 4, maxBatchSize: 4 },
      { maxNumTokens: 5, maxNumLogits: 4 },
    ]) {
      const { result } = await run(limits);
      expect({ ...result, perfMetrics: 0, requestId: 0 }).toEqual({ ...whole.result, perfMetrics: 0, requestId: 0 });
    }
  });

  it('returns the logits of a prompt once, though it is computed again after a preemption', async () => {
    const run = async (numBlocks: number) => {
      const { executor } = await open(
        { numBlocks },
        { schedulerConfig: { capacitySchedulerPolicy: 'max_utilization' } },
      );
      await using _ = executor;
      const samplingParams = { maxTokens: 24, promptLogprobs: 1, returnContextLogits: true };
      const handles = [1, 2, 3, 4].map((token) =>
        executor.enqueue({ promptTokenIds: [token, ...prompt], samplingParams }),
      );
      const results = await Promise.all(handles.map((handle) => handle.result()));
      return { results, numPreemptions: (await executor.statistics()).numPreemptions };
    };
    const ample = await run(64);
    const tiny = await run(9);
    expect([ample.numPreemptions, tiny.numPreemptions > 0]).toEqual([0, true]);
    expect(tiny.results).toEqual(ample.results);
    expect(tiny.results.map(({ contextLogits }) => contextLogits!.shape)).toEqual(new Array(4).fill([7, 32]));
  });

  it('finds a prompt that it has seen, and still returns the logits of all of it', async () => {
    const { executor } = await open(
      { maxNumTokens: 16 },
      { session: { ...session, kvCacheConfig: { eventBufferMaxSize: 100 } } },
    );
    await using _ = executor;
    const { executor: fresh } = await open({}, { session: { ...session, kvCacheConfig: { enableBlockReuse: false } } });
    await using __ = fresh;
    const long = Array.from({ length: 30 }, (_, i) => (i * 7) % 32);
    const ask = async (to: Executor, samplingParams: SamplingParams, cacheSalt?: string) =>
      await to
        .enqueue({ promptTokenIds: long, samplingParams, ...(cacheSalt === undefined ? {} : { cacheSalt }) })
        .result();
    const all = { maxTokens: 4, promptLogprobs: 1, returnContextLogits: true };
    expect((await ask(executor, { maxTokens: 4 })).cachedTokens).toBe(0);
    const again = await ask(executor, { maxTokens: 4 });
    expect(again.cachedTokens).toBe(29);
    expect((await ask(executor, { maxTokens: 4 }, 'salt')).cachedTokens).toBe(0);
    const withLogits = await ask(executor, all);
    expect(withLogits.cachedTokens).toBe(0);
    expect({ ...withLogits, requestId: 1 }).toEqual({ ...(await ask(fresh, all)), requestId: 1 });
    expect(again.outputs).toEqual((await ask(fresh, { maxTokens: 4 })).outputs);
    expect((await ask(fresh, { maxTokens: 4 })).cachedTokens).toBe(0);
    const { kvCacheStats } = await executor.statistics();
    expect(kvCacheStats.reusedBlocks).toBe(8);
    const stored = (await executor.kvCacheEvents()).flatMap(({ data }) => (data.type === 'stored' ? data.blocks : []));
    expect(stored.map(({ blockHash }) => blockHash)).toEqual(expect.arrayContaining(blockHashes(long, 4)));
    expect(await fresh.kvCacheEvents()).toEqual([]);
  });

  it('forks n sequences, and keeps the best of bestOf', async () => {
    const { fake, executor } = await open();
    await using _ = executor;
    const handle = executor.enqueue({
      promptTokenIds: prompt,
      samplingParams: { temperature: 1, seed: 5, n: 4, maxTokens: 8 },
    });
    const four = (await handle.result()).outputs;
    expect(four.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(fake.numCopies).toBe(3);
    for (const { index, tokenIds } of four)
      expect(await tokensOf(executor, { temperature: 1, seed: 5 + index, maxTokens: 8 })).toEqual(tokenIds);
    const best = executor.enqueue({
      promptTokenIds: prompt,
      samplingParams: { temperature: 1, seed: 5, n: 2, bestOf: 4, maxTokens: 8 },
    });
    expect((await best.result()).outputs).toEqual(bestSequences(four, 2));
    expect((await best.result()).outputs[0]!.cumulativeLogprob).toBe(Math.max(...four.map((o) => o.cumulativeLogprob)));
  });

  it('draws a new seed for each request that names none', async () => {
    const { executor } = await open();
    await using _ = executor;
    const draws = await Promise.all([1, 2, 3, 4].map(() => tokensOf(executor, { temperature: 1.5 })));
    expect(new Set(draws.map(String)).size).toBeGreaterThan(1);
  });

  it('streams what all beams have in common, and gives the best ones whole', async () => {
    const { fake, executor } = await open({ stepTime: 1, vocabSize: 8 });
    await using _ = executor;
    const search = async (samplingParams: SamplingParams) => {
      const handle = executor.enqueue({
        promptTokenIds: prompt,
        samplingParams: { useBeamSearch: true, n: 3, bestOf: 4, maxTokens: 20, ...samplingParams },
      });
      const responses = await collect(handle);
      return { responses, outputs: (await handle.result()).outputs };
    };
    const { responses, outputs } = await search({ logprobs: 1, returnGenerationLogits: true });
    expect(outputs.map(({ index, tokenIds }) => [index, tokenIds.length])).toEqual([0, 1, 2].map((i) => [i, 20]));
    const sums = outputs.map(({ cumulativeLogprob }) => cumulativeLogprob);
    expect(sums).toEqual([...sums].sort((a, b) => b - a));
    for (const { tokenIds, logprobs, generationLogits, cumulativeLogprob } of outputs) {
      expect(logprobs!.map(([first]) => first!.tokenId)).toEqual(tokenIds);
      expect(logprobs!.reduce((sum, [first]) => sum + first!.logprob, 0)).toBeCloseTo(cumulativeLogprob, 4);
      expect(generationLogits!.shape).toEqual([20, 8]);
    }
    // The best one came in parts, never taken back; the others at the end.
    const parts = responses.flatMap((response) => response.outputs).filter(({ index }) => index === 0);
    expect(parts.flatMap(({ tokenIds }) => tokenIds)).toEqual(outputs[0]!.tokenIds);
    expect(parts.length).toBeGreaterThan(2);
    expect(fake.numCopies).toBeGreaterThan(10);
    // It is at least as good as taking the likeliest token each time.
    const greedy = await executor.enqueue({ promptTokenIds: prompt, samplingParams: { maxTokens: 20 } }).result();
    expect(sums[0]!).toBeGreaterThanOrEqual(greedy.outputs[0]!.cumulativeLogprob);

    const [best] = outputs;
    const word = best!.tokenIds.slice(8, 10);
    const stopped = await search({ stopWords: [word] });
    for (const { tokenIds, finishReason, stopReason } of stopped.outputs) {
      if (finishReason === 'stop') expect(stopReason).toEqual(word);
      expect(String(tokenIds)).not.toContain(String(word));
    }
    expect(stopped.outputs.some(({ finishReason }) => finishReason === 'stop')).toBe(true);
    expect((await search({ bestOf: 16, n: 1, beamWidthArray: [1] as never }).catch(String)) as string).toContain('16');
    const narrow = await search({ beamWidthArray: [4, 2, 1], n: 1, bestOf: 4 });
    expect(narrow.outputs[0]!.tokenIds).toHaveLength(20);
    const diverse = await search({ beamSearchDiversityRate: 3 });
    expect(diverse.outputs.map(({ tokenIds }) => tokenIds)).not.toEqual(outputs.map(({ tokenIds }) => tokenIds));
    await expect(search({ badTokenIds: [0, 1, 2, 3, 4, 5, 6, 7] })).rejects.toThrow('no token is left');
    expect((await executor.statistics()).kvCacheStats.usedNumBlocks).toBe(0);
  });

  it('ends a beam search from outside with what it has', async () => {
    const { executor } = await open({ stepTime: 1 });
    await using _ = executor;
    const handle = executor.enqueue({
      promptTokenIds: prompt,
      samplingParams: { useBeamSearch: true, n: 2, maxTokens: 50 },
    });
    await nextStep();
    handle.cancel();
    const { outputs } = await handle.result();
    expect(outputs.map(({ finishReason }) => finishReason)).toEqual(['cancelled', 'cancelled']);
    await nextStep();
    expect((await executor.statistics()).kvCacheStats.usedNumBlocks).toBe(0);
  });

  it('stops at stop words that are cut across tokens, and gives no token of them out', async () => {
    const { executor } = await open({ stepTime: 1 });
    await using _ = executor;
    const free = await tokensOf(executor, { maxTokens: 12 });
    const word = free.slice(5, 8);
    const handle = executor.enqueue({ promptTokenIds: prompt, samplingParams: { maxTokens: 12, stopWords: [word] } });
    const streamed = (await collect(handle)).flatMap(({ outputs }) => outputs[0]?.tokenIds ?? []);
    expect(streamed).toEqual(free.slice(0, 5));
    expect((await handle.result()).outputs[0]).toMatchObject({
      tokenIds: streamed,
      finishReason: 'stop',
      stopReason: word,
    });
    expect(await tokensOf(executor, { maxTokens: 12, stopWords: [word], includeStopStrInOutput: true })).toEqual(
      free.slice(0, 8),
    );
    expect(await tokensOf(executor, { maxTokens: 12, excludeInputFromOutput: false })).toEqual([...prompt, ...free]);
  });

  it('lets its user finish a sequence, and drops what comes after', async () => {
    const { executor } = await open({ stepTime: 1 });
    await using _ = executor;
    const free = await tokensOf(executor, { maxTokens: 30 });
    const handle = executor.enqueue({ promptTokenIds: prompt, samplingParams: { maxTokens: 30 } });
    let count = 0;
    for await (const { outputs } of handle) {
      count += outputs[0]!.tokenIds.length;
      if (count >= 4) handle.finish(0, { stopReason: 'END', numTokens: 3 });
    }
    expect((await handle.result()).outputs[0]).toMatchObject({
      tokenIds: free.slice(0, 3),
      finishReason: 'stop',
      stopReason: 'END',
    });
    await nextStep();
    expect((await executor.statistics()).kvCacheStats.usedNumBlocks).toBe(0);
  });

  it('cancels: by the handle, by a signal, by leaving the loop', async () => {
    const { executor } = await open({ stepTime: 1 });
    await using _ = executor;
    const request = { promptTokenIds: prompt, samplingParams: { maxTokens: 50, n: 2, temperature: 1 } };
    const first = executor.enqueue(request);
    await nextStep();
    first.cancel();
    expect((await first.result()).outputs.map(({ finishReason }) => finishReason)).toEqual(['cancelled', 'cancelled']);

    const controller = new AbortController();
    const second = executor.enqueue({ ...request, signal: controller.signal });
    const reading = collect(second);
    await nextStep();
    controller.abort(new Error('enough'));
    await expect(reading).rejects.toThrow('enough');
    await expect(second.result()).rejects.toThrow('enough');
    expect(() => executor.enqueue({ ...request, signal: controller.signal })).toThrow('enough');

    const third = executor.enqueue(request);
    for await (const response of third) if (response.outputs.length > 0) break;
    expect((await third.result()).outputs[0]!.finishReason).toBe('cancelled');
    await nextStep();
    const statistics = await executor.statistics();
    expect(statistics).toMatchObject({
      numActiveRequests: 0,
      numQueuedRequests: 0,
      requests: [],
      kvCacheStats: { usedNumBlocks: 0 },
    });
  });

  it('refuses at once what it can never serve, with the numbers', async () => {
    const { executor } = await open({ numBlocks: 4 });
    await using _ = executor;
    const refused: [Parameters<Executor['enqueue']>[0], string][] = [
      [{ promptTokenIds: [] }, 'the prompt is empty'],
      [{ promptTokenIds: 'abc' as never }, 'not a list'],
      [
        { promptTokenIds: [1, 32] },
        'promptTokenIds[1]: not a token of the vocabulary; expected an integer from 0 to 31; got 32',
      ],
      [{ promptTokenIds: [1.5] }, 'got 1.5'],
      [{ promptTokenIds: [Number.NaN] }, 'got NaN'],
      [{ promptTokenIds: [-1] }, 'got -1'],
      [
        { promptTokenIds: new Array(64).fill(1) },
        'fewer than maxSeqLen = 64 tokens, to leave room for one more; got 64 tokens',
      ],
      [
        { promptTokenIds: new Array(20).fill(1) },
        'at most 4 blocks of 4 tokens; got 20 prompt tokens and up to 32 more: 13 blocks',
      ],
      [{ promptTokenIds: prompt, priority: 2 }, 'priority'],
      [{ promptTokenIds: prompt, priority: Number.NaN }, 'priority'],
      [{ promptTokenIds: prompt, samplingParams: { temperature: Number.NaN } }, 'samplingParams.temperature'],
      [{ promptTokenIds: prompt, samplingParams: { useBeamSearch: true, n: 9 } }, 'at most 8'],
      [{ promptTokenIds: prompt, samplingParams: { lookaheadConfig: {} } }, 'not supported yet'],
    ];
    for (const [request, message] of refused) {
      expect(() => executor.enqueue(request)).toThrow(RequestError);
      expect(() => executor.enqueue(request)).toThrow(message);
    }
    const long = new Array(64).fill(1).map((_, i) => i % 32);
    const kept = executor.enqueue({ promptTokenIds: long, samplingParams: { truncatePromptTokens: 5, maxTokens: 2 } });
    expect((await kept.result()).promptTokenIds).toEqual(Int32Array.from(long.slice(-5)));
  });

  it('ends one request on its own error, and no other', async () => {
    const { executor } = await open();
    await using _ = executor;
    const fine = executor.enqueue({ promptTokenIds: prompt, samplingParams: { maxTokens: 20 } });
    const everything = Array.from({ length: 32 }, (_, id) => id);
    const broken = executor.enqueue({ promptTokenIds: prompt, samplingParams: { badTokenIds: everything } });
    await expect(broken.result()).rejects.toThrow('no token is left to sample');
    await expect(broken.result()).rejects.toBeInstanceOf(RequestError);
    expect((await fine.result()).outputs[0]!.tokenIds).toHaveLength(20);
  });

  it('ends all requests when the session fails, and says why ever after', async () => {
    const { fake, executor } = await open({ failAt: 3 });
    const handles = [1, 2, 3].map((token) =>
      executor.enqueue({ promptTokenIds: [token], samplingParams: { maxTokens: 20 } }),
    );
    for (const handle of handles) await expect(handle.result()).rejects.toThrow('the device fell over');
    await expect(collect(handles[0]!)).rejects.toBeInstanceOf(ExecutorError);
    expect(() => executor.enqueue({ promptTokenIds: [1] })).toThrow('the device fell over');
    await expect(executor.statistics()).rejects.toThrow('the device fell over');
    await executor[Symbol.asyncDispose]();
    expect(fake.disposed).toBe(true);
    expect(openResources()).toEqual({});
  });

  it('rejects with what opening the session threw', async () => {
    const connect = connectInThread(async () => {
      throw new TargetError('no such device', { where: 'cuda' });
    });
    await expect(Executor.create({ session }, connect)).rejects.toBeInstanceOf(TargetError);
    await expect(Executor.create({ session }, connect)).rejects.toThrow('cuda: no such device');
    expect(openResources()).toEqual({});
  });

  it('refuses options that make no sense', async () => {
    const refused: [Partial<ExecutorOptions>, string][] = [
      [{ maxQueueSize: 0 }, 'maxQueueSize'],
      [{ iterStatsMaxIterations: Number.NaN }, 'iterStatsMaxIterations'],
      [{ schedulerConfig: { contextChunkSize: 0 } }, 'schedulerConfig.contextChunkSize'],
      [{ speculativeConfig: { decodingType: 'eagle' as never } }, "'ngram'"],
      [{ speculativeConfig: { decodingType: 'ngram', maxDraftLen: 0 } }, 'speculativeConfig.maxDraftLen'],
      [{ schedulerConfig: { capacitySchedulerPolicy: 'greedy' as never } }, 'max_utilization'],
      [{ schedulerConfig: { policy: 'max_utilization' } as never }, 'capacitySchedulerPolicy'],
    ];
    for (const [options, message] of refused) {
      await expect(open({}, options)).rejects.toThrow(message);
      await expect(open({}, options)).rejects.toBeInstanceOf(UsageError);
    }
  });

  it('ends open requests when it is disposed, and queues no more than it may', async () => {
    const { executor } = await open({ stepTime: 1 }, { maxQueueSize: 2 });
    const handles = [1, 2].map((token) =>
      executor.enqueue({ promptTokenIds: [token], samplingParams: { maxTokens: 50 } }),
    );
    expect(() => executor.enqueue({ promptTokenIds: [1] })).toThrow('at most maxQueueSize = 2');
    await executor[Symbol.asyncDispose]();
    for (const handle of handles) await expect(handle.result()).rejects.toThrow('disposed');
    expect(() => executor.enqueue({ promptTokenIds: [1] })).toThrow('disposed');
  });

  it('counts', async () => {
    const { executor } = await open(
      { numBlocks: 12 },
      { schedulerConfig: { capacitySchedulerPolicy: 'max_utilization' }, iterStatsMaxIterations: 5 },
    );
    await using _ = executor;
    await Promise.all(
      [1, 2, 3, 4].map((token) =>
        executor.enqueue({ promptTokenIds: [token], samplingParams: { maxTokens: 30 } }).result(),
      ),
    );
    const { iterations, numPreemptions, numCompletedRequests, numIterations, kvCacheStats } =
      await executor.statistics();
    expect(numPreemptions).toBeGreaterThan(0);
    expect([numCompletedRequests, kvCacheStats.usedNumBlocks, iterations.length]).toEqual([4, 0, 5]);
    expect(iterations.at(-1)!.iter).toBe(numIterations - 1);
    expect(iterations.at(-1)!.inflightBatchingStats).toMatchObject({
      numScheduledRequests: 1,
      numGenRequests: 1,
      numContextRequests: 0,
    });
  });
});

describe('an engine in a worker thread', () => {
  const worker = (code: string) =>
    connectWorker(
      new URL(`data:text/javascript,${encodeURIComponent(`import { parentPort } from 'node:worker_threads';${code}`)}`),
    );
  const limits = JSON.stringify(new FakeSession().limits);

  it('that dies takes its open requests with it', async () => {
    const dies = worker(
      `parentPort.postMessage({ type: 'ready', limits: ${limits} }); parentPort.on('message', () => { throw new Error('out of order'); });`,
    );
    const executor = await Executor.create({ session }, dies);
    await expect(executor.enqueue({ promptTokenIds: [1] }).result()).rejects.toThrow(
      'the engine thread died; got out of order',
    );
    expect(() => executor.enqueue({ promptTokenIds: [1] })).toThrow(ExecutorError);
    await executor[Symbol.asyncDispose]();
    expect(openResources()).toEqual({});
  });

  it('that exits, or dies before it is ready, is noticed', async () => {
    const exits = worker(
      `parentPort.postMessage({ type: 'ready', limits: ${limits} }); parentPort.on('message', () => process.exit(3));`,
    );
    const executor = await Executor.create({ session }, exits);
    await expect(executor.statistics()).rejects.toThrow('exit code 3');
    await expect(Executor.create({ session }, worker(`throw new Error('bad start');`))).rejects.toThrow('bad start');
    await expect(Executor.create({ session }, worker(''))).rejects.toThrow('ended before it was ready');
    expect(openResources()).toEqual({});
  });
});
