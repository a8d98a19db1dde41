// Models by their Hugging Face id: fetched into the cache that huggingface_hub (Python) uses, only the files that TypeRT reads.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { HubApiError, listFiles, modelInfo } from '@huggingface/hub';
import { readEnv } from '../../base/env.ts';
import { CheckpointError, HubError } from '../../base/errors.ts';
import { type Progress, silent } from '../../base/progress.ts';
import { isCommit, RepoCache } from './hub-cache.ts';
import { download, type RemoteFile } from './hub-download.ts';
import { type HubAccess, networkError, offlineError, statusError } from './hub-errors.ts';
import { assetNames } from './huggingface.ts';
import { isObject } from './json.ts';

export interface ResolveOptions {
  /** Branch, tag or commit; `main` by default. */
  readonly revision?: string;
  /** The defaults of these four come from HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, HF_HUB_CACHE or HF_HOME. */
  readonly token?: string;
  readonly endpoint?: string;
  readonly offline?: boolean;
  readonly cacheDir?: string;
  readonly progress?: Progress;
  readonly signal?: AbortSignal;
  /** How often a connection that brought nothing is tried again; 4 by default. */
  readonly retries?: number;
}

const single = 'model.safetensors';
const index = 'model.safetensors.index.json';

/** `org/name`, or `name` alone, and after a colon which GGUF of the repository. */
const idPattern = /^([\w][\w.-]*(?:\/[\w][\w.-]*)?)(?::([\w][\w./-]*))?$/;

/** What of a repository is wanted, by the names of its files. */
type Selection =
  | { readonly kind: 'folder'; readonly weights: typeof single | typeof index }
  | { readonly kind: 'gguf'; readonly path: string };

function safePath(path: string): boolean {
  return !path.startsWith('/') && !path.split(/[\\/]/).some((part) => part === '' || part === '.' || part === '..');
}

/** GGUF files that are models of their own: not later parts of a split one, not projectors of images. */
function ggufsOf(paths: readonly string[]): string[] {
  return paths.filter(
    (path) => /\.gguf$/i.test(path) && !/(^|\/)mmproj/i.test(path) && !/-\d{5}-of-\d{5}\.gguf$/i.test(path),
  );
}

function select(id: string, paths: readonly string[], wanted: string | undefined): Selection {
  const ggufs = ggufsOf(paths);
  const list = (): string => (ggufs.length === 0 ? 'no GGUF files' : ggufs.slice(0, 12).join(', '));
  if (wanted !== undefined) {
    const quantisation = new RegExp(`(^|[-._/])${wanted.replaceAll(/[.]/g, '\\.')}\\.gguf$`, 'i');
    const matches = ggufs.includes(wanted) ? [wanted] : ggufs.filter((path) => quantisation.test(path));
    if (matches.length === 1) return { kind: 'gguf', path: matches[0]! };
    throw new HubError(matches.length === 0 ? 'no such GGUF file' : 'several GGUF files fit', {
      where: `${id}:${wanted}`,
      expected: 'the name of one file, or a quantisation that one file has',
      got: matches.length === 0 ? list() : matches.join(', '),
      remedy: 'Name one of these after the colon',
    });
  }
  if (paths.includes('config.json')) {
    if (paths.includes(single)) return { kind: 'folder', weights: single };
    if (paths.includes(index)) return { kind: 'folder', weights: index };
  }
  if (ggufs.length === 1) return { kind: 'gguf', path: ggufs[0]! };
  if (ggufs.length > 1) {
    throw new HubError('has several GGUF files', {
      where: id,
      expected: 'one of them to be named',
      got: list(),
      remedy: `Name a file or a quantisation, such as ${id}:Q4_K_M`,
    });
  }
  const pickle = paths.find((path) => /^pytorch_model.*\.bin/.test(path));
  throw new HubError('has no weights that can be read', {
    where: id,
    expected: `config.json with ${single} or ${index}, or a .gguf file`,
    got: pickle ?? (paths.slice(0, 8).join(', ') || 'an empty repository'),
    remedy:
      pickle === undefined
        ? 'Choose another repository of the model'
        : 'Convert them: load the model with transformers and save it with save_pretrained(folder), then give that folder',
  });
}

