// The KServe v2 protocol over HTTP with Triton's extensions: health, metadata, config, statistics, repository, infer, generate, generate_stream.

import type { Hono } from 'hono';
import { z } from 'zod';
import { version } from '../../base/version.ts';
import { textError, toHttpError } from '../errors.ts';
import { type Ctx, type Env, readBody, readBytes, readJson, type Services } from '../http.ts';
import { event, streamEvents } from '../sse.ts';
import type { Inference, Target } from './infer.ts';
import { config, metadata } from './specs.ts';
import type { Tensor } from './tensors.ts';
import { readGenerate, readInfer, writeGenerate, writeInfer, writeInferEvent } from './wire.ts';

export const indexSchema = z.looseObject({ ready: z.boolean().nullish() });

export const serverMetadata = {
  name: 'typert',
  version,
  extensions: ['binary_tensor_data', 'model_repository', 'model_configuration', 'statistics', 'generate'],
};

/** What there is, whether it can be asked, and why not. */
export function repositoryIndex(inference: Inference, readyOnly: boolean): Record<string, unknown>[] {
  const entries = inference.targets.map(({ name, model }) => ({
    name,
    version: '1',
    state: model.state === 'ready' ? 'READY' : model.state === 'loading' ? 'LOADING' : 'UNAVAILABLE',
    reason: model.state === 'failed' ? 'the engine failed' : '',
  }));
  return entries.filter(({ state }) => !readyOnly || state === 'READY');
}

async function only(responses: AsyncGenerator<Tensor[]>): Promise<Tensor[]> {
  let last: Tensor[] = [];
  for await (const tensors of responses) last = tensors;
  return last;
}

async function* lines(responses: AsyncGenerator<Tensor[]>, write: (tensors: Tensor[]) => Record<string, unknown>) {
  try {
    for await (const tensors of responses) yield event(write(tensors));
  } catch (error) {
    yield event(textError(toHttpError(error)));
  }
}

export function addKserve(app: Hono<Env>, { registry }: Services, inference: Inference): void {
  const find = (c: Ctx): Target => inference.find(c.req.param('model')!, c.req.param('version'));

  app.get('/v2', (c) => c.json(serverMetadata));
  app.get('/v2/health/live', (c) => c.body(null, 200));
  app.get('/v2/health/ready', (c) => c.body(null, registry.ready ? 200 : 400));
  app.get('/v2/models/stats', (c) =>
    c.json({ model_stats: inference.targets.map(({ name }) => inference.statistics.of(name)) }),
  );
  app.post('/v2/repository/index', async (c) => {
    const { ready } = await readJson(c, indexSchema);
    return c.json(repositoryIndex(inference, ready === true));
  });
  app.post('/v2/repository/models/:model/load', async (c) => {
    await find(c).model.load();
    return c.json({});
  });
  app.post('/v2/repository/models/:model/unload', async (c) => {
    await find(c).model.unload();
    return c.json({});
  });

  for (const base of ['/v2/models/:model', '/v2/models/:model/versions/:version'] as const) {
    app.get(base, (c) => {
      const { name, spec } = find(c);
      return c.json(metadata(name, spec));
    });
    app.get(`${base}/ready`, (c) => c.body(null, find(c).model.state === 'ready' ? 200 : 400));
    app.get(`${base}/config`, (c) => {
      const { name, spec, model } = find(c);
      return c.json(config(name, spec, model));
    });
    app.get(`${base}/stats`, (c) => c.json({ model_stats: [inference.statistics.of(find(c).name)] }));
    app.post(`${base}/infer`, async (c) => {
      const target = find(c);
      const request = readInfer(await readBytes(c), c.req.header('inference-header-content-length'));
      return writeInfer(target.name, request, await only(inference.run(target, request, c.get('scope'), 'whole')));
    });
    app.post(`${base}/generate`, async (c) => {
      const target = find(c);
      const request = readGenerate(await readBody(c), target.spec);
      const tensors = await only(inference.run(target, request, c.get('scope'), 'whole'));
      return c.json(writeGenerate(target.name, request.id, tensors));
    });
    app.post(`${base}/generate_stream`, async (c) => {
      const target = find(c);
      const scope = c.get('scope');
      const request = readGenerate(await readBody(c), target.spec);
      const responses = inference.run(target, request, scope, 'decoupled');
      const write = (tensors: Tensor[]) => writeGenerate(target.name, request.id, tensors);
      return streamEvents(lines(responses, write), { abort: scope.abort });
    });
    // Ours: `infer` whose responses come one by one, with their shapes. Triton's Python backend asks it.
    app.post(`${base}/infer_stream`, async (c) => {
      const target = find(c);
      const scope = c.get('scope');
      const request = readInfer(await readBytes(c), c.req.header('inference-header-content-length'));
      const responses = inference.run(target, request, scope, 'decoupled');
      const write = (tensors: Tensor[]) => writeInferEvent(target.name, request.id, tensors);
      return streamEvents(lines(responses, write), { abort: scope.abort });
    });
  }
}
