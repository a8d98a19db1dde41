// The KServe v2 protocol over HTTP, as tritonclient speaks it, with the bundled model.
import { LLM } from 'typert';
import { createOpenAI, type OpenAIHandler } from 'typert/serve';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { temporaryFolder } from '../support/temporary.ts';
import { serveFake, until } from './support/requests.ts';

const cacheDir = temporaryFolder();
let llm: LLM;
let handler: OpenAIHandler;
const prompt = 'Once upon a time';
let ids: number[];
let answer: { text: string; tokenIds: readonly number[] };

beforeAll(async () => {
  llm = await LLM.load('models/storyteller-7m', { cacheDir });
  handler = await createOpenAI({ llm, name: 'story' });
  ids = [...llm.encode(prompt).promptTokenIds];
  answer = (await llm.generate(prompt, { maxTokens: 6 })).outputs[0]!;
});
afterAll(async () => await llm?.[Symbol.asyncDispose]());

const get = (path: string) => handler.fetch(`http://test/v2${path}`);
const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
  handler.fetch(`http://test/v2${path}`, {
    method: 'POST',
    body: body instanceof Uint8Array ? (body as Uint8Array<ArrayBuffer>) : JSON.stringify(body),
    headers,
  });
const input = (name: string, datatype: string, shape: number[], data: unknown[]) => ({ name, datatype, shape, data });

describe('information', () => {
  test('health, metadata, configuration, index, statistics', async () => {
    expect((await get('/health/live')).status).toBe(200);
    expect((await get('/health/ready')).status).toBe(200);
    expect(await (await get('')).json()).toMatchObject({
      name: 'typert',
      extensions: expect.arrayContaining(['binary_tensor_data']),
    });
    for (const name of ['ensemble', 'tensorrt_llm', 'story']) {
      expect((await get(`/models/${name}/ready`)).status).toBe(200);
      expect((await get(`/models/${name}/versions/1/ready`)).status).toBe(200);
      expect(await (await get(`/models/${name}`)).json()).toMatchObject({ name, versions: ['1'] });
      expect(await (await get(`/models/${name}/config`)).json()).toMatchObject({
        name,
        max_batch_size: llm.limits.maxBatchSize,
        model_transaction_policy: { decoupled: true },
      });
    }
    const { inputs } = (await (await get('/models/tensorrt_llm')).json()) as { inputs: unknown[] };
    expect(inputs).toContainEqual({ name: 'input_ids', datatype: 'INT32', shape: [-1, -1] });
    expect(await (await post('/repository/index', {})).json()).toContainEqual({
      name: 'ensemble',
      version: '1',
      state: 'READY',
      reason: '',
    });
    expect(await (await get('/models/nope')).json()).toEqual({ error: expect.stringMatching(/unknown model 'nope'/) });
    expect((await get('/models/ensemble/versions/9')).status).toBe(404);
  });
});

