// The server under load: 256 streams for a minute, each checked against its solo output; what HTTP costs, event-loop delay, memory: `npm run bench serve [seconds] [streams]`.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LLM } from 'typert';
import { completionOf, firstTextAt, Line, readSeldom, request, textOf } from './serve/client.mjs';

const [seconds = 60, streams = 256] = process.argv.slice(2).map(Number);
const root = fileURLToPath(new URL('../', import.meta.url));
const model = join(root, 'models/storyteller-7m');
const cacheDir = mkdtempSync(join(tmpdir(), 'typert-bench-'));
const maxTokens = 64;
/** Milliseconds of a turn of the comparison, and how many there are. */
const turn = 4000;
const turns = 7;
const limits = { target: 'cpu', maxBatchSize: streams, maxSeqLen: 256, kvCacheConfig: { maxTokens: streams * 256 } };

const names = ['fox', 'owl', 'girl named Lily', 'boy named Tim', 'bear', 'cat', 'dog', 'rabbit'];
const places = ['forest', 'garden', 'house', 'park', 'sea', 'school', 'farm', 'big city'];
const prompts = names.flatMap((name) =>
  places.map((place) => `Once upon a time, a little ${name} went to the ${place}.`),
);

/** What is not counted at the beginning of a phase: all prompts come at once then. */
const settle = 1200;

const bodies = prompts.map((prompt) =>
  request('x', '/v1/completions', {
    ...{ prompt, temperature: 0, max_tokens: maxTokens, ignore_eos: true },
    ...{ stream: true, stream_options: { include_usage: true } },
  }),
);

/** Tokens a second that `streams` readers in this process get, reading as a program does. */
async function inProcess(llm, milliseconds) {
  let tokens = 0;
  const begin = performance.now() + settle;
  const stop = begin + milliseconds;
  const read = async (first) => {
    for (let at = first; performance.now() < stop; at += 7)
      for await (const { outputs } of llm.generateAsync(prompts[at % prompts.length], {
        temperature: 0,
        maxTokens,
        ignoreEos: true,
      })) {
        const now = performance.now();
        if (now >= begin) tokens += outputs[0].tokenIdsDelta.length;
        if (now >= stop) break;
      }
  };
  await Promise.all(Array.from({ length: streams }, (_, i) => read(i)));
  return (tokens / milliseconds) * 1000;
}

/** Tokens that the second server streams together. */
const interval = 4;

function startServer(more = []) {
  const args = [
    ...['serve', model, '--target', 'cpu', '--port', '0', '--log-level', 'silent'],
    ...[
      '--max-batch-size',
      String(streams),
      '--max-seq-len',
      '256',
      '--kv-cache-tokens',
      String(streams * 256),
      ...more,
    ],
  ];
  const child = spawn(process.execPath, [join(root, 'dist/cli/main.js'), ...args], {
    env: { ...process.env, TYPERT_CACHE: cacheDir },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the server ended with ${code}`)));
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += chunk;
      const url = /at (http:\S+)/.exec(output)?.[1];
      if (url !== undefined) resolve({ child, url, port: Number(new URL(url).port) });
    });
  });
}

async function numbers(url) {
  const text = await (await fetch(`${url}/metrics`)).text();
  const value = (name) => Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (.*)$`, 'm').exec(text)?.[1]);
  return {
    rss: value('process_resident_memory_bytes'),
    heap: value('nodejs_heap_size_used_bytes'),
    lag: value('nodejs_eventloop_lag_p99_seconds') * 1000,
    lagMax: value('nodejs_eventloop_lag_max_seconds') * 1000,
    tokens: value('trtllm_generation_tokens_total'),
  };
}

/** Load for so long; every answer is kept. With `drain` the last ones are waited for, without it they are broken off. */
async function load({ port, url }, milliseconds, drain) {
  const answers = [];
  const samples = [];
  const stop = performance.now() + milliseconds;
  const lines = Array.from({ length: streams }, () => new Line(port));
  const wakeAgain = readSeldom();
  const run = async (line, first) => {
    for (let at = first; performance.now() < stop; at += 7) {
      const prompt = at % prompts.length;
      const answer = await line.send(bodies[prompt]);
      answers.push({ prompt, ...answer });
      if (!answer.whole) return;
    }
  };
  const started = performance.now();
  const watch = setInterval(async () => {
    if (drain) samples.push({ at: performance.now() - started, ...(await numbers(url)) });
  }, 5000);
  const end = drain ? undefined : setTimeout(() => lines.map((line) => line.close()), milliseconds);
  await Promise.all(lines.map(run));
  wakeAgain();
  clearInterval(watch);
  clearTimeout(end);
  for (const line of lines) line.close();
  return { answers, samples, took: performance.now() - started };
}

