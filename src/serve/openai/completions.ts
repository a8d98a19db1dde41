// POST /v1/completions: https://platform.openai.com/docs/api-reference/completions

import type { Hono } from 'hono';
import { z } from 'zod';
import type { PromptInput } from '../../llm/inputs.ts';
import type { StreamedCompletionOutput, StreamedRequestOutput } from '../../llm/outputs.ts';
import type { SamplingParams } from '../../run/decode/sampling-params.ts';
import type { Usage } from '../chat-run.ts';
import { openaiError, refuseField, toHttpError } from '../errors.ts';
import { generate, merge } from '../generate.ts';
import { type Env, makeId, now, readJson, type Services } from '../http.ts';
import type { ServedTokenizer } from '../model.ts';
import { refuseUnsupported, samplingFields, toSamplingParams } from '../sampling.ts';
import { event, eventWriter, streamEvents } from '../sse.ts';
import { fingerprint, usageBody } from './chat.ts';
import { streamOptionsSchema } from './chat-schema.ts';
import { type CompletionLogprobs, completionLogprobs } from './logprobs.ts';

/** The body of a completion. */
export const completionSchema = z.looseObject({
  model: z.string().nullish(),
  prompt: z.union([z.string(), z.array(z.string()).min(1), z.array(z.int()).min(1), z.array(z.array(z.int())).min(1)], {
    error: 'expected a text, token ids, or a list of either',
  }),
  ...samplingFields,
  max_tokens: z.int().min(0).nullish(),
  stream: z.boolean().nullish(),
  stream_options: streamOptionsSchema,
  logprobs: z.int().min(0).max(100).nullish(),
  echo: z.boolean().nullish(),
  add_special_tokens: z.boolean().nullish(),
  return_token_ids: z.boolean().nullish(),
  cache_salt: z.string().nullish(),
});

type Body = z.infer<typeof completionSchema>;

function prompts({ prompt, add_special_tokens: special }: Body): PromptInput[] {
  const text = (value: string): PromptInput =>
    typeof special === 'boolean' ? { prompt: value, addSpecialTokens: special } : { prompt: value };
  if (typeof prompt === 'string') return [text(prompt)];
  if (typeof prompt[0] === 'number') return [{ promptTokenIds: prompt as number[] }];
  return prompt.map((one) => (typeof one === 'string' ? text(one) : { promptTokenIds: one as number[] }));
}

function paramsOf(body: Body, recommended: SamplingParams): SamplingParams {
  const { logprobs, echo } = body;
  const withLogprobs = logprobs !== undefined && logprobs !== null;
  return {
    ...toSamplingParams(body, recommended),
    // Without new tokens only the prompt is scored; the engine makes one, which is dropped.
    maxTokens: Math.max(1, body.max_tokens ?? 16),
    ...(withLogprobs ? { logprobs } : {}),
    ...(withLogprobs && echo ? { promptLogprobs: logprobs } : {}),
  };
}

/** Turns outputs of one prompt into choices. */
class Writer {
  readonly #body: Body;
  readonly #tokenizer: ServedTokenizer | undefined;
  readonly #first: number;
  readonly #dropOutput: boolean;
  readonly #offsets = new Map<number, number>();
  readonly #done = new Set<number>();
  promptTokens = 0;
  completionTokens = 0;
  cachedTokens: number | undefined;

  constructor(body: Body, tokenizer: ServedTokenizer | undefined, first: number) {
    this.#body = body;
    this.#tokenizer = tokenizer;
    this.#first = first;
    this.#dropOutput = body.max_tokens === 0;
  }

