// A build that is killed while the compiler works: no kernel and no engine is left half-made, and the next build does what it should.
import { chmodSync, existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { findCCompiler } from '../../src/targets/jit/cc-compiler.ts';
import { typert } from '../support/cli.ts';
import { temporaryFolder } from '../support/temporary.ts';

const folder = temporaryFolder();
const compiler = findCCompiler();

/** A compiler that works, but dawdles before a kernel; it says when it begins. */
function dawdling(real: string): { readonly path: string; readonly began: string } {
  const path = join(folder, 'bin');
  const began = join(folder, 'began');
  mkdirSync(path);
  for (const name of ['sleep', 'touch']) symlinkSync(`/usr/bin/${name}`, join(path, name));
  const script = `#!/bin/sh\ncase "$*" in *kernel.so*) touch ${began}; sleep 20;; esac\nPATH=${process.env.PATH} exec ${real} "$@"\n`;
  writeFileSync(join(path, 'cc'), script);
  chmodSync(join(path, 'cc'), 0o755);
  return { path, began };
}

test.skipIf(compiler instanceof Error)('kill -9 while a kernel is compiled', async () => {
  if (compiler instanceof Error) return;
  const cache = join(folder, 'cache');
  const engine = join(folder, 'engine');
  const env = { TYPERT_CACHE: cache, TYPERT_TARGET: 'cpu' };
  const args = ['build', 'models/storyteller-7m', '-o', engine, '--max-seq-len', '64'];
  const { path, began } = dawdling(compiler.command);
  const killed = await typert(args, { env: { ...env, PATH: path }, signalAfter: { ms: 6000, signal: 'SIGKILL' } });
  expect(killed.code).toBe(null);
  expect(existsSync(began)).toBe(true);
  expect(existsSync(engine)).toBe(false);
  const kernels = join(cache, 'kernels');
  const left = existsSync(kernels) ? readdirSync(kernels).filter((name) => !name.startsWith('.')) : [];
  expect(left).toEqual([]);
  const again = await typert(args, { env });
  expect(again.code).toBe(0);
  expect(readdirSync(kernels).filter((name) => name.startsWith('.'))).toEqual([]);
  const told = await typert(['run', engine, 'A fox', '-n', '8', '--temperature', '0'], { env });
  expect(told.code).toBe(0);
  expect(told.stdout.trim().length).toBeGreaterThan(5);
});
