// Every golden case on the GPU: whole prompt in one step, and token by token; float32 within 1e-3 of the range, bfloat16 and float16 within a wider one.
// node test/gpu/goldens.ts [--tune] [case…]   (needs a GPU; without vitest, which a bare GPU machine may lack)
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openResources } from '../../src/base/dispose.ts';
import { buildEngine } from '../../src/compile/build.ts';
import { openCheckpoint } from '../../src/define/checkpoint/open.ts';
import { openSession } from '../../src/run/session/open.ts';
import { cudaTarget } from '../../src/targets/cuda/target.ts';
import { decoderCases } from '../support/cases.ts';
import { goldenPath, readGolden } from '../support/golden.ts';
import { argmax, RaggedDriver } from '../support/ragged.ts';

const status = cudaTarget.probe();
console.log(`cuda: ${status.detail}`);
if (!status.available) process.exit(0);

const folder = mkdtempSync(join(tmpdir(), 'typert-gpu-'));
const tune = process.argv.includes('--tune');
const asked = process.argv.slice(2).filter((arg) => !arg.startsWith('--'));
const cases = asked.length > 0 ? asked : decoderCases;
let failures = 0;
for (const name of cases) {
  for (const [dtype, limit] of [
    ['float32', 1e-3],
    ['bfloat16', 6e-2],
    ['float16', 1e-2],
  ] as const) {
    const golden = readGolden(name);
    let worst = 0;
    let wrongTokens = 0;
    try {
      using checkpoint = await openCheckpoint(goldenPath(name), { cacheDir: folder });
      const engineDir = join(folder, `${name}-${dtype}`);
      const build = { dtype, maxSeqLen: 64, maxNumTokens: 64, tokensPerBlock: 8, maxBatchSize: 16, tune };
      await buildEngine({ checkpoint, target: cudaTarget, engineDir, build });
      await using session = await openSession({ engineDir, target: 'cuda', kvCacheConfig: { maxTokens: 1024 } });
      const check = (row: Float32Array, expected: Float32Array): void => {
        for (let i = 0; i < row.length; i++) {
          const error = Math.abs(row[i]! - expected[i]!) / golden.range;
          worst = Number.isNaN(error) ? Number.POSITIVE_INFINITY : Math.max(worst, error);
        }
      };
      for (const { ids, logits, greedy } of golden.prompts) {
        for (const chunk of [ids.length, 1, 3]) {
          const driver = new RaggedDriver(session);
          const sequence = driver.sequence(ids, 64);
          let row = new Float32Array();
          while (sequence.past < ids.length) {
            const past = sequence.past;
            const [rows] = await driver.step([{ sequence, count: Math.min(chunk, ids.length - past) }]);
            for (const [i, values] of rows!.entries()) check(values, logits[past + i]!);
            row = rows!.at(-1)!.slice();
          }
          if (dtype !== 'float32') continue;
          for (const expected of greedy) {
            const token = argmax(row);
            if (token !== expected) wrongTokens++;
            sequence.tokens.push(token);
            row = (await driver.step([{ sequence, count: 1 }]))[0]![0]!.slice() as Float32Array<ArrayBuffer>;
          }
        }
      }
    } catch (error) {
      console.log(`FAILED ${name} ${dtype}: ${error instanceof Error ? error.message.slice(0, 600) : error}`);
      failures++;
      continue;
    }
    const bad = worst > limit || wrongTokens > 0;
    if (bad) failures++;
    console.log(
      `${bad ? 'WRONG ' : ''}${name} ${dtype}: ${worst.toExponential(2)} of the range${wrongTokens > 0 ? `, ${wrongTokens} tokens differ` : ''}`,
    );
  }
}
rmSync(folder, { recursive: true, force: true });
console.log(failures === 0 ? 'all goldens agree' : `${failures} cases WRONG`, JSON.stringify(openResources()));
