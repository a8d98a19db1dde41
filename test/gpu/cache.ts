// KV blocks on the GPU: windows that give blocks back, sinks, and content that moves to page-locked host memory and returns. Tokens must be those of a cache that keeps everything.
// node test/gpu/cache.ts   (needs a GPU; without vitest, which a bare GPU machine may lack)
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openResources } from '../../src/base/dispose.ts';
import { buildEngine } from '../../src/compile/build.ts';
import { openCheckpoint } from '../../src/define/checkpoint/open.ts';
import { openSession } from '../../src/run/session/open.ts';
import { cudaTarget } from '../../src/targets/cuda/target.ts';
import { goldenPath } from '../support/golden.ts';
import { movingBlocks, movingCases } from '../support/moving-blocks.ts';

const status = cudaTarget.probe();
console.log(`cuda: ${status.detail}`);
if (!status.available) process.exit(0);

const folder = mkdtempSync(join(tmpdir(), 'typert-gpu-'));
let failures = 0;
for (const each of movingCases) {
  const { name, ...more } = each;
  const engineDir = mkdtempSync(join(folder, 'engine-'));
  try {
    using checkpoint = await openCheckpoint(goldenPath(name), { cacheDir: folder });
    const build = { dtype: 'float32', maxSeqLen: 64, maxNumTokens: 32, tokensPerBlock: 4, maxBatchSize: 8 } as const;
    await buildEngine({ checkpoint, target: cudaTarget, engineDir, build: { ...build, ...more } });
    const result = await movingBlocks(name, (kvCacheConfig) =>
      openSession({ engineDir, target: 'cuda', kvCacheConfig }),
    );
    if (result.wrong.length > 0 || result.onboarded === 0) failures++;
    console.log(`${JSON.stringify(each)}: ${result.wrong.length} wrong, ${result.onboarded} blocks came back`);
  } catch (error) {
    failures++;
    console.log(`FAILED ${JSON.stringify(each)}: ${error instanceof Error ? error.message.slice(0, 600) : error}`);
  }
}
rmSync(folder, { recursive: true, force: true });
console.log(failures === 0 ? 'all caches agree' : `${failures} cases WRONG`, JSON.stringify(openResources()));
