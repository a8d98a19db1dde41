// The hub's HTTP, spoken by a small server on this machine: revisions, listings, redirects to a content server, ranges, cuts and refusals.
import { createHash } from 'node:crypto';
import { existsSync, lstatSync, mkdtempSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { HubError } from '../../base/errors.ts';
import type { ProgressEvent } from '../../base/progress.ts';
import { resolveModel } from './hub.ts';

const commit = 'a'.repeat(40);
const large = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7919) & 255));
const sha256 = createHash('sha256').update(large).digest('hex');
const gitHash = (data: Buffer): string => createHash('sha1').update(`blob ${data.length}\0`).update(data).digest('hex');
const small = (text: string): { data: Buffer; lfs: boolean } => ({ data: Buffer.from(text), lfs: false });

type Files = Record<string, { data: Buffer; lfs: boolean }>;
const index = { weight_map: { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' } };
const repos: Record<string, Files> = {
  'org/tiny': {
    'config.json': small('{"architectures":["X"]}'),
    'tokenizer.json': small('{}'),
    'README.md': small('never fetched'),
    'model.safetensors': { data: large, lfs: true },
  },
  'org/sharded': {
    'config.json': small('{}'),
    'model.safetensors.index.json': small(JSON.stringify(index)),
    'model-00001-of-00002.safetensors': { data: large, lfs: true },
    'model-00002-of-00002.safetensors': small('second'),
    'consolidated.safetensors': small('never fetched'),
  },
  'org/ggufs': { 'm-Q4_K_M.gguf': small('four'), 'm-Q8_0.gguf': small('eight'), 'mmproj-f16.gguf': small('no model') },
  'org/pickle': { 'config.json': small('{}'), 'pytorch_model.bin': small('x') },
};

let server: Server;
let endpoint = '';
let cacheDir = '';
let log: string[] = [];
/** The next answers with the large file end after so many bytes. */
let cuts: number[] = [];
let damaged = false;

function fail(response: ServerResponse, status: number, code: string): void {
  response
    .writeHead(status, { 'content-type': 'application/json', 'x-error-code': code })
    .end(JSON.stringify({ error: code }));
}

function content(request: IncomingMessage, response: ServerResponse, data: Buffer): void {
  const range = /^bytes=(\d+)-/.exec(request.headers.range ?? '');
  const from = range === null ? 0 : Number(range[1]);
  log.push(`content from ${from}`);
  const body = damaged ? Buffer.alloc(data.length - from, 1) : data.subarray(from);
  const headers = { 'content-length': body.length, 'accept-ranges': 'bytes' };
  response.writeHead(
    range === null ? 200 : 206,
    range === null ? headers : { ...headers, 'content-range': `bytes ${from}-${data.length - 1}/${data.length}` },
  );
  const cut = data === large ? cuts.shift() : undefined;
  if (cut === undefined) {
    response.end(body);
    return;
  }
  if (cut > 0) response.write(body.subarray(0, cut));
  else response.flushHeaders();
  setTimeout(() => response.destroy(), 20);
}

/** The gated repository holds what the tiny one does. */
const filesOf = (id: string | undefined): Files | undefined => repos[id === 'org/gated' ? 'org/tiny' : (id ?? '')];

function answer(request: IncomingMessage, response: ServerResponse): void {
  const url = new URL(request.url ?? '/', endpoint);
  const path = decodeURIComponent(url.pathname);
  const cdn = /^\/cdn\/([^/]+\/[^/]+)\/(.+)$/.exec(path);
  if (cdn !== null) {
    content(request, response, filesOf(cdn[1])![cdn[2]!]!.data);
    return;
  }
  const api = /^\/api\/models\/([^/]+\/[^/]+)\/(revision|tree)\/([^/]+)/.exec(path);
  const resolve = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(path);
  const [, id, revision] = api === null ? [undefined, resolve?.[1], resolve?.[2]] : [undefined, api[1], api[3]];
  if (id === 'org/gated' && request.headers.authorization !== 'Bearer hf_good') {
    fail(response, 401, 'GatedRepo');
    return;
  }
  const files = filesOf(id);
  if (files === undefined) {
    fail(response, request.headers.authorization === undefined ? 401 : 404, 'RepoNotFound');
    return;
  }
  if (revision !== 'main' && revision !== commit) {
    fail(response, 404, 'RevisionNotFound');
    return;
  }
  if (api?.[2] === 'revision') {
    log.push('revision');
    response
      .writeHead(200, { 'content-type': 'application/json' })
      .end(JSON.stringify({ _id: '1', id, sha: commit, private: false }));
    return;
  }
  if (api !== null) {
    const entries = Object.entries(files).map(([name, { data, lfs }]) => ({
      type: 'file',
      path: name,
      size: data.length,
      oid: gitHash(data),
      ...(lfs ? { lfs: { oid: sha256, size: data.length, pointerSize: 134 } } : {}),
    }));
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(entries));
    return;
  }
  const file = files[resolve?.[3] ?? ''];
  if (file === undefined) {
    fail(response, 404, 'EntryNotFound');
    return;
  }
  if (file.lfs) {
    const headers = { location: `/cdn/${id}/${resolve![3]}`, 'x-linked-etag': `"${sha256}"`, 'x-repo-commit': commit };
    response.writeHead(302, headers).end();
    return;
  }
  content(request, response, file.data);
}

beforeAll(async () => {
  server = createServer(answer);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});
beforeEach(() => {
  if (cacheDir !== '') rmSync(cacheDir, { recursive: true, force: true });
  cacheDir = mkdtempSync(join(tmpdir(), 'typert-hub-'));
  log = [];
  cuts = [];
  damaged = false;
});

const resolve = (id: string, more: object = {}): Promise<string> =>
  resolveModel(id, { endpoint, cacheDir, offline: false, token: 'hf_other', retries: 3, ...more });

async function failure(promise: Promise<unknown>): Promise<Error> {
  return promise.then(
    () => {
      throw new Error('did not fail');
    },
    (error: Error) => error,
  );
}

describe('resolveModel', () => {
  test('fetches only what is read, in the layout of huggingface_hub, with progress in bytes', async () => {
    const events: ProgressEvent[] = [];
    const path = await resolve('org/tiny', { progress: (event: ProgressEvent) => events.push(event) });
    const repo = join(cacheDir, 'models--org--tiny');
    expect(path).toBe(join(repo, 'snapshots', commit));
    expect(readFileSync(join(repo, 'refs', 'main'), 'utf8')).toBe(commit);
    expect(readFileSync(join(path, 'model.safetensors')).equals(large)).toBe(true);
    expect(lstatSync(join(path, 'model.safetensors')).isSymbolicLink()).toBe(true);
    expect(readlinkSync(join(path, 'model.safetensors'))).toBe(join('..', '..', 'blobs', sha256));
    expect(existsSync(join(path, 'README.md'))).toBe(false);
    const last = events.at(-1)!;
    expect(last).toMatchObject({ task: 'download', unit: 'bytes', item: 'model.safetensors' });
    expect(last.done).toBe(last.total);
    log = [];
    expect(await resolve('org/tiny')).toBe(path);
    expect(log).toEqual(['revision']);
  });

  test('continues a cut connection at its byte, in the same call', async () => {
    cuts = [100_000, 50_000];
    const path = await resolve('org/sharded');
    expect(readFileSync(join(path, 'model-00001-of-00002.safetensors')).equals(large)).toBe(true);
    expect(existsSync(join(path, 'consolidated.safetensors'))).toBe(false);
    const starts = log.filter((line) => line.startsWith('content')).map((line) => Number(line.split(' ').at(-1)));
    expect(starts.filter((at) => at > 0)).toHaveLength(2);
    expect(Math.max(...starts)).toBeLessThanOrEqual(150_000);
  });

  test('continues in a later call what an earlier one left', async () => {
    cuts = [120_000, 0];
    const error = await failure(resolve('org/tiny', { retries: 0 }));
    expect(error).toBeInstanceOf(HubError);
    expect(error.message).toMatch(/connection|terminated|closed|reset/i);
    expect(error.message).toContain('continues where it stopped');
    const partial = join(cacheDir, 'models--org--tiny', 'blobs', `${sha256}.incomplete`);
    const have = statSync(partial).size;
    expect(have).toBeGreaterThan(0);
    cuts = [];
    log = [];
    const path = await resolve('org/tiny');
    expect(log).toContain(`content from ${have}`);
    expect(readFileSync(join(path, 'model.safetensors')).equals(large)).toBe(true);
    expect(existsSync(partial)).toBe(false);
  });

  test('refuses what does not have the announced hash, and keeps nothing of it', async () => {
    damaged = true;
    const error = await failure(resolve('org/tiny'));
    expect(error).toBeInstanceOf(HubError);
    expect(error.message).toMatch(/damaged on its way.*expected .* with hash/);
    damaged = false;
    await resolve('org/tiny');
  });

  test('chooses a GGUF by file or quantisation', async () => {
    expect(readFileSync(await resolve('org/ggufs:Q4_K_M'), 'utf8')).toBe('four');
    expect(readFileSync(await resolve('org/ggufs:m-Q8_0.gguf'), 'utf8')).toBe('eight');
    const several = await failure(resolve('org/ggufs'));
    expect(several.message).toMatch(/several GGUF files.*m-Q4_K_M.gguf, m-Q8_0.gguf.*org\/ggufs:Q4_K_M/);
    expect((await failure(resolve('org/ggufs:Q2_K'))).message).toMatch(/no such GGUF file.*m-Q4_K_M.gguf/);
  });

  test('offline and without a network the cache answers', async () => {
    const path = await resolve('org/tiny');
    expect(await resolve('org/tiny', { offline: true, endpoint: 'http://127.0.0.1:1' })).toBe(path);
    expect(await resolve('org/tiny', { endpoint: 'http://127.0.0.1:1' })).toBe(path);
    expect(await resolve('org/tiny', { revision: commit, offline: true })).toBe(path);
    const missing = await failure(resolve('org/sharded', { offline: true }));
    expect(missing).toBeInstanceOf(HubError);
    expect(missing.message).toMatch(/not in the cache.*HF_HUB_OFFLINE/);
    const unreachable = await failure(resolve('org/sharded', { endpoint: 'http://127.0.0.1:1' }));
    expect(unreachable.message).toMatch(/cannot be reached.*Check the network and HF_ENDPOINT/);
  });

  test('refusals say what to do', async () => {
    const say = async (id: string, more: object = {}): Promise<string> => {
      const error = await failure(resolve(id, more));
      expect(error).toBeInstanceOf(HubError);
      return error.message;
    };
    expect(await say('org/gated')).toMatch(/gated.*Accept the terms at .*org\/gated, then set HF_TOKEN/);
    expect(await say('org/nothing')).toMatch(/no such model.*Check the name.*HF_TOKEN/);
    expect(await say('org/tiny', { revision: 'v9' })).toMatch(/no such revision.*v9.*--revision/);
    expect(await say('org/pickle')).toMatch(/no weights.*pytorch_model.bin.*save_pretrained/);
    expect(await say('org/tiny', { token: 'secret' })).toMatch(/HF_TOKEN: not a token/);
    expect(await say('org/tiny', { revision: '../x' })).toMatch(/no such revision/);
    expect(existsSync(await resolve('org/gated', { token: 'hf_good' }))).toBe(true);
  });

  test('an aborted call ends with the reason', async () => {
    const reason = new Error('enough');
    expect(await failure(resolve('org/tiny', { signal: AbortSignal.abort(reason) }))).toBe(reason);
  });

  test('a local path is itself; what is neither path nor id is refused', async () => {
    expect(await resolve(cacheDir)).toBe(cacheDir);
    expect((await failure(resolve('./no/such/folder'))).message).toMatch(/no such model.*Check the path/);
  });
});
