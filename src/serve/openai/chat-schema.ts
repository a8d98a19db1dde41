// The body of a chat completion: OpenAI's fields and the extensions of TensorRT-LLM's server. Fields that are not here are left alone.

import { z } from 'zod';
import type { ChatMessage } from '../../llm/inputs.ts';
import { refuseField } from '../errors.ts';
import type { ForcedCall } from '../guided.ts';
import { samplingFields } from '../sampling.ts';

export const toolSchema = z.looseObject({
  type: z.literal('function', 'expected function tools'),
  function: z.looseObject({ name: z.string().min(1), parameters: z.looseObject({}).nullish() }),
});

export const streamOptionsSchema = z.looseObject({ include_usage: z.boolean().nullish() }).nullish();

export const messageSchema = z.looseObject({ role: z.string('expected a role').min(1) });

export const chatSchema = z.looseObject({
  model: z.string().nullish(),
  messages: z.array(messageSchema, 'expected a list of messages').min(1, 'expected at least one message'),
  ...samplingFields,
  max_tokens: z.int().nullish(),
  max_completion_tokens: z.int().nullish(),
  stream: z.boolean().nullish(),
  stream_options: streamOptionsSchema,
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  tools: z.array(toolSchema).nullish(),
  tool_choice: z
    .union([
      z.enum(['none', 'auto', 'required']),
      z.looseObject({ type: z.literal('function'), function: z.looseObject({ name: z.string() }) }),
    ])
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  reasoning_effort: z.string().nullish(),
  // Extensions.
  prompt_token_ids: z.array(z.int()).nullish(),
  documents: z.array(z.looseObject({})).nullish(),
  chat_template_kwargs: z.looseObject({}).nullish(),
  add_generation_prompt: z.boolean().nullish(),
  return_token_ids: z.boolean().nullish(),
  cache_salt: z.string().nullish(),
});

export type ChatBody = z.infer<typeof chatSchema>;

/** What a request says of tools: which the model is shown, and whether it has to call. */
export interface ToolUse {
  readonly tools: readonly Record<string, unknown>[];
  readonly forcedCall?: ForcedCall;
}

/** Reads `tools` and `tool_choice`, in the form of chat completions or of responses. */
export function toolUse(tools: readonly Record<string, unknown>[] | null | undefined, choice: unknown): ToolUse {
  if (choice === 'none') return { tools: [] };
  const shown = tools ?? [];
  if (choice === undefined || choice === null || choice === 'auto') return { tools: shown };
  if (choice === 'required') return { tools: shown, forcedCall: { kind: 'required' } };
  const { type, function: named, name } = choice as { type?: unknown; function?: { name?: unknown }; name?: unknown };
  const wanted = named?.name ?? name;
  if (type !== 'function' || typeof wanted !== 'string')
    return refuseField('tool_choice', "expected 'none', 'auto', 'required' or a function");
  return { tools: shown, forcedCall: { kind: 'named', name: wanted } };
}

/** Messages as templates want them. */
export function toMessages(messages: readonly Record<string, unknown>[]): ChatMessage[] {
  return messages.map((message) => {
    // OpenAI's clients send null for fields they do not use.
    const present = Object.fromEntries(Object.entries(message).filter(([, value]) => value !== null));
    return { ...(message.content === null ? { content: null } : {}), ...present } as ChatMessage;
  });
}
