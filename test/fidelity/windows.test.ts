// Layers with windows give blocks back while sequences run, and the tokens stay those of transformers; windows and sinks that the build asks for, against steps that keep everything.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { type BuildConfig, buildEngine } from '../../src/compile/build.ts';
import { openCheckpoint } from '../../src/define/checkpoint/open.ts';
import { openSession } from '../../src/run/session/open.ts';
import { findTarget, targets } from '../../src/targets/index.ts';
import { goldenPath, readGolden } from '../support/golden.ts';
import { movingBlocks, movingCases } from '../support/moving-blocks.ts';
import { argmax, RaggedDriver } from '../support/ragged.ts';
import { runRequests } from '../support/run-requests.ts';

const folder = mkdtempSync(join(tmpdir(), 'typert-windows-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function open(name: string, target: 'cpu' | 'cuda' | 'reference', more: BuildConfig, hostCacheSize = 0) {
  const engineDir = mkdtempSync(join(folder, 'engine-'));
  using checkpoint = await openCheckpoint(goldenPath(name), { cacheDir: folder });
  const build = { dtype: 'float32', maxSeqLen: 64, maxNumTokens: 32, tokensPerBlock: 4, maxBatchSize: 8 } as const;
  await buildEngine({ checkpoint, target: findTarget(target), engineDir, build: { ...build, ...more } });
  return await openSession({ engineDir, target, kvCacheConfig: { maxTokens: 128, hostCacheSize } });
}

describe.each(targets)('$name', (target) => {
  const status = target.probe();
  if (!status.available) return void test.skip(`${target.name}: ${status.detail}`);

  test.each([
    ['mistral-swa', [8]],
    ['gemma2', [undefined, 8]],
    ['gemma3-text', [undefined, 8]],
  ] as const)('%s generates as transformers does', async (name, windows) => {
    await using session = await open(name, target.name, {});
    expect(session.limits.cacheGroups?.map(({ window }) => window)).toEqual(expect.arrayContaining([...windows]));
    const { prompts } = readGolden(name);
    // Twice, so that the second time blocks of the first are found where their windows are whole.
    const requests = [0, 40].flatMap((arrival) =>
      prompts.map(({ ids, greedy }) => ({
        promptTokenIds: ids,
        samplingParams: { maxTokens: greedy.length },
        arrival,
      })),
    );
    const { results, engine } = await runRequests(session, requests);
    results.forEach(({ outputs }, i) => {
      expect(outputs[0]!.tokenIds).toEqual(prompts[i % prompts.length]!.greedy);
    });
    const { blocks } = engine.scheduler;
    expect(blocks.freeNumBlocks).toBe(blocks.maxNumBlocks);
    expect(blocks.stats().reusedBlocks).toBeGreaterThan(0);
  });

  test.each([
    ['llama', [12], 0],
    ['llama', [12], 3],
    ['llama', [10, 24], 5],
    ['gemma2', [16, 6], 2],
    ['gpt2', [7], 1],
  ] as const)('%s with windows of %j and %i sinks', async (name, maxAttentionWindow, sinkTokenLength) => {
    await using session = await open(name, target.name, { maxAttentionWindow, sinkTokenLength }, 1 << 20);
    const prompt = readGolden(name).prompts[0]!.ids.slice(0, 9);
    const maxTokens = 40;
    const driver = new RaggedDriver(session);
    const sequence = driver.sequence(prompt, 64);
    const expected: number[] = [];
    while (expected.length < maxTokens) {
      const rows = (await driver.step([{ sequence, count: sequence.tokens.length - sequence.past }]))[0]!;
      expected.push(argmax(rows.at(-1)!));
      sequence.tokens.push(expected.at(-1)!);
    }
    let most = 0;
    const request = { promptTokenIds: prompt, samplingParams: { maxTokens } };
    const { results, engine } = await runRequests(session, [request], {}, ({ scheduler }) => {
      most = Math.max(most, scheduler.blocks.usedNumBlocks);
    });
    expect(results[0]!.outputs[0]!.tokenIds).toEqual(expected);
    // 48 tokens would be 12 blocks in every group.
    expect(most).toBeLessThan(12 * engine.scheduler.blocks.layout.numGroups);
  });

  test.each(movingCases)('$name with blocks that move to the host and back: %j', async ({ name, ...more }) => {
    const engineDir = mkdtempSync(join(folder, 'engine-'));
    using checkpoint = await openCheckpoint(goldenPath(name), { cacheDir: folder });
    const build = { dtype: 'float32', maxSeqLen: 64, maxNumTokens: 32, tokensPerBlock: 4, maxBatchSize: 8 } as const;
    await buildEngine({ checkpoint, target, engineDir, build: { ...build, ...more } });
    const { wrong, onboarded } = await movingBlocks(name, (kvCacheConfig) =>
      openSession({ engineDir, target: target.name, kvCacheConfig }),
    );
    expect(wrong).toEqual([]);
    expect(onboarded).toBeGreaterThan(0);
  });
});
