// Spans of requests as a collector gets them: OTLP over HTTP, under the caller's trace, in the words of the GenAI conventions.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type RunningServer, startServer } from 'typert/serve';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { FakeLLM } from './support/fake-llm.ts';
import { until } from './support/requests.ts';

interface WireSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly { readonly key: string; readonly value: Readonly<Record<string, unknown>> }[];
  readonly status: { readonly code?: number };
}

let spans: WireSpan[] = [];
let texts = '';
const requests: string[] = [];
let answer = 200;
const collector = createServer((request, response) => {
  requests.push(`${request.method} ${request.url} ${request.headers['x-team']}`);
  let text = '';
  request.on('data', (chunk) => (text += String(chunk)));
  request.on('end', () => {
    texts += text;
    const { resourceSpans } = JSON.parse(text) as { resourceSpans: { scopeSpans: { spans: WireSpan[] }[] }[] };
    if (answer === 200)
      spans.push(...resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap((one) => one.spans)));
    response.writeHead(answer).end('{}');
  });
});
let server: RunningServer;

beforeAll(async () => {
  await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
  const endpoint = `http://127.0.0.1:${(collector.address() as AddressInfo).port}`;
  server = await startServer({
    models: [{ name: 'fake', load: async () => new FakeLLM({ delay: 2, answer: () => 'a secret answer' }) }],
    port: 0,
    tracing: { endpoint, headers: { 'x-team': 'blue' }, interval: 20 },
  });
  await server.loaded;
});
beforeEach(() => {
  spans = [];
  answer = 200;
});
afterAll(async () => {
  await server.close(0);
  collector.close();
});

const parent = '0af7651916cd43dd8448eb211c80319c';
const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
  fetch(`${server.url}${path}`, { method: 'POST', body: JSON.stringify(body), headers });
const chat = { messages: [{ role: 'user', content: 'a secret question' }], temperature: 0.5, max_tokens: 9 };
const attributes = (span: WireSpan) =>
  Object.fromEntries(span.attributes.map(({ key, value }) => [key, Object.values(value)[0]]));

test.each([false, true])('a chat under the caller’s trace, streamed: %s', async (stream) => {
  const headers = { traceparent: `00-${parent}-b7ad6b7169203331-01` };
  await (await post('/v1/chat/completions', { ...chat, stream }, headers)).text();
  await until(() => spans.length >= 2);
  const [inner, outer] = [spans.find(({ kind }) => kind === 1)!, spans.find(({ kind }) => kind === 2)!];
  expect(outer).toMatchObject({ traceId: parent, parentSpanId: 'b7ad6b7169203331', name: 'POST /v1/chat/completions' });
  expect(inner).toMatchObject({ traceId: parent, parentSpanId: outer.spanId, name: 'chat fake' });
  expect(attributes(outer)).toMatchObject({ 'http.response.status_code': '200' });
  expect(attributes(inner)).toMatchObject({
    'gen_ai.operation.name': 'chat',
    'gen_ai.request.model': 'fake',
    'gen_ai.request.temperature': 0.5,
    'gen_ai.request.max_tokens': '9',
    'gen_ai.usage.output_tokens': expect.stringMatching(/^\d+$/),
    'gen_ai.response.finish_reasons': { values: [{ stringValue: 'stop' }] },
    'gen_ai.latency.time_to_first_token': expect.any(Number),
  });
  // A stream's span lasts until its last token.
  expect(BigInt(outer.endTimeUnixNano)).toBeGreaterThanOrEqual(BigInt(inner.endTimeUnixNano));
  expect(Math.abs(Number(BigInt(outer.startTimeUnixNano) / 1_000_000n) - Date.now())).toBeLessThan(60_000);
  expect(requests[0]).toBe('POST /v1/traces blue');
  expect(texts).not.toContain('secret');
});

test('a caller that samples nothing gets nothing; a broken header begins a trace of its own', async () => {
  await (await post('/v1/chat/completions', chat, { traceparent: `00-${parent}-b7ad6b7169203331-00` })).text();
  await (await post('/v1/chat/completions', chat, { traceparent: `00-${parent}-0000000000000000-01` })).text();
  await until(() => spans.length >= 2);
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(spans).toHaveLength(2);
  expect(spans.every(({ traceId }) => traceId !== parent && /^[\da-f]{32}$/.test(traceId))).toBe(true);
});

test('a collector that fails costs no request', async () => {
  answer = 500;
  expect((await post('/v1/chat/completions', chat)).status).toBe(200);
  await new Promise((resolve) => setTimeout(resolve, 60));
  answer = 200;
  expect((await post('/v1/completions', { prompt: 'x' })).status).toBe(200);
  await until(() => spans.some(({ name }) => name === 'text_completion fake'));
});
