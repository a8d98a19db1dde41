// The real clients, unmodified, against the bundled model through a socket.

import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import Anthropic from '@anthropic-ai/sdk';
import { generateText, streamText } from 'ai';
import { Ollama } from 'ollama';
import OpenAI from 'openai';
import { LLM } from 'typert';
import { createOpenAI, type RunningServer, startServer } from 'typert/serve';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { temporaryFolder } from '../support/temporary.ts';

const cacheDir = temporaryFolder();
const model = 'storyteller';
const key = 'secret';
let llm: LLM;
let server: RunningServer;
let openai: OpenAI;
/** What the model says in process. */
let expected: string;

const messages = [{ role: 'user' as const, content: 'A story about a fox' }];
const greedy = { temperature: 0, max_tokens: 12 };

beforeAll(async () => {
  llm = await LLM.load('models/storyteller-7m', { cacheDir });
  const output = await llm.generate({ messages }, { temperature: 0, maxTokens: 12 });
  expected = output.outputs[0]!.text;
  server = await startServer({
    models: [{ name: model, load: async () => llm, owned: false }],
    port: 0,
    apiKeys: [key],
  });
  await server.loaded;
  openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: key, maxRetries: 0 });
});

afterAll(async () => {
  await server?.close(0);
  await llm?.[Symbol.asyncDispose]();
});

