// The dashboard's page, which the build puts beside the server: read once, served as it is, from a list of names that no request can add to.
import { readdirSync, readFileSync } from 'node:fs';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Hono } from 'hono';
import { ServeError } from '../errors.ts';
import type { Env } from '../http.ts';

/** Where the page finds its files. */
export const assetPath = '/dashboard/';

const folder = fileURLToPath(new URL('../../web/', import.meta.url));

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
};

/** Nothing but this server: no script, style or request goes elsewhere, and no page may frame it. */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

let files: ReadonlyMap<string, Buffer> | undefined;

function assets(): ReadonlyMap<string, Buffer> {
  if (files !== undefined) return files;
  try {
    files = new Map(readdirSync(folder).map((name) => [name, readFileSync(`${folder}${name}`)]));
  } catch (cause) {
    throw new ServeError('the dashboard is not there', {
      status: 404,
      code: 'not_built',
      remedy: 'npm run build makes it',
      cause,
    });
  }
  return files;
}

function serve(name: string): Response {
  const data = assets().get(name);
  if (data === undefined) throw new ServeError(`there is no ${assetPath}${name}`, { status: 404, code: 'unknown_url' });
  // Names carry a hash of their content, but for the page itself.
  const keep = name.endsWith('.html') ? 'no-cache' : 'public, max-age=31536000, immutable';
  return new Response(new Uint8Array(data), {
    headers: {
      'content-type': types[extname(name)] ?? 'application/octet-stream',
      'cache-control': keep,
      'content-security-policy': policy,
      'referrer-policy': 'no-referrer',
    },
  });
}

export function addDashboard(app: Hono<Env>): void {
  // Programs (Ollama's clients are such) ask whether anybody is there; people get the page.
  app.get('/', (c) =>
    (c.req.header('accept') ?? '').includes('text/html') ? serve('index.html') : c.text('TypeRT is running'),
  );
  app.get(`${assetPath}:name`, (c) => serve(c.req.param('name')));
}
