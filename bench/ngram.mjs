// N-gram speculation against decoding token by token, in turn in one run: text that repeats, and text that does not. `npm run bench ngram [target]`
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LLM } from 'typert';
import { writeSmallLlama } from './support/small-llama.mjs';

const folder = mkdtempSync(join(tmpdir(), 'typert-bench-'));
writeSmallLlama(folder);
const options = {
  ...{ target: process.argv[2] ?? 'cpu', loadFormat: 'dummy', skipTokenizerInit: true, cacheDir: folder, seed: 1 },
  ...{ maxSeqLen: 1024, maxBatchSize: 4, kvCacheConfig: { enableBlockReuse: false } },
};
const plain = await LLM.load(folder, options);
const drafting = await LLM.load(folder, { ...options, speculativeConfig: { decodingType: 'ngram', maxDraftLen: 8 } });
// Random weights run in circles when they are greedy, and never when they are drawn from.
const cases = {
  repeats: [{ promptTokenIds: [5, 6, 7, 8] }, { temperature: 0 }],
  'does not repeat': [{ promptTokenIds: [5, 6, 7, 8] }, { temperature: 1, seed: 7 }],
};
const rate = async (llm, prompt, params) => {
  const start = performance.now();
  const [{ outputs }] = await llm.generate([prompt], { maxTokens: 128, ignoreEos: true, ...params });
  return {
    rate: (outputs[0].tokenIds.length * 1000) / (performance.now() - start),
    tokens: outputs[0].tokenIds.join(),
  };
};
const table = {};
for (const [name, [prompt, params]] of Object.entries(cases)) {
  const ratios = [];
  const best = { plain: 0, drafting: 0 };
  let same = true;
  for (let round = 0; round < 5; round++) {
    const one = await rate(plain, prompt, params);
    const other = await rate(drafting, prompt, params);
    same &&= one.tokens === other.tokens;
    ratios.push(other.rate / one.rate);
    best.plain = Math.max(best.plain, one.rate);
    best.drafting = Math.max(best.drafting, other.rate);
  }
  ratios.sort((a, b) => a - b);
  table[name] = {
    'token by token, tok/s': best.plain.toFixed(0),
    'proposing, tok/s': best.drafting.toFixed(0),
    'ratio of the best': (best.drafting / best.plain).toFixed(2),
    'median ratio': ratios[2].toFixed(2),
    'same tokens': same,
  };
}
console.table(table);
const { specDecodingStats } = await drafting.statistics();
console.log(specDecodingStats);
await plain[Symbol.asyncDispose]();
await drafting[Symbol.asyncDispose]();
rmSync(folder, { recursive: true, force: true });
