// The body of POST /v1/responses, and its input items as chat messages: https://platform.openai.com/docs/api-reference/responses

import { z } from 'zod';
import type { ChatMessage } from '../../llm/inputs.ts';
import type { SamplingParams } from '../../run/decode/sampling-params.ts';
import { refuseField } from '../errors.ts';
import { fromResponseFormat } from '../guided.ts';

export type Item = Readonly<Record<string, unknown>>;

export const responsesSchema = z.looseObject({
  model: z.string().nullish(),
  input: z.union([z.string(), z.array(z.looseObject({}))], { error: 'expected a text or a list of items' }),
  instructions: z.string().nullish(),
  previous_response_id: z.string().nullish(),
  store: z.boolean().nullish(),
  stream: z.boolean().nullish(),
  max_output_tokens: z.int().nullish(),
  temperature: z.number().nullish(),
  top_p: z.number().nullish(),
  tools: z.array(z.looseObject({ type: z.string() })).nullish(),
  tool_choice: z.unknown().optional(),
  parallel_tool_calls: z.boolean().nullish(),
  reasoning: z.looseObject({ effort: z.string().nullish() }).nullish(),
  text: z.looseObject({ format: z.looseObject({ type: z.string() }).nullish() }).nullish(),
  metadata: z.record(z.string(), z.string()).nullish(),
});

export type ResponsesBody = z.infer<typeof responsesSchema>;

/** Refuses what would change the answer and is not built. */
export function refuseInResponses(body: ResponsesBody): void {
  if (body.background === true) refuseField('background', 'answers in the background are not supported');
  if (typeof body.top_logprobs === 'number' && body.top_logprobs > 0)
    refuseField('top_logprobs', 'is not supported here', 'Use /v1/chat/completions');
  if (body.truncation === 'auto') refuseField('truncation', "only 'disabled' is supported");
  for (const field of ['conversation', 'prompt'])
    if (body[field] !== undefined && body[field] !== null) refuseField(field, 'is not supported');
  for (const { type } of body.tools ?? [])
    if (type !== 'function')
      refuseField('tools', `tools of type '${type}' run at OpenAI; only functions are supported`);
}

/** `text.format`, which is response_format with a flat schema. */
export function guidedText({ text }: ResponsesBody): SamplingParams {
  const format = text?.format;
  const flat = format?.type === 'json_schema' ? { ...format, json_schema: { schema: format.schema } } : format;
  const guidedDecoding = fromResponseFormat(flat, 'text.format');
  return guidedDecoding === undefined ? {} : { guidedDecoding };
}

/** Tools in the chat form: the responses API writes a function flat. */
export function toChatTools(tools: ResponsesBody['tools']): Item[] {
  return (tools ?? []).map(({ type, ...rest }) => ({ type, function: rest }));
}

function textOf(content: unknown): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) refuseField('input', 'a message has no content');
  return (content as Item[])
    .map((part) => {
      if (typeof part.text === 'string') return part.text;
      if (typeof part.refusal === 'string') return part.refusal;
      return refuseField('input', `content of type '${String(part.type)}' is not supported: this model reads text`);
    })
    .join('\n');
}

/** Items as messages; calls that follow an answer belong to it. */
export function toChatMessages(items: readonly Item[]): ChatMessage[] {
  const messages: ChatMessage[] = [];
  for (const item of items) {
    const type = item.type ?? 'message';
    if (type === 'message') messages.push({ role: String(item.role ?? 'user'), content: textOf(item.content) });
    else if (type === 'function_call') {
      const call = {
        id: item.call_id,
        type: 'function',
        function: { name: item.name, arguments: item.arguments },
      };
      const last = messages.at(-1);
      if (last?.role === 'assistant')
        messages[messages.length - 1] = { ...last, tool_calls: [...(last.tool_calls ?? []), call] };
      else messages.push({ role: 'assistant', content: null, tool_calls: [call] });
    } else if (type === 'function_call_output') {
      const output = typeof item.output === 'string' ? item.output : textOf(item.output);
      messages.push({ role: 'tool', tool_call_id: String(item.call_id), content: output });
    } else if (type !== 'reasoning') refuseField('input', `items of type '${String(type)}' are not supported`);
  }
  return messages;
}

/** A text is one message of the user. */
export function toItems(input: ResponsesBody['input']): Item[] {
  return typeof input === 'string' ? [{ type: 'message', role: 'user', content: input }] : input;
}