/** Tokens a second at the reader between two times, told from the share of the known text that had come. */
function rate(answers, solo, from, to) {
  let tokens = 0;
  for (const { prompt, chunks, times } of answers) {
    const until = (time) => textOf(chunks.filter((_, i) => times[i] < time)).length;
    tokens += ((until(to) - until(from)) / solo[prompt].length) * maxTokens;
  }
  return (tokens / (to - from)) * 1000;
}

const quantile = (values, q) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(q * values.length))];
const round = (value, digits = 1) => Number(value.toFixed(digits));

const result = { machine: `${cpus().length} × ${cpus()[0].model}`, node: process.version, streams, seconds, maxTokens };
let [server, gathering] = [];
try {
  const llm = await LLM.load(model, { ...limits, cacheDir });
  const solo = [];
  for (const prompt of prompts)
    solo.push((await llm.generate(prompt, { temperature: 0, maxTokens, ignoreEos: true })).outputs[0].text);
  // In process and through HTTP by short turns, both engines open all the time: whatever else the machine does falls on both.
  server = await startServer();
  gathering = await startServer(['--stream-interval', String(interval)]);
  const pairs = [];
  for (let pair = 0; pair < turns; pair++) {
    const direct = await inProcess(llm, turn);
    const throughHttp = async (which) => {
      const begin = performance.now() + settle;
      const { answers } = await load(which, settle + turn, false);
      return rate(answers, solo, begin, begin + turn);
    };
    const http = await throughHttp(server);
    const gathered = await throughHttp(gathering);
    const [overhead, overheadGathered] = [http, gathered].map((value) => round(1 - value / direct, 3));
    pairs.push({ direct: round(direct), http: round(http), overhead, gathered: round(gathered), overheadGathered });
    process.stderr.write(
      `in process ${round(direct)} tok/s, HTTP ${round(http)} (${round(100 * overhead)} % less), ${interval} tokens an event ${round(gathered)} (${round(100 * overheadGathered)} % less)\n`,
    );
  }
  gathering.child.kill('SIGKILL');
  await llm[Symbol.asyncDispose]();
  await numbers(server.url);
  const begin = performance.now() + settle;
  const { answers, samples, took } = await load(server, settle + seconds * 1000, true);
  const after = await numbers(server.url);
  const wrong = answers.filter((answer) => {
    const { text, tokens } = completionOf(answer.chunks);
    return text !== solo[answer.prompt] || tokens !== maxTokens;
  }).length;
  if (wrong > 0) process.exitCode = 1;
  const settled = samples.filter(({ at }) => at > seconds * 300);
  const first = answers.map((answer) => firstTextAt(answer) - answer.started);
  const summary = (values) => ({ best: Math.min(...values), median: quantile(values, 0.5) });
  Object.assign(result, {
    answers: answers.length,
    wrong,
    seconds: round(took / 1000),
    tokensPerSecond: round(rate(answers, solo, begin, begin + seconds * 1000)),
    firstTokenMs: { p50: round(quantile(first, 0.5)), p99: round(quantile(first, 0.99)) },
    eventLoopDelayMs: {
      p99: round(Math.max(...samples.map(({ lag }) => lag), after.lag)),
      p99Median: round(
        quantile(
          samples.map(({ lag }) => lag),
          0.5,
        ),
      ),
    },
    memoryMiB: settled.map(({ rss }) => Math.round(rss / 2 ** 20)),
    heapMiB: settled.map(({ heap }) => Math.round(heap / 2 ** 20)),
    pairs,
    overhead: summary(pairs.map(({ overhead }) => overhead)),
    streamInterval: interval,
    overheadGathered: summary(pairs.map(({ overheadGathered }) => overheadGathered)),
  });
  process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
  if (seconds >= 60) writeFileSync(join(root, 'bench/results/serve.json'), `${JSON.stringify(result, null, 2)}\n`);
} finally {
  for (const each of [server, gathering]) each?.child.kill('SIGKILL');
  rmSync(cacheDir, { recursive: true, force: true });
}
