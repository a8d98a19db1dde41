// What chat completions, completions, responses and the others write, with a model whose answers are known.
import { describe, expect, test } from 'vitest';
import { chat, events, serveFake } from './support/requests.ts';

const tool = { type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: {} } } };
const hermes = {
  special: ['<tool_call>'],
  showsTools: true,
  answer: () => 'Sure. <tool_call>{"name":"weather","arguments":{"city":"Oslo"}}</tool_call>',
};

type Chunk = {
  choices: { index: number; delta: Record<string, unknown>; finish_reason: string | null }[];
  usage?: unknown;
};

describe('chat completions', () => {
  test('whole', async () => {
    const { post } = await serveFake();
    expect(await (await post('/v1/chat/completions', chat)).json()).toMatchObject({
      object: 'chat.completion',
      model: 'fake',
      choices: [{ index: 0, message: { role: 'assistant', content: 'one two three' }, finish_reason: 'stop' }],
      usage: { completion_tokens: 5, total_tokens: expect.any(Number) },
    });
  });

  test('streamed: role, content, finish, usage, done', async () => {
    const { post } = await serveFake();
    const all = await events(
      await post('/v1/chat/completions', { ...chat, stream: true, n: 2, stream_options: { include_usage: true } }),
    );
    expect(all.at(-1)).toEqual({ done: true });
    const chunks = all.slice(0, -1) as unknown as Chunk[];
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 10 } });
    expect(chunks.slice(0, -1).every(({ usage }) => usage === null)).toBe(true);
    for (const index of [0, 1]) {
      const own = chunks.flatMap(({ choices }) => choices).filter((choice) => choice.index === index);
      expect(own[0]!.delta).toEqual({ role: 'assistant', content: '' });
      expect(own.map(({ delta }) => delta.content ?? '').join('')).toBe('one two three');
      expect(own.map((choice) => choice.finish_reason).filter(Boolean)).toEqual(['stop']);
    }
  });

  test('max_completion_tokens cuts; without it the context is the limit', async () => {
    const { post, llm } = await serveFake({ maxSeqLen: 100 });
    const cut = await post('/v1/chat/completions', { ...chat, max_completion_tokens: 2 });
    expect(await cut.json()).toMatchObject({ choices: [{ finish_reason: 'length' }], usage: { completion_tokens: 2 } });
    await post('/v1/chat/completions', chat);
    const { maxTokens } = llm.params.at(-1) as { maxTokens: number };
    expect(maxTokens).toBeGreaterThan(80);
    expect(maxTokens).toBeLessThan(100);
  });

  test('parameters arrive in the engine’s words', async () => {
    const { post, llm } = await serveFake();
    await post('/v1/chat/completions', {
      ...chat,
      temperature: 0,
      top_k: -1,
      min_p: 0.1,
      seed: -1,
      stop: ['x'],
      logit_bias: { 5: -100 },
      repetition_penalty: 1.1,
      ignore_eos: true,
      min_tokens: 1,
      stop_token_ids: [7],
      length_penalty: 1,
      logprobs: true,
      top_logprobs: 2,
    });
    expect(llm.params[0]).toMatchObject({
      temperature: 0,
      topK: 0,
      minP: 0.1,
      seed: 2n ** 64n - 1n,
      stop: ['x'],
      embeddingBias: new Map([[5, -100]]),
      repetitionPenalty: 1.1,
      ignoreEos: true,
      minTokens: 1,
      stopTokenIds: [7],
      logprobs: 2,
    });
    expect(llm.params[0]).not.toHaveProperty('lengthPenalty');
  });

  test('developer is the system role', async () => {
    const { post, llm } = await serveFake();
    await post('/v1/chat/completions', { messages: [{ role: 'developer', content: 'be kind' }] });
    expect(llm.prompts[0]).toContain('system: be kind');
  });
});

