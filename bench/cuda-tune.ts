// Preparing a model's plan for the GPU as a build does: with tactics timed, again from the timings, and by rule of thumb; then how far the rule of thumb is
// from what was timed, problem by problem.
// node bench/cuda-tune.ts [llama-3-8b|qwen3-0.6b] [timings.json]   (needs a GPU)
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compile } from '../src/compile/build.ts';
import { CudaDevice } from '../src/targets/cuda/device.ts';
import { planProblems } from '../src/targets/cuda/survey.ts';
import { candidates, problemKey, problemSize, tacticDevice } from '../src/targets/cuda/tactics.ts';
import { cudaTarget } from '../src/targets/cuda/target.ts';
import { TimingCache } from '../src/targets/timing-cache.ts';
import { describedCheckpoint, type ShapeName } from './shapes.ts';

const name = (process.argv[2] ?? 'llama-3-8b') as ShapeName;
const folder = mkdtempSync(join(tmpdir(), 'typert-tune-'));
const timingCache = process.argv[3] ?? join(folder, 'timings.json');
process.env.TYPERT_CACHE = folder;

const started = performance.now();
const { plan } = compile(describedCheckpoint(name), cudaTarget, {
  dtype: 'bfloat16',
  maxSeqLen: 9216,
  maxNumTokens: 8192,
  maxBatchSize: 256,
});
console.log(`${name}: compiled to a plan in ${(performance.now() - started).toFixed(0)} ms`);

async function prepare(what: string, tune: boolean): Promise<void> {
  const begin = performance.now();
  const counts = new Map<string, number>();
  const ends = new Map<string, number>();
  const { tensors } = await cudaTarget.prepare!(plan, {
    tune,
    timingCache,
    progress: ({ task, done }) => {
      counts.set(task, Math.max(counts.get(task) ?? 0, done));
      ends.set(task, performance.now() - begin);
    },
  });
  const bytes = [...tensors.values()].reduce((sum, data) => sum + data.length, 0);
  const parts = [...counts].map(
    ([task, count]) => `${task} ${count} until ${((ends.get(task) ?? 0) / 1e3).toFixed(1)} s`,
  );
  const seconds = (performance.now() - begin) / 1e3;
  console.log(
    `${what}: ${seconds.toFixed(1)} s (${parts.join(', ')}), ${tensors.size} kernels, ${(bytes / 1e6).toFixed(1)} MB`,
  );
}

await prepare('by rule of thumb, no kernel compiled before', false);
await prepare('timed', true);
await prepare('from the timings', true);

using device = new CudaDevice();
const cache = new TimingCache(
  timingCache,
  `${tacticDevice(device.info)}, ${Math.round(device.info.clockKHz / 1000)} MHz`,
);
const ratios: number[] = [];
const byKey = new Map<string, string[]>();
for (const problem of planProblems(plan, device.info)) {
  const [key, size] = [problemKey(problem), problemSize(problem)];
  const timings = cache.at(key, size);
  const thumb = JSON.stringify(candidates(problem, device.info)[0]);
  const own = timings.find(({ config }) => JSON.stringify(config) === thumb);
  const best = timings[0];
  if (best === undefined || own === undefined) continue;
  ratios.push(own.us / best.us);
  const lines = byKey.get(key) ?? [];
  byKey.set(key, lines);
  lines.push(
    `${size}: ${best.us} (thumb ${(own.us / best.us).toFixed(2)}) ${Object.values(best.config).slice(0, 6).join(' ')}`,
  );
}
for (const [key, lines] of byKey) console.log(`${key}\n  ${lines.join('\n  ')}`);
const mean = Math.exp(ratios.reduce((sum, ratio) => sum + Math.log(ratio), 0) / ratios.length);
const far = ratios.filter((ratio) => ratio > 1.1).length;
console.log(
  `rule of thumb / timed: mean ${mean.toFixed(3)}, worst ${Math.max(...ratios).toFixed(2)}, ${far} of ${ratios.length} beyond 1.1`,
);
rmSync(folder, { recursive: true, force: true });
