// Guided decoding on the CPU: JSON-schema requests at temperature 1 (all have to be valid), and what masks add to a step of eight. `npm run bench guided [requests] [--save]`
import { existsSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { LLM } from 'typert';
import { z } from 'zod';

const inRoot = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const storyteller = inRoot('models/storyteller-7m');
const smolLM2 = inRoot('.models/SmolLM2-135M-Instruct.Q4_1.gguf');
const save = process.argv.includes('--save');
const [numRequests = 1000] = process.argv
  .slice(2)
  .filter((arg) => arg !== '--save')
  .map(Number);

const text = z.string().max(24);
const schemas = [
  z.strictObject({ name: text, age: z.int().min(0).max(120), friends: z.array(text).max(3) }),
  z.strictObject({ animal: z.enum(['fox', 'duck', 'bear']), isHappy: z.boolean(), weight: z.int().min(1).max(500) }),
  z.strictObject({
    title: text,
    chapters: z
      .array(z.strictObject({ name: text, pages: z.int().min(1).max(99) }))
      .min(1)
      .max(3),
  }),
  z.strictObject({ where: z.strictObject({ x: z.int(), y: z.int() }), note: text.nullable() }),
];
const described = schemas.map((schema) => z.toJSONSchema(schema));

/** Runs requests of all schemas; how many are valid, and what was not. */
async function validity() {
  const llm = await LLM.load(storyteller, { target: 'cpu', maxSeqLen: 512, maxBatchSize: 16 });
  const start = performance.now();
  const wrong = [];
  const outputs = await llm.generate(
    Array.from({ length: numRequests }, (_, i) => `Once upon a time ${i}`),
    Array.from({ length: numRequests }, (_, i) => ({
      ...{ maxTokens: 400, temperature: 1, seed: i },
      guidedDecoding: { json: described[i % schemas.length] },
    })),
  );
  outputs.forEach(({ outputs: [{ text, finishReason }] }, i) => {
    try {
      if (finishReason !== 'stop') throw new Error(`ended by ${finishReason}`);
      schemas[i % schemas.length].parse(JSON.parse(text));
    } catch (error) {
      wrong.push({ i, text, reason: error.message });
    }
  });
  const { jumpAheadStats } = await llm.statistics();
  await llm[Symbol.asyncDispose]();
  const numTokens = outputs.reduce((sum, { outputs: [{ tokenIds }] }) => sum + tokenIds.length, 0);
  const seconds = Math.round((performance.now() - start) / 100) / 10;
  return {
    numRequests,
    numValid: numRequests - wrong.length,
    numTokens,
    seconds,
    jumpAheadStats,
    wrong: wrong.slice(0, 5),
  };
}

const long = {
  type: 'array',
  items: {
    type: 'object',
    properties: {
      name: { type: 'string' },
      age: { type: 'integer' },
      likes: { type: 'array', items: { type: 'string' } },
    },
    required: ['name', 'age', 'likes'],
    additionalProperties: false,
  },
  minItems: 100,
};
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

/** Milliseconds of steps in which eight sequences get a token each, with a grammar and without, in turn. */
async function overhead(model) {
  const options = {
    target: 'cpu',
    maxSeqLen: 512,
    maxBatchSize: 8,
    disableJumpAhead: true,
    kvCacheConfig: { maxTokens: 4096 },
  };
  const llm = await LLM.load(model, options);
  let iter = 0;
  const steps = async (params) => {
    await llm.generate(
      Array.from({ length: 8 }, (_, i) => `The people of the village are number ${i}:`),
      Array.from({ length: 8 }, (_, i) => ({
        maxTokens: 96,
        temperature: 1,
        ignoreEos: true,
        seed: 100 * iter + i,
        ...params,
      })),
    );
    const { iterations } = await llm.statistics();
    const fresh = iterations.filter((step) => step.iter > iter);
    iter = fresh.at(-1).iter;
    const full = fresh.filter(
      ({ inflightBatchingStats: { numGenRequests, numContextRequests } }) =>
        numGenRequests === 8 && numContextRequests === 0,
    );
    return full.map(({ iterLatencyMS }) => iterLatencyMS);
  };
  const guided = { guidedDecoding: { json: long } };
  await steps(guided);
  await steps({});
  const times = { plain: [], guided: [] };
  const ratios = [];
  for (let round = 0; round < 7; round++) {
    const order = round % 2 === 0 ? ['plain', 'guided'] : ['guided', 'plain'];
    const mean = {};
    for (const kind of order) {
      const taken = await steps(kind === 'guided' ? guided : {});
      mean[kind] = taken.reduce((sum, time) => sum + time, 0) / taken.length;
      times[kind].push(...taken);
    }
    ratios.push(mean.guided / mean.plain);
  }
  await llm[Symbol.asyncDispose]();
  const [plain, masked] = [median(times.plain), median(times.guided)];
  return {
    model: model.split('/').at(-1),
    'step, ms (median)': Number(plain.toFixed(3)),
    'with grammars, ms (median)': Number(masked.toFixed(3)),
    'overhead, %': Number((100 * (masked / plain - 1)).toFixed(1)),
    'overhead of the mean, %': Number((100 * (median(ratios) - 1)).toFixed(1)),
  };
}

const result = { valid: numRequests > 0 ? await validity() : undefined, overhead: [] };
for (const model of [storyteller, ...(existsSync(smolLM2) ? [smolLM2] : [])])
  result.overhead.push(await overhead(model));
console.log(result.valid);
console.table(result.overhead);
if (save) writeFileSync(inRoot('bench/results/guided.json'), `${JSON.stringify(result, null, 2)}\n`);