describe('openai', () => {
  test('models', async () => {
    const { data } = await openai.models.list();
    expect(data.map(({ id }) => id)).toEqual([model]);
    expect(await openai.models.retrieve(model)).toMatchObject({ id: model });
  });

  test('chat gives what the model says in process', async () => {
    const { choices, usage } = await openai.chat.completions.create({ model, messages, ...greedy });
    expect(choices[0]).toMatchObject({ message: { content: expected }, finish_reason: 'length' });
    expect(usage).toMatchObject({ completion_tokens: 12 });
  });

  test('chat, streamed, with usage and log-probabilities', async () => {
    const stream = await openai.chat.completions.create({
      model,
      messages,
      ...greedy,
      stream: true,
      stream_options: { include_usage: true },
      logprobs: true,
      top_logprobs: 3,
    });
    let [text, tokens, usage] = ['', '', 0];
    for await (const chunk of stream) {
      const choice = chunk.choices[0];
      text += choice?.delta.content ?? '';
      for (const { token, logprob, top_logprobs, bytes } of choice?.logprobs?.content ?? []) {
        tokens += token;
        expect(logprob).toBeLessThanOrEqual(0);
        expect(top_logprobs).toHaveLength(3);
        expect(Buffer.from(bytes!).toString()).toBe(token);
      }
      usage = chunk.usage?.completion_tokens ?? usage;
    }
    expect({ text, tokens, usage }).toEqual({ text: expected, tokens: expected, usage: 12 });
  });

  test('the stream helper, stop, n and seed', async () => {
    const runner = openai.chat.completions.stream({ model, messages, ...greedy });
    expect((await runner.finalChatCompletion()).choices[0]!.message.content).toBe(expected);
    const word = expected.split(' ')[3]!;
    const stopped = await openai.chat.completions.create({ model, messages, ...greedy, stop: [word] });
    expect(stopped.choices[0]).toMatchObject({ finish_reason: 'stop' });
    expect(stopped.choices[0]!.message.content).toBe(expected.slice(0, expected.indexOf(word)));
    const seeded = { model, messages, max_tokens: 6, seed: 7, n: 3, temperature: 1.5 };
    const [one, two] = await Promise.all([
      openai.chat.completions.create(seeded),
      openai.chat.completions.create(seeded),
    ]);
    expect(one.choices.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(one.choices).toEqual(two.choices);
    expect(new Set(one.choices.map(({ message }) => message.content)).size).toBeGreaterThan(1);
  });

  test('structured outputs and forced tools', async () => {
    const schema = {
      type: 'object',
      properties: { animal: { enum: ['fox', 'owl'] }, old: { type: 'boolean' } },
      required: ['animal', 'old'],
      additionalProperties: false,
    };
    const ask = { model, messages, max_tokens: 150, temperature: 0 };
    const format = { type: 'json_schema' as const, json_schema: { name: 'animal', schema, strict: true } };
    const answer = await openai.chat.completions.create({ ...ask, response_format: format });
    const valid = { animal: expect.stringMatching(/^(fox|owl)$/), old: expect.any(Boolean) };
    expect(JSON.parse(answer.choices[0]!.message.content!)).toEqual(valid);
    const text = { format: { type: 'json_schema' as const, name: 'animal', schema } };
    const response = await openai.responses.create({ model, input: 'An animal', temperature: 0, text });
    expect(JSON.parse(response.output_text)).toEqual(valid);
    const { choices } = await openai.completions.create({
      model,
      prompt: 'The animal is a',
      ...{ guided_choice: ['fox', 'wise owl (grey)'] },
    });
    expect(['fox', 'wise owl (grey)']).toContain(choices[0]!.text);
    const tools = [{ type: 'function' as const, function: { name: 'look', parameters: schema } }];
    for (const tool_choice of ['required' as const, { type: 'function' as const, function: { name: 'look' } }]) {
      const parallel_tool_calls = false;
      const forced = await openai.chat.completions.create({ ...ask, tools, tool_choice, parallel_tool_calls });
      const [call] = forced.choices[0]!.message.tool_calls!;
      expect(call).toMatchObject({ type: 'function', function: { name: 'look' } });
      expect(JSON.parse((call as { function: { arguments: string } }).function.arguments)).toEqual(valid);
    }
    const stream = openai.chat.completions.stream({
      ...ask,
      tools,
      tool_choice: 'required',
      parallel_tool_calls: false,
    });
    const final = await stream.finalChatCompletion();
    expect(final.choices[0]).toMatchObject({
      finish_reason: 'tool_calls',
      message: { tool_calls: [{ type: 'function' }] },
    });
    const broken = { type: 'json_schema' as const, json_schema: { name: 'x', schema: { type: 'nonsense' } } };
    await expect(openai.chat.completions.create({ ...ask, response_format: broken })).rejects.toMatchObject({
      status: 400,
    });
  });

  test('beams, through TensorRT-LLM’s extensions', async () => {
    const beams = { use_beam_search: true, best_of: 3, n: 2 };
    const { choices } = await openai.chat.completions.create({ model, messages, max_tokens: 6, ...beams } as never);
    const direct = await llm.generate({ messages }, { maxTokens: 6, useBeamSearch: true, bestOf: 3, n: 2 });
    expect(choices.map(({ message }) => message.content)).toEqual(direct.outputs.map(({ text }) => text));
  });

  test('completions: echo with the prompt’s log-probabilities, as lm-eval asks for loglikelihoods', async () => {
    const prompt = llm.encode('Once upon a time').promptTokenIds as number[];
    const { choices } = await openai.completions.create({
      model,
      prompt: [prompt, [...prompt, ...prompt]],
      max_tokens: 1,
      logprobs: 1,
      echo: true,
      temperature: 0,
    });
    expect(choices.map(({ index }) => index)).toEqual([0, 1]);
    const { logprobs } = choices[0]!;
    expect(logprobs!.token_logprobs).toHaveLength(prompt.length + 1);
    expect(logprobs!.token_logprobs![0]).toBeNull();
    expect(logprobs!.tokens!.slice(0, -1).join('')).toBe('Once upon a time');
    const scored = await llm.generate('Once upon a time', { maxTokens: 1, temperature: 0, promptLogprobs: 0 });
    const direct = scored.promptLogprobs!.map((position, i) => position.get(prompt[i]!)?.logprob ?? null);
    logprobs!.token_logprobs!.slice(0, -1).forEach((value, i) => {
      if (value === null) expect(direct[i]).toBeNull();
      else expect(value).toBeCloseTo(direct[i]!, 4);
    });
  });

  test('responses: create, stream, follow, retrieve, delete', async () => {
    const first = await openai.responses.create({
      model,
      input: 'A story about a fox',
      temperature: 0,
      max_output_tokens: 12,
    });
    expect(first).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } });
    expect(first.output_text).toBe(expected);
    let text = '';
    for await (const event of await openai.responses.create({
      model,
      input: 'And then?',
      previous_response_id: first.id,
      max_output_tokens: 6,
      stream: true,
    })) {
      if (event.type === 'response.output_text.delta') text += event.delta;
      if (event.type === 'response.incomplete') expect(event.response.output[0]).toMatchObject({ content: [{ text }] });
    }
    expect(text).not.toBe('');
    expect(await openai.responses.retrieve(first.id)).toMatchObject({ id: first.id });
    await openai.responses.delete(first.id);
    await expect(openai.responses.retrieve(first.id)).rejects.toMatchObject({ status: 404 });
  });

  test('errors are the classes that people catch', async () => {
    const bad = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'wrong', maxRetries: 0 });
    await expect(bad.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
    await expect(openai.chat.completions.create({ model: 'nope', messages })).rejects.toBeInstanceOf(
      OpenAI.NotFoundError,
    );
    await expect(openai.chat.completions.create({ model, messages, top_p: 2 })).rejects.toMatchObject({
      status: 400,
      param: 'top_p',
    });
    const tools = [{ type: 'function' as const, function: { name: 'f', parameters: {} } }];
    await expect(openai.chat.completions.create({ model, messages, tools })).rejects.toMatchObject({ param: 'tools' });
    const long = [{ role: 'user' as const, content: 'word '.repeat(1000) }];
    await expect(openai.chat.completions.create({ model, messages: long })).rejects.toMatchObject({
      status: 400,
      code: 'context_length_exceeded',
    });
  });

  test('an aborted stream leaves nothing behind', async () => {
    const stream = await openai.chat.completions.create({
      model,
      messages,
      max_tokens: 400,
      stream: true,
      temperature: 0,
    });
    for await (const _ of stream) break;
    stream.controller.abort();
    const deadline = performance.now() + 2000;
    for (;;) {
      const { requests, kvCacheStats } = await llm.statistics();
      if (requests.length === 0 && kvCacheStats.usedNumBlocks === 0) break;
      expect(performance.now()).toBeLessThan(deadline);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(server.registry.get().numOpen).toBe(0);
  });
});

