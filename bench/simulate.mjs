// Traffic of internet scale in simulated time: prefix-aware routing by the caches' events against round robin. `npm run bench simulate [requests] [replicas] [--save]`
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { PrefixRouter, poissonTraffic, RoundRobinRouter, simulate, timelineSvg, timelineText } from 'typert/executor';

const save = process.argv.includes('--save');
const [numRequests = 1_000_000, numReplicas = 64] = process.argv
  .slice(2)
  .filter((arg) => arg !== '--save')
  .map(Number);
const tokensPerBlock = 32;
const limits = {
  maxBatchSize: 64,
  maxNumTokens: 2048,
  maxNumLogits: 64,
  maxSeqLen: 512,
  tokensPerBlock,
  maxBlocksPerSequence: 16,
  numBlocks: 768,
  vocabSize: 32_000,
};
const traffic = (count, perSecond) =>
  poissonTraffic({
    numRequests: count,
    requestsPerSecond: perSecond,
    numPrefixes: 1000,
    prefixLength: 256,
    meanSuffixLength: 32,
    meanOutputLength: 12,
    maxLength: limits.maxSeqLen,
    vocabSize: limits.vocabSize,
  });

const routers = {
  'round robin': () => new RoundRobinRouter(),
  'prefix aware': () => new PrefixRouter(tokensPerBlock),
};

/** The whole traffic through one router. */
function run(name) {
  const start = performance.now();
  let told = 0;
  const { steps: _, ...result } = simulate({
    numReplicas,
    limits,
    traffic: traffic(numRequests, 36 * numReplicas),
    router: routers[name](),
    kvCacheConfig: { eventBufferMaxSize: 4096 },
    progress: (finished) => {
      if (finished - told < numRequests / 10) return;
      told = finished;
      process.stderr.write(`${name}: ${finished} of ${numRequests} requests\n`);
    },
  });
  return { ...result, wallSeconds: (performance.now() - start) / 1000 };
}

// Each router has a thread of its own.
if (!isMainThread) {
  parentPort.postMessage(run(workerData.name));
  process.exit();
}
const results = Object.fromEntries(
  await Promise.all(
    Object.keys(routers).map(async (name) => {
      const worker = new Worker(new URL(import.meta.url), { workerData: { name }, argv: process.argv.slice(2) });
      return [name, await new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject))];
    }),
  ),
);
const round = (value) => Math.round(value * 10) / 10;
console.table(
  Object.fromEntries(
    Object.entries(results).map(([name, { hitRate, timeToFirstToken: ttft, latency, ...rest }]) => [
      name,
      {
        'hit rate': `${(hitRate * 100).toFixed(1)} %`,
        'first token p50': round(ttft.p50),
        p90: round(ttft.p90),
        p99: round(ttft.p99),
        'latency p50': round(latency.p50),
        'latency p99': round(latency.p99),
        'tok/s': Math.round(rest.tokensPerSecond),
        steps: rest.numSteps,
        'wall s': round(rest.wallSeconds),
      },
    ]),
  ),
);

/** Bars: the hit rate, then milliseconds to the first and the last token. */
function chart() {
  const rows = [
    ['prompt tokens found in a cache, %', ({ hitRate }) => hitRate * 100],
    ...['p50', 'p90', 'p99'].map((p) => [`ms to the first token, ${p}`, ({ timeToFirstToken }) => timeToFirstToken[p]]),
    ...['p50', 'p90', 'p99'].map((p) => [`ms to the last token, ${p}`, ({ latency }) => latency[p]]),
  ];
  const colours = ['#9498a0', '#4269d0'];
  const names = Object.keys(results);
  const lines = rows.flatMap(([label, read], i) => {
    const values = names.map((name) => read(results[name]));
    const most = Math.max(...values);
    const y = 50 + i * 46;
    return [
      `<text x="210" y="${y + 18}" text-anchor="end">${label}</text>`,
      ...values.flatMap((value, k) => [
        `<rect x="220" y="${y + k * 16}" width="${((value / most) * 400).toFixed(1)}" height="14" fill="${colours[k]}"/>`,
        `<text x="${(226 + (value / most) * 400).toFixed(1)}" y="${y + k * 16 + 11}">${value.toFixed(1)}</text>`,
      ]),
    ];
  });
  const title = `${numRequests.toLocaleString('en')} requests, Poisson arrivals, ${numReplicas} replicas`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 ${60 + rows.length * 46}" font-family="sans-serif" font-size="12">`,
    `<title>${title}</title>`,
    '<rect width="100%" height="100%" fill="white"/>',
    `<text x="20" y="22" font-size="14">${title}</text>`,
    ...names.map((name, k) => `<text x="${430 + k * 110}" y="22" fill="${colours[k]}">■ ${name}</text>`),
    ...lines,
    '</svg>\n',
  ].join('\n');
}

const small = simulate({
  limits: { ...limits, maxBatchSize: 6, numBlocks: 96 },
  traffic: traffic(16, 60),
  record: true,
});
process.stdout.write(timelineText(small.steps.slice(0, 100)));
if (save) {
  const folder = fileURLToPath(new URL('results/', import.meta.url));
  writeFileSync(`${folder}simulate.json`, `${JSON.stringify({ numRequests, numReplicas, results }, null, 2)}\n`);
  writeFileSync(`${folder}simulate.svg`, chart());
  writeFileSync(`${folder}timeline.svg`, timelineSvg(small.steps));
}
