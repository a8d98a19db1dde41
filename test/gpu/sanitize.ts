// compute-sanitizer's memcheck, racecheck and synccheck over the conformance sets, many at a time: a GPU, the CUDA toolkit, and a processor for each job.
// node test/gpu/sanitize.ts [--tool=NAME]… [--dtype=NAME]… [--jobs=N] [--seconds=N] [--out=DIR] [--full] [set…]
// Kernels are compiled first, outside of the tools. --seconds: what a job may take; --full: all shapes instead of few; logs are left in DIR.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { allSets, fewSets, selected } from './sets.ts';

const { values: options, positionals: asked } = parseArgs({
  allowPositionals: true,
  options: {
    tool: { type: 'string', multiple: true, default: ['memcheck', 'racecheck', 'synccheck'] },
    dtype: { type: 'string', multiple: true, default: ['float32', 'bfloat16', 'float16'] },
    jobs: { type: 'string', default: String(availableParallelism()) },
    seconds: { type: 'string', default: '600' },
    out: { type: 'string', default: join(tmpdir(), 'typert-sanitize') },
    full: { type: 'boolean', default: false },
  },
});
const home = process.env.CUDA_HOME ?? '/usr/local/cuda';
const sanitizer = [join(home, 'bin/compute-sanitizer'), join(home, 'compute-sanitizer/compute-sanitizer')].find(
  (path) => existsSync(path),
);
if (sanitizer === undefined) {
  console.error(`no compute-sanitizer under ${home}: set CUDA_HOME to a CUDA toolkit`);
  process.exit(1);
}
mkdirSync(options.out, { recursive: true });
const conformance = fileURLToPath(new URL('./conformance.ts', import.meta.url));
const shapes = options.full ? [] : ['--few'];
const sets = selected(options.full ? allSets : fewSets, asked);

interface Outcome {
  readonly ended: boolean;
  readonly code: number | null;
  readonly output: string;
  readonly seconds: number;
}

function run(command: string, args: readonly string[]): Promise<Outcome> {
  const start = performance.now();
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    let output = '';
    let ended = true;
    const add = (data: Buffer): void => {
      output += data.toString();
    };
    child.stdout.on('data', add);
    child.stderr.on('data', add);
    // The tool's own children too.
    const timer = setTimeout(() => {
      ended = false;
      process.kill(-child.pid!, 'SIGKILL');
    }, Number(options.seconds) * 1e3);
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ ended, code, output, seconds: (performance.now() - start) / 1e3 });
    });
  });
}

/** Runs `jobs` of them at a time, in order. */
async function all(work: readonly (() => Promise<void>)[]): Promise<void> {
  const waiting = [...work];
  const worker = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await next();
  };
  await Promise.all(Array.from({ length: Math.max(1, Number(options.jobs)) }, worker));
}

let wrong = 0;
const pairs = sets.flatMap(({ name }) => options.dtype.map((dtype) => ({ name, dtype })));
const started = performance.now();
await all(
  pairs.map(({ name, dtype }) => async () => {
    const { code, output } = await run(process.execPath, [
      conformance,
      ...shapes,
      '--tactics',
      `--dtype=${dtype}`,
      name,
    ]);
    if (code === 0) return;
    wrong++;
    console.log(`WRONG without a tool: ${name}, ${dtype}\n${output.slice(-2000)}`);
  }),
);
console.log(`compiled and compared in ${((performance.now() - started) / 1e3).toFixed(0)} s`);
// The slowest tool goes first.
const tools = [...options.tool].sort((a, b) => Number(b === 'racecheck') - Number(a === 'racecheck'));
await all(
  tools.flatMap((tool) =>
    pairs.map(({ name, dtype }) => async () => {
      const log = join(options.out, `${tool}-${name.replaceAll(' ', '-')}-${dtype}.log`);
      const how = [
        '--tool',
        tool,
        '--target-processes',
        'application-only',
        '--error-exitcode',
        '9',
        '--log-file',
        log,
      ];
      const job = [process.execPath, conformance, ...shapes, '--tactics', `--dtype=${dtype}`, name];
      const { ended, code, output, seconds } = await run(sanitizer, [...how, ...job]);
      const report = existsSync(log) ? readFileSync(log, 'utf8') : '';
      const summary = /(?:ERROR|RACECHECK) SUMMARY: (.*)/.exec(report)?.[1] ?? (ended ? 'no summary' : 'not ended');
      const clean = code === 0 && /^0 (errors|hazards)/.test(summary);
      if (!clean) wrong++;
      console.log(`${clean ? 'clean' : 'WRONG'} ${tool}: ${name}, ${dtype}: ${summary} (${seconds.toFixed(0)} s)`);
      if (!clean) console.log(`${report.split('\n').slice(0, 24).join('\n')}\n${output.slice(-600)}`);
    }),
  ),
);
console.log(`${wrong === 0 ? 'all clean' : `${wrong} WRONG`} in ${((performance.now() - started) / 1e3).toFixed(0)} s`);
process.exitCode = wrong === 0 ? 0 : 1;
