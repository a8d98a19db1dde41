// A GGUF of a golden case computes what its Hugging Face checkpoint does: exactly where it holds the same numbers, nearly where it is quantised.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { buildEngine } from '../../src/compile/build.ts';
import { openCheckpoint } from '../../src/define/checkpoint/open.ts';
import { openSession } from '../../src/run/session/open.ts';
import { findTarget } from '../../src/targets/index.ts';
import { goldenPath, readGolden } from '../support/golden.ts';
import { argmax, RaggedDriver } from '../support/ragged.ts';
import { temporaryFolder } from '../support/temporary.ts';

const folder = temporaryFolder();
const files = readdirSync(goldenPath('gguf')).filter((name) => name.endsWith('.gguf'));
/** max |Δ| as a share of the range: the case's own bound, or what eight bits a weight cost. */
const tolerance = (file: string) => (file.includes('.q8_0.') ? 0.05 : 1e-4);

test.each(files)('%s', async (file) => {
  const name = file.split('.')[0]!;
  const golden = readGolden(name);
  using checkpoint = await openCheckpoint(join(goldenPath('gguf'), file), { cacheDir: folder });
  expect(checkpoint.format).toBe('gguf');
  const engineDir = join(folder, file);
  await buildEngine({
    checkpoint,
    target: findTarget('reference'),
    engineDir,
    build: { dtype: 'float32', maxSeqLen: 64, maxNumTokens: 64, tokensPerBlock: 8, maxBatchSize: 2 },
  });
  await using session = await openSession({ engineDir, target: 'reference' });
  for (const { ids, logits, greedy } of golden.prompts) {
    const driver = new RaggedDriver(session);
    const [rows] = await driver.step([{ sequence: driver.sequence(ids, 64), count: ids.length }]);
    const worst = rows!.map(
      (row, t) => Math.max(...row.map((value, i) => Math.abs(value - logits[t]![i]!))) / golden.range,
    );
    // Eight bits may tip a close choice of experts at a position, so the quantised files are judged by their middle position.
    const judged = file.includes('.q8_0.')
      ? worst.toSorted((a, b) => a - b)[Math.floor(worst.length / 2)]!
      : Math.max(...worst);
    expect(judged).toBeLessThanOrEqual(tolerance(file));
    if (!file.includes('.q8_0.')) expect(argmax(rows!.at(-1)!)).toBe(greedy[0]);
  }
});
