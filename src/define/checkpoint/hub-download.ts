// One file from the hub into a blob of the cache: streamed, resumed where it stopped (Range), checked against its hash, renamed when whole.
import { createHash, type Hash } from 'node:crypto';
import { createReadStream, mkdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { HubError } from '../../base/errors.ts';
import { fileError } from './file.ts';
import { type HubAccess, networkError, statusError } from './hub-errors.ts';

/** A connection that brings nothing for so long is given up and begun again, milliseconds. */
const stallMs = 30_000;

export interface RemoteFile {
  readonly path: string;
  readonly bytes: number;
  /** SHA-256 of a large file, or git's SHA-1 of a small one: what the hub calls its etag. */
  readonly etag: string;
}

/** The hash that an etag stands for: 64 digits are SHA-256 of the contents, 40 git's blob hash, which counts a small header too. */
function hashFor({ etag, bytes }: RemoteFile): Hash {
  return etag.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${bytes}\0`);
}

/** Thrown inside for what is worth another try: the connection broke, stalled, or the server was busy. */
class Interrupted extends Error {}

/** Asks for the bytes from `from` on; returns the response and where its body begins. */
async function request(
  url: string,
  from: number,
  access: HubAccess,
  signal: AbortSignal,
): Promise<{ response: Response; from: number }> {
  const headers: Record<string, string> = { 'user-agent': 'typert' };
  if (access.token !== undefined) headers.authorization = `Bearer ${access.token}`;
  if (from > 0) headers.range = `bytes=${from}-`;
  const response = await fetch(url, { headers, signal, redirect: 'follow' });
  if (response.status === 206 && new RegExp(`^bytes ${from}-`).test(response.headers.get('content-range') ?? ''))
    return { response, from };
  if (response.status === 200) return { response, from: 0 };
  await response.body?.cancel();
  // The range is not what the server has: begin anew, once.
  if (from > 0 && (response.status === 416 || response.status === 206)) return request(url, 0, access, signal);
  if (response.status === 206 || response.status === 416 || response.status === 429 || response.status >= 500)
    throw new Interrupted(`status ${response.status}`);
  throw statusError(access, response.status, response.headers.get('x-error-code') ?? undefined, url);
}

/** One connection: appends to `partial` until the file is whole or the connection ends. Throws Interrupted when it ended early. */
async function attempt(
  url: string,
  file: RemoteFile,
  partial: string,
  access: HubAccess,
  onBytes: (done: number) => void,
): Promise<void> {
  const stall = new AbortController();
  let timer = setTimeout(() => stall.abort(), stallMs);
  const signal = access.signal === undefined ? stall.signal : AbortSignal.any([access.signal, stall.signal]);
  const have = statSync(partial, { throwIfNoEntry: false })?.size ?? 0;
  try {
    const { response, from } = await request(url, have > file.bytes ? 0 : have, access, signal);
    const handle = await open(partial, from === 0 ? 'w' : 'a');
    try {
      let done = from;
      for await (const chunk of response.body ?? []) {
        clearTimeout(timer);
        timer = setTimeout(() => stall.abort(), stallMs);
        try {
          await handle.appendFile(chunk as Uint8Array);
        } catch (error) {
          throw fileError('cannot be written', partial, error);
        }
        done += (chunk as Uint8Array).length;
        if (done > file.bytes) throw tooMuch(file, partial);
        onBytes(done);
      }
      if (done < file.bytes) throw new Interrupted(`the connection ended after ${done} of ${file.bytes} bytes`);
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (access.signal?.aborted) throw access.signal.reason;
    // fetch reports every broken connection as a TypeError, a stalled one as the abort.
    if (error instanceof TypeError || stall.signal.aborted)
      throw new Interrupted(String((error as Error).cause ?? error));
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function tooMuch(file: RemoteFile, partial: string): HubError {
  rmSync(partial, { force: true });
  return new HubError('is longer than announced', {
    where: file.path,
    expected: `${file.bytes} bytes`,
    got: 'more',
    remedy: 'Run the command again; if it stays so, check HF_ENDPOINT',
  });
}

async function verify(file: RemoteFile, partial: string): Promise<void> {
  const hash = hashFor(file);
  let bytes = 0;
  for await (const chunk of createReadStream(partial, { highWaterMark: 1 << 20 })) {
    hash.update(chunk as Buffer);
    bytes += (chunk as Buffer).length;
  }
  const digest = hash.digest('hex');
  if (bytes === file.bytes && digest === file.etag) return;
  rmSync(partial, { force: true });
  throw new HubError('was damaged on its way', {
    where: file.path,
    expected: `${file.bytes} bytes with hash ${file.etag}`,
    got: `${bytes} bytes with hash ${digest}`,
    remedy: 'Run the command again: the damaged part was removed and will be fetched anew',
  });
}

/**
 * Fetches `url` to `blob` unless it is there. What a broken connection left in `<blob>.incomplete` is continued, in this call (up to `retries`
 * times without progress) and in later ones. `onBytes` is told how many bytes are there. Throws HubError, CheckpointError when the disk fails,
 * and the signal's reason when it is aborted.
 */
export async function download(
  url: string,
  file: RemoteFile,
  blob: string,
  access: HubAccess,
  onBytes: (done: number) => void,
): Promise<void> {
  if (statSync(blob, { throwIfNoEntry: false })?.size === file.bytes) return;
  mkdirSync(dirname(blob), { recursive: true });
  const partial = `${blob}.incomplete`;
  const size = (): number => statSync(partial, { throwIfNoEntry: false })?.size ?? -1;
  for (let failures = 0; size() !== file.bytes; ) {
    const before = size();
    try {
      await attempt(url, file, partial, access, onBytes);
    } catch (error) {
      if (!(error instanceof Interrupted)) throw error;
      failures = size() > before ? 0 : failures + 1;
      if (failures > access.retries) throw networkError(access, `${file.path}: ${error.message}`, error);
      await sleep(
        Math.min(10_000, 200 * 2 ** failures),
        undefined,
        access.signal === undefined ? {} : { signal: access.signal },
      );
    }
  }
  await verify(file, partial);
  renameSync(partial, blob);
}
