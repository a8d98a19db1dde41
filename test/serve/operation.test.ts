// What an operator relies on: errors, keys, limits, cancelling, readiness, restarts, numbers.

import { Registry } from 'typert/serve';
import { describe, expect, test } from 'vitest';
import { FakeLLM } from './support/fake-llm.ts';
import { chat, events, serveFake, until } from './support/requests.ts';

describe('errors have one shape', () => {
  test.each([
    ['/v1/chat/completions', '{"messages":', 400, { code: 'invalid_json' }],
    ['/v1/chat/completions', {}, 400, { param: 'messages', code: 'missing_required_parameter' }],
    ['/v1/chat/completions', { messages: [] }, 400, { param: 'messages' }],
    [
      '/v1/chat/completions',
      { ...chat, top_p: 3 },
      400,
      { param: 'top_p', message: expect.stringMatching(/^top_p: /) },
    ],
    ['/v1/chat/completions', { ...chat, temperature: 'hot' }, 400, { param: 'temperature' }],
    ['/v1/chat/completions', { ...chat, model: 'other' }, 404, { code: 'model_not_found', param: 'model' }],
    ['/v1/chat/completions', { ...chat, response_format: { type: 'poem' } }, 400, { param: 'response_format' }],
    ['/v1/chat/completions', { ...chat, tool_choice: 'required' }, 400, { param: 'tool_choice' }],
    ['/v1/chat/completions', { ...chat, guided_json: 5 }, 400, { param: 'guided_json' }],
    ['/v1/chat/completions', { ...chat, logit_bias: { x: 1 } }, 400, { param: 'logit_bias' }],
    ['/v1/completions', { prompt: 'x', suffix: 'y' }, 400, { param: 'suffix' }],
    ['/v1/completions', { prompt: 'x', stream: true, best_of: 2 }, 400, { param: 'best_of' }],
    ['/v1/completions', { prompt: 'word '.repeat(2000) }, 400, { code: 'context_length_exceeded' }],
    ['/v1/embeddings', { input: 'x' }, 404, { code: 'unsupported_endpoint' }],
    ['/v1/nothing', {}, 404, { code: 'unknown_url' }],
  ])('%s %j', async (path, body, status, error) => {
    const { post, llm } = await serveFake();
    const response = await post(path, body);
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({
      error: { message: expect.any(String), type: expect.any(String), ...error },
    });
    expect(llm.numOpen).toBe(0);
  });

  test('unknown fields are left alone, as OpenAI does', async () => {
    const { post } = await serveFake();
    expect((await post('/v1/chat/completions', { ...chat, user: 'me', some_day: true })).status).toBe(200);
  });

  test('what is not ours tells nothing of the inside', async () => {
    const { post } = await serveFake({
      answer: () => {
        throw new Error('secret path /etc');
      },
    });
    const response = await post('/v1/chat/completions', chat);
    expect(response.status).toBe(500);
    expect(await response.text()).not.toContain('secret');
  });

  test('other families have their own shapes', async () => {
    const { post } = await serveFake();
    expect(await (await post('/v1/messages', {})).json()).toMatchObject({
      type: 'error',
      error: { type: 'invalid_request_error' },
    });
    expect(await (await post('/api/chat', { model: 'nope', messages: [] })).json()).toEqual({
      error: expect.stringMatching(/does not exist/),
    });
  });
});

describe('keys', () => {
  test('without the right one nothing is reached but probes', async () => {
    const { get, post, llm } = await serveFake({ app: { apiKeys: ['right', 'also-right'] } });
    for (const headers of [{}, { authorization: 'Bearer wrong' }, { 'x-api-key': '' }] as Record<string, string>[]) {
      const response = await post('/v1/chat/completions', chat, { headers });
      expect(response.status).toBe(401);
      expect(response.headers.get('www-authenticate')).toBe('Bearer');
      expect((await get('/v1/models', { headers })).status).toBe(401);
      expect((await get('/metrics', { headers })).status).toBe(401);
    }
    expect(llm.numStarted).toBe(0);
    expect((await get('/health')).status).toBe(200);
    for (const headers of [{ authorization: 'Bearer also-right' }, { 'x-api-key': 'right' }] as Record<
      string,
      string
    >[])
      expect((await post('/v1/chat/completions', chat, { headers })).status).toBe(200);
  });

  test('browsers of named origins only', async () => {
    const { get } = await serveFake({ app: { corsOrigins: ['https://here.example'], apiKeys: ['key'] } });
    const ask = (origin: string) =>
      get('/v1/chat/completions', { method: 'OPTIONS', headers: { origin, 'access-control-request-method': 'POST' } });
    expect((await ask('https://here.example')).headers.get('access-control-allow-origin')).toBe('https://here.example');
    expect((await ask('https://there.example')).headers.get('access-control-allow-origin')).toBeNull();
  });
});

