// The server under load: 256 streams for a minute, each checked against its solo output; what HTTP costs, event-loop delay, memory: `npm run bench serve [seconds] [streams]`.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LLM } from 'typert';
import { completionOf, Line, request } from './serve/client.mjs';

const [seconds = 60, streams = 256] = process.argv.slice(2).map(Number);
const root = fileURLToPath(new URL('../', import.meta.url));
const model = join(root, 'models/storyteller-7m');
const cacheDir = mkdtempSync(join(tmpdir(), 'typert-bench-'));
const maxTokens = 64;
/** Milliseconds of the comparisons. */
const phase = 8000;
const limits = { target: 'cpu', maxBatchSize: streams, maxSeqLen: 256, kvCacheConfig: { maxTokens: streams * 256 } };

const names = ['fox', 'owl', 'girl named Lily', 'boy named Tim', 'bear', 'cat', 'dog', 'rabbit'];
const places = ['forest', 'garden', 'house', 'park', 'sea', 'school', 'farm', 'big city'];
const prompts = names.flatMap((name) =>
  places.map((place) => `Once upon a time, a little ${name} went to the ${place}.`),
);

/** What is not counted at the beginning of a phase: all prompts come at once then. */
const settle = 1500;

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

function startServer(profile) {
  const args = [
    ...['serve', model, '--target', 'cpu', '--port', '0', '--log-level', 'silent'],
    ...['--max-batch-size', String(streams), '--max-seq-len', '256', '--kv-cache-tokens', String(streams * 256)],
  ];
  const flags = profile === undefined ? [] : ['--cpu-prof', '--cpu-prof-dir', profile];
  const child = spawn(process.execPath, [...flags, join(root, 'dist/cli/main.js'), ...args], {
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

/** Load for so long; every answer is kept. */
async function load(port, url, milliseconds, watch) {
  const bodies = prompts.map((prompt) =>
    request('x', '/v1/completions', {
      prompt,
      temperature: 0,
      max_tokens: maxTokens,
      ignore_eos: true,
      stream: true,
      stream_options: { include_usage: true },
    }),
  );
  const answers = [];
  const samples = [];
  const stop = performance.now() + milliseconds;
  const lines = Array.from({ length: streams }, () => new Line(port));
  const run = async (line, first) => {
    for (let at = first; performance.now() < stop; at += 7) {
      const prompt = at % prompts.length;
      answers.push({ prompt, ...(await line.send(bodies[prompt])) });
    }
  };
  const started = performance.now();
  const timer = setInterval(
    async () => watch && samples.push({ at: performance.now() - started, ...(await numbers(url)) }),
    5000,
  );
  await Promise.all(lines.map(run));
  clearInterval(timer);
  const took = performance.now() - started;
  for (const line of lines) line.close();
  return { answers, samples, took };
}

/** Tokens a second at the reader between two times: those of an answer lie evenly in its bytes. */
function rate(answers, from, to) {
  let tokens = 0;
  for (const { chunks, times, completion } of answers) {
    const bytes = chunks.reduce((sum, { length }) => sum + length, 0);
    const inside = chunks.reduce((sum, { length }, i) => (times[i] >= from && times[i] < to ? sum + length : sum), 0);
    tokens += (completion.tokens * inside) / bytes;
  }
  return (tokens / (to - from)) * 1000;
}

const quantile = (values, q) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(q * values.length))];
const round = (value, digits = 1) => Number(value.toFixed(digits));

const profile = process.env.PROFILE;
const result = { machine: `${cpus().length} × ${cpus()[0].model}`, node: process.version, streams, seconds, maxTokens };
let server;
try {
  const solo = [];
  {
    const llm = await LLM.load(model, { ...limits, cacheDir });
    for (const prompt of prompts)
      solo.push((await llm.generate(prompt, { temperature: 0, maxTokens, ignoreEos: true })).outputs[0].text);
    await llm[Symbol.asyncDispose]();
  }
  // In process and through HTTP by turns, so that both see the same machine.
  const pairs = [];
  for (let pair = 0; pair < 3; pair++) {
    const llm = await LLM.load(model, { ...limits, cacheDir });
    const direct = await inProcess(llm, phase);
    await llm[Symbol.asyncDispose]();
    server = await startServer(profile);
    const last = pair === 2;
    const begin = performance.now() + settle;
    const length = last ? seconds * 1000 : phase;
    const { answers, samples, took } = await load(server.port, server.url, settle + length, last);
    const after = await numbers(server.url);
    let wrong = 0;
    for (const answer of answers) {
      answer.completion = completionOf(answer.chunks);
      if (answer.completion.text !== solo[answer.prompt] || answer.completion.tokens !== maxTokens) wrong++;
    }
    const http = rate(answers, begin, begin + length);
    pairs.push({ direct: round(direct), http: round(http), overhead: 1 - http / direct });
    process.stderr.write(
      `in process ${direct.toFixed(0)} tok/s, HTTP ${http.toFixed(0)} tok/s, overhead ${(100 * (1 - http / direct)).toFixed(1)} %, ${answers.length} answers, ${wrong} wrong\n`,
    );
    if (wrong > 0) process.exitCode = 1;
    if (last) {
      const settled = samples.filter(({ at }) => at > seconds * 300);
      const first = answers.map(({ started, times }) => times[0] - started);
      Object.assign(result, {
        answers: answers.length,
        wrong,
        seconds: round(took / 1000),
        firstTokenMs: { p50: round(quantile(first, 0.5)), p99: round(quantile(first, 0.99)) },
        eventLoopDelayMs: {
          p99: round(Math.max(...samples.map(({ lag }) => lag), after.lag)),
          max: round(Math.max(...samples.map(({ lagMax }) => lagMax))),
        },
        memoryMiB: settled.map(({ rss }) => Math.round(rss / 2 ** 20)),
        heapMiB: settled.map(({ heap }) => Math.round(heap / 2 ** 20)),
      });
    }
    const gone = new Promise((resolve) => server.child.removeAllListeners('exit').once('exit', resolve));
    server.child.kill('SIGTERM');
    await gone;
    server = undefined;
  }
  Object.assign(result, {
    pairs,
    overhead: round(Math.min(...pairs.map(({ overhead }) => overhead)), 3),
    overheadMedian: round(
      quantile(
        pairs.map(({ overhead }) => overhead),
        0.5,
      ),
      3,
    ),
  });
  process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
  if (seconds >= 60) writeFileSync(join(root, 'bench/results/serve.json'), `${JSON.stringify(result, null, 2)}\n`);
} finally {
  server?.child.kill('SIGKILL');
  rmSync(cacheDir, { recursive: true, force: true });
}
