// A checkpoint written in TensorRT-LLM's layout and read again computes exactly what the original does.
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { buildEngine } from '../../src/compile/build.ts';
import { openCheckpoint } from '../../src/define/checkpoint/open.ts';
import type { Checkpoint } from '../../src/define/checkpoint/tensors.ts';
import { bindModel, identify } from '../../src/define/models/bind.ts';
import { writeTypertCheckpoint } from '../../src/define/models/typert-checkpoint.ts';
import { openSession } from '../../src/run/session/open.ts';
import { findTarget } from '../../src/targets/index.ts';
import { decoderCases } from '../support/cases.ts';
import { goldenPath, readGolden } from '../support/golden.ts';
import { RaggedDriver } from '../support/ragged.ts';
import { temporaryFolder } from '../support/temporary.ts';

const folder = temporaryFolder();

/** Logits of every position of the case's first prompt. */
async function promptLogits(name: string, checkpoint: Checkpoint, engineDir: string): Promise<Float32Array[]> {
  await buildEngine({
    checkpoint,
    target: findTarget('reference'),
    engineDir,
    build: { dtype: 'float32', maxSeqLen: 32, maxNumTokens: 32, tokensPerBlock: 8, maxBatchSize: 2 },
  });
  await using session = await openSession({ engineDir, target: 'reference' });
  const driver = new RaggedDriver(session);
  const { ids } = readGolden(name).prompts[0]!;
  const [rows] = await driver.step([{ sequence: driver.sequence(ids, 32), count: ids.length }]);
  return rows!;
}

test.each(decoderCases)('%s', async (name) => {
  using checkpoint = await openCheckpoint(goldenPath(name), { cacheDir: folder });
  const known = identify(checkpoint);
  const outputDir = join(folder, name);
  await writeTypertCheckpoint({
    model: bindModel(known, checkpoint, 32, (_parameter, stored) => stored),
    config: known.config,
    checkpoint,
    dtype: known.config.dtype,
    outputDir,
  });
  using again = await openCheckpoint(outputDir, { cacheDir: folder });
  expect(again.format).toBe('typert');
  // The dtype aside, the config survives.
  expect(identify(again).config).toEqual(known.config);
  expect(await promptLogits(name, again, join(folder, `${name}-again`))).toEqual(
    await promptLogits(name, checkpoint, join(folder, `${name}-engine`)),
  );
});
