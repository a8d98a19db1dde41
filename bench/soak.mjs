// A day of traffic through the engine loop, in compressed time, with a session that computes nothing: memory has to stay flat. `npm run bench soak [hours] [--save]`
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { checkRequest, Engine, GuideMaker } from '../dist/run/executor/internals.js';

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc');
const save = process.argv.includes('--save');
const [hours = 24] = process.argv
  .slice(2)
  .filter((arg) => arg !== '--save')
  .map(Number);

const vocabSize = 128;
const limits = {
  ...{ maxBatchSize: 64, maxNumTokens: 2048, maxNumLogits: 192, maxSeqLen: 512, tokensPerBlock: 32 },
  ...{ maxBlocksPerSequence: 16, numBlocks: 120, numHostBlocks: 128, vocabSize },
};
/** Pseudo-random numbers that are the same in every run (Mulberry32). */
let state = 1;
const random = () => {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
};
const integer = (most) => Math.floor(random() * most);

/** Rows of noise, masked as grammars say; the likeliest token of each row is sampled. */
class NullSession {
  limits = limits;
  numLaunches = { forward: 1, sample: 1 };
  overlaps = true;
  #noise = Float32Array.from({ length: limits.maxNumLogits * vocabSize }, () => random());
  #logits = this.#noise.slice();
  #changed = false;
  #rows = 0;
  async copyBlocks() {}
  async forward(batch) {
    this.#rows = batch.numLogits;
    if (this.#changed) this.#logits.set(this.#noise);
    this.#changed = false;
  }
  async readLogits() {
    return this.#logits.slice(0, this.#rows * vocabSize);
  }
  async writeLogits(logits) {
    this.#changed = true;
    this.#logits.set(logits);
  }
  async maskLogits(masks) {
    this.#changed = true;
    for (const { row, allowed } of masks)
      for (let token = 0; token < vocabSize; token++)
        if (((allowed[token >> 5] >>> (token & 31)) & 1) === 0) this.#logits[row * vocabSize + token] = -Infinity;
  }
  async sample() {
    const tokens = new Int32Array(this.#rows);
    // Another place in the noise each time, so that texts differ.
    const shift = integer(vocabSize);
    for (let row = 0; row < this.#rows; row++) {
      let best = -Infinity;
      for (let i = 0; i < vocabSize; i++) {
        const token = (i + shift) % vocabSize;
        const value =
          this.#logits[row * vocabSize + token] === -Infinity
            ? -Infinity
            : this.#noise[(row * 31 + i) % this.#noise.length];
        if (value > best) [best, tokens[row]] = [value, token];
      }
    }
    return { tokens, logprobs: new Float32Array(this.#rows).fill(-1) };
  }
  async step(batch) {
    await this.forward(batch);
    return await this.sample();
  }
  async [Symbol.asyncDispose]() {}
}

// Token i is the character i; token 0 ends a text.
const vocabulary = Array.from({ length: vocabSize }, (_, i) => (i < 32 ? '' : String.fromCharCode(i)));
const schemas = Array.from({ length: 8 }, (_, i) => ({
  type: 'object',
  properties: { [`name${i}`]: { type: 'string', maxLength: 8 }, count: { type: 'integer', minimum: 0, maximum: 999 } },
  required: [`name${i}`, 'count'],
  additionalProperties: false,
}));
const prefixes = Array.from({ length: 200 }, () => Array.from({ length: 128 }, () => 32 + integer(96)));

/** The requests of a busy service: prompts that begin alike, and of everything that can be asked some. */
function draw() {
  const promptTokenIds = [
    ...(random() < 0.6 ? prefixes[integer(prefixes.length)] : []),
    ...Array.from({ length: 1 + integer(96) }, () => 32 + integer(96)),
  ];
  const params = { maxTokens: 1 + integer(64), endId: 0 };
  const kind = random();
  if (kind < 0.1)
    Object.assign(params, { useBeamSearch: true, bestOf: 2 + integer(3), n: 2, maxTokens: 1 + integer(16) });
  else if (kind < 0.3) {
    Object.assign(params, { temperature: 1, maxTokens: 120 });
    params.guidedDecoding =
      random() < 0.01
        ? { grammar: 'root ::= (' }
        : random() < 0.7
          ? { json: schemas[integer(8)] }
          : { regex: `[a-z]{3}-${integer(400)}` };
  } else if (kind < 0.4) Object.assign(params, { temperature: 1, n: 2, logprobs: 2, repetitionPenalty: 1.1 });
  else if (kind < 0.5) Object.assign(params, { temperature: 1, topP: 0.9, stopWords: [[65, 66], [70]] });
  else if (kind < 0.55) Object.assign(params, { promptLogprobs: 1, returnGenerationLogits: true, maxTokens: 8 });
  return {
    promptTokenIds,
    samplingParams: params,
    priority: random(),
    ...(random() < 0.1 ? { allottedTimeMs: 1 + integer(10_000) } : {}),
    ...(random() < 0.1 ? { cacheSalt: `user ${integer(5000)}` } : {}),
  };
}

// One step is a quarter of a second of the day; its clock is the engine's.
const stepMs = 250;
let clock = 0;
const realNow = Date.now;
Date.now = () => clock;
const open = new Set();
const count = { requests: 0, steps: 0, cancelled: 0, timeouts: 0, failed: 0, stopped: 0, length: 0, tokens: 0 };
const engine = new Engine(
  new NullSession(),
  {
    kvCacheConfig: { eventBufferMaxSize: 1024 },
    speculativeConfig: { decodingType: 'ngram' },
    schedulerConfig: { capacitySchedulerPolicy: 'max_utilization' },
  },
  (updates) => {
    for (const update of updates) {
      if ('error' in update) {
        open.delete(update.requestId);
        count.failed++;
        continue;
      }
      const { requestId, outputs, finished } = update.response;
      for (const { tokenIds, finishReason } of outputs) {
        count.tokens += tokenIds.length;
        if (finishReason === 'timeout') count.timeouts++;
        if (finishReason === 'cancelled') count.cancelled++;
        if (finishReason === 'stop') count.stopped++;
        if (finishReason === 'length') count.length++;
      }
      if (finished) open.delete(requestId);
    }
  },
  { guides: new GuideMaker(() => ({ encodedVocab: vocabulary, vocabType: 'raw', stopTokenIds: [0] })) },
);

const samples = [];
const mib = (bytes) => Math.round((bytes / 2 ** 20) * 10) / 10;
function sample(hour) {
  gc();
  const { heapUsed, external, arrayBuffers, rss } = process.memoryUsage();
  samples.push({
    hour,
    heap: mib(heapUsed),
    external: mib(external),
    arrayBuffers: mib(arrayBuffers),
    rss: mib(rss),
    requests: count.requests,
    open: open.size,
  });
  process.stderr.write(
    `hour ${hour}: heap ${mib(heapUsed)} MiB, external ${mib(external)}, rss ${mib(rss)}, ${count.requests} requests\n`,
  );
}

const numSteps = Math.round((hours * 3_600_000) / stepMs);
const start = performance.now();
let nextId = 0;
for (let step = 0; step < numSteps; step++) {
  if (step % Math.round(numSteps / 48) === 0) sample(Math.round(((step * stepMs) / 3_600_000) * 100) / 100);
  clock += stepMs;
  // The load of a day: more by day than by night.
  const busy = 0.27 + 0.2 * Math.sin((2 * Math.PI * step) / numSteps);
  if (random() < busy && open.size < 400) {
    const requestId = nextId++;
    const { params, ...rest } = checkRequest(draw(), limits);
    engine.post({
      type: 'enqueue',
      request: { requestId, ...rest, params: { ...params, seed: BigInt(requestId) }, arrivalTime: clock },
    });
    open.add(requestId);
    count.requests++;
  }
  if (random() < 0.02) {
    const [first] = open;
    if (first !== undefined) engine.post({ type: 'cancel', requestId: random() < 0.5 ? first : nextId - 1 });
  }
  if (await engine.step()) count.steps++;
  if (step % 500 === 0) engine.kvCacheEvents();
}
for (let more = true; more; clock += stepMs) more = await engine.step();
sample(hours);
Date.now = realNow;

/** Least squares, MiB an hour, without the first quarter, in which caches fill. */
function slope(field) {
  const kept = samples.slice(samples.length >> 2);
  const mean = (read) => kept.reduce((sum, each) => sum + read(each), 0) / kept.length;
  const [x, y] = [mean(({ hour }) => hour), mean((each) => each[field])];
  const above = kept.reduce((sum, each) => sum + (each.hour - x) * (each[field] - y), 0);
  return Math.round((above / kept.reduce((sum, each) => sum + (each.hour - x) ** 2, 0)) * 1000) / 1000;
}
const { blocks } = engine.scheduler;
const result = {
  hours,
  stepMs,
  wallSeconds: Math.round((performance.now() - start) / 1000),
  ...count,
  preemptions: engine.scheduler.numPreemptions,
  blocksHeldAtTheEnd: blocks.maxNumBlocks - blocks.freeNumBlocks,
  openAtTheEnd: engine.scheduler.requests.size,
  mibAnHour: {
    heap: slope('heap'),
    external: slope('external'),
    arrayBuffers: slope('arrayBuffers'),
    rss: slope('rss'),
  },
  jumpAhead: engine.statistics().jumpAheadStats,
  samples,
};
console.table(samples.filter((_, i) => i % 6 === 0 || i === samples.length - 1));
console.log({ ...result, samples: undefined });
if (save)
  writeFileSync(fileURLToPath(new URL('results/soak.json', import.meta.url)), `${JSON.stringify(result, null, 2)}\n`);
