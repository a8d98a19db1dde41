// N-gram speculation against decoding token by token, in turn in one run: text that repeats, and text that does not. `npm run bench ngram [model] [--save]`
import { existsSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { LLM } from 'typert';

const inRoot = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const storyteller = inRoot('models/storyteller-7m');
const smolLM2 = inRoot('.models/SmolLM2-135M-Instruct.Q4_1.gguf');
const save = process.argv.includes('--save');
const [given] = process.argv.slice(2).filter((arg) => arg !== '--save');
const models = given === undefined ? [storyteller, ...(existsSync(smolLM2) ? [smolLM2] : [])] : [given];

const passage =
  'The lighthouse at Cape Morrow was built in 1871 from grey granite blocks that were shipped from the mainland in small boats. For ninety years a family of keepers lived beside it, ' +
  'trimming the lamp every four hours and writing the weather in a leather book. In 1961 an electric lamp replaced the flame, and the last keeper, Ada Finch, moved to the village. ' +
  'Today the tower belongs to a trust of volunteers, who open it on Sundays and still write the weather in the leather book.';
const chat = (content) => ({ messages: [{ role: 'user', content }] });
/** What is asked for: text out of the prompt, and text that was not there before. */
const casesOf = (model) =>
  model === storyteller
    ? {
        'a story, greedy': ['Once upon a time', { temperature: 0 }],
        'a story, temperature 1': ['Once upon a time', { temperature: 1 }],
      }
    : {
        'goes on repeating, greedy': [`${passage}\n\n${passage}\n\n`, { temperature: 0 }],
        'quotes the prompt, greedy': [chat(`Repeat this passage word for word:\n\n${passage}`), { temperature: 0 }],
        'summarises, greedy': [chat(`Summarise this passage in its own words:\n\n${passage}`), { temperature: 0 }],
        'a story, temperature 1': [chat('Tell me a story about a fox and a river.'), { temperature: 1 }],
      };

const results = [];
for (const model of models) {
  // Short runs of a small model jitter more than proposals could cost.
  const rounds = model === storyteller ? 41 : 7;
  const options = { target: 'cpu', maxSeqLen: 512, maxBatchSize: 4, kvCacheConfig: { maxTokens: 2048 } };
  const plain = await LLM.load(model, options);
  const proposing = await LLM.load(model, { ...options, speculativeConfig: { decodingType: 'ngram' } });
  /** Milliseconds from the first token on: what comes before is the same for both. */
  const run = async (llm, prompt, params) => {
    let first;
    let tokens = [];
    for await (const { outputs } of llm.generateAsync(prompt, { maxTokens: 160, ...params })) {
      first ??= { at: performance.now(), count: outputs[0].tokenIds.length };
      tokens = outputs[0].tokenIds;
    }
    return { perToken: (performance.now() - first.at) / (tokens.length - first.count), tokens: tokens.join() };
  };
  for (const [name, [prompt, params]] of Object.entries(casesOf(model))) {
    const ratios = [];
    const best = { plain: Number.POSITIVE_INFINITY, proposing: Number.POSITIVE_INFINITY };
    let same = true;
    let numTokens = 0;
    const before = (await proposing.statistics()).specDecodingStats;
    for (let round = 0; round < rounds; round++) {
      const seeded = { ...params, seed: round };
      // Who goes first changes: the machine's mood is shared.
      const order = round % 2 === 0 ? [plain, proposing] : [proposing, plain];
      const measured = new Map();
      for (const llm of order) measured.set(llm, await run(llm, prompt, seeded));
      const [one, other] = [measured.get(plain), measured.get(proposing)];
      same &&= one.tokens === other.tokens;
      numTokens += other.tokens.split(',').length;
      ratios.push(one.perToken / other.perToken);
      best.plain = Math.min(best.plain, one.perToken);
      best.proposing = Math.min(best.proposing, other.perToken);
    }
    const after = (await proposing.statistics()).specDecodingStats;
    const count = (field) => after[field] - before[field];
    ratios.sort((a, b) => a - b);
    results.push({
      model: model.split('/').at(-1),
      text: name,
      'token by token, tok/s': Math.round(1000 / best.plain),
      'proposing, tok/s': Math.round(1000 / best.proposing),
      'ratio of the best': Number((best.plain / best.proposing).toFixed(2)),
      'median ratio': Number(ratios[rounds >> 1].toFixed(2)),
      'tokens a proposing step': Number(
        (1 + count('numAcceptedTokens') / Math.max(1, count('numRequestsWithDraftTokens'))).toFixed(2),
      ),
      'right of those proposed': `${Math.round((100 * count('numAcceptedTokens')) / Math.max(1, count('numDraftTokens')))} %`,
      'steps with proposals': `${Math.round((100 * count('numRequestsWithDraftTokens')) / (numTokens - count('numAcceptedTokens')))} %`,
      'same tokens': same,
    });
  }
  await plain[Symbol.asyncDispose]();
  await proposing[Symbol.asyncDispose]();
}
console.table(results);
if (save) writeFileSync(inRoot('bench/results/ngram.json'), `${JSON.stringify(results, null, 2)}\n`);