describe('infer', () => {
  test('ensemble, in JSON', async () => {
    const response = await post('/models/ensemble/infer', {
      id: 'r1',
      inputs: [
        input('text_input', 'BYTES', [1, 1], [prompt]),
        input('max_tokens', 'INT32', [1, 1], [6]),
        input('exclude_input_in_output', 'BOOL', [1, 1], [true]),
        input('return_log_probs', 'BOOL', [1, 1], [true]),
      ],
    });
    expect(await response.json()).toMatchObject({
      id: 'r1',
      model_name: 'ensemble',
      model_version: '1',
      outputs: [
        { name: 'text_output', datatype: 'BYTES', shape: [1], data: [answer.text] },
        { name: 'cum_log_probs', shape: [1, 1] },
        { name: 'output_log_probs', shape: [1, 1, 6] },
      ],
    });
  });

  test('a batch has a row each; the prompt is part of the output unless excluded', async () => {
    const response = await post('/models/ensemble/infer', {
      inputs: [input('text_input', 'BYTES', [2, 1], [prompt, 'The fox']), input('max_tokens', 'INT32', [2, 1], [6, 3])],
      outputs: [{ name: 'text_output' }],
    });
    const { outputs } = (await response.json()) as { outputs: { shape: number[]; data: string[] }[] };
    expect(outputs).toHaveLength(1);
    expect(outputs[0]!.shape).toEqual([2]);
    expect(outputs[0]!.data[0]).toBe(prompt + answer.text);
    expect(outputs[0]!.data[1]).toMatch(/^The fox ./);
  });

  test('tensorrt_llm, in bytes both ways', async () => {
    const int32 = (values: number[]) => new Uint8Array(Int32Array.from(values).buffer);
    const tensors: [string, string, number[], Uint8Array][] = [
      ['input_ids', 'INT32', [1, ids.length], int32(ids)],
      ['input_lengths', 'INT32', [1, 1], int32([ids.length])],
      ['request_output_len', 'INT32', [1, 1], int32([6])],
      ['seed', 'UINT64', [1, 1], new Uint8Array(BigUint64Array.of(7n).buffer)],
    ];
    const header = Buffer.from(
      JSON.stringify({
        parameters: { binary_data_output: true },
        inputs: tensors.map(([name, datatype, shape, bytes]) => ({
          name,
          datatype,
          shape,
          parameters: { binary_data_size: bytes.length },
        })),
      }),
    );
    const body = new Uint8Array(Buffer.concat([header, ...tensors.map(([, , , bytes]) => bytes)]));
    const response = await post('/models/tensorrt_llm/infer', body, {
      'inference-header-content-length': String(header.length),
    });
    expect(response.status).toBe(200);
    const bytes = new Uint8Array(await response.arrayBuffer());
    const length = Number(response.headers.get('inference-header-content-length'));
    const { outputs } = JSON.parse(Buffer.from(bytes.subarray(0, length)).toString()) as {
      outputs: { name: string; shape: number[]; parameters: { binary_data_size: number } }[];
    };
    expect(outputs[0]).toMatchObject({ name: 'output_ids', shape: [1, 1, ids.length + 6] });
    const size = outputs[0]!.parameters.binary_data_size;
    expect([...new Int32Array(bytes.slice(length, length + size).buffer)]).toEqual([...ids, ...answer.tokenIds]);
  });

  test('beams', async () => {
    const [best] = (await llm.generate(prompt, { maxTokens: 6, useBeamSearch: true, n: 3 })).outputs;
    const response = await post('/models/ensemble/generate', {
      text_input: prompt,
      max_tokens: 6,
      beam_width: 3,
      exclude_input_in_output: true,
    });
    const { text_output: texts } = (await response.json()) as { text_output: string[] };
    expect(texts).toHaveLength(3);
    expect(texts[0]).toBe(best!.text);
  });

  test('stop words as TensorRT-LLM packs them', async () => {
    const word = answer.tokenIds.slice(2, 4);
    const response = await post('/models/tensorrt_llm/infer', {
      inputs: [
        input('input_ids', 'INT32', [1, ids.length], ids),
        input('input_lengths', 'INT32', [1, 1], [ids.length]),
        input('request_output_len', 'INT32', [1, 1], [6]),
        input('stop_words_list', 'INT32', [1, 2, 3], [...word, 0, 2, -1, -1]),
        input('exclude_input_in_output', 'BOOL', [1, 1], [true]),
      ],
    });
    const { outputs } = (await response.json()) as { outputs: { data: number[] }[] };
    expect(outputs[0]!.data).toEqual(answer.tokenIds.slice(0, 2));
  });

  test.each([
    [[input('text_input', 'BYTES', [1, 1], ['x'])], /max_tokens: missing input/],
    [
      [input('text_input', 'INT32', [1, 1], [1]), input('max_tokens', 'INT32', [1, 1], [1])],
      /text_input: wrong datatype/,
    ],
    [[input('text_input', 'BYTES', [1, 2], ['x'])], /data and shape disagree|wrong shape/],
    [[input('nothing', 'INT32', [1, 1], [1])], /nothing: the model has no such input/],
    [
      [input('text_input', 'BYTES', [1, 1], ['x']), input('max_tokens', 'INT32', [1, 1], [1.5])],
      /max_tokens: wrong element/,
    ],
    [[input('text_input', 'BYTES', [1, 1], ['x']), input('max_tokens', 'FLOAT', [1, 1], [1])], /not a datatype/],
    [
      [
        input('text_input', 'BYTES', [1, 1], ['x']),
        input('max_tokens', 'INT32', [1, 1], [1]),
        input('beam_width', 'INT32', [1, 1], [40]),
      ],
      /beam/,
    ],
  ])('refuses %j', async (inputs, message) => {
    const response = await post('/models/ensemble/infer', { inputs });
    expect(response.status).toBe(400);
    expect(await response.json()).toEqual({ error: expect.stringMatching(message) });
  });

  test('headers and sizes that lie are refused', async () => {
    const body = new TextEncoder().encode(
      '{"inputs": [{"name":"text_input","datatype":"BYTES","shape":[1,1],"parameters":{"binary_data_size":99}}]}',
    );
    for (const length of [body.length, body.length + 1, -1, 'x'])
      expect(
        (await post('/models/ensemble/infer', body, { 'inference-header-content-length': String(length) })).status,
      ).toBe(400);
  });
});

