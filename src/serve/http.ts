// What every route shares: the request's scope (id, abort signal, who is told), reading a checked JSON body, and the environment that hono's types carry.

import type { Context } from 'hono';
import type { z } from 'zod';
import { show } from '../base/errors.ts';
import { ServeError } from './errors.ts';
import type { Observer } from './model.ts';
import type { Registry } from './registry.ts';

/** One HTTP request in hand. */
export interface Scope {
  /** From the x-request-id header, or drawn. */
  readonly id: string;
  /** Aborted when the client leaves or the server ends. */
  readonly signal: AbortSignal;
  readonly abort: (reason?: unknown) => void;
  readonly observer: Observer;
  /** Bytes. */
  readonly maxBodySize: number;
}

export interface Env {
  Variables: { scope: Scope };
}

export type Ctx = Context<Env>;

/** What routes need of the server. */
export interface Services {
  readonly registry: Registry;
  readonly observer: Observer;
}

function describe(path: readonly PropertyKey[]): string {
  return path
    .map((key, at) => (typeof key === 'number' ? `[${key}]` : at === 0 ? String(key) : `.${String(key)}`))
    .join('');
}

function valueAt(body: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], body);
}

/** Checks a value against a schema. Throws ServeError 400 that names the field. */
export function check<Schema extends z.ZodType>(schema: Schema, value: unknown): z.infer<Schema> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const where = describe(issue.path);
  const got = valueAt(value, issue.path);
  throw new ServeError(got === undefined && where !== '' ? `missing: ${issue.message}` : issue.message, {
    status: 400,
    code: got === undefined && where !== '' ? 'missing_required_parameter' : 'invalid_value',
    ...(where === '' ? {} : { where, param: where }),
    ...(got === undefined ? {} : { got: show(got) }),
  });
}

/** The bytes of the body, read no further than the limit. Throws ServeError 413. */
export async function readBytes(c: Ctx): Promise<Uint8Array> {
  const { maxBodySize } = c.get('scope');
  const refuse = (): never => {
    throw new ServeError('the body is too large', {
      status: 413,
      code: 'request_too_large',
      expected: `at most ${maxBodySize} bytes`,
    });
  };
  if (Number(c.req.header('content-length') ?? 0) > maxBodySize) refuse();
  // What says its length is held to it by the HTTP parser; only a body in chunks has to be counted.
  if (c.req.header('content-length') !== undefined) return new Uint8Array(await c.req.arrayBuffer());
  const chunks: Uint8Array[] = [];
  let size = 0;
  const reader = c.req.raw.body?.getReader();
  while (reader !== undefined) {
    const { done, value } = await reader.read();
    if (done) break;
    size += (value as Uint8Array).length;
    if (size > maxBodySize) {
      await reader.cancel();
      refuse();
    }
    chunks.push(value as Uint8Array);
  }
  return Buffer.concat(chunks);
}

const utf8 = new TextDecoder();

/** The body as JSON; an empty one is `{}`. Throws ServeError 400. */
export async function readBody(c: Ctx): Promise<unknown> {
  const text = utf8.decode(await readBytes(c));
  if (text === '') return {};
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new ServeError('the body is not JSON', { status: 400, code: 'invalid_json', cause });
  }
}

/** The checked JSON body of a request. */
export async function readJson<Schema extends z.ZodType>(c: Ctx, schema: Schema): Promise<z.infer<Schema>> {
  return check(schema, await readBody(c));
}

/** Seconds since the epoch, as OpenAI's objects carry them. */
export function now(): number {
  return Math.floor(Date.now() / 1000);
}

/** An id such as `chatcmpl-3f…`. */
export function makeId(prefix: string): string {
  return `${prefix}${crypto.randomUUID().replaceAll('-', '')}`;
}
