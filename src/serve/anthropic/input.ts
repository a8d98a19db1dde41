// The body of POST /v1/messages, and its blocks as chat messages: https://docs.anthropic.com/en/api/messages

import { z } from 'zod';
import type { ChatMessage } from '../../llm/inputs.ts';
import { refuseField } from '../errors.ts';
import type { ForcedCall } from '../guided.ts';

const block = z.looseObject({ type: z.string() });
const blocks = z.union([z.string(), z.array(block)], { error: 'expected a text or a list of blocks' });

export const countSchema = z.looseObject({
  model: z.string().nullish(),
  system: blocks.nullish(),
  messages: z
    .array(
      z.looseObject({ role: z.enum(['user', 'assistant', 'system']), content: blocks }),
      'expected a list of messages',
    )
    .min(1, 'expected at least one message'),
  tools: z.array(z.looseObject({ name: z.string(), input_schema: z.looseObject({}).nullish() })).nullish(),
  tool_choice: z
    .looseObject({ type: z.enum(['auto', 'any', 'tool', 'none']), disable_parallel_tool_use: z.boolean().nullish() })
    .nullish(),
  thinking: z.looseObject({ type: z.string() }).nullish(),
});

export const messagesSchema = countSchema.extend({
  max_tokens: z.int('expected a whole number').min(1),
  stop_sequences: z.array(z.string()).nullish(),
  stream: z.boolean().nullish(),
  temperature: z.number().nullish(),
  top_p: z.number().nullish(),
  top_k: z.int().nullish(),
});

type Block = z.infer<typeof block>;

function textOf(content: string | readonly Block[], param: string): string {
  if (typeof content === 'string') return content;
  return content
    .map((part) => {
      if (part.type === 'text' && typeof part.text === 'string') return part.text;
      return refuseField(param, `blocks of type '${part.type}' are not supported here: this model reads text`);
    })
    .join('\n');
}

/** One message may become several: results of tools are messages of their own. */
function* convert(role: string, content: string | readonly Block[]): Generator<ChatMessage> {
  if (typeof content === 'string') {
    yield { role, content };
    return;
  }
  const results = content.filter(({ type }) => type === 'tool_result');
  for (const { tool_use_id, content: result } of results)
    yield {
      role: 'tool',
      tool_call_id: String(tool_use_id),
      content: textOf((result ?? '') as string | Block[], 'messages'),
    };
  const calls = content.filter(({ type }) => type === 'tool_use');
  // Thoughts of earlier turns are not shown to the model again.
  const rest = content.filter(
    ({ type }) => !['tool_result', 'tool_use', 'thinking', 'redacted_thinking'].includes(type),
  );
  const text = textOf(rest, 'messages');
  const tool_calls = calls.map(({ id, name, input }) => ({
    id,
    type: 'function',
    function: { name, arguments: JSON.stringify(input ?? {}) },
  }));
  if (tool_calls.length > 0) yield { role, content: text === '' ? null : text, tool_calls };
  else if (rest.length > 0 || results.length === 0) yield { role, content: text };
}

export type CountBody = z.infer<typeof countSchema>;

export function toChatMessages({ system, messages }: CountBody): ChatMessage[] {
  const first = system ? [{ role: 'system', content: textOf(system, 'system') }] : [];
  return [...first, ...messages.flatMap(({ role, content }) => [...convert(role, content)])];
}

/** A call that the model has to make. */
export function toForcedCall({ tool_choice: choice }: CountBody): { forcedCall?: ForcedCall } {
  if (choice?.type === 'any') return { forcedCall: { kind: 'required' } };
  return choice?.type === 'tool' ? { forcedCall: { kind: 'named', name: String(choice.name) } } : {};
}

export function toChatTools({ tools, tool_choice: choice }: CountBody): Record<string, unknown>[] {
  if (choice?.type === 'none') return [];
  return (tools ?? []).map(({ name, description, input_schema: parameters }) => ({
    type: 'function',
    function: { name, description, parameters: parameters ?? {} },
  }));
}

/** Templates of models that think know this switch. */
export function thinkingSwitch({ thinking }: CountBody): Record<string, unknown> {
  return thinking ? { enable_thinking: thinking.type !== 'disabled' } : {};
}
