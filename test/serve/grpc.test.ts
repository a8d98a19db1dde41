// The KServe v2 gRPC service, called by gRPC's own client (@grpc/grpc-js), with the bundled model.
import { connect } from 'node:http2';
import { fileURLToPath } from 'node:url';
import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { LLM } from 'typert';
import { type RunningServer, startServer } from 'typert/serve';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { temporaryFolder } from '../support/temporary.ts';
import { FakeLLM } from './support/fake-llm.ts';
import { until } from './support/requests.ts';

type Message = Record<string, unknown>;
type Client = grpc.Client & Record<string, (...args: unknown[]) => unknown>;

const proto = loadSync(fileURLToPath(new URL('support/kserve.proto', import.meta.url)), {
  keepCase: true,
  longs: Number,
  defaults: true,
});
const Service = (
  grpc.loadPackageDefinition(proto).inference as unknown as Record<string, grpc.ServiceClientConstructor>
).GRPCInferenceService!;
const cacheDir = temporaryFolder();
const prompt = 'Once upon a time';
let llm: LLM;
let server: RunningServer;
let client: Client;
let answer: { text: string; tokenIds: readonly number[] };

const open = (port: number) => new Service(`127.0.0.1:${port}`, grpc.credentials.createInsecure()) as unknown as Client;
const call = (method: string, message: Message = {}, from = client, metadata = new grpc.Metadata(), options = {}) =>
  new Promise<Message>((resolve, reject) => {
    from[method]!.call(from, message, metadata, options, (error: Error | null, response: Message) =>
      error === null ? resolve(response) : reject(error),
    );
  });

beforeAll(async () => {
  llm = await LLM.load('models/storyteller-7m', { cacheDir });
  answer = (await llm.generate(prompt, { maxTokens: 6 })).outputs[0]!;
  server = await startServer({
    models: [{ name: 'story', load: async () => llm, owned: false }],
    port: 0,
    grpcPort: 0,
  });
  await server.loaded;
  client = open(server.grpcPort!);
});
afterAll(async () => {
  client?.close();
  await server?.close(0);
  await llm?.[Symbol.asyncDispose]();
});

const text = (value: string, more: Message[] = []) => ({
  model_name: 'ensemble',
  inputs: [
    { name: 'text_input', datatype: 'BYTES', shape: [1, 1], contents: { bytes_contents: [Buffer.from(value)] } },
    { name: 'max_tokens', datatype: 'INT32', shape: [1, 1], contents: { int_contents: [6] } },
    ...more,
  ],
});
const flag = (name: string) => ({ name, datatype: 'BOOL', shape: [1, 1], contents: { bool_contents: [true] } });
/** The texts of a raw BYTES tensor. */
function texts(raw: Buffer): string[] {
  const out: string[] = [];
  for (let at = 0; at < raw.length; at += 4 + raw.readUInt32LE(at))
    out.push(raw.subarray(at + 4, at + 4 + raw.readUInt32LE(at)).toString());
  return out;
}

test('information', async () => {
  expect(await call('ServerLive')).toEqual({ live: true });
  expect(await call('ServerReady')).toEqual({ ready: true });
  expect(await call('ModelReady', { name: 'tensorrt_llm' })).toEqual({ ready: true });
  expect(await call('ServerMetadata')).toMatchObject({ name: 'typert' });
  const { inputs } = await call('ModelMetadata', { name: 'tensorrt_llm' });
  expect(inputs).toContainEqual({ name: 'input_ids', datatype: 'INT32', shape: [-1, -1] });
  const { config } = (await call('ModelConfig', { name: 'ensemble', version: '1' })) as { config: Message };
  expect(config).toMatchObject({
    name: 'ensemble',
    max_batch_size: llm.limits.maxBatchSize,
    model_transaction_policy: { decoupled: true },
  });
  expect(config.input).toContainEqual({ name: 'text_input', data_type: 13, dims: [1], optional: false });
  expect((await call('RepositoryIndex')).models).toContainEqual(
    expect.objectContaining({ name: 'story', state: 'READY' }),
  );
  await expect(call('ModelReady', { name: 'nope' })).rejects.toMatchObject({ code: grpc.status.NOT_FOUND });
});

