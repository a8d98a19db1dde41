// GET /v1/models, and the routes of OpenAI's API that a text model cannot serve: those say so.

import type { Hono } from 'hono';
import { ServeError } from '../errors.ts';
import type { Env, Services } from '../http.ts';
import type { Model } from '../registry.ts';

function card(model: Model): Record<string, unknown> {
  return {
    id: model.name,
    object: 'model',
    created: model.created,
    owned_by: 'typert',
    ...(model.state === 'ready' ? { max_model_len: model.llm.limits.maxSeqLen } : {}),
  };
}

export function addModels(app: Hono<Env>, { registry }: Services): void {
  app.get('/v1/models', (c) => c.json({ object: 'list', data: registry.models.map(card) }));
  // Names may hold slashes, as those of the hub do.
  app.get('/v1/models/:name{.+}', (c) => c.json(card(registry.get(c.req.param('name')))));
  for (const [path, what] of [
    ['/v1/embeddings', 'embeddings'],
    ['/v1/rerank', 'reranking'],
    ['/rerank', 'reranking'],
    ['/v1/audio/*', 'audio'],
    ['/v1/images/*', 'images'],
    ['/v1/moderations', 'moderations'],
  ] as const) {
    app.post(path, () => {
      throw new ServeError(`${what}: no model of this server can do this`, {
        status: 404,
        code: 'unsupported_endpoint',
        expected: 'a model made for it; the ones here generate text',
      });
    });
  }
}
