// An engine with all its weights on the disk: how long it takes to build, and from its file (page cache warm) to the first token, through the public API.
// node bench/cuda-open.ts [llama-3-8b|qwen3-0.6b] [--tune] [folder]   (needs a GPU, room for the weights, and the build in dist/)
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LLM } from 'typert';
import { buildEngine } from '../src/compile/build.ts';
import { cudaTarget } from '../src/targets/cuda/target.ts';
import { describedCheckpoint, type ShapeName } from './shapes.ts';

const args = process.argv.slice(2).filter((arg) => !arg.startsWith('--'));
const name = (args[0] ?? 'llama-3-8b') as ShapeName;
const tune = process.argv.includes('--tune');
const folder = args[1] ?? mkdtempSync(join(tmpdir(), 'typert-open-'));
process.env.TYPERT_CACHE = join(folder, 'cache');

const noise = new Uint16Array(1 << 26);
for (let i = 0; i < 1 << 18; i++)
  noise[i] = (Math.random() < 0.5 ? 0x8000 : 0) | (0x3c00 + Math.floor(Math.random() * 0x100));
for (let filled = 1 << 18; filled < noise.length; filled *= 2) noise.copyWithin(filled, 0, filled);
const bytes = new Uint8Array(noise.buffer);
const described = describedCheckpoint(name);
const checkpoint = {
  ...described,
  tensors: {
    ...described.tensors,
    read: (tensor: string, offset = 0, length?: number): Uint8Array => {
      const size = length ?? described.tensors.tensors.get(tensor)!.bytes - offset;
      if (size <= bytes.length) return bytes.subarray(0, size);
      const large = new Uint8Array(size);
      for (let at = 0; at < size; at += bytes.length)
        large.set(bytes.subarray(0, Math.min(bytes.length, size - at)), at);
      return large;
    },
  },
};

const engineDir = join(folder, 'engine');
const ends = new Map<string, number>();
const begin = performance.now();
const { bytes: written } = await buildEngine({
  checkpoint,
  target: cudaTarget,
  engineDir,
  build: { dtype: 'bfloat16', maxSeqLen: 8192, maxNumTokens: 8192, maxBatchSize: 64, tune },
  progress: ({ task }) => ends.set(task, (performance.now() - begin) / 1e3),
});
const parts = [...ends].map(([task, end]) => `${task} until ${end.toFixed(1)} s`).join(', ');
const seconds = (performance.now() - begin) / 1e3;
console.log(
  `${name}: built in ${seconds.toFixed(1)} s ${tune ? 'with' : 'without'} tuning, ${(written / 1e9).toFixed(2)} GB (${parts})`,
);

for (let round = 0; round < 3; round++) {
  const start = performance.now();
  await using llm = await LLM.load(engineDir, {
    target: 'cuda',
    skipTokenizerInit: true,
    kvCacheConfig: { maxTokens: 8192 },
  });
  const loaded = performance.now();
  await llm.generate([{ promptTokenIds: [1, 2, 3, 4, 5, 6, 7, 8] }], { maxTokens: 1, ignoreEos: true });
  const [load, first] = [(loaded - start) / 1e3, (performance.now() - start) / 1e3];
  console.log(
    `opened in ${load.toFixed(2)} s (${(written / 1e9 / load).toFixed(1)} GB/s), first token after ${first.toFixed(2)} s`,
  );
}
if (args[1] === undefined) rmSync(folder, { recursive: true, force: true });