describe('limits', () => {
  test('a large body is refused, whether it says its length or not', async () => {
    const { post } = await serveFake({ app: { maxBodySize: 100 } });
    const body = JSON.stringify({ ...chat, user: 'x'.repeat(200) });
    for (const headers of [{ 'content-length': String(body.length) }, {}] as Record<string, string>[]) {
      const response = await post('/v1/chat/completions', body, { headers });
      expect(response.status).toBe(413);
      expect(await response.json()).toMatchObject({ error: { code: 'request_too_large' } });
    }
  });

  test('a full queue answers 429 with Retry-After', async () => {
    const { post, llm } = await serveFake({ maxBatchSize: 1, delay: 20, registry: { maxQueueSize: 1 } });
    const first = post('/v1/chat/completions', chat);
    const second = post('/v1/chat/completions', chat);
    await until(() => llm.numOpen === 2);
    const third = await post('/v1/chat/completions', chat);
    expect(third.status).toBe(429);
    expect(Number(third.headers.get('retry-after'))).toBeGreaterThan(0);
    expect([(await first).status, (await second).status]).toEqual([200, 200]);
    expect((await post('/v1/chat/completions', chat)).status).toBe(200);
  });
});

describe('readers', () => {
  test('one that leaves cancels its request at once', async () => {
    const { post, llm, registry } = await serveFake({ delay: 5, answer: () => 'word '.repeat(500) });
    const response = await post('/v1/chat/completions', { ...chat, stream: true });
    const reader = response.body!.getReader();
    await reader.read();
    await reader.cancel();
    expect([llm.numOpen, llm.numCancelled]).toEqual([0, 1]);
    expect(registry.get().numOpen).toBe(0);
  });

  test('one that leaves before the first word too, and so does one that does not stream', async () => {
    const { post, llm, registry } = await serveFake({ delay: 1000 });
    const streaming = await post('/v1/completions', { prompt: ['a', 'b'], stream: true });
    expect(llm.numOpen).toBe(2);
    await streaming.body!.cancel();
    expect(llm.numOpen).toBe(0);
    const controller = new AbortController();
    const waiting = post('/v1/completions', { prompt: 'a' }, { signal: controller.signal });
    await until(() => llm.numOpen === 1);
    controller.abort();
    expect((await waiting).status).toBe(499);
    expect([llm.numOpen, registry.get().numOpen]).toEqual([0, 0]);
  });

  test('a slow one holds the source, not memory', async () => {
    const { post, llm } = await serveFake({ answer: () => 'word '.repeat(500) });
    const response = await post('/v1/completions', { prompt: 'a', stream: true, max_tokens: 400 });
    const reader = response.body!.getReader();
    for (let i = 0; i < 3; i++) await reader.read();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(llm.numYielded).toBeLessThan(8);
    await reader.cancel();
  });
});

