// Time to the first token of a prompt of 1,000 tokens, and of a second one that begins with the same 1,000: what the KV cache saves. `npm run bench reuse [target]`
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LLM } from 'typert';
import { vocabSize, writeSmallLlama } from './support/small-llama.mjs';

const target = process.argv[2] ?? 'cpu';
const folder = mkdtempSync(join(tmpdir(), 'typert-bench-'));
writeSmallLlama(folder);
try {
  const llm = await LLM.load(folder, {
    ...{ target, loadFormat: 'dummy', skipTokenizerInit: true, maxSeqLen: 2048, maxBatchSize: 4, cacheDir: folder },
  });
  const first = async (promptTokenIds) => {
    const start = performance.now();
    let time;
    for await (const _ of llm.generateAsync({ promptTokenIds }, { maxTokens: 2, temperature: 0, ignoreEos: true }))
      time ??= performance.now() - start;
    return time;
  };
  const ratios = [];
  for (let round = 0; round < 5; round++) {
    const prefix = Array.from({ length: 1000 }, (_, i) => 3 + ((i * 31 + round * 977) % (vocabSize - 3)));
    const cold = await first([...prefix, 5, 6, 7]);
    const before = (await llm.statistics()).kvCacheStats;
    const warm = await first([...prefix, 8, 9, 10]);
    const { reusedBlocks, tokensPerBlock } = (await llm.statistics()).kvCacheStats;
    ratios.push({ cold, warm, ratio: cold / warm, reused: (reusedBlocks - before.reusedBlocks) * tokensPerBlock });
  }
  console.table(
    ratios.map(({ cold, warm, ratio, reused }) => ({
      'first request, ms': cold.toFixed(1),
      'second, ms': warm.toFixed(1),
      'times as fast': ratio.toFixed(1),
      'tokens in reused blocks': reused,
    })),
  );
  await llm[Symbol.asyncDispose]();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