test('ai and @ai-sdk/openai-compatible', async () => {
  const provider = createOpenAICompatible({ name: 'typert', baseURL: `${server.url}/v1`, apiKey: key });
  const settings = { model: provider(model), prompt: 'A story about a fox', temperature: 0, maxOutputTokens: 12 };
  const { text, usage, finishReason } = await generateText(settings);
  expect({ text, output: usage.outputTokens, finishReason }).toEqual({
    text: expected,
    output: 12,
    finishReason: 'length',
  });
  let streamed = '';
  for await (const part of streamText(settings).textStream) streamed += part;
  expect(streamed).toBe(expected);
});

test('@anthropic-ai/sdk', async () => {
  const anthropic = new Anthropic({ baseURL: server.url, apiKey: key, maxRetries: 0 });
  const body = { model, messages, max_tokens: 12, temperature: 0 };
  const message = await anthropic.messages.create(body);
  expect(message).toMatchObject({
    content: [{ type: 'text', text: expected }],
    stop_reason: 'max_tokens',
    usage: { output_tokens: 12 },
  });
  const final = await anthropic.messages.stream(body).finalMessage();
  expect(final.content).toEqual([{ type: 'text', text: expected }]);
  expect(final.usage.output_tokens).toBe(12);
  const { input_tokens, cache_read_input_tokens } = message.usage;
  expect((await anthropic.messages.countTokens({ model, messages })).input_tokens).toBe(
    input_tokens + (cache_read_input_tokens ?? 0),
  );
  await expect(anthropic.messages.create({ ...body, model: 'nope' })).rejects.toBeInstanceOf(Anthropic.NotFoundError);
});

test('ollama', async () => {
  const ollama = new Ollama({ host: server.url, headers: { authorization: `Bearer ${key}` } });
  const options = { temperature: 0, num_predict: 12 };
  const chat = await ollama.chat({ model, messages, options });
  expect(chat).toMatchObject({ message: { content: expected }, done: true, done_reason: 'length', eval_count: 12 });
  let streamed = '';
  for await (const part of await ollama.generate({ model, prompt: 'A story about a fox', options, stream: true }))
    streamed += part.response;
  expect(streamed).toBe(expected);
  expect((await ollama.list()).models.map(({ name }) => name)).toEqual([model]);
  expect((await ollama.show({ model })).capabilities).toEqual(['completion']);
  await expect(ollama.chat({ model: 'nope', messages })).rejects.toThrow(/does not exist/);
});

test('in process: the same clients without a socket', async () => {
  const { fetch } = await createOpenAI({ llm, name: model });
  const client = new OpenAI({ baseURL: 'http://in-process/v1', apiKey: 'none', fetch });
  const { choices } = await client.chat.completions.create({ model, messages, ...greedy });
  expect(choices[0]!.message.content).toBe(expected);
  const provider = createOpenAICompatible({ name: 'typert', baseURL: 'http://in-process/v1', fetch });
  const { text } = await generateText({ model: provider(model), messages, temperature: 0, maxOutputTokens: 12 });
  expect(text).toBe(expected);
});
