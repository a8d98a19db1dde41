// TypeRT's server beside llama.cpp behind HTTP, on the same GGUF file: 1, 8 and 32 clients, in turns: `npm run bench serve-peers [-- --rounds N --seconds N --folder DIR]`.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { ratioChart } from './peers/chart.mjs';
import { installPeer, smollm2 } from './peers/install.mjs';
import { firstTextAt, Line, request, textEvents } from './serve/client.mjs';

const root = fileURLToPath(new URL('../', import.meta.url));
const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '5' },
    threads: { type: 'string', default: '2' },
    folder: { type: 'string' },
  },
});
const [rounds, seconds, threads] = [options.rounds, options.seconds, options.threads].map(Number);
const folder = options.folder ?? mkdtempSync(join(tmpdir(), 'typert-peers-'));
const counts = [1, 8, 32];
const [most, perRequest, maxTokens] = [Math.max(...counts), 256, 48];
const topics = [
  'rivers',
  'bread',
  'clocks',
  'whales',
  'glass',
  'bees',
  'chess',
  'snow',
  'maps',
  'silk',
  'ships',
  'salt',
];
let asked = 0;

/** A prompt that begins like no other, so that no cache helps. */
function prompt() {
  const at = asked++;
  return `${at * 7919}: ${topics[at % topics.length]} and ${topics[(at * 5 + 3) % topics.length]}. Write a long and careful essay about how the first one changed the history of the second one.`;
}

function start(args, env = {}) {
  const child = spawn(process.execPath, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`${args[0]} ended with ${code}`)));
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += chunk;
      const port = /at http:\/\/127\.0\.0\.1:(\d+)/.exec(output)?.[1];
      if (port !== undefined) resolve({ child, port: Number(port) });
    });
  });
}

/** So many clients, one request after the other each: tokens a second, and milliseconds to the first token. */
async function load({ port }, clients) {
  const lines = Array.from({ length: clients }, () => new Line(port));
  const answers = [];
  const started = performance.now();
  const stop = started + seconds * 1000;
  await Promise.all(
    lines.map(async (line) => {
      do {
        const body = { prompt: prompt(), max_tokens: maxTokens, temperature: 0, ignore_eos: true, stream: true };
        answers.push(await line.send(request('x', '/v1/completions', body)));
      } while (performance.now() < stop);
    }),
  );
  const took = performance.now() - started;
  for (const line of lines) line.close();
  const tokens = answers.length * maxTokens;
  for (const { chunks } of answers)
    if (textEvents(chunks) === 0) throw new Error(`no answer: ${Buffer.concat(chunks).toString().slice(0, 300)}`);
  return {
    throughput: (tokens * 1000) / took,
    firstToken: median(answers.map((answer) => firstTextAt(answer) - answer.started)),
  };
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const round = (value, digits = 2) => Number(value.toFixed(digits));

const servers = {};
try {
  const version = installPeer(folder);
  const path = smollm2(folder);
  const config = { path, folder, clients: most, threads, context: perRequest };
  servers.llama = await start([
    fileURLToPath(new URL('peers/llama-server.mjs', import.meta.url)),
    JSON.stringify(config),
  ]);
  servers.typert = await start(
    [
      ...[join(root, 'dist/cli/main.js'), 'serve', path, '--target', 'cpu', '--port', '0', '--log-level', 'silent'],
      ...[
        '--max-batch-size',
        String(most),
        '--max-seq-len',
        String(perRequest),
        '--kv-cache-tokens',
        String(most * perRequest),
      ],
    ],
    { TYPERT_CACHE: join(folder, 'cache') },
  );
  const rows = [];
  for (const clients of counts) {
    const figures = { typert: [], llama: [] };
    for (let i = 0; i < rounds; i++)
      for (const who of ['typert', 'llama']) figures[who].push(await load(servers[who], clients));
    const of = (who, what) => median(figures[who].map((figure) => figure[what]));
    const row = {
      clients,
      throughput: { typert: round(of('typert', 'throughput')), llama: round(of('llama', 'throughput')) },
      firstTokenMs: { typert: round(of('typert', 'firstToken')), llama: round(of('llama', 'firstToken')) },
    };
    row.ratios = {
      throughput: round(row.throughput.typert / row.throughput.llama),
      // Above one: TypeRT's first token comes sooner.
      firstToken: round(row.firstTokenMs.llama / row.firstTokenMs.typert),
    };
    rows.push(row);
    process.stderr.write(`${JSON.stringify(row)}\n`);
  }
  const cpu = cpus()[0].model.trim();
  const result = {
    cpu,
    threads,
    node: process.version,
    'node-llama-cpp': version,
    model: 'SmolLM2-135M-Instruct Q4_1',
    maxTokens,
    rows,
  };
  const bars = rows.flatMap(({ clients, ratios }) => [
    { label: `${clients} clients, tokens a second`, ratio: ratios.throughput, wanted: 1 },
    { label: `${clients} clients, time to first token`, ratio: ratios.firstToken, wanted: 1 },
  ]);
  writeFileSync(join(root, 'bench/results/serve-peers.json'), `${JSON.stringify(result, null, 2)}\n`);
  const title = `TypeRT's server over llama.cpp (node-llama-cpp ${version}), ${threads} threads, ${cpu}`;
  writeFileSync(join(root, 'bench/results/serve-peers.svg'), ratioChart(title, bars));
  process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
} finally {
  for (const { child } of Object.values(servers)) child.kill('SIGKILL');
  if (options.folder === undefined) rmSync(folder, { recursive: true, force: true });
}
