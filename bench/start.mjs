// What starting costs on the bundled model: building its engine with an empty and with a warm kernel cache, then a process from its start to the first token: `npm run bench start`.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));
const main = join(root, 'dist/cli/main.js');
const model = join(root, 'models/storyteller-7m');
const folder = mkdtempSync(join(tmpdir(), 'typert-start-'));
const engine = join(folder, 'engine');
const rounds = 5;

/** Seconds until a process of Node.js ends, or until it first writes to its output. */
async function seconds(args, cache, untilOutput = false) {
  const begin = performance.now();
  const child = spawn(process.execPath, args, {
    env: { ...process.env, TYPERT_CACHE: cache },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let first;
  child.stdout.on('data', () => {
    first ??= performance.now();
  });
  const status = await new Promise((resolve) => child.once('close', resolve));
  if (status !== 0) throw new Error(`${args.join(' ')} ended with ${status}`);
  return ((untilOutput ? first : performance.now()) - begin) / 1000;
}

async function best(measure, count = rounds) {
  const times = [];
  for (let i = 0; i < count; i++) times.push(await measure(i));
  return Math.min(...times);
}

try {
  const warm = join(folder, 'warm');
  const build = (cache) => seconds([main, 'build', model, '-o', engine, '--target', 'cpu'], cache);
  const cold = await best((i) => build(join(folder, `cold-${i}`)), 3);
  await build(warm);
  const rows = [
    ['node, nothing else', await best(() => seconds(['-e', '0'], warm)), undefined],
    ['build, no kernel compiled before', cold, 4],
    ['build, kernels in the cache', await best(() => build(warm)), 1],
    ['engine to first token', await best(() => seconds([main, 'run', engine, 'Once upon a time'], warm, true)), 0.5],
  ];
  const node = rows[0][1];
  const results = rows.map(([what, time, most]) => ({
    what,
    seconds: Number(time.toFixed(3)),
    'of what it may take': most === undefined ? undefined : Number((time / most).toFixed(2)),
    'times a bare node': Number((time / node).toFixed(1)),
  }));
  console.table(results);
  mkdirSync(join(root, 'bench/results'), { recursive: true });
  const compiler = spawnSync('cc', ['--version'], { encoding: 'utf8' }).stdout?.split('\n')[0];
  const written = { cpu: cpus()[0].model.trim(), node: process.version, compiler, results };
  writeFileSync(join(root, 'bench/results/start.json'), `${JSON.stringify(written, null, 2)}\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