describe('tools', () => {
  test('calls are found, whole and streamed', async () => {
    const { post, llm } = await serveFake(hermes);
    const whole = (await (await post('/v1/chat/completions', { ...chat, tools: [tool] })).json()) as Record<
      string,
      unknown
    >;
    const call = { type: 'function', function: { name: 'weather', arguments: '{"city":"Oslo"}' } };
    expect(whole).toMatchObject({
      choices: [{ message: { content: 'Sure.', tool_calls: [call] }, finish_reason: 'tool_calls' }],
    });
    expect(llm.prompts[0]).toContain('tools:[{');
    const chunks = (await events(
      await post('/v1/chat/completions', { ...chat, tools: [tool], stream: true }),
    )) as unknown as Chunk[];
    const choices = chunks.flatMap(({ choices = [] }) => choices);
    expect(choices.map(({ delta }) => delta.content ?? '').join('')).toBe('Sure.');
    expect(choices.flatMap(({ delta }) => delta.tool_calls ?? [])).toMatchObject(
      [{ index: 0, id: /^call_/, ...call }].map(({ id: _, ...rest }) => rest),
    );
    expect(choices.at(-1)!.finish_reason).toBe('tool_calls');
  });

  test('none shows none and looks for none', async () => {
    const { post, llm } = await serveFake(hermes);
    const response = await post('/v1/chat/completions', { ...chat, tools: [tool], tool_choice: 'none' });
    expect(await response.json()).toMatchObject({ choices: [{ finish_reason: 'stop' }] });
    expect(llm.prompts[0]).not.toContain('tools:');
  });

  test('a call that is forced: guided, and read as one', async () => {
    const { post, llm } = await serveFake({ answer: () => '[{"name":"weather","arguments":{"city":"Oslo"}}]' });
    const body = { ...chat, tools: [tool], tool_choice: 'required', parallel_tool_calls: false };
    expect(await (await post('/v1/chat/completions', body)).json()).toMatchObject({
      choices: [
        {
          message: { content: null, tool_calls: [{ function: { name: 'weather', arguments: '{"city":"Oslo"}' } }] },
          finish_reason: 'tool_calls',
        },
      ],
    });
    expect(llm.params[0]).toMatchObject({ guidedDecoding: { json: { type: 'array', minItems: 1, maxItems: 1 } } });
    const choice = { type: 'function', function: { name: 'nothing' } };
    expect((await post('/v1/chat/completions', { ...body, tool_choice: choice })).status).toBe(400);
  });

  test('a model that was not made for them says so', async () => {
    const { post } = await serveFake();
    const response = await post('/v1/chat/completions', { ...chat, tools: [tool] });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { param: 'tools' } });
  });
});

describe('reasoning', () => {
  const thinking = { special: ['<think>', '</think>'], answer: () => '<think>hm, so</think> yes it is' };

  test('is apart from the answer in every API', async () => {
    const { post } = await serveFake(thinking);
    expect(await (await post('/v1/chat/completions', chat)).json()).toMatchObject({
      choices: [{ message: { reasoning_content: 'hm, so', content: ' yes it is' } }],
    });
    expect(await (await post('/v1/messages', { ...chat, max_tokens: 50 })).json()).toMatchObject({
      content: [
        { type: 'thinking', thinking: 'hm, so' },
        { type: 'text', text: ' yes it is' },
      ],
      stop_reason: 'end_turn',
    });
    expect(await (await post('/api/chat', { ...chat, model: 'fake:latest', stream: false })).json()).toMatchObject({
      message: { thinking: 'hm, so', content: ' yes it is' },
      done: true,
    });
    expect(await (await post('/v1/responses', { input: 'hello' })).json()).toMatchObject({
      output: [{ type: 'reasoning' }, { type: 'message', content: [{ type: 'output_text', text: ' yes it is' }] }],
    });
  });
});