/** Shards that an index names; throws HubError when it names none. */
function shardsOf(id: string, indexFile: string): string[] {
  let names: unknown[] = [];
  try {
    const value: unknown = JSON.parse(readFileSync(indexFile, 'utf8'));
    if (isObject(value) && isObject(value.weight_map)) names = [...new Set(Object.values(value.weight_map))];
  } catch {
    names = [];
  }
  const shards = names.filter(
    (name): name is string => typeof name === 'string' && /^[\w][\w.-]*\.safetensors$/.test(name),
  );
  if (shards.length > 0 && shards.length === names.length) return shards;
  throw new HubError('has a damaged index', {
    where: `${id}/${index}`,
    expected: 'weight_map, tensor name → file name',
    got: `${names.length} names`,
    remedy: 'Choose another revision of the model',
  });
}

/** A snapshot in the cache that holds everything; its path, or undefined. */
function cached(cache: RepoCache, access: HubAccess, wanted: string | undefined): string | undefined {
  const commit = cache.known(access.revision);
  if (commit === undefined) return undefined;
  const folder = cache.snapshot(commit);
  try {
    const selection = select(access.id, cache.files(commit), wanted);
    if (selection.kind === 'gguf') return join(folder, selection.path);
    const needed = selection.weights === single ? [single] : shardsOf(access.id, join(folder, index));
    return needed.every((name) => existsSync(join(folder, name))) ? folder : undefined;
  } catch (error) {
    if (error instanceof HubError) return undefined;
    throw error;
  }
}

type Remote =
  | { readonly kind: 'found'; readonly commit: string; readonly files: ReadonlyMap<string, RemoteFile> }
  /** No answer, or none that means anything: the cache may still help. */
  | { readonly kind: 'unreachable'; readonly error: HubError };

/** Asks the hub what the revision is and what it holds. */
async function remoteFiles(access: HubAccess): Promise<Remote> {
  const { id, revision, endpoint, token, signal } = access;
  let code: string | undefined;
  // The library's errors do not carry the hub's own code; its fetch does.
  const watched: typeof fetch = async (input, init) => {
    const response = await fetch(input, { ...init, ...(signal === undefined ? {} : { signal }) });
    if (!response.ok) code = response.headers.get('x-error-code') ?? undefined;
    return response;
  };
  const common = { hubUrl: endpoint, fetch: watched, ...(token === undefined ? {} : { accessToken: token }) };
  try {
    const { sha } = await modelInfo({ name: id, revision, additionalFields: ['sha'], ...common });
    const files = new Map<string, RemoteFile>();
    for await (const entry of listFiles({
      repo: { type: 'model', name: id },
      revision: sha,
      recursive: true,
      ...common,
    })) {
      const etag = entry.lfs?.oid ?? entry.oid;
      if (
        entry.type !== 'file' ||
        etag === undefined ||
        !/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(etag) ||
        !safePath(entry.path)
      )
        continue;
      files.set(entry.path, { path: entry.path, bytes: entry.lfs?.size ?? entry.size, etag });
    }
    if (!isCommit(sha))
      throw new HubError('gave no commit', {
        where: id,
        expected: 'a commit hash',
        got: String(sha),
        remedy: 'Check HF_ENDPOINT',
      });
    return { kind: 'found', commit: sha, files };
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    if (error instanceof HubError) throw error;
    if (error instanceof HubApiError) {
      if (error.statusCode >= 500 || error.statusCode === 429) {
        return { kind: 'unreachable', error: networkError(access, `status ${error.statusCode}`, error) };
      }
      throw statusError(access, error.statusCode, code, error.url);
    }
    return { kind: 'unreachable', error: networkError(access, String((error as Error).cause ?? error), error) };
  }
}

