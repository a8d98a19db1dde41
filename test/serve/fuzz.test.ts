// Ten thousand malformed requests: whatever comes, the answer is a stated one, nothing leaks, and the server goes on. HTTP bodies of all kinds, bodies made from our own OpenAPI
// document and then bent, gRPC messages, frames and bytes that are none of it.
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import fc from 'fast-check';
import { type RunningServer, startServer } from 'typert/serve';
import { expect, test } from 'vitest';
import { FakeLLM } from './support/fake-llm.ts';
import { serveFake, until } from './support/requests.ts';

const stated = new Set([200, 400, 401, 404, 413, 429, 503]);
type Json = Readonly<Record<string, unknown>>;
const paths = [
  '/v1/chat/completions',
  '/v1/completions',
  '/v1/responses',
  '/v1/messages',
  '/v1/messages/count_tokens',
  '/api/chat',
  '/api/generate',
  '/api/show',
  '/v2/models/ensemble/infer',
  '/v2/models/tensorrt_llm/infer',
  '/v2/models/ensemble/generate',
  '/v2/models/ensemble/generate_stream',
  '/v2/models/tensorrt_llm/generate',
  '/v2/repository/index',
];
const fields = [
  'model',
  'messages',
  'prompt',
  'input',
  'stream',
  'n',
  'stop',
  'tools',
  'tool_choice',
  'logprobs',
  'top_logprobs',
  'max_tokens',
  'temperature',
  'seed',
  'logit_bias',
  'response_format',
  'options',
  'inputs',
  'outputs',
  'id',
  'parameters',
  'text_input',
  'input_ids',
  'request_output_len',
  'stop_words',
  'stop_words_list',
  'echo',
  'system',
  'thinking',
  'think',
  'previous_response_id',
  'stream_options',
  'chat_template_kwargs',
  'best_of',
  'use_beam_search',
  '__proto__',
];
const message = fc.record(
  { role: fc.constantFrom('user', 'assistant', 'tool', ''), content: fc.anything() },
  { requiredKeys: [] },
);
const value = fc.oneof(
  fc.jsonValue(),
  fc.constantFrom<unknown>('fake', 'text', [], {}, null, -1, 1e308, 2 ** 53, true),
  fc.array(message, { maxLength: 3 }),
  fc.array(
    fc.record(
      {
        name: fc.constantFrom('text_input', 'max_tokens', 'input_ids', 'x'),
        datatype: fc.constantFrom('BYTES', 'INT32', 'FP16', 'NO'),
        shape: fc.array(fc.integer({ min: -2, max: 2 ** 40 }), { maxLength: 3 }),
        data: fc.jsonValue(),
      },
      { requiredKeys: [] },
    ),
    { maxLength: 3 },
  ),
);
const body = fc.oneof(
  fc.dictionary(fc.constantFrom(...fields), value, { maxKeys: 8 }).map((fields) => JSON.stringify(fields)),
  fc.string(),
  fc.constantFrom('['.repeat(50_000), '{"a":'.repeat(20_000), '{"messages": 1e999}', '\u0000'),
);

test('2000 bodies that make little sense', async () => {
  const { post, llm, registry } = await serveFake({ maxSeqLen: 50 });
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...paths), body, async (path, text) => {
      const response = await post(path, text);
      const answer = await response.text();
      if (!stated.has(response.status)) throw new Error(`${path} ${text}: ${response.status} ${answer}`);
      if (/internal error/.test(answer)) throw new Error(`${path} ${text}: ${answer}`);
    }),
    { numRuns: 2000 },
  );
  expect([llm.numOpen, registry.get().numOpen]).toEqual([0, 0]);
});

