// What the executor itself costs: steps a second with a session that computes nothing, and the scheduler alone.
import { Engine, Scheduler } from '../dist/run/executor/internals.js';

class NullSession {
  constructor(limits) {
    this.limits = limits;
    this.tokens = new Int32Array(limits.maxNumLogits);
    this.logprobs = new Float32Array(limits.maxNumLogits).fill(-1);
  }
  async copyBlocks() {}
  async forward() {}
  async readLogits() {
    return new Float32Array(0);
  }
  async writeLogits() {}
  async sample() {
    return { tokens: this.tokens, logprobs: this.logprobs };
  }
  async [Symbol.asyncDispose]() {}
}

const limitsFor = (batch, length) => ({
  maxBatchSize: batch,
  maxNumTokens: Math.max(2048, batch),
  maxNumLogits: batch,
  maxSeqLen: length,
  tokensPerBlock: 32,
  maxBlocksPerSequence: Math.ceil(length / 32),
  numBlocks: batch * Math.ceil(length / 32),
  vocabSize: 32_000,
});

const request = (requestId, promptLength, maxTokens) => ({
  requestId,
  promptTokenIds: Int32Array.from({ length: promptLength }, (_, i) => (requestId * 31 + i * 7) % 32_000),
  priority: 0.5,
  arrivalTime: 0,
  params: {
    ...{ maxTokens, minTokens: 0, n: 1, bestOf: 1, beam: undefined, temperature: 0, topK: 0, topP: 1, topPDecay: 1 },
    ...{ topPMin: 1e-6, topPResetIds: undefined, minP: 0, userProcessor: undefined, seed: 0n, repetitionPenalty: 1 },
    ...{ presencePenalty: 0, frequencyPenalty: 0, promptIgnoreLength: 0, noRepeatNgramSize: 0, badWords: [] },
    ...{ embeddingBias: undefined, stopTokenIds: [], stopWords: [], includeStopStrInOutput: false, endId: 2 },
    ...{ logprobs: undefined, promptLogprobs: undefined, returnContextLogits: false, returnGenerationLogits: false },
    ...{ excludeInputFromOutput: true, returnPerfMetrics: false, truncatePromptTokens: undefined },
  },
});

/** Steps a second of the whole engine: schedule, build the batch, take in the tokens, put them out. */
async function steps(batch, maxTokens) {
  const limits = limitsFor(batch, maxTokens + 64);
  const engine = new Engine(new NullSession(limits), {}, () => {});
  for (let id = 0; id < batch; id++) engine.post({ type: 'enqueue', request: request(id, 16, maxTokens) });
  let count = 0;
  const start = performance.now();
  while (await engine.step()) count++;
  return (count / (performance.now() - start)) * 1000;
}

/** Microseconds a plan takes. */
function plans(batch, maxTokens) {
  const scheduler = new Scheduler(limitsFor(batch, maxTokens + 64));
  for (let id = 0; id < batch; id++) scheduler.add(request(id, 16, maxTokens));
  const times = [];
  for (;;) {
    const start = performance.now();
    const plan = scheduler.schedule(0);
    const took = performance.now() - start;
    if (plan.entries.length === 0) break;
    if (plan.entries.length === batch) times.push(took * 1000);
    for (const { samples } of plan.entries)
      for (const sequence of samples) {
        scheduler.append(sequence, 5);
        if (sequence.numGenerated === maxTokens) scheduler.finish(sequence);
      }
  }
  times.sort((a, b) => a - b);
  return { median: times[times.length >> 1], mean: times.reduce((sum, time) => sum + time, 0) / times.length };
}

await steps(64, 500);
plans(1024, 100);
for (const batch of [1, 8, 64, 256])
  process.stdout.write(
    `engine, batch ${String(batch).padEnd(4)} ${(await steps(batch, 4000)).toFixed(0).padStart(8)} steps/s\n`,
  );
for (const batch of [64, 1024]) {
  const { median, mean } = plans(batch, 1000);
  // The mean holds the steps in which all sequences fill a block at once, which are rare in real traffic.
  process.stdout.write(
    `schedule(), batch ${String(batch).padEnd(4)} ${median.toFixed(1).padStart(6)} µs, mean ${mean.toFixed(1)} µs\n`,
  );
}
