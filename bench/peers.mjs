// TypeRT beside llama.cpp on the same GGUF files, with as many threads, in turns: `npm run bench peers [-- --threads N --models a,b --rounds N]`.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { ratioChart } from './peers/chart.mjs';
import { llama1b, writeRandomGguf } from './peers/gguf.mjs';
import { installPeer, smollm2 } from './peers/install.mjs';

const root = fileURLToPath(new URL('../', import.meta.url));
const { values: options } = parseArgs({
  options: {
    threads: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '5' },
    models: { type: 'string', default: 'smollm2-135m-q4_1,llama-1b-q8_0,llama-1b-q4_0' },
    // Where node-llama-cpp is or will be installed and models are made; a temporary folder, removed at the end, by default.
    folder: { type: 'string' },
  },
});
const threads = Number(options.threads);
const rounds = Number(options.rounds);
const folder = options.folder ?? mkdtempSync(join(tmpdir(), 'typert-peers-'));
const requests = 8;
const context = 1024;

function random(type) {
  const path = join(folder, `llama-1b.${type}.gguf`);
  if (!existsSync(path)) {
    process.stderr.write(`making a random model of 1.2 billion weights in ${type}\n`);
    writeRandomGguf(path, llama1b, type);
  }
  return path;
}

const models = {
  'smollm2-135m-q4_1': { path: () => smollm2(folder), vocab: 49152 },
  'llama-1b-q8_0': { path: () => random('q8_0'), vocab: llama1b.vocab },
  'llama-1b-q4_0': { path: () => random('q4_0'), vocab: llama1b.vocab },
};
/** What is asked of both; `value` makes tokens a second of an answer. */
const measures = [
  {
    name: 'prefill of 128',
    wanted: 2,
    ask: { requests: 1, promptTokens: 128, maxTokens: 1 },
    value: ({ prefillMs }) => 128000 / prefillMs,
  },
  {
    name: 'prefill of 512',
    wanted: 2,
    ask: { requests: 1, promptTokens: 512, maxTokens: 1 },
    value: ({ prefillMs }) => 512000 / prefillMs,
  },
  {
    name: 'decode',
    wanted: 1.1,
    ask: { requests: 1, promptTokens: 16, maxTokens: 64 },
    value: (r) => (r.decoded * 1000) / r.decodeMs,
  },
  {
    name: 'decode of 8 at once',
    wanted: 2,
    ask: { requests, promptTokens: 16, maxTokens: 48 },
    value: (r) => (r.decoded * 1000) / r.decodeMs,
  },
];

/** A peer's process: `ask` sends a line and takes the answer. */
async function start(script, config) {
  const file = fileURLToPath(new URL(`peers/${script}.mjs`, import.meta.url));
  const command = [
    process.execPath,
    file,
    JSON.stringify({ requests, context, threads, folder, cacheDir: join(folder, 'cache'), ...config }),
  ];
  // Both see as many CPUs as they have threads.
  const pinned = process.platform === 'linux' && cpus().length > threads ? ['taskset', '-c', `0-${threads - 1}`] : [];
  const [program, ...args] = [...pinned, ...command];
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async () => {
    for (;;) {
      const { value, done } = await lines.next();
      if (done) throw new Error(`${script} ended`);
      if (value.startsWith('@')) return JSON.parse(value.slice(1));
    }
  };
  await answer();
  return {
    ask: (question) => {
      child.stdin.write(`${JSON.stringify(question)}\n`);
      return answer();
    },
    end: () => child.stdin.end(),
  };
}

const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

try {
  const peer = installPeer(folder);
  const rows = [];
  for (const name of options.models.split(',')) {
    const { path, vocab } = models[name];
    const config = { path: path(), vocab };
    const peers = { typert: await start('typert', config), llama: await start('llama', config) };
    for (const { name: measure, wanted, ask, value } of measures) {
      const figures = { typert: [], llama: [] };
      for (let i = 0; i <= rounds; i++) {
        for (const who of ['typert', 'llama']) {
          const figure = value(await peers[who].ask(ask));
          // The first round warms up.
          if (i > 0) figures[who].push(figure);
        }
      }
      const [typert, llama] = [median(figures.typert), median(figures.llama)];
      rows.push({ model: name, measure, typert, llama, ratio: typert / llama, wanted });
      process.stderr.write(
        `${name} ${measure}: ${typert.toFixed(1)} and ${llama.toFixed(1)} tok/s, ${(typert / llama).toFixed(2)} ×\n`,
      );
    }
    for (const each of Object.values(peers)) each.end();
  }
  console.table(
    rows.map(({ model, measure, typert, llama, ratio, wanted }) => ({
      model,
      measure,
      'TypeRT, tok/s': Number(typert.toFixed(1)),
      'llama.cpp, tok/s': Number(llama.toFixed(1)),
      ratio: Number(ratio.toFixed(2)),
      wanted,
    })),
  );
  const cpu = cpus()[0].model.trim();
  const results = join(root, 'bench/results');
  writeFileSync(
    join(results, 'peers.json'),
    `${JSON.stringify({ cpu, threads, 'node-llama-cpp': peer, rows }, null, 2)}\n`,
  );
  const title = `TypeRT over llama.cpp (node-llama-cpp ${peer}), ${threads} threads, ${cpu}`;
  const bars = rows.map(({ model, measure, ratio, wanted }) => ({ label: `${model}, ${measure}`, ratio, wanted }));
  writeFileSync(join(results, 'peers.svg'), ratioChart(title, bars));
} finally {
  if (options.folder === undefined) rmSync(folder, { recursive: true, force: true });
}