test('paths that climb and headers that lie', async () => {
  const { get, post } = await serveFake();
  for (const path of [
    '/v1/models/../../etc/passwd',
    '/v1/models/%2e%2e%2fetc',
    '/v2/models/..%2f..',
    '/api/%00',
    '//v1',
  ])
    expect(stated.has((await get(path)).status)).toBe(true);
  for (const length of ['-1', '1e9', 'x', '99999999999999999999'])
    expect(
      (
        await post('/v2/models/ensemble/infer', '{"inputs":[]}', {
          headers: { 'inference-header-content-length': length },
        })
      ).status,
    ).toBe(400);
});

/** Values of a JSON Schema as zod writes it; the kinds that it does not know are any JSON. */
function fromSchema(schema: Json, depth = 0): fc.Arbitrary<unknown> {
  const { type, anyOf, oneOf, enum: choices, const: fixed, items, properties, required, minimum, maximum } = schema;
  if (fixed !== undefined) return fc.constant(fixed);
  if (Array.isArray(choices)) return fc.constantFrom(...(choices as unknown[]));
  const union = anyOf ?? oneOf;
  if (Array.isArray(union)) return fc.oneof(...(union as Json[]).map((one) => fromSchema(one, depth)));
  switch (type) {
    case 'string':
      return fc.oneof(
        fc.constantFrom('fake', 'ensemble', 'user', 'text_input', 'BYTES', 'max_tokens', 'INT32'),
        fc.string(),
      );
    case 'integer':
      return fc.integer({
        min: Math.max(-(2 ** 31), Number(minimum ?? -5)),
        max: Math.min(300, Number(maximum ?? 300)),
      });
    case 'number':
      return fc.oneof(fc.double({ min: -2, max: 2, noNaN: true }), fc.constantFrom(0, 1, 1e300));
    case 'boolean':
      return fc.boolean();
    case 'null':
      return fc.constant(null);
    case 'array':
      return fc.array(depth > 4 ? fc.constant(1) : fromSchema((items ?? {}) as Json, depth + 1), { maxLength: 3 });
    case 'object': {
      const fields = Object.entries((properties ?? {}) as Record<string, Json>);
      if (fields.length === 0) return fc.dictionary(fc.string({ maxLength: 8 }), fc.jsonValue(), { maxKeys: 3 });
      const record = Object.fromEntries(fields.map(([name, field]) => [name, fromSchema(field, depth + 1)]));
      return fc.record(record, { requiredKeys: (required ?? []) as string[] });
    }
    default:
      return fc.jsonValue();
  }
}

/** One place of a value is something else. */
function bend(value: unknown, path: readonly number[], other: unknown): unknown {
  const [first, ...rest] = path;
  if (first === undefined || typeof value !== 'object' || value === null) return other;
  const keys = Object.keys(value);
  const key = keys[first % Math.max(1, keys.length)];
  if (key === undefined) return other;
  const bent = bend((value as Record<string, unknown>)[key], rest, other);
  return Array.isArray(value) ? value.map((one, at) => (String(at) === key ? bent : one)) : { ...value, [key]: bent };
}

