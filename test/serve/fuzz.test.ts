// Malformed requests: whatever comes, the answer is a stated one, nothing leaks, and the server goes on.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { serveFake } from './support/requests.ts';

const stated = new Set([200, 400, 401, 404, 413, 429, 503]);
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