describe('completions', () => {
  test('several prompts, several answers, in order', async () => {
    const { post } = await serveFake({ answer: (prompt) => `to ${prompt}` });
    const { choices, usage } = (await (await post('/v1/completions', { prompt: ['aa', 'bb'], n: 2 })).json()) as {
      choices: { index: number; text: string }[];
      usage: Record<string, number>;
    };
    expect(choices.map(({ index, text }) => [index, text])).toEqual([
      [0, 'to aa'],
      [1, 'to aa'],
      [2, 'to bb'],
      [3, 'to bb'],
    ]);
    expect(usage).toMatchObject({ prompt_tokens: 2, completion_tokens: 12 });
  });

  test('streamed prompts are told apart', async () => {
    const { post } = await serveFake({ answer: (prompt) => `to ${prompt}` });
    const all = (await events(await post('/v1/completions', { prompt: ['aa', 'bb'], stream: true, echo: true }))) as {
      choices?: { index: number; text: string }[];
    }[];
    const texts = ['', ''];
    for (const { choices = [] } of all) for (const { index, text } of choices) texts[index] += text;
    expect(texts).toEqual(['aato aa', 'bbto bb']);
  });
});

describe('responses', () => {
  test('one follows another, is found and deleted', async () => {
    const { post, get, llm } = await serveFake();
    const first = (await (await post('/v1/responses', { input: 'hello', instructions: 'be kind' })).json()) as {
      id: string;
    };
    expect(first).toMatchObject({ object: 'response', status: 'completed', usage: { output_tokens: 5 } });
    await post('/v1/responses', { input: 'and now?', previous_response_id: first.id });
    expect(llm.prompts[0]).toMatch(/^system: be kind user: hello/);
    expect(llm.prompts[1]).toMatch(/^user: hello assistant: one two three user: and now\?/);
    expect(await (await get(`/v1/responses/${first.id}`)).json()).toMatchObject({ id: first.id });
    expect((await get(`/v1/responses/${first.id}`, { method: 'DELETE' })).status).toBe(200);
    expect((await get(`/v1/responses/${first.id}`)).status).toBe(404);
  });

  test('the stream opens and closes what it says', async () => {
    const { post } = await serveFake(hermes);
    const all = await events(
      await post('/v1/responses', {
        input: 'x',
        stream: true,
        tools: [{ type: 'function', name: 'weather', parameters: {} }],
      }),
    );
    expect(all.map(({ sequence_number }) => sequence_number)).toEqual(all.map((_, at) => at));
    expect([...new Set(all.map(({ type }) => type))]).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      'response.output_text.delta',
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.function_call_arguments.delta',
      'response.function_call_arguments.done',
      'response.completed',
    ]);
    expect(all.at(-1)).toMatchObject({
      response: {
        output: [{ type: 'message' }, { type: 'function_call', name: 'weather', arguments: '{"city":"Oslo"}' }],
      },
    });
  });

  test('a call and its output go back into the conversation', async () => {
    const { post, llm } = await serveFake();
    const input = [
      { role: 'user', content: [{ type: 'input_text', text: 'weather?' }] },
      { type: 'function_call', call_id: 'c1', name: 'weather', arguments: '{}' },
      { type: 'function_call_output', call_id: 'c1', output: 'sun' },
    ];
    expect((await post('/v1/responses', { input })).status).toBe(200);
    expect(llm.prompts[0]).toMatch(/user: weather\? assistant: null tool: sun/);
  });
});

test('tool calls in Anthropic’s and Ollama’s words', async () => {
  const { post } = await serveFake(hermes);
  const tools = [{ name: 'weather', input_schema: { type: 'object' } }];
  expect(await (await post('/v1/messages', { ...chat, max_tokens: 99, tools })).json()).toMatchObject({
    content: [
      { type: 'text', text: 'Sure.' },
      { type: 'tool_use', name: 'weather', input: { city: 'Oslo' } },
    ],
    stop_reason: 'tool_use',
  });
  const streamed = await events(await post('/v1/messages', { ...chat, max_tokens: 99, tools, stream: true }));
  expect(streamed.map(({ type }) => type).filter((type, at, all) => type !== all[at - 1])).toEqual([
    'message_start',
    'content_block_start',
    'content_block_delta',
    'content_block_stop',
    'content_block_start',
    'content_block_delta',
    'content_block_stop',
    'message_delta',
    'message_stop',
  ]);
  expect(
    await (await post('/api/chat', { ...chat, model: 'fake', stream: false, tools: [tool] })).json(),
  ).toMatchObject({
    message: { content: 'Sure.', tool_calls: [{ function: { name: 'weather', arguments: { city: 'Oslo' } } }] },
  });
});
