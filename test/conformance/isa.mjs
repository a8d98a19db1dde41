// Conformance and speed of the CPU's kernels on every instruction set of this machine: node test/conformance/isa.mjs [--bench-only] [--test-only]
// Needs gcc (or CC) and a Node.js that runs TypeScript (22.18, 24 or newer); nothing has to be installed or built. JSON at the end, for a file.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { differences } = await import('./compare.ts');
const { drivenTarget } = await import('./driven.ts');
const { allCases, arm64, processorHas, x86 } = await import('./isa.ts');
const { cpuFlags } = await import('../../src/targets/jit/cc-compiler.ts');

const { values: options } = parseArgs({
  options: {
    'bench-only': { type: 'boolean', default: false },
    'test-only': { type: 'boolean', default: false },
    /** Instruction sets whose name holds this. */
    only: { type: 'string', default: '' },
    /** Threads of the bench. */
    threads: { type: 'string', default: [...new Set([1, 2, availableParallelism()])].join(',') },
  },
});
const root = fileURLToPath(new URL('../../', import.meta.url));
const compiler = process.env.CC ?? 'gcc';
const folder = mkdtempSync(join(tmpdir(), 'typert-isa-'));
const has = processorHas();
const cases = options['bench-only'] ? [] : allCases();
const report = { cpu: cpus()[0]?.model.trim(), cores: availableParallelism(), compiler, sets: [] };

async function conform(set, flags) {
  const results = {};
  for (const { name, made, tokensPerBlock } of cases) {
    try {
      results[name] = await differences(drivenTarget({ compiler, flags }), made, tokensPerBlock);
    } catch (error) {
      results[name] = [String(error.stderr || error.message).slice(0, 2000)];
    }
    const wrong = results[name];
    console.log(`${set.name}: ${name}: ${wrong.length === 0 ? 'agrees' : `DIFFERS\n  ${wrong.join('\n  ')}`}`);
  }
  return results;
}

function bench(set, flags) {
  const program = join(folder, 'bench');
  const source = join(root, 'bench/cpu-kernels.c');
  execFileSync(compiler, [...cpuFlags, ...flags, '-I', join(root, 'src/kernels'), source, '-o', program, '-lm']);
  const lines = execFileSync(program, options.threads.split(','), { encoding: 'utf8' }).trim().split('\n');
  return lines.map((line) => {
    const row = JSON.parse(line);
    const share = `${((100 * row.figure) / row.ceiling).toFixed(0)} %`;
    console.log(
      `${set.name}: ${row.threads} threads: ${row.kernel} ${row.shape}: ${row.figure} ${row.unit} of ${row.ceiling}, ${share}`,
    );
    return row;
  });
}

try {
  for (const set of process.arch === 'arm64' ? arm64 : x86) {
    if (!set.name.includes(options.only)) continue;
    const missing = set.needs.filter((need) => !has.has(need));
    if (missing.length > 0) {
      console.log(`${set.name}: left out, this processor lacks ${missing.join(', ')}`);
      continue;
    }
    report.sets.push({
      name: set.name,
      flags: set.flags,
      conformance: options['bench-only'] ? undefined : await conform(set, set.flags),
      bench: options['test-only'] ? undefined : bench(set, set.flags),
    });
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
console.log(JSON.stringify(report));
const wrong = report.sets.some(({ conformance = {} }) => Object.values(conformance).some((list) => list.length > 0));
process.exit(wrong ? 1 : 0);