/** Fetches what `selection` needs, links it into the snapshot and returns the path to open. */
async function fetchSelection(
  cache: RepoCache,
  access: HubAccess,
  commit: string,
  files: ReadonlyMap<string, RemoteFile>,
  selection: Selection,
  progress: Progress,
): Promise<string> {
  const folder = cache.snapshot(commit);
  let total = 0;
  let before = 0;
  const want = async (names: readonly string[]): Promise<void> => {
    const wanted = names.map((name) => files.get(name)).filter((file) => file !== undefined);
    total += wanted.reduce((sum, file) => sum + file.bytes, 0);
    for (const file of wanted) {
      const url = `${access.endpoint}/${access.id}/resolve/${commit}/${file.path.split('/').map(encodeURIComponent).join('/')}`;
      let shown = 0;
      const report = (done: number): void => {
        const now = performance.now();
        if (done < file.bytes && now - shown < 50) return;
        shown = now;
        progress({ task: 'download', done: before + done, total, unit: 'bytes', item: file.path });
      };
      await download(url, file, cache.blob(file.etag), access, report);
      report(file.bytes);
      before += file.bytes;
      cache.link(commit, file.path, file.etag);
    }
  };
  if (selection.kind === 'gguf') {
    await want([selection.path]);
  } else {
    const small = ['config.json', ...assetNames];
    await want(selection.weights === single ? [...small, single] : [...small, index]);
    if (selection.weights === index) {
      const shards = shardsOf(access.id, join(folder, index));
      const gone = shards.find((name) => !files.has(name));
      if (gone !== undefined) throw statusError(access, 404, 'EntryNotFound', `${access.id}/${gone}`);
      await want(shards);
    }
  }
  cache.remember(access.revision, commit);
  return selection.kind === 'gguf' ? join(folder, selection.path) : folder;
}

function parseId(text: string): { id: string; wanted: string | undefined } {
  const match = idPattern.exec(text);
  const [, id, wanted] = match ?? [];
  if (id !== undefined && !id.includes('..') && !id.includes('--') && (wanted === undefined || safePath(wanted)))
    return { id, wanted };
  throw new CheckpointError('no such model', {
    where: text,
    expected: 'a folder, a .gguf file, or a Hugging Face id (org/name, org/name:Q4_K_M)',
    got: 'nothing at that path, and not an id',
    remedy: 'Check the path',
  });
}

/**
 * The local path of a model: `idOrPath` itself when something is there, else what the hub has under that id, fetched into the cache unless it is
 * there already. `org/name:file.gguf` and `org/name:Q4_K_M` choose a GGUF file. Offline, or when the hub cannot be reached, the cache answers.
 * Throws HubError (no access, not found, no network, damaged), CheckpointError (not an id; disk), or the signal's reason.
 */
export async function resolveModel(idOrPath: string, options: ResolveOptions = {}): Promise<string> {
  if (existsSync(idOrPath)) return idOrPath;
  const { id, wanted } = parseId(idOrPath);
  const env = readEnv().hub;
  const access: HubAccess = {
    id,
    revision: options.revision ?? 'main',
    endpoint: (options.endpoint ?? env.endpoint).replace(/\/+$/, ''),
    token: options.token ?? env.token,
    retries: options.retries ?? 4,
    signal: options.signal,
  };
  if (!safePath(access.revision)) {
    throw new HubError('no such revision', {
      where: id,
      expected: 'a branch, tag or commit',
      got: access.revision,
      remedy: 'Check --revision',
    });
  }
  if (access.token !== undefined && !access.token.startsWith('hf_')) {
    throw new HubError('not a token', {
      where: 'HF_TOKEN',
      expected: 'a token that begins with hf_',
      got: 'another text',
      remedy: 'Set HF_TOKEN to an access token of your account, or unset it',
    });
  }
  const cacheDir = options.cacheDir ?? env.cacheDir;
  const cache = new RepoCache(cacheDir, id);
  if (options.offline ?? env.offline) {
    const path = cached(cache, access, wanted);
    if (path === undefined) throw offlineError(access, cacheDir);
    return path;
  }
  const remote = await remoteFiles(access);
  if (remote.kind === 'unreachable') {
    const path = cached(cache, access, wanted);
    if (path === undefined) throw remote.error;
    return path;
  }
  const selection = select(id, [...remote.files.keys()], wanted);
  return fetchSelection(cache, access, remote.commit, remote.files, selection, options.progress ?? silent);
}
