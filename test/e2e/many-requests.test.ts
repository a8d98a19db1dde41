// 64 requests of random lengths that arrive at random steps, a third of them cancelled at random: every finished one gives the tokens of its solo run.
import { buildEngine, findTarget, openCheckpoint } from 'typert/engine';
import { Executor } from 'typert/executor';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { goldenPath } from '../support/golden.ts';
import { temporaryFolder } from '../support/temporary.ts';

const folder = temporaryFolder();
const engineDir = `${folder}/engine`;

/** Mulberry32: the same numbers every time. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

const random = generator(2024);
const requests = Array.from({ length: 64 }, (_, i) => ({
  promptTokenIds: Array.from({ length: 1 + random(40) }, () => 3 + random(253)),
  maxTokens: 1 + random(30),
  delay: random(120),
  cancelAfter: i % 3 === 0 ? random(12) : undefined,
}));
const solo: number[][] = [];

beforeAll(async () => {
  using checkpoint = await openCheckpoint(goldenPath('llama'), { cacheDir: folder });
  await buildEngine({
    checkpoint,
    target: findTarget('reference'),
    engineDir,
    build: { dtype: 'float32', maxSeqLen: 80, maxBatchSize: 16, maxNumTokens: 48, tokensPerBlock: 8 },
  });
  await using executor = await Executor.create({ session: { engineDir, target: 'reference' } });
  for (const { promptTokenIds, maxTokens } of requests) {
    const result = await executor.enqueue({ promptTokenIds, samplingParams: { maxTokens, ignoreEos: true } }).result();
    solo.push([...result.outputs[0]!.tokenIds]);
  }
});

afterAll(() => {
  expect(solo).toHaveLength(64);
});

describe.each([
  { name: 'ample pool, guaranteed_no_evict', policy: 'guaranteed_no_evict', blocks: 160, preempts: false },
  { name: 'ample pool, max_utilization', policy: 'max_utilization', blocks: 160, preempts: false },
  { name: 'small pool, max_utilization', policy: 'max_utilization', blocks: 20, preempts: true },
  { name: 'smallest pool, guaranteed_no_evict', policy: 'guaranteed_no_evict', blocks: 10, preempts: false },
] as const)('$name', ({ policy, blocks, preempts }) => {
  test('every finished request equals its solo run and all blocks are free at the end', async () => {
    await using executor = await Executor.create({
      session: { engineDir, target: 'reference', kvCacheConfig: { maxTokens: blocks * 8 } },
      schedulerConfig: { capacitySchedulerPolicy: policy },
    });
    expect(executor.limits.numBlocks).toBe(blocks);
    let [finished, cancelled] = [0, 0];
    await Promise.all(
      requests.map(async ({ promptTokenIds, maxTokens, delay, cancelAfter }, i) => {
        await new Promise((resolve) => setTimeout(resolve, delay));
        const handle = executor.enqueue({ promptTokenIds, samplingParams: { maxTokens, ignoreEos: true } });
        const tokens: number[] = [];
        for await (const response of handle) {
          tokens.push(...(response.outputs[0]?.tokenIds ?? []));
          if (cancelAfter !== undefined && tokens.length >= cancelAfter) break;
        }
        const result = await handle.result();
        if (result.outputs[0]!.finishReason === 'cancelled') {
          cancelled++;
          expect(solo[i]!.slice(0, tokens.length)).toEqual(tokens);
        } else {
          finished++;
          expect(tokens).toEqual(solo[i]);
        }
      }),
    );
    expect(finished).toBeGreaterThanOrEqual(42);
    expect(cancelled).toBeGreaterThan(5);
    // One more request flushes the last cancellations through a step.
    await executor.enqueue({ promptTokenIds: [5], samplingParams: { maxTokens: 1 } }).result();
    const { kvCacheStats, numPreemptions } = await executor.statistics();
    expect(kvCacheStats).toMatchObject({ usedNumBlocks: 0, freeNumBlocks: blocks });
    if (preempts) expect(numPreemptions).toBeGreaterThan(0);
    else expect(numPreemptions).toBe(0);
  });
});
