// Compilers that misbehave: each is told apart from one that works, in words.
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { CompileError } from '../../base/errors.ts';
import { KernelCache } from './cache.ts';
import { ccCompiler, cpuFlags, findCCompiler, searchCCompiler } from './cc-compiler.ts';
import { knownCompiler, rememberCompiler } from './known-compilers.ts';
import { mapTree } from './sources.ts';

const folder = mkdtempSync(join(tmpdir(), 'typert-cc-test-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function script(name: string, body: string, mode = 0o755): string {
  const path = join(folder, name);
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, mode);
  return path;
}

describe('searchCCompiler', () => {
  test.each([
    ['missing', join(folder, 'nowhere'), 'not found'],
    ['not executable', script('plain', 'exit 0', 0o644), 'not executable'],
    ['hanging', script('hang', 'exec sleep 30'), 'no answer in 0.5 s'],
    ['failing', script('fail', 'echo broken installation >&2; exit 3'), 'exit status 3, broken installation'],
    ['unable to compile', script('half', '[ "$1" = --version ] && echo half 1.0 || exit 1'), 'does not compile'],
    ['lying', script('liar', 'echo liar 1.0'), 'wrote nothing'],
  ])('%s', (_name, command, words) => {
    const found = searchCCompiler([command], 500);
    expect(found).toBeInstanceOf(Error);
    expect((found as Error).message).toContain(words);
  });

  test('goes on to the next', () => {
    const working = findCCompiler();
    if (working instanceof Error) return;
    const found = searchCCompiler([join(folder, 'nowhere'), working.command], 10_000);
    expect(found).toEqual(working);
  });
});

describe('known compilers', () => {
  const file = join(folder, 'cache-known', 'compilers.json');
  test('are not tried again until their file changes; others and damaged notes are', () => {
    const path = script('cc', 'exit 9');
    expect(knownCompiler(['cc'], folder, file)).toBeUndefined();
    rememberCompiler({ command: 'cc', version: 'cc 1.0' }, folder, file);
    expect(knownCompiler(['nowhere', 'cc'], `/nowhere${delimiter}${folder}`, file)).toEqual({
      command: 'cc',
      version: 'cc 1.0',
    });
    // One that comes first and is not known must be tried.
    script('gcc', 'exit 9');
    expect(knownCompiler(['gcc', 'cc'], folder, file)).toBeUndefined();
    writeFileSync(path, '#!/bin/sh\nexit 10 # another\n');
    expect(knownCompiler(['cc'], folder, file)).toBeUndefined();
    rememberCompiler({ command: 'cc', version: 'cc 2.0' }, folder, file);
    expect(knownCompiler(['cc'], folder, file)?.version).toBe('cc 2.0');
    writeFileSync(file, '{');
    expect(knownCompiler(['cc'], folder, file)).toBeUndefined();
  });
});

describe('ccCompiler', () => {
  test.each([
    ['fails', 'echo internal error >&2; exit 4', /cc-fails failed.*internal error.*WebAssembly kernels run instead/s],
    ['hangs', 'exec sleep 30', /cc-hangs did not end in 0.5 s/],
  ])('a compiler that %s at a kernel: an error that tells, and nothing in the cache', async (name, body, message) => {
    const command = script(`cc-${name}`, body);
    const cacheDir = join(folder, `cache-${name}`);
    mkdirSync(cacheDir);
    const cache = new KernelCache(cacheDir, ccCompiler({ command, version: '1' }, 500), mapTree(new Map()));
    const made = cache.get({ name: 'good', stub: 'int f(void) { return 1; }\n', flags: cpuFlags });
    await expect(made).rejects.toThrow(CompileError);
    const { cause } = (await made.catch((error: unknown) => error)) as { cause: Error };
    expect(cause.message).toMatch(message);
    expect(readdirSync(cacheDir)).toEqual(['failed']);
  });

  test('a kernel that does not compile is a typed error with the compiler’s words, and leaves no binary', async () => {
    const working = findCCompiler();
    if (working instanceof Error) return;
    const cacheDir = join(folder, 'cache');
    mkdirSync(cacheDir);
    const cache = new KernelCache(cacheDir, ccCompiler(working), mapTree(new Map()));
    const made = cache.get({ name: 'bad', stub: 'int f(void) { return nothing; }\n', flags: cpuFlags });
    await expect(made).rejects.toThrow(CompileError);
    await expect(made).rejects.toThrow(/nothing/);
    expect(readdirSync(cacheDir)).toEqual(['failed']);
  });
});
