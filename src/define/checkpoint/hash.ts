// The content key of a checkpoint. Weight files are hashed once and remembered by path, size, time and inode.
import { createHash, type Hash, randomBytes } from 'node:crypto';
import { createReadStream, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileError } from './file.ts';
import { isObject } from './json.ts';
import type { TensorSource } from './tensors.ts';

/** Raised when the translation of a checkpoint changes, so that engines built from the old one are not reused. */
const version = 'typert-checkpoint-1';
const maxEntries = 500;

interface Memo {
  readonly key: string;
  readonly sha256: string;
}

function memoFile(cacheDir: string): string {
  return join(cacheDir, 'hashes.json');
}

/** What was remembered; a file that cannot be read or makes no sense counts as empty. */
function readMemo(cacheDir: string): Record<string, Memo> {
  try {
    const value: unknown = JSON.parse(readFileSync(memoFile(cacheDir), 'utf8'));
    if (!isObject(value)) return {};
    const good = Object.entries(value).filter(
      ([, memo]) =>
        isObject(memo) &&
        typeof memo.key === 'string' &&
        typeof memo.sha256 === 'string' &&
        /^[0-9a-f]{64}$/.test(memo.sha256),
    );
    return Object.fromEntries(good) as Record<string, Memo>;
  } catch {
    return {};
  }
}

function writeMemo(cacheDir: string, path: string, memo: Memo): void {
  const partial = `${memoFile(cacheDir)}.${process.pid}-${randomBytes(4).toString('hex')}`;
  try {
    mkdirSync(cacheDir, { recursive: true });
    const { [path]: _, ...others } = readMemo(cacheDir);
    const kept = Object.entries(others).slice(-(maxEntries - 1));
    writeFileSync(partial, JSON.stringify(Object.fromEntries([...kept, [path, memo]]), undefined, 1));
    renameSync(partial, memoFile(cacheDir));
  } catch {
    // The memo only saves time: a cache folder that cannot be written is no reason to fail.
    try {
      rmSync(partial, { force: true });
    } catch {}
  }
}

/** SHA-256 (hex) of a file, streamed, or remembered in `<cacheDir>/hashes.json`. Throws CheckpointError when it cannot be read. */
export async function fileHash(file: string, cacheDir: string): Promise<string> {
  const path = resolve(file);
  try {
    const stat = statSync(path, { bigint: true });
    const key = `${stat.size}:${stat.mtimeNs}:${stat.ino}`;
    const memo = readMemo(cacheDir)[path];
    if (memo?.key === key) return memo.sha256;
    const hash = createHash('sha256');
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
    const sha256 = hash.digest('hex');
    writeMemo(cacheDir, path, { key, sha256 });
    return sha256;
  } catch (error) {
    throw fileError('cannot be hashed', path, error);
  }
}

/** Adds a text with its length, so that two different lists of texts never run together into the same bytes. */
function add(hash: Hash, text: string): void {
  hash.update(`${Buffer.byteLength(text)}:`).update(text);
}

/** SHA-256 (hex) over config, assets, tensor names, types and shapes, and the weight files' contents. */
export async function checkpointHash(
  config: Readonly<Record<string, unknown>>,
  assets: ReadonlyMap<string, string>,
  tensors: TensorSource,
  files: readonly string[],
  cacheDir: string,
): Promise<string> {
  const hash = createHash('sha256');
  add(hash, version);
  add(hash, JSON.stringify(config));
  for (const name of [...assets.keys()].sort()) {
    add(hash, name);
    add(hash, assets.get(name)!);
  }
  for (const name of [...tensors.tensors.keys()].sort()) {
    const { dtype, shape } = tensors.tensors.get(name)!;
    add(hash, `${name} ${dtype} ${shape}`);
  }
  for (const file of files) add(hash, await fileHash(file, cacheDir));
  return hash.digest('hex');
}
