// Compilers that were tried before: asking one again takes longer than opening a small engine. What is known of a file holds until the file changes.
import { mkdirSync, readFileSync, realpathSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import type { CCompiler } from './cc-compiler.ts';

/** The file that a command means, and what changes when it does; undefined when no folder has it. */
function identify(command: string, searched: string): string | undefined {
  for (const folder of searched.split(delimiter)) {
    const path = join(folder, command);
    const found = folder === '' ? undefined : statSync(path, { throwIfNoEntry: false });
    if (found?.isFile() && (found.mode & 0o111) !== 0)
      return `${path} ${realpathSync(path)} ${found.size} ${found.mtimeMs}`;
  }
  return undefined;
}

function read(file: string): Record<string, string> {
  try {
    const known: unknown = JSON.parse(readFileSync(file, 'utf8'));
    return typeof known === 'object' && known !== null ? (known as Record<string, string>) : {};
  } catch {
    // None yet, or damaged: compilers are tried again.
    return {};
  }
}

/** The first of `commands` in the folders of `searched` (a PATH), if it is known to work. */
export function knownCompiler(commands: readonly string[], searched: string, file: string): CCompiler | undefined {
  for (const command of commands) {
    const identity = identify(command, searched);
    if (identity === undefined) continue;
    const version = read(file)[identity];
    return typeof version === 'string' ? { command, version } : undefined;
  }
  return undefined;
}

/** Keeps what was learnt; a folder that cannot be written only costs the next start its time. */
export function rememberCompiler({ command, version }: CCompiler, searched: string, file: string): void {
  const identity = identify(command, searched);
  if (identity === undefined) return;
  try {
    mkdirSync(dirname(file), { recursive: true });
    const partial = `${file}.${process.pid}`;
    writeFileSync(partial, `${JSON.stringify({ ...read(file), [identity]: version }, null, 2)}\n`);
    renameSync(partial, file);
  } catch {
    // Read-only caches are fine.
  }
}
