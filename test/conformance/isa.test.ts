// The CPU's kernels on every instruction set that runs or is emulated here; those that only compile here; and under sanitizers.
// TYPERT_TEST_ISA=quick asks for what takes about three minutes of a core (CI does), TYPERT_TEST_ISA=all for all of it, the sanitizers too: about a quarter
// of an hour. The machine's own set is in kernels.test.ts.
import { spawnSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { findCCompiler } from '../../src/targets/jit/cc-compiler.ts';
import { differences } from './compare.ts';
import { compileStubFor, type Driven, drivenTarget } from './driven.ts';
import { allCases, arm64, processorHas, x86 } from './isa.ts';

const compiler = findCCompiler();
const command = compiler instanceof Error ? undefined : compiler.command;
const has = processorHas();
const cases = allCases();
const works = (name: string) => spawnSync(name, ['--version']).status === 0;
/** Of those that only compile here: the one without dot products, the one with most, and the one of vectors half as wide. */
const compiled = ['AVX2 and VNNI', 'AVX-512', 'AMX'];
/** Quick to compile: what is tested is which instructions are taken, not how fast they are. */
const quick = ['-O1'];
const minutes = 60_000;
const { TYPERT_TEST_ISA: level } = process.env;
/** Why tests are not run that belong to these levels. */
const askFor = (...levels: readonly string[]) =>
  levels.includes(level ?? '') ? undefined : `TYPERT_TEST_ISA=${levels.join(' or ')} asks for it`;

async function agrees(how: Driven): Promise<void> {
  for (const { name, made, tokensPerBlock } of cases)
    expect({ name, differ: await differences(drivenTarget(how), made, tokensPerBlock) }).toEqual({ name, differ: [] });
}

const lacks = command === undefined ? 'no C compiler' : process.arch === 'x64' ? undefined : 'needs x86-64';
describe('x86-64', () => {
  for (const { name, flags, needs } of x86) {
    const missing = needs.filter((need) => !has.has(need));
    // The sets that this machine has it is tested on anyway, but for the least.
    const reason = (needs.length === 0 || missing.length > 0 ? askFor('quick', 'all') : askFor('all')) ?? lacks;
    if (reason !== undefined) {
      test.skip(`${name}: ${reason}`);
    } else if (missing.length === 0) {
      test(name, () => agrees({ compiler: command!, flags: [...flags, ...quick] }), 10 * minutes);
    } else if (compiled.includes(name)) {
      test(
        `${name} compiles (this processor lacks ${missing.join(', ')})`,
        () => {
          for (const { made, tokensPerBlock } of cases.slice(0, 1))
            compileStubFor(made, tokensPerBlock, {
              compiler: command!,
              flags: [...flags, ...quick, '-Wall', '-Werror'],
            });
        },
        5 * minutes,
      );
    }
  }
});

const cross = 'aarch64-linux-gnu-gcc';
const emulator = 'qemu-aarch64';
const lacking = [cross, emulator].filter((name) => !works(name));
describe('arm64', () => {
  // Kernels have no ways of their own for i8mm yet.
  for (const { name, flags, needs } of arm64.filter((set) => !set.needs.includes('i8mm'))) {
    const asked = needs.includes('asimddp') ? askFor('quick', 'all') : askFor('all');
    if (asked !== undefined) test.skip(`${name}: ${asked}`);
    else if (lacking.length > 0) test.skip(`${name}: ${lacking.join(' and ')} not found`);
    else
      test(
        name,
        () => agrees({ compiler: cross, flags: [...flags, ...quick, '-static'], runner: [emulator, '-cpu', 'max'] }),
        10 * minutes,
      );
  }
});

// Every tensor has memory of its own there, with fences; reading or writing past an end, shifts and conversions that C leaves open end the program.
describe('sanitizers', () => {
  const flags = ['-O1', '-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-Wno-maybe-uninitialized'];
  for (const { name, flags: isa, needs } of x86) {
    const reason = askFor('all') ?? lacks;
    if (reason !== undefined) test.skip(`${name}: ${reason}`);
    else if (needs.every((need) => has.has(need)))
      test(name, () => agrees({ compiler: command!, flags: [...isa, ...flags], threads: 2 }), 10 * minutes);
  }
});
