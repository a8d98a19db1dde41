// Files that are whole or not there: folders and files are written beside their place and renamed into it.
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, type Stats, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

const marker = '.partial-';

/** Folders being written right now. They are removed when the process ends before they are done. */
const pending = new Set<string>();
const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

function sweep(): void {
  for (const path of pending) rmSync(path, { recursive: true, force: true });
}

/** A signal that nobody else heeds would end the process without a word: sweep, then let it. */
function heed(signal: NodeJS.Signals): void {
  if (process.listenerCount(signal) > 1) return;
  sweep();
  process.removeListener(signal, heed);
  process.kill(process.pid, signal);
}

function begin(path: string): void {
  if (pending.size === 0) {
    process.on('exit', sweep);
    for (const signal of signals) process.on(signal, heed);
  }
  pending.add(path);
}

function end(path: string): void {
  pending.delete(path);
  if (pending.size > 0) return;
  process.removeListener('exit', sweep);
  for (const signal of signals) process.removeListener(signal, heed);
}

/** True when the process that began this partial path is gone. */
function abandoned(path: string): boolean {
  const pid = Number(path.split(marker)[1]?.split('-')[0]);
  if (!Number.isInteger(pid) || pid <= 0) return false;
  if (pid === process.pid) return !pending.has(path);
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

/**
 * Calls `write` with a fresh folder beside `target`, then renames it to `target` (replacing what was there). When `write` throws, nothing stays behind.
 * Leftovers of processes that were killed are swept first.
 */
export async function writeFolder<Result>(target: string, write: (folder: string) => Promise<Result>): Promise<Result> {
  const parent = dirname(target);
  mkdirSync(parent, { recursive: true });
  const prefix = `.${basename(target)}${marker}`;
  for (const name of readdirSync(parent)) {
    if (name.startsWith(prefix) && abandoned(join(parent, name)))
      rmSync(join(parent, name), { recursive: true, force: true });
  }
  const partial = join(parent, `${prefix}${process.pid}-${randomBytes(4).toString('hex')}`);
  begin(partial);
  try {
    mkdirSync(partial);
    const result = await write(partial);
    if (existsSync(target)) {
      const old = `${partial}-old`;
      begin(old);
      renameSync(target, old);
      renameSync(partial, target);
      rmSync(old, { recursive: true, force: true });
      end(old);
    } else {
      renameSync(partial, target);
    }
    return result;
  } finally {
    rmSync(partial, { recursive: true, force: true });
    end(partial);
  }
}

/** What is at a path; undefined when nothing is, or when a part of it is no folder. */
function look(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOTDIR') return undefined;
    throw error;
  }
}

export function isFolder(path: string): boolean {
  return look(path)?.isDirectory() ?? false;
}

export function isFile(path: string): boolean {
  return look(path)?.isFile() ?? false;
}
