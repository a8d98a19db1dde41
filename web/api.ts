// Talking to the server: with the key when it wants one, errors in its own words, events as they come.
import { memory } from './dom.ts';

/** The server's answer was an error, or there was none (status 0). */
export class ApiError extends Error {
  readonly status: number;

  constructor(message: string, status: number) {
    super(message);
    this.status = status;
  }
}

let askForKey: ((wrong: boolean) => Promise<string>) | undefined;
let asked: Promise<string> | undefined;

/** Who is asked when the server wants a key. */
export function onKeyWanted(ask: (wrong: boolean) => Promise<string>): void {
  askForKey = ask;
}

async function errorOf(response: Response): Promise<ApiError> {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text) as { error: { message: string } | string };
    return new ApiError(typeof error === 'string' ? error : error.message, response.status);
  } catch {
    return new ApiError(text || `the server answered ${response.status}`, response.status);
  }
}

/** A request with the key. Throws ApiError; an abort is thrown as it is. */
export async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  for (;;) {
    const key = memory.get('key');
    const headers = new Headers(init.headers);
    if (key !== undefined) headers.set('authorization', `Bearer ${key}`);
    let response: Response;
    try {
      response = await fetch(path, { ...init, headers });
    } catch (cause) {
      if (init.signal?.aborted) throw cause;
      throw new ApiError('The server does not answer.', 0);
    }
    if (response.status !== 401 || askForKey === undefined) {
      if (!response.ok) throw await errorOf(response);
      return response;
    }
    // Whoever else was turned away meanwhile waits for the same answer.
    if (memory.get('key') === key) {
      asked ??= askForKey(key !== undefined).finally(() => {
        asked = undefined;
      });
      await asked;
    }
  }
}

export async function getJson<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await ask(path, signal === undefined ? {} : { signal });
  return (await response.json()) as T;
}

export async function postJson(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  return await ask(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    ...(signal === undefined ? {} : { signal }),
  });
}

/** The data of server-sent events. */
export async function* events(response: Response): AsyncGenerator<string, void, undefined> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split('\n\n');
      rest = parts.pop()!;
      for (const part of parts) {
        const data = part
          .split('\n')
          .filter((line) => line.startsWith('data: '))
          .map((line) => line.slice(6))
          .join('\n');
        if (data !== '') yield data;
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** What `GET /server_info` says of a model. */
export interface ModelInfo {
  readonly name: string;
  readonly state: string;
  readonly architecture?: string;
  readonly build_config?: { readonly target: string; readonly dtype: string };
  readonly limits?: {
    readonly maxBatchSize: number;
    readonly maxNumTokens: number;
    readonly maxSeqLen: number;
    readonly tokensPerBlock: number;
    readonly numBlocks: number;
  };
}

export interface ServerInfo {
  readonly version: string;
  readonly models: readonly ModelInfo[];
}
