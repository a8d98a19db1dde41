// POST /v1/messages and its token count, for clients that speak only Anthropic's API.

import type { Hono } from 'hono';
import type { z } from 'zod';
import { type ChatAnswer, type ChatFinish, type ChatPiece, type ChatRun, collectChat, startChat } from '../chat-run.ts';
import { anthropicError, toHttpError } from '../errors.ts';
import { type Env, makeId, readJson, type Scope, type Services } from '../http.ts';
import { toSamplingParams } from '../sampling.ts';
import { event, streamEvents } from '../sse.ts';
import { countSchema, messagesSchema, thinkingSwitch, toChatMessages, toChatTools, toForcedCall } from './input.ts';

type Body = z.infer<typeof messagesSchema>;

function parseInput(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return { text };
  }
}

function stopOf(
  finish: ChatFinish,
  stopReason: number | string | null,
): { stop_reason: string; stop_sequence: string | null } {
  if (finish === 'length') return { stop_reason: 'max_tokens', stop_sequence: null };
  if (finish === 'tool_calls') return { stop_reason: 'tool_use', stop_sequence: null };
  if (typeof stopReason === 'string') return { stop_reason: 'stop_sequence', stop_sequence: stopReason };
  return { stop_reason: 'end_turn', stop_sequence: null };
}

function contentOf({ content, reasoning, toolCalls }: ChatAnswer): Record<string, unknown>[] {
  return [
    ...(reasoning === '' ? [] : [{ type: 'thinking', thinking: reasoning, signature: '' }]),
    ...(content === '' && toolCalls.length > 0 ? [] : [{ type: 'text', text: content }]),
    ...toolCalls.map((call) => ({ type: 'tool_use', id: call.id, name: call.name, input: parseInput(call.arguments) })),
  ];
}

function start(body: Body, services: Services, scope: Scope): ChatRun {
  const model = services.registry.get(body.model);
  return startChat({
    model,
    messages: toChatMessages(body),
    tools: toChatTools(body),
    ...toForcedCall(body),
    parallelToolCalls: !(body.tool_choice?.disable_parallel_tool_use ?? false),
    templateKwargs: thinkingSwitch(body),
    params: {
      ...toSamplingParams(
        { temperature: body.temperature, top_p: body.top_p, top_k: body.top_k, stop: body.stop_sequences },
        model.llm.recommendedSamplingParams,
      ),
      maxTokens: body.max_tokens,
    },
    signal: scope.signal,
    observer: scope.observer,
  });
}

/** What opens a block, and what it grows by. */
function blockOf(piece: ChatPiece): { kind: string; opening: Record<string, unknown>; delta: Record<string, unknown> } {
  switch (piece.type) {
    case 'content':
      return {
        kind: 'text',
        opening: { type: 'text', text: '' },
        delta: { type: 'text_delta', text: piece.text },
      };
    case 'reasoning':
      return {
        kind: 'thinking',
        opening: { type: 'thinking', thinking: '', signature: '' },
        delta: { type: 'thinking_delta', thinking: piece.text },
      };
    case 'toolCall':
      return {
        kind: piece.id,
        opening: { type: 'tool_use', id: piece.id, name: piece.name, input: {} },
        delta: { type: 'input_json_delta', partial_json: piece.arguments },
      };
    default:
      return piece satisfies never;
  }
}

async function* lines(run: ChatRun, model: string) {
  const send = (type: string, data: Record<string, unknown> = {}) => event({ type, ...data }, type);
  const usage = { input_tokens: run.promptTokenIds.length, output_tokens: 0 };
  const message = { id: makeId('msg_'), type: 'message', role: 'assistant', model, content: [] };
  yield send('message_start', { message: { ...message, stop_reason: null, stop_sequence: null, usage } });
  let index = -1;
  let open: string | undefined;
  let stop = stopOf('stop', null);
  try {
    for await (const { pieces, finish, output } of run.events) {
      let text = '';
      for (const piece of pieces) {
        const { kind, opening, delta } = blockOf(piece);
        if (open !== kind) {
          if (open !== undefined) text += send('content_block_stop', { index });
          text += send('content_block_start', { index: ++index, content_block: opening });
          open = kind;
        }
        text += send('content_block_delta', { index, delta });
      }
      if (finish !== undefined) stop = stopOf(finish, output.stopReason);
      if (text !== '') yield text;
    }
    if (open !== undefined) yield send('content_block_stop', { index });
    yield send('message_delta', { delta: stop, usage: { output_tokens: run.usage().completionTokens } });
    yield send('message_stop');
  } catch (error) {
    yield event(anthropicError(toHttpError(error)), 'error');
  }
}

export function addAnthropic(app: Hono<Env>, services: Services): void {
  app.post('/v1/messages', async (c) => {
    const scope = c.get('scope');
    const body = await readJson(c, messagesSchema);
    const { name } = services.registry.get(body.model);
    const run = start(body, services, scope);
    if (body.stream) return streamEvents(lines(run, name), { abort: scope.abort });
    const [answer] = await collectChat(run);
    const { promptTokens, completionTokens, cachedTokens = 0 } = run.usage();
    return c.json({
      id: makeId('msg_'),
      type: 'message',
      role: 'assistant',
      model: name,
      content: contentOf(answer!),
      ...stopOf(answer!.finish, answer!.output.stopReason),
      usage: {
        // Cached ones are counted apart in this API.
        input_tokens: promptTokens - cachedTokens,
        cache_creation_input_tokens: 0,
        cache_read_input_tokens: cachedTokens,
        output_tokens: completionTokens,
      },
    });
  });
  app.post('/v1/messages/count_tokens', async (c) => {
    const body = await readJson(c, countSchema);
    const tools = toChatTools(body);
    const { promptTokenIds } = services.registry.get(body.model).llm.encode({
      messages: toChatMessages(body),
      ...(tools.length === 0 ? {} : { tools }),
    });
    return c.json({ input_tokens: promptTokenIds.length });
  });
}