test('4000 requests made from the OpenAPI document, three in four of them bent', async () => {
  const { get, post, llm, registry } = await serveFake({ maxSeqLen: 50 });
  const { paths: described } = (await (await get('/openapi.json')).json()) as {
    paths: Record<string, { post?: Json }>;
  };
  const bodies = Object.entries(described).flatMap(([path, { post: operation }]) => {
    const content = (operation?.requestBody as { content?: Json } | undefined)?.content?.['application/json'];
    return content === undefined ? [] : [{ path, body: fromSchema((content as { schema: Json }).schema) }];
  });
  expect(bodies.length).toBeGreaterThan(12);
  const request = fc.oneof(
    ...bodies
      // Loading and unloading is what it is asked to be; here the model stays.
      .filter(({ path }) => !/\/(un)?load$/.test(path))
      .map(({ path, body: valid }) =>
        fc.record({
          path: fc
            .constantFrom('ensemble', 'tensorrt_llm', 'fake', '..', '%00')
            .map((name) => path.replace('{model}', name)),
          body: fc.oneof(
            { weight: 1, arbitrary: valid },
            {
              weight: 3,
              arbitrary: fc
                .tuple(valid, fc.array(fc.nat(20), { maxLength: 4 }), value)
                .map(([made, place, other]) => bend(made, place, other)),
            },
          ),
        }),
      ),
  );
  const seen = new Map<number, number>();
  await fc.assert(
    fc.asyncProperty(request, async ({ path, body: made }) => {
      const response = await post(path, JSON.stringify(made) ?? '');
      const answer = await response.text();
      seen.set(response.status, (seen.get(response.status) ?? 0) + 1);
      if (!stated.has(response.status) || response.status === 503 || /internal error|internal_error/.test(answer))
        throw new Error(`${path}: ${response.status} ${answer}`);
    }),
    { numRuns: 4000 },
  );
  expect([llm.numOpen, registry.get().numOpen]).toEqual([0, 0]);
  // They come through and are refused, both.
  expect(seen.get(200)).toBeGreaterThan(20);
  expect(seen.get(400)).toBeGreaterThan(1000);
});

async function serveSockets(): Promise<{ server: RunningServer; llm: FakeLLM }> {
  const llm = new FakeLLM({ maxSeqLen: 50 });
  const server = await startServer({ models: [{ name: 'fake', load: async () => llm }], port: 0, grpcPort: 0 });
  await server.loaded;
  return { server, llm };
}

const methods = [
  'ModelInfer',
  'ModelStreamInfer',
  'ModelMetadata',
  'ModelConfig',
  'ModelStatistics',
  'RepositoryIndex',
  'ModelReady',
  'TraceSetting',
];
/** UNAVAILABLE, UNKNOWN, INTERNAL and DATA_LOSS are not answers to a bad request. */
const statedCodes = new Set(['0', '3', '5', '8', '12']);

const varint = (number: number): number[] =>
  number < 128 ? [number] : [(number & 127) | 128, ...varint(Math.floor(number / 128))];
const field = (id: number, content: readonly number[]): number[] => [
  ...varint((id << 3) | 2),
  ...varint(content.length),
  ...content,
];
const words = (text: string): number[] => [...Buffer.from(text)];
/** An inference request, near to a right one. */
const inferMessage = fc
  .record({
    model: fc.constantFrom('ensemble', 'tensorrt_llm', 'fake', 'nope'),
    name: fc.constantFrom('text_input', 'input_ids', 'max_tokens', 'x'),
    datatype: fc.constantFrom('BYTES', 'INT32', 'FP64', 'NO'),
    shape: fc.array(fc.nat(2 ** 40), { maxLength: 3 }),
    raw: fc.array(fc.uint8Array({ maxLength: 20 }), { maxLength: 2 }),
  })
  .map(({ model, name, datatype, shape, raw }) => [
    ...field(1, words(model)),
    ...field(5, [...field(1, words(name)), ...field(2, words(datatype)), ...field(3, shape.flatMap(varint))]),
    ...raw.flatMap((bytes) => field(7, [...bytes])),
  ]);
const message16 = fc.oneof(
  fc.uint8Array({ maxLength: 200 }).map((bytes) => [...bytes]),
  inferMessage,
  fc.tuple(inferMessage, fc.nat(300), fc.nat(255)).map(([bytes, at, byte]) => bytes.with(at % bytes.length, byte)),
);
const framed = fc.oneof(
  {
    weight: 6,
    arbitrary: message16.map((bytes) => Buffer.from([0, 0, 0, ...[bytes.length >> 8, bytes.length & 255], ...bytes])),
  },
  // Compressed that is not, too long, cut off, and no frame at all.
  { weight: 1, arbitrary: message16.map((bytes) => Buffer.from([1, 0, 0, 0, bytes.length & 255, ...bytes])) },
  { weight: 1, arbitrary: fc.constant(Buffer.from([0, 255, 255, 255, 255, 1, 2])) },
  { weight: 1, arbitrary: message16.map((bytes) => Buffer.from([0, 0, 0, 1, 255, ...bytes])) },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)) },
);

