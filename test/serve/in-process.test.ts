// The server inside other programs: Hono, Express, a route of a fetch-based framework, and Vercel's AI SDK through its own provider.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { generateObject, generateText, jsonSchema, streamText, tool } from 'ai';
import express from 'express';
import { Hono } from 'hono';
import { LLM } from 'typert';
import { createTypert } from 'typert/ai';
import { createOpenAI } from 'typert/serve';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { temporaryFolder } from '../support/temporary.ts';
import { FakeLLM } from './support/fake-llm.ts';
import { until } from './support/requests.ts';

const body = JSON.stringify({ messages: [{ role: 'user', content: 'hello' }] });
// The SDK prints warnings, which one test wants.
Object.assign(globalThis, { AI_SDK_LOG_WARNINGS: false });

const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body };

describe('the handler', () => {
  test('answers a route of Hono', async () => {
    const { fetch } = await createOpenAI({ llm: new FakeLLM() });
    const app = new Hono().get('/', (c) => c.text('mine')).all('/v1/*', (c) => fetch(c.req.raw));
    const response = await app.request('/v1/chat/completions', init);
    expect(await response.json()).toMatchObject({ choices: [{ message: { content: 'one two three' } }] });
    expect(await (await app.request('/')).text()).toBe('mine');
  });

  test('is the POST of a route file, as Next has them', async () => {
    const { fetch: answer } = await createOpenAI({ llm: new FakeLLM() });
    const POST = (request: Request): Promise<Response> => answer(request);
    const response = await POST(new Request('http://localhost/v1/chat/completions', init));
    expect(response.status).toBe(200);
  });

  test('streams through Express, and a client that leaves ends its request', async () => {
    const llm = new FakeLLM({ forever: 'word ', delay: 5 });
    const { listener } = await createOpenAI({ llm });
    const app = express();
    app.get('/', (_, response) => void response.send('mine'));
    app.all('/v1/{*path}', listener);
    const server = createServer(app).listen(0);
    try {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      expect(await (await fetch(url)).text()).toBe('mine');
      const leave = new AbortController();
      const response = await fetch(`${url}/v1/completions`, {
        ...init,
        body: JSON.stringify({ prompt: 'x', max_tokens: 900, stream: true }),
        signal: leave.signal,
      });
      const { value } = await response.body!.getReader().read();
      expect(new TextDecoder().decode(value)).toContain('"text":"word "');
      expect(llm.numOpen).toBe(1);
      leave.abort();
      await until(() => llm.numOpen === 0);
    } finally {
      server.close();
      server.closeAllConnections();
    }
  });
});

