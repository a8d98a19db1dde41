// API keys: as a bearer token (OpenAI's clients) or in x-api-key (Anthropic's). Compared in constant time, so that a wrong key tells nothing of the right one.

import { createHash, timingSafeEqual } from 'node:crypto';
import type { MiddlewareHandler } from 'hono';
import { assetPath } from './dashboard/assets.ts';
import { ServeError } from './errors.ts';
import type { Env } from './http.ts';

/** What anyone may ask: probes of load balancers carry no key, nor does a browser that opens a page. */
const open = new Set(['/', '/health', '/health/ready', '/v2/health/live', '/v2/health/ready']);

/** The dashboard's own files hold no secret; it asks for a key when the routes behind it want one. */
const isOpen = (path: string): boolean => open.has(path) || path.startsWith(assetPath);

/** Digests have one length, whatever was sent. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** Throws ServeError 401 unless one of the headers carries one of the keys. */
export function fitsKey(keys: readonly string[], authorization: unknown, xApiKey: unknown): void {
  const bearer = /^Bearer +(.+)$/i.exec(String(authorization ?? ''))?.[1];
  const given = digest(bearer ?? String(xApiKey ?? ''));
  // All are compared, whichever fits.
  const fits = keys.reduce((found, key) => timingSafeEqual(digest(key), given) || found, false);
  if (!fits)
    throw new ServeError('no valid API key', {
      status: 401,
      code: 'invalid_api_key',
      remedy: 'Send it as `Authorization: Bearer KEY`',
    });
}

export function requireApiKey(keys: readonly string[]): MiddlewareHandler<Env> {
  return async (c, next) => {
    if (!isOpen(c.req.path) && c.req.method !== 'OPTIONS')
      fitsKey(keys, c.req.header('authorization'), c.req.header('x-api-key'));
    return next();
  };
}
