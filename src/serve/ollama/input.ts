// Bodies of Ollama's chat and generate, and their options as sampling parameters: https://github.com/ollama/ollama/blob/main/docs/api.md

import { z } from 'zod';
import type { ChatMessage } from '../../llm/inputs.ts';
import type { SamplingParams } from '../../run/decode/sampling-params.ts';
import { refuseField } from '../errors.ts';
import { toSamplingParams } from '../sampling.ts';

const options = z
  .looseObject({
    temperature: z.number().nullish(),
    top_k: z.int().nullish(),
    top_p: z.number().nullish(),
    min_p: z.number().nullish(),
    seed: z.int().nullish(),
    stop: z.union([z.string(), z.array(z.string())]).nullish(),
    num_predict: z.int().nullish(),
    repeat_penalty: z.number().nullish(),
    presence_penalty: z.number().nullish(),
    frequency_penalty: z.number().nullish(),
  })
  .nullish();

const common = {
  model: z.string(),
  stream: z.boolean().nullish(),
  options,
  think: z.union([z.boolean(), z.string()]).nullish(),
};

export const chatSchema = z.looseObject({
  ...common,
  messages: z.array(z.looseObject({ role: z.string(), content: z.string().nullish() })),
  tools: z.array(z.looseObject({ type: z.string() })).nullish(),
});

export const generateSchema = z.looseObject({
  ...common,
  prompt: z.string().nullish(),
  system: z.string().nullish(),
  raw: z.boolean().nullish(),
});

/** What would change the answer and is not built. */
export function refuseInOllama(body: Readonly<Record<string, unknown>>): void {
  if (Array.isArray(body.images) && body.images.length > 0) refuseField('images', 'this model reads text');
  if (typeof body.suffix === 'string' && body.suffix !== '')
    refuseField('suffix', 'text behind the completion is not supported');
  for (const field of ['template', 'context'])
    if (body[field] !== undefined && body[field] !== null && body[field] !== '') refuseField(field, 'is not supported');
}

/** `format`: 'json', or a schema. */
function guided(format: unknown): SamplingParams {
  if (format === undefined || format === null || format === '') return {};
  if (format === 'json') return { guidedDecoding: { jsonObject: true } };
  if (typeof format === 'object') return { guidedDecoding: { json: format as Record<string, unknown> } };
  return refuseField('format', "expected 'json' or a JSON schema");
}

export function paramsOf(
  { options: given, format }: { options?: z.infer<typeof options>; format?: unknown },
  recommended: SamplingParams,
): SamplingParams {
  const { num_predict: count, repeat_penalty, ...rest } = given ?? {};
  return {
    ...guided(format),
    ...toSamplingParams({ ...rest, repetition_penalty: repeat_penalty }, recommended),
    // -1: until the model ends; -2: until the context is full.
    ...(typeof count === 'number' && count >= 0 ? { maxTokens: Math.max(1, count) } : {}),
  };
}

export function toMessages(messages: z.infer<typeof chatSchema>['messages']): ChatMessage[] {
  return messages.map(({ images, thinking: _, content, ...message }) => {
    if (Array.isArray(images) && images.length > 0) refuseField('messages', 'images: this model reads text');
    return { ...message, content: content ?? (Array.isArray(message.tool_calls) ? null : '') } as ChatMessage;
  });
}

/** Templates of models that think know this switch. */
export function thinkingSwitch(think: boolean | string | null | undefined): Record<string, unknown> {
  if (think === undefined || think === null) return {};
  return typeof think === 'string' ? { enable_thinking: true, reasoning_effort: think } : { enable_thinking: think };
}

/** Ollama's clients write a tag behind the name. */
export function modelName(name: string, known: readonly string[]): string {
  const bare = name.replace(/:latest$/, '');
  return known.includes(name) ? name : bare;
}

/** The body of /api/show; `name` is what older clients send. */
export const showSchema = z.looseObject({ model: z.string().nullish(), name: z.string().nullish() });
