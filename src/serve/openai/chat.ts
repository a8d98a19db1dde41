// POST /v1/chat/completions: https://platform.openai.com/docs/api-reference/chat

import type { Hono } from 'hono';
import { version } from '../../base/version.ts';
import type { StreamedCompletionOutput } from '../../llm/outputs.ts';
import { type ChatEvent, type ChatPiece, type ChatRun, collectChat, startChat, type Usage } from '../chat-run.ts';
import { openaiError, toHttpError } from '../errors.ts';
import { type Env, makeId, now, readJson, type Scope, type Services } from '../http.ts';
import type { ServedTokenizer } from '../model.ts';
import { refuseUnsupported, toSamplingParams } from '../sampling.ts';
import { event, eventWriter, streamEvents } from '../sse.ts';
import { type ChatBody, chatSchema, toMessages, toolUse } from './chat-schema.ts';
import { chatLogprobs } from './logprobs.ts';

export const fingerprint = `typert-${version}`;

export function usageBody({ promptTokens, completionTokens, cachedTokens }: Usage): Record<string, unknown> {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    ...(cachedTokens === undefined ? {} : { prompt_tokens_details: { cached_tokens: cachedTokens } }),
  };
}

function toolCall(piece: ChatPiece & { type: 'toolCall' }): Record<string, unknown> {
  return { id: piece.id, type: 'function', function: { name: piece.name, arguments: piece.arguments } };
}

/** The new log-probabilities of an output, or all of them. */
function logprobsOf(
  body: ChatBody,
  tokenizer: ServedTokenizer | undefined,
  output: StreamedCompletionOutput,
  part: 'all' | 'new',
): unknown {
  if (!body.logprobs || tokenizer === undefined || output.logprobs === undefined) return null;
  const ids = part === 'all' ? output.tokenIds : output.tokenIdsDelta;
  const entries = ids.length === 0 ? [] : output.logprobs.slice(-ids.length);
  return chatLogprobs(tokenizer, ids, entries, body.top_logprobs ?? 0);
}

function deltaOf(piece: ChatPiece): Record<string, unknown> {
  switch (piece.type) {
    case 'content':
      return { content: piece.text };
    case 'reasoning':
      return { reasoning_content: piece.text };
    case 'toolCall':
      return { tool_calls: [{ index: piece.at, ...toolCall(piece) }] };
    default:
      return piece satisfies never;
  }
}

/** Chunks of one event: a delta for each piece, then the finish. */
function* choicesOf(taken: ChatEvent, logprobs: unknown): Generator<Record<string, unknown>> {
  const { index, pieces, finish, output } = taken;
  let left = logprobs;
  const choice = (delta: Record<string, unknown>, rest: Record<string, unknown> = {}) => {
    const made = { index, delta, logprobs: left, finish_reason: null, ...rest };
    left = null;
    return made;
  };
  for (const piece of pieces) yield choice(deltaOf(piece));
  if (pieces.length === 0 && left !== null && finish === undefined) yield choice({});
  if (finish !== undefined) yield choice({}, { finish_reason: finish, stop_reason: output.stopReason });
}

async function* chunks(
  body: ChatBody,
  run: ChatRun,
  services: { tokenizer: ServedTokenizer | undefined; model: string },
) {
  const { tokenizer, model } = services;
  const withUsage = body.stream_options?.include_usage ?? false;
  const write = eventWriter({
    id: makeId('chatcmpl-'),
    object: 'chat.completion.chunk',
    created: now(),
    model,
    system_fingerprint: fingerprint,
  });
  const chunk = (choices: unknown[], usage: unknown = null) => write({ choices, ...(withUsage ? { usage } : {}) });
  try {
    for (let index = 0; index < (body.n ?? 1); index++)
      yield chunk([{ index, delta: { role: 'assistant', content: '' }, logprobs: null, finish_reason: null }]);
    for await (const taken of run.events) {
      const logprobs = logprobsOf(body, tokenizer, taken.output, 'new');
      // One write for all that came together.
      let text = '';
      for (const choice of choicesOf(taken, logprobs)) text += chunk([choice]);
      if (text !== '') yield text;
    }
    if (withUsage) yield chunk([], usageBody(run.usage()));
    yield event('[DONE]');
  } catch (error) {
    yield event(openaiError(toHttpError(error)));
  }
}

/** Starts the turn that a body asks for. */
export function startBody(body: ChatBody, services: Services, scope: Pick<Scope, 'signal' | 'observer'>): ChatRun {
  refuseUnsupported(body);
  const model = services.registry.get(body.model);
  const maxTokens = body.max_completion_tokens ?? body.max_tokens;
  const templateKwargs = {
    ...(body.reasoning_effort ? { reasoning_effort: body.reasoning_effort } : {}),
    ...body.chat_template_kwargs,
  };
  return startChat({
    model,
    messages: toMessages(body.messages),
    ...toolUse(body.tools, body.tool_choice),
    parallelToolCalls: body.parallel_tool_calls ?? true,
    templateKwargs,
    ...(body.prompt_token_ids ? { promptTokenIds: body.prompt_token_ids } : {}),
    ...(typeof body.cache_salt === 'string' ? { cacheSalt: body.cache_salt } : {}),
    ...(body.documents ? { documents: body.documents } : {}),
    ...(typeof body.add_generation_prompt === 'boolean' ? { addGenerationPrompt: body.add_generation_prompt } : {}),
    params: {
      ...toSamplingParams(body, model.llm.recommendedSamplingParams),
      ...(maxTokens === undefined || maxTokens === null ? {} : { maxTokens }),
      ...(body.logprobs ? { logprobs: body.top_logprobs ?? 0 } : {}),
    },
    signal: scope.signal,
    observer: scope.observer,
  });
}

async function whole(body: ChatBody, run: ChatRun, model: string, tokenizer: ServedTokenizer | undefined) {
  const answers = await collectChat(run);
  return {
    id: makeId('chatcmpl-'),
    object: 'chat.completion',
    created: now(),
    model,
    system_fingerprint: fingerprint,
    choices: answers.map(({ content, reasoning, toolCalls, finish, output }, index) => ({
      index,
      message: {
        role: 'assistant',
        content: content === '' && toolCalls.length > 0 ? null : content,
        refusal: null,
        ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
        ...(toolCalls.length === 0 ? {} : { tool_calls: toolCalls.map(toolCall) }),
      },
      logprobs: logprobsOf(body, tokenizer, output, 'all'),
      finish_reason: finish,
      stop_reason: output.stopReason,
      ...(body.return_token_ids ? { token_ids: output.tokenIds } : {}),
    })),
    usage: usageBody(run.usage()),
    ...(body.return_token_ids ? { prompt_token_ids: run.promptTokenIds } : {}),
  };
}

export function addChat(app: Hono<Env>, services: Services): void {
  app.post('/v1/chat/completions', async (c) => {
    const scope = c.get('scope');
    const body = await readJson(c, chatSchema);
    const model = services.registry.get(body.model);
    const run = startBody(body, services, scope);
    const { tokenizer } = model.llm;
    if (body.stream) return streamEvents(chunks(body, run, { tokenizer, model: model.name }), { abort: scope.abort });
    return c.json(await whole(body, run, model.name, tokenizer));
  });
}