describe('infer', () => {
  test('typed contents in, raw contents out', async () => {
    const response = await call('ModelInfer', { id: 'r', ...text(prompt, [flag('exclude_input_in_output')]) });
    expect(response).toMatchObject({
      id: 'r',
      model_name: 'ensemble',
      outputs: [{ name: 'text_output', datatype: 'BYTES' }],
    });
    expect(texts((response.raw_output_contents as Buffer[])[0]!)).toEqual([answer.text]);
  });

  test('raw contents in', async () => {
    const ids = [...llm.encode(prompt).promptTokenIds];
    const int32 = (values: number[]) => Buffer.from(Int32Array.from(values).buffer);
    const tensor = (name: string, length: number) => ({ name, datatype: 'INT32', shape: [1, length] });
    const response = await call('ModelInfer', {
      model_name: 'tensorrt_llm',
      inputs: [tensor('input_ids', ids.length), tensor('input_lengths', 1), tensor('request_output_len', 1)],
      outputs: [{ name: 'output_ids' }],
      raw_input_contents: [int32(ids), int32([ids.length]), int32([6])],
    });
    const [raw] = response.raw_output_contents as Buffer[];
    expect([...new Int32Array(new Uint8Array(raw!).buffer)]).toEqual([...ids, ...answer.tokenIds]);
  });

  test('refusals are INVALID_ARGUMENT and say why', async () => {
    const wrong = text(prompt, [
      { name: 'nothing', datatype: 'INT32', shape: [1, 1], contents: { int_contents: [1] } },
    ]);
    await expect(call('ModelInfer', wrong)).rejects.toMatchObject({
      code: grpc.status.INVALID_ARGUMENT,
      details: expect.stringMatching(/nothing: the model has no such input/),
    });
    await expect(call('ModelInfer', { ...text(prompt), raw_input_contents: [Buffer.alloc(1)] })).rejects.toMatchObject({
      code: grpc.status.INVALID_ARGUMENT,
    });
  });

  test('a stream: many requests, responses as they come, failures beside them', async () => {
    const stream = client.ModelStreamInfer!.call(client) as grpc.ClientDuplexStream<Message, Message>;
    const got = new Map<string, string>();
    const finals: string[] = [];
    const errors: string[] = [];
    stream.on(
      'data',
      ({ error_message, infer_response: response }: { error_message: string; infer_response: Message }) => {
        const id = String(response.id);
        if (error_message !== '') errors.push(`${id} ${error_message}`);
        else if ((response.outputs as unknown[]).length > 0)
          got.set(id, (got.get(id) ?? '') + texts((response.raw_output_contents as Buffer[])[0]!).join(''));
        const { triton_final_response: final } = response.parameters as Record<string, { bool_param?: boolean }>;
        if (final?.bool_param) finals.push(id);
      },
    );
    const parameters = { triton_enable_empty_final_response: { bool_param: true } };
    for (const id of ['a', 'b']) stream.write({ ...text(prompt, [flag('stream')]), id, parameters });
    stream.write({ model_name: 'nope', id: 'c' });
    stream.end();
    await new Promise((resolve, reject) => stream.on('end', resolve).on('error', reject));
    expect(Object.fromEntries(got)).toEqual({ a: answer.text, b: answer.text });
    expect(finals.sort()).toEqual(['a', 'b']);
    expect(errors).toEqual([expect.stringMatching(/^c unknown model 'nope'/)]);
  });
});

describe('operation', () => {
  test('keys, cancelling, deadlines, and bytes that are no gRPC', async () => {
    const fake = new FakeLLM({ delay: 10, answer: () => 'word '.repeat(300) });
    await using guarded = await startServer({
      models: [{ name: 'fake', load: async () => fake }],
      port: 0,
      grpcPort: 0,
      apiKeys: ['key'],
    });
    await guarded.loaded;
    const other = open(guarded.grpcPort!);
    const request = text('x');
    await expect(call('ModelInfer', request, other)).rejects.toMatchObject({ code: grpc.status.UNAUTHENTICATED });
    expect(await call('ServerReady', {}, other)).toEqual({ ready: true });
    const metadata = new grpc.Metadata();
    metadata.set('authorization', 'Bearer key');
    expect(fake.numStarted).toBe(0);
    expect(await call('ModelInfer', request, other, metadata)).toMatchObject({ model_name: 'ensemble' });

    const slow = text('x');
    (slow.inputs[1] as { contents: Message }).contents = { int_contents: [300] };
    await expect(call('ModelInfer', slow, other, metadata, { deadline: Date.now() + 100 })).rejects.toMatchObject({
      code: grpc.status.DEADLINE_EXCEEDED,
    });
    await until(() => fake.numOpen === 0);
    const stream = other.ModelStreamInfer!.call(other, metadata) as grpc.ClientDuplexStream<Message, Message>;
    stream.on('error', () => {});
    stream.write({ ...slow, inputs: [...slow.inputs, flag('stream')] });
    await new Promise((resolve) => stream.once('data', resolve));
    expect(fake.numOpen).toBe(1);
    stream.cancel();
    await until(() => fake.numOpen === 0);

    const session = connect(`http://127.0.0.1:${guarded.grpcPort}`);
    for (const bytes of [
      [1, 2, 3],
      [0, 0, 0, 0, 2, 255, 255],
      [0, 255, 255, 255, 255],
      [1, 0, 0, 0, 1, 9],
    ]) {
      const raw = session.request({
        ':method': 'POST',
        ':path': '/inference.GRPCInferenceService/ModelInfer',
        'content-type': 'application/grpc',
        authorization: 'Bearer key',
      });
      raw.end(Buffer.from(bytes));
      raw.resume();
      const status = await new Promise((resolve) =>
        raw.once('trailers', (trailers) => resolve(trailers['grpc-status'])),
      );
      expect(['3', '8', '12']).toContain(status);
    }
    session.close();
    expect(await call('ServerLive', {}, other)).toEqual({ live: true });
    other.close();
  });
});
