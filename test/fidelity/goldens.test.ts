// Every golden case against Hugging Face transformers' numbers, computed three ways with one result: the whole prompt in one step, token by token,
// and in chunks mixed with other requests in the same steps.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildEngine } from '../../src/compile/build.ts';
import { openCheckpoint } from '../../src/define/checkpoint/open.ts';
import type { Session } from '../../src/run/session/batch.ts';
import { openSession } from '../../src/run/session/open.ts';
import { findTarget, targets } from '../../src/targets/index.ts';
import type { TargetName } from '../../src/targets/target.ts';
import { decoderCases } from '../support/cases.ts';
import { goldenPath, readGolden } from '../support/golden.ts';
import { argmax, RaggedDriver, type TestSequence } from '../support/ragged.ts';

/** max |Δ| allowed on each target, as a share of the range of the case's logits. */
const tolerances: Record<TargetName, number> = { reference: 1e-4, cpu: 1e-3, cuda: 1e-3 };
/** Every target of this build, with the reason when it cannot run here. */
const onTargets = targets.flatMap((target) => {
  const status = target.probe();
  return decoderCases.map((name) => ({
    name,
    target: target.name,
    skipped: status.available ? undefined : status.detail,
  }));
});

describe.each(onTargets)('$name on $target', ({ name, target, skipped }) => {
  if (skipped !== undefined) return void test.skip(`${target}: ${skipped}`);
  const tolerance = tolerances[target];
  const folder = mkdtempSync(join(tmpdir(), 'typert-golden-'));
  const golden = readGolden(name);
  const worst = { value: 0 };
  let session: Session;

  beforeAll(async () => {
    using checkpoint = await openCheckpoint(goldenPath(name), { cacheDir: folder });
    const engineDir = join(folder, 'engine');
    // Small blocks, so that sequences span several.
    await buildEngine({
      checkpoint,
      target: findTarget(target),
      engineDir,
      build: { dtype: 'float32', maxSeqLen: 64, maxNumTokens: 64, tokensPerBlock: 8, maxBatchSize: 16 },
    });
    session = await openSession({ engineDir, target, kvCacheConfig: { maxTokens: 1024 } });
  });

  afterAll(async () => {
    await session?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  const check = (row: Float32Array, expected: Float32Array) => {
    for (let i = 0; i < row.length; i++)
      worst.value = Math.max(worst.value, Math.abs(row[i]! - expected[i]!) / golden.range);
    expect(worst.value).toBeLessThanOrEqual(tolerance);
  };

  /** Generates greedily from a sequence whose prompt is in the cache. */
  const generate = async (
    driver: RaggedDriver,
    sequence: TestSequence,
    last: Float32Array,
    count: number,
  ): Promise<number[]> => {
    const out: number[] = [];
    let row = last;
    while (out.length < count) {
      const token = argmax(row);
      out.push(token);
      sequence.tokens.push(token);
      row = (await driver.step([{ sequence, count: 1 }]))[0]![0]!.slice();
    }
    return out;
  };

  test('whole prompt in one step', async () => {
    for (const { ids, logits, greedy } of golden.prompts) {
      const driver = new RaggedDriver(session);
      const sequence = driver.sequence(ids, 64);
      const [rows] = await driver.step([{ sequence, count: ids.length }]);
      for (const [i, row] of rows!.entries()) check(row, logits[i]!);
      expect(await generate(driver, sequence, rows!.at(-1)!.slice(), greedy.length)).toEqual(greedy);
    }
  });

  test('token by token', async () => {
    for (const { ids, logits, greedy } of golden.prompts) {
      const driver = new RaggedDriver(session);
      const sequence = driver.sequence(ids, 64);
      let last = new Float32Array();
      for (let i = 0; i < ids.length; i++) {
        last = (await driver.step([{ sequence, count: 1 }]))[0]![0]!.slice() as Float32Array<ArrayBuffer>;
        check(last, logits[i]!);
      }
      expect(await generate(driver, sequence, last, greedy.length)).toEqual(greedy);
    }
  });

  test('chunks mixed with other requests', async () => {
    const driver = new RaggedDriver(session);
    // Each prompt twice and interleaved: the copies start at other steps and in other chunk sizes.
    const runs = [0, 1, 0, 1].map((j, k) => ({
      prompt: golden.prompts[j]!,
      sequence: driver.sequence(golden.prompts[j]!.ids, 64),
      chunk: [5, 3, 1, 7][k]!,
      start: [0, 1, 3, 2][k]!,
      last: new Float32Array(),
      out: [] as number[],
    }));
    for (let step = 0; runs.some((run) => run.out.length < run.prompt.greedy.length); step++) {
      const parts = runs.flatMap((run) => {
        if (step < run.start || run.out.length >= run.prompt.greedy.length) return [];
        const left = run.prompt.ids.length - run.sequence.past;
        if (left <= 0) {
          const token = argmax(run.last);
          run.out.push(token);
          run.sequence.tokens.push(token);
        }
        return [{ run, sequence: run.sequence, count: left > 0 ? Math.min(left, run.chunk) : 1 }];
      });
      const before = parts.map(({ sequence }) => sequence.past);
      const rows = await driver.step(parts);
      parts.forEach(({ run }, r) => {
        rows[r]!.forEach((row, i) => {
          const expected = run.prompt.logits[before[r]! + i];
          if (expected !== undefined) check(row, expected);
        });
        run.last = rows[r]!.at(-1)!.slice() as Float32Array<ArrayBuffer>;
      });
    }
    for (const run of runs) expect(run.out).toEqual(run.prompt.greedy);
  });
});