/** One call; resolves with its grpc-status. */
function callGrpc(session: ClientHttp2Session, method: string, body: Buffer, encoding: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': `/inference.GRPCInferenceService/${method}`,
      'content-type': 'application/grpc',
      'grpc-encoding': encoding,
    });
    let status: string | undefined;
    stream.on('trailers', (trailers) => (status = String(trailers['grpc-status'])));
    stream.on('error', reject);
    stream.on('close', () => resolve(status ?? 'none'));
    stream.resume();
    stream.end(body);
  });
}

test('3000 gRPC calls that make little sense', async () => {
  const { server, llm } = await serveSockets();
  const session = connectHttp2(`http://127.0.0.1:${server.grpcPort}`);
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...methods),
      framed,
      fc.constantFrom('identity', 'gzip', 'br'),
      async (method, body, encoding) => {
        const status = await callGrpc(session, method, body, encoding);
        if (!statedCodes.has(status)) throw new Error(`${method} ${body.toString('hex')}: ${status}`);
      },
    ),
    { numRuns: 3000 },
  );
  expect(await callGrpc(session, 'ServerLive', Buffer.from([0, 0, 0, 0, 0]), 'identity')).toBe('0');
  session.close();
  expect([llm.numOpen, server.registry.get().numOpen]).toEqual([0, 0]);
  await server.close(0);
});

/** Bytes into a port; resolves with what came back when the other side closes, or after a while. */
function throwBytes(port: number, bytes: Buffer): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    let answer = '';
    const timer = setTimeout(() => socket.destroy(), 300);
    socket.on('data', (chunk) => {
      answer += chunk.toString('latin1');
      // One answer is enough.
      if (answer.includes('\r\n\r\n')) socket.destroy();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      clearTimeout(timer);
      resolve(answer);
    });
    socket.end(bytes);
  });
}

test('1000 connections with bytes that are no protocol', async () => {
  const { server, llm } = await serveSockets();
  const lines = fc.constantFrom(
    'GET / HTTP/9.9\r\n\r\n',
    'POST /v1/completions HTTP/1.1\r\ncontent-length: -1\r\n\r\n',
    'POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n',
    'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
    `GET /v1/models HTTP/1.1\r\nhost: x\r\nx: ${'a'.repeat(100_000)}\r\n\r\n`,
    `GET /${'a'.repeat(70_000)} HTTP/1.1\r\nhost: x\r\n\r\n`,
    `GET / HTTP/1.1\r\nhost: x\r\n${'x: y\r\n'.repeat(5000)}\r\n`,
    'GET /../../etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n',
    'GET http://[::bad HTTP/1.1\r\nhost: x\r\n\r\n',
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\xff',
  );
  const bytes = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 300 }).map((random) => Buffer.from(random)),
    lines.map((text) => Buffer.from(text, 'latin1')),
    fc.tuple(lines, fc.nat(80), fc.nat(255)).map(([text, at, byte]) => {
      const bent = Buffer.from(text, 'latin1');
      bent[at % bent.length] = byte;
      return bent;
    }),
  );
  const thrown = fc.sample(fc.tuple(bytes, fc.boolean()), 1000);
  for (let at = 0; at < thrown.length; at += 50)
    await Promise.all(
      thrown.slice(at, at + 50).map(async ([random, toGrpc]) => {
        const answer = await throwBytes(toGrpc ? server.grpcPort! : server.port, random);
        expect(answer).not.toMatch(/^HTTP\/1.1 5\d\d/);
        expect(answer).not.toMatch(/root:/);
      }),
    );
  expect((await fetch(`${server.url}/health`)).status).toBe(200);
  await until(() => llm.numOpen === 0 && server.registry.get().numOpen === 0);
  await server.close(0);
});