describe('the engine dies', () => {
  test('open requests learn it, readiness turns, it comes back', async () => {
    const engines: FakeLLM[] = [];
    let [admit, admitted]: [() => void, Promise<void>] = [() => {}, Promise.resolve()];
    const registry = new Registry(
      [
        {
          name: 'fake',
          load: async () => {
            await admitted;
            engines.push(new FakeLLM({ delay: 5, answer: () => 'word '.repeat(500) }));
            return engines.at(-1)!;
          },
        },
      ],
      { watchInterval: 20, restartDelays: [10] },
    );
    await registry.load();
    const { createApp } = await import('typert/serve');
    const app = createApp({ registry });
    const ask = async (path: string, body?: unknown) =>
      await app.fetch(new Request(`http://test${path}`, body ? { method: 'POST', body: JSON.stringify(body) } : {}));
    const stream = await ask('/v1/chat/completions', { ...chat, stream: true });
    const plain = ask('/v1/chat/completions', chat);
    await until(() => engines[0]!.numOpen === 2);
    admitted = new Promise((resolve) => {
      admit = resolve;
    });
    const killed = performance.now();
    engines[0]!.die();
    expect((await plain).status).toBe(503);
    expect((await events(stream)).at(-1)).toMatchObject({ error: { code: 'engine_unavailable' } });
    expect(performance.now() - killed).toBeLessThan(1000);
    expect((await ask('/health/ready')).status).toBe(503);
    expect((await ask('/health')).status).toBe(200);
    const turned = await ask('/v1/chat/completions', chat);
    expect([turned.status, turned.headers.get('retry-after')]).toEqual([503, '1']);
    admit();
    await until(() => registry.ready);
    expect(engines).toHaveLength(2);
    expect((await ask('/v1/completions', { prompt: 'a', max_tokens: 2 })).status).toBe(200);
    await registry[Symbol.asyncDispose]();
    expect(engines.map(({ disposed }) => disposed)).toEqual([1, 1]);
  });

  test('one that dies idle is found by the watch', async () => {
    const { llm, registry, get } = await serveFake({ registry: { watchInterval: 10, restartDelays: [60_000] } });
    llm.dead = undefined;
    llm.die();
    await until(() => !registry.ready);
    expect((await get('/health/ready')).status).toBe(503);
  });
});

describe('information', () => {
  test('request ids are kept or drawn', async () => {
    const { get } = await serveFake();
    const kept = await get('/v1/models', { headers: { 'x-request-id': 'mine-1' } });
    expect(kept.headers.get('x-request-id')).toBe('mine-1');
    const odd = await get('/v1/models', { headers: { 'x-request-id': 'no spaces allowed' } });
    expect(odd.headers.get('x-request-id')).toMatch(/^req_/);
  });

  test('models, version, server info, health', async () => {
    const { get } = await serveFake();
    expect(await (await get('/v1/models')).json()).toMatchObject({
      object: 'list',
      data: [{ id: 'fake', object: 'model' }],
    });
    expect((await get('/v1/models/fake')).status).toBe(200);
    expect((await get('/v1/models/a/b')).status).toBe(404);
    expect(await (await get('/version')).json()).toEqual({ version: expect.any(String) });
    expect(await (await get('/server_info')).json()).toMatchObject({ models: [{ name: 'fake', state: 'ready' }] });
    expect((await get('/health_generate')).status).toBe(200);
  });

  test('the OpenAPI document names every route it describes, and they are there', async () => {
    const { get, post } = await serveFake();
    const { paths } = (await (await get('/openapi.json')).json()) as { paths: Record<string, { get?: unknown }> };
    expect(Object.keys(paths).length).toBeGreaterThan(15);
    for (const [path, methods] of Object.entries(paths)) {
      const response = methods.get === undefined ? await post(path, {}) : await get(path);
      expect(await response.text()).not.toContain('unknown_url');
    }
    expect(paths['/v1/chat/completions']).toMatchObject({
      post: { requestBody: { content: { 'application/json': { schema: { required: ['messages'] } } } } },
    });
  });

  test('metrics count what happened, under TensorRT-LLM’s names', async () => {
    const { get, post } = await serveFake();
    await post('/v1/chat/completions', chat);
    await events(await post('/v1/chat/completions', { ...chat, stream: true }));
    await post('/v1/chat/completions', { ...chat, top_p: 9 });
    const text = await (await get('/metrics')).text();
    const value = (name: string) => Number(new RegExp(`^${name.replace(/[{}]/g, '\\$&')} (.*)$`, 'm').exec(text)?.[1]);
    expect(value('trtllm_request_success_total{model_name="fake",finished_reason="stop"}')).toBe(2);
    expect(value('trtllm_request_error_total{http_code="400"}')).toBe(1);
    expect(value('trtllm_e2e_request_latency_seconds_count{model_name="fake"}')).toBe(2);
    expect(value('trtllm_time_to_first_token_seconds_count{model_name="fake"}')).toBe(2);
    expect(value('trtllm_kv_cache_max_blocks{model_name="fake"}')).toBe(64);
    expect(value('typert_requests_open{model_name="fake"}')).toBe(0);
    expect(value('trtllm_generation_tokens_total{model_name="fake"}')).toBeGreaterThan(4);
  });
});