describe('the AI SDK’s provider', () => {
  test('generates, with usage and why it ended', async () => {
    const llm = new FakeLLM();
    const typert = await createTypert({ llm, name: 'fake' });
    const { text, usage, finishReason } = await generateText({
      model: typert('fake'),
      system: 'Be short.',
      prompt: 'count',
      temperature: 0.5,
      maxOutputTokens: 20,
      stopSequences: ['never'],
      providerOptions: { typert: { min_p: 0.1 } },
    });
    expect(text).toBe('one two three');
    expect(finishReason).toBe('stop');
    expect(usage.outputTokens).toBe(5);
    expect(usage.inputTokens).toBeGreaterThan(2);
    expect(llm.prompts[0]).toBe('system: Be short. user: count assistant:');
    expect(llm.params[0]).toMatchObject({ temperature: 0.5, maxTokens: 20, stop: ['never'], minP: 0.1 });
  });

  test('streams reasoning and text in stretches', async () => {
    const llm = new FakeLLM({
      answer: () => '<think>because</think>so',
      special: ['<think>', '</think>'],
    });
    const typert = await createTypert({ llm, reasoningParser: 'qwen3' });
    const { fullStream } = streamText({ model: typert(), prompt: 'why' });
    const parts: string[] = [];
    for await (const part of fullStream) parts.push(part.type);
    expect(parts.filter((type, i) => type !== parts[i - 1])).toEqual([
      'start',
      'start-step',
      'reasoning-start',
      'reasoning-delta',
      'reasoning-end',
      'text-start',
      'text-delta',
      'text-end',
      'finish-step',
      'finish',
    ]);
  });

  test('calls tools and goes on with what they gave', async () => {
    const call = '<tool_call>{"name": "weather", "arguments": {"city": "Ulm"}}</tool_call>';
    const llm = new FakeLLM({
      answer: (prompt) => (prompt.includes('rain') ? 'take a coat' : call),
      special: ['<tool_call>', '</tool_call>'],
      showsTools: true,
    });
    const typert = await createTypert({ llm });
    const weather = tool({
      description: 'the weather',
      inputSchema: jsonSchema<{ city: string }>({ type: 'object', properties: { city: { type: 'string' } } }),
      execute: async ({ city }) => `rain in ${city}`,
    });
    const { steps, text } = await generateText({
      model: typert(),
      prompt: 'what to wear',
      tools: { weather },
      stopWhen: ({ steps: done }) => done.length === 3,
    });
    expect(steps[0]!.toolCalls).toMatchObject([{ toolName: 'weather', input: { city: 'Ulm' } }]);
    expect(text).toBe('take a coat');
    expect(llm.prompts.at(-1)).toContain('rain in Ulm');
  });

  test('ends the request of a reader that leaves', async () => {
    const llm = new FakeLLM({ forever: 'word ', delay: 5 });
    const typert = await createTypert({ llm });
    const leave = new AbortController();
    const { textStream } = streamText({ model: typert(), prompt: 'x', abortSignal: leave.signal });
    for await (const _ of textStream) break;
    leave.abort();
    await until(() => llm.numOpen === 0);
  });

  test('says what it has not', async () => {
    const typert = await createTypert({ llm: new FakeLLM(), name: 'fake' });
    expect(() => typert('other')).toThrow('does not exist');
    expect(() => typert.embeddingModel('x')).toThrow('no embedding models');
    const message = { role: 'user' as const, content: [{ type: 'text' as const, text: 'see' }] };
    const image = { type: 'image' as const, image: new Uint8Array([0x89, 0x50, 0x4e, 0x47]) };
    const { warnings } = await generateText({
      model: typert(),
      messages: [{ ...message, content: [...message.content, image] }],
    });
    expect(warnings).toMatchObject([{ type: 'unsupported' }]);
    await expect(generateText({ model: typert(), prompt: 'x', topP: 3, maxRetries: 0 })).rejects.toThrow('topP');
  });
});

describe('over the bundled model', () => {
  const cacheDir = temporaryFolder();
  let llm: LLM;
  beforeAll(async () => {
    llm = await LLM.load('models/storyteller-7m', { cacheDir });
  });
  afterAll(async () => await llm?.[Symbol.asyncDispose]());

  test('the provider says what the model says', async () => {
    const typert = await createTypert({ llm });
    const messages = [{ role: 'user' as const, content: 'A story about a fox' }];
    const expected = await llm.generate({ messages }, { temperature: 0, maxTokens: 24 });
    const { textStream } = streamText({ model: typert(), messages, temperature: 0, maxOutputTokens: 24 });
    let text = '';
    for await (const delta of textStream) text += delta;
    expect(text).toBe(expected.outputs[0]!.text);
  });

  test('objects keep to their schema', async () => {
    const typert = await createTypert({ llm });
    const schema = jsonSchema<{ animal: string }>({
      type: 'object',
      properties: { animal: { enum: ['fox', 'owl'] } },
      required: ['animal'],
      additionalProperties: false,
    });
    const { object } = await generateObject({ model: typert(), schema, prompt: 'Which animal?', seed: 3 });
    expect(['fox', 'owl']).toContain(object.animal);
  });
});