  /** The choices of the whole, when `part` is 'all', or of what is new. */
  choices(request: StreamedRequestOutput, part: 'all' | 'new'): Record<string, unknown>[] {
    this.promptTokens = request.promptTokenIds.length;
    this.cachedTokens ??= request.cachedTokens;
    return request.outputs.flatMap((output) => {
      if (this.#done.has(output.index)) return [];
      const begins = !this.#offsets.has(output.index);
      if (output.finishReason !== null) this.#done.add(output.index);
      if (!this.#dropOutput) this.completionTokens += (part === 'all' ? output.tokenIds : output.tokenIdsDelta).length;
      if (
        part === 'new' &&
        output.tokenIdsDelta.length === 0 &&
        output.textDelta === '' &&
        output.finishReason === null
      )
        return [];
      return [this.#choice(request, output, part, begins)];
    });
  }

  #choice(request: StreamedRequestOutput, output: StreamedCompletionOutput, part: 'all' | 'new', begins: boolean) {
    const { logprobs: count, echo, return_token_ids: withIds } = this.#body;
    const ids = this.#dropOutput ? [] : part === 'all' ? output.tokenIds : output.tokenIdsDelta;
    const echoed = echo && begins ? (request.prompt ?? this.#tokenizer?.decode(request.promptTokenIds) ?? '') : '';
    const text = echoed + (this.#dropOutput ? '' : part === 'all' ? output.text : output.textDelta);
    const offset = this.#offsets.get(output.index) ?? 0;
    let logprobs: CompletionLogprobs | null = null;
    if (count !== undefined && count !== null && this.#tokenizer !== undefined) {
      const fresh = ids.length === 0 ? [] : (output.logprobs ?? []).slice(-ids.length);
      const withPrompt = echo && begins;
      logprobs = completionLogprobs(
        this.#tokenizer,
        withPrompt ? [...request.promptTokenIds, ...ids] : ids,
        withPrompt ? [...(request.promptLogprobs ?? []), ...fresh] : fresh,
        count,
        offset,
      );
    }
    this.#offsets.set(output.index, offset + text.length);
    return {
      index: this.#first + output.index,
      text,
      logprobs,
      finish_reason: this.#dropOutput ? 'length' : finishOf(output),
      stop_reason: this.#dropOutput ? null : output.stopReason,
      ...(withIds ? { token_ids: ids } : {}),
    };
  }
}

function finishOf({ finishReason }: StreamedCompletionOutput): 'stop' | 'length' | null {
  if (finishReason === null) return null;
  return finishReason === 'length' ? 'length' : 'stop';
}

function total(writers: readonly Writer[]): Usage {
  const cached = writers.map(({ cachedTokens }) => cachedTokens).filter((count) => count !== undefined);
  return {
    promptTokens: writers.reduce((sum, { promptTokens }) => sum + promptTokens, 0),
    completionTokens: writers.reduce((sum, { completionTokens }) => sum + completionTokens, 0),
    ...(cached.length === 0 ? {} : { cachedTokens: cached.reduce((sum, count) => sum + count, 0) }),
  };
}

type Streams = AsyncGenerator<StreamedRequestOutput, void, undefined>[];

async function* chunks(body: Body, streams: Streams, writers: readonly Writer[], model: string) {
  const withUsage = body.stream_options?.include_usage ?? false;
  const write = eventWriter({
    id: makeId('cmpl-'),
    object: 'text_completion',
    created: now(),
    model,
    system_fingerprint: fingerprint,
  });
  const chunk = (choices: unknown[], usage: unknown = null) => write({ choices, ...(withUsage ? { usage } : {}) });
  try {
    for await (const [at, output] of merge(streams)) {
      const text = writers[at]!.choices(output, 'new')
        .map((choice) => chunk([choice]))
        .join('');
      if (text !== '') yield text;
    }
    if (withUsage) yield chunk([], usageBody(total(writers)));
    yield event('[DONE]');
  } catch (error) {
    yield event(openaiError(toHttpError(error)));
  }
}

export function addCompletions(app: Hono<Env>, services: Services): void {
  app.post('/v1/completions', async (c) => {
    const scope = c.get('scope');
    const body = await readJson(c, completionSchema);
    refuseUnsupported(body);
    if (body.stream && (body.best_of ?? 1) > (body.n ?? 1))
      refuseField('best_of', 'the best of several is known at their end only: it cannot be streamed');
    const model = services.registry.get(body.model);
    const { tokenizer, recommendedSamplingParams } = model.llm;
    const params = paramsOf(body, recommendedSamplingParams);
    const inputs = prompts(body);
    const n = params.n ?? 1;
    const writers = inputs.map((_, at) => new Writer(body, tokenizer, at * n));
    let streams: Streams;
    try {
      streams = inputs.map((input) =>
        generate({
          model,
          input,
          params,
          signal: scope.signal,
          observer: scope.observer,
          ...(typeof body.cache_salt === 'string' ? { cacheSalt: body.cache_salt } : {}),
        }),
      );
    } catch (error) {
      // Prompts before the refused one are running.
      scope.abort(error);
      throw error;
    }
    if (body.stream) return streamEvents(chunks(body, streams, writers, model.name), { abort: scope.abort });
    const lasts: StreamedRequestOutput[] = [];
    try {
      for await (const [at, output] of merge(streams)) lasts[at] = output;
    } catch (error) {
      scope.abort(error);
      throw error;
    }
    const choices = lasts.flatMap((output, at) => writers[at]!.choices(output, 'all'));
    return c.json({
      id: makeId('cmpl-'),
      object: 'text_completion',
      created: now(),
      model: model.name,
      system_fingerprint: fingerprint,
      choices,
      usage: usageBody(total(writers)),
    });
  });
}