describe('generate', () => {
  test('flat JSON in and out', async () => {
    const response = await post('/models/ensemble/generate', {
      text_input: prompt,
      max_tokens: 6,
      bad_words: '',
      stop_words: '',
      parameters: { exclude_input_in_output: true, temperature: 0 },
    });
    expect(await response.json()).toMatchObject({ model_name: 'ensemble', text_output: answer.text });
  });

  test('as a stream', async () => {
    const response = await post('/models/ensemble/generate_stream', {
      text_input: prompt,
      max_tokens: 6,
      stream: true,
    });
    expect(response.headers.get('content-type')).toMatch(/^text\/event-stream/);
    const parts = (await response.text())
      .split('\n')
      .filter((line) => line.startsWith('data: '))
      .map((line) => JSON.parse(line.slice(6)) as { text_output: string });
    expect(parts.length).toBeGreaterThan(1);
    expect(parts.map(({ text_output }) => text_output).join('')).toBe(answer.text);
    expect((await post('/models/ensemble/generate', { text_input: prompt, max_tokens: 6, stream: true })).status).toBe(
      400,
    );
    expect((await post('/models/ensemble/generate_stream', { max_tokens: 6, stream: true })).status).toBe(400);
  });

  test('tensorrt_llm takes ids and counts what it did', async () => {
    const response = await post('/models/tensorrt_llm/generate', {
      input_ids: ids,
      request_output_len: 6,
      exclude_input_in_output: true,
    });
    expect(await response.json()).toMatchObject({ output_ids: [...answer.tokenIds], sequence_length: 6 });
    const { model_stats } = (await (await get('/models/tensorrt_llm/stats')).json()) as {
      model_stats: { inference_count: number }[];
    };
    expect(model_stats[0]!.inference_count).toBeGreaterThan(0);
  });
});

describe('control', () => {
  test('a request is stopped by another one with its id', async () => {
    const { post: ask, llm: fake } = await serveFake({ delay: 5, answer: () => 'word '.repeat(300) });
    const running = ask('/v2/models/ensemble/generate', { id: 'a', text_input: 'x', max_tokens: 300 });
    await until(() => fake.numYielded > 0);
    expect((await ask('/v2/models/ensemble/generate', { id: 'a', stop: true })).status).toBe(200);
    expect((await running).status).toBe(200);
    expect(fake.numOpen).toBe(0);
  });

  test('models are unloaded and loaded while the server runs', async () => {
    const { post: ask, get: look, llm: fake } = await serveFake();
    expect((await ask('/v2/repository/models/fake/unload', {})).status).toBe(200);
    expect(fake.disposed).toBe(1);
    expect((await look('/v2/models/fake/ready')).status).toBe(400);
    expect((await ask('/v1/completions', { prompt: 'x' })).status).toBe(503);
    expect((await ask('/v2/repository/models/fake/load', {})).status).toBe(200);
    expect((await ask('/v1/completions', { prompt: 'x' })).status).toBe(200);
  });
});
