// Without a C compiler that works the CPU target runs WebAssembly kernels: the same tokens, and one line that tells why and what to do.
import { chmodSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { typert } from '../support/cli.ts';
import { temporaryFolder } from '../support/temporary.ts';

const folder = temporaryFolder();
const model = 'models/storyteller-7m';
interface Story {
  readonly kind: string;
  readonly prompt: string;
  readonly greedy_token_ids: readonly number[];
}
const { prompt, greedy_token_ids: greedy } = (JSON.parse(readFileSync(`${model}/golden.json`, 'utf8')) as Story[]).find(
  ({ kind }) => kind === 'chat',
)!;

/** A PATH with these scripts under compilers' names, and nothing else but what a shell script needs. */
function path(name: string, scripts: Readonly<Record<string, string>>, mode = 0o755): string {
  const bin = join(folder, name);
  mkdirSync(bin);
  symlinkSync('/bin/sleep', join(bin, 'sleep'));
  for (const [command, body] of Object.entries(scripts)) {
    writeFileSync(join(bin, command), `#!/bin/sh\n${body}\n`);
    chmodSync(join(bin, command), mode);
  }
  return bin;
}

const env = (bin: string): Record<string, string> => ({
  PATH: bin,
  TYPERT_CACHE: join(folder, 'cache'),
  TYPERT_TARGET: 'cpu',
});

describe('a C compiler that', () => {
  test.each([
    ['is missing', () => path('missing', {}), /cc: not found; gcc: not found; clang: not found/],
    ['fails', () => path('fails', { cc: 'echo no licence >&2; exit 7' }), /cc: exit status 7, no licence/],
    ['is not executable', () => path('plain', { gcc: 'exit 0' }, 0o644), /gcc: not executable/],
    ['hangs', () => path('hangs', { clang: 'exec sleep 60' }), /clang: no answer in 10 s/],
    ['compiles nothing', () => path('liar', { cc: 'echo cc 1.0' }), /cc: says that it compiled but wrote nothing/],
  ])('%s', async (_name, bin, why) => {
    const { code, stdout, stderr } = await typert(['run', model, prompt, '--json', '--temperature', '0', '-n', '24'], {
      env: env(bin()),
    });
    expect(stderr).toMatch(why);
    expect(stderr).toMatch(/typert: cpu: .*WebAssembly kernels.*Install gcc or clang for full speed/);
    expect(code).toBe(0);
    expect(JSON.parse(stdout).outputs[0].tokenIds).toEqual(greedy.slice(0, 24));
  });

  test('is missing is what doctor tells, with the remedy', async () => {
    const { code, stdout } = await typert(['doctor'], { env: env(join(folder, 'missing')) });
    expect(code).toBe(0);
    expect(stdout).toMatch(/✓ target cpu +.*WebAssembly kernels \(no C compiler works/);
    expect(stdout).toMatch(/→ Install gcc or clang for full speed/);
  });

  test('was there at build is not needed to open the engine', async () => {
    const engine = join(folder, 'engine');
    const built = await typert(['build', model, '-o', engine], { env: { TYPERT_TARGET: 'cpu' } });
    expect(built.code).toBe(0);
    const { stdout, code } = await typert(['run', engine, prompt, '--json', '--temperature', '0', '-n', '24'], {
      env: env(join(folder, 'missing')),
    });
    expect(code).toBe(0);
    expect(JSON.parse(stdout).outputs[0].tokenIds).toEqual(greedy.slice(0, 24));
  });
});
