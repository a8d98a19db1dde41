// Beam search against Hugging Face transformers' generate(num_beams=…): the goldens' beams on every case, and widths × length penalties × early stopping modes on three.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildEngine } from '../../src/compile/build.ts';
import { openCheckpoint } from '../../src/define/checkpoint/open.ts';
import type { Session } from '../../src/run/session/batch.ts';
import { openSession } from '../../src/run/session/open.ts';
import { findTarget } from '../../src/targets/index.ts';
import { decoderCases } from '../support/cases.ts';
import { goldenPath, readGolden } from '../support/golden.ts';
import { runRequests, type TestRequest } from '../support/run-requests.ts';

const target = 'reference';

interface BeamCase {
  readonly prompt: number;
  readonly numBeams: number;
  readonly lengthPenalty: number;
  readonly earlyStopping: number;
  readonly ends: readonly number[];
  readonly beams: readonly (readonly number[])[];
  readonly scores: readonly number[];
}

const stored = new Set(['llama', 'gpt2', 'qwen3']);

describe.each(decoderCases)('%s', (name) => {
  const folder = mkdtempSync(join(tmpdir(), 'typert-beam-'));
  const golden = readGolden(name);
  let session: Session;

  beforeAll(async () => {
    using checkpoint = await openCheckpoint(goldenPath(name), { cacheDir: folder });
    const engineDir = join(folder, 'engine');
    await buildEngine({
      checkpoint,
      target: findTarget(target),
      engineDir,
      build: { dtype: 'float32', maxSeqLen: 64, maxNumTokens: 64, tokensPerBlock: 4, maxBatchSize: 24 },
    });
    session = await openSession({ engineDir, target, kvCacheConfig: { maxTokens: 1024 } });
  });

  afterAll(async () => {
    await session?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  const others: TestRequest[] = [0, 2, 5].map((arrival, i) => ({
    promptTokenIds: golden.prompts[i % 2]!.ids.slice(0, 5 + i),
    samplingParams: { maxTokens: 12, temperature: 1, seed: i },
    arrival,
  }));

  test.each([
    ['alone', []],
    ['with others in the batch', others],
  ] as const)('the beams of the golden, %s', async (_, company) => {
    const searches = golden.prompts.map(({ ids }) => ({
      promptTokenIds: ids,
      samplingParams: { useBeamSearch: true, n: 4, maxTokens: 12 },
      arrival: company.length === 0 ? 0 : 1,
    }));
    for (const each of company.length === 0 ? searches.map((search) => [search]) : [[...searches, ...company]]) {
      const { results } = await runRequests(session, each);
      each.forEach((request, i) => {
        const { beam4, beam4Scores } = golden.prompts.find(({ ids }) => ids === request.promptTokenIds) ?? {};
        if (beam4 === undefined) return;
        expect(results[i]!.outputs.map(({ tokenIds }) => tokenIds)).toEqual(beam4);
        results[i]!.outputs.forEach(({ cumulativeLogprob }, k) => {
          expect(cumulativeLogprob).toBeCloseTo(beam4Scores![k]!, 3);
        });
      });
    }
  });

  test.runIf(stored.has(name))('widths, length penalties and early stopping modes', async () => {
    const { maxTokens, cases } = JSON.parse(readFileSync(`${goldenPath('beam')}/${name}.json`, 'utf8')) as {
      maxTokens: number;
      cases: BeamCase[];
    };
    expect(cases).toHaveLength(54);
    const requests = cases.map((each, i) => ({
      promptTokenIds: golden.prompts[each.prompt]!.ids,
      samplingParams: {
        useBeamSearch: true,
        n: each.numBeams,
        maxTokens,
        lengthPenalty: each.lengthPenalty,
        earlyStopping: each.earlyStopping,
        endId: each.ends[0]!,
        stopTokenIds: each.ends.slice(1),
        includeStopStrInOutput: true,
      },
      arrival: 3 * i,
    }));
    // Several searches are under way at once, in a cache too small for all.
    const { results, engine } = await runRequests(session, requests, {
      schedulerConfig: { capacitySchedulerPolicy: 'max_utilization' },
    });
    cases.forEach((each, i) => {
      expect({ i, beams: results[i]!.outputs.map(({ tokenIds }) => tokenIds) }).toEqual({ i, beams: each.beams });
      results[i]!.outputs.forEach(({ cumulativeLogprob, tokenIds }, k) => {
        expect(cumulativeLogprob / tokenIds.length ** each.lengthPenalty).toBeCloseTo(each.scores[k]!, 3);
      });
    });
    const { blocks } = engine.scheduler;
    expect(blocks.freeNumBlocks).toBe(blocks.maxNumBlocks);
  });
});
