// From the fields that requests carry (OpenAI's, TensorRT-LLM's and vLLM's extensions, in snake_case) to sampling parameters. Limits are checked by the LLM itself.

import { z } from 'zod';
import type { SamplingParams } from '../run/decode/sampling-params.ts';
import type { SessionLimits } from '../run/session/batch.ts';
import { refuseField, ServeError } from './errors.ts';
import { guidedOf } from './guided.ts';

const number = z.number().nullish();
const integer = z.int().nullish();
const flag = z.boolean().nullish();

/** Fields that all generating routes of the OpenAI family share. */
export const samplingFields = {
  temperature: number,
  top_p: number,
  n: integer,
  stop: z.union([z.string(), z.array(z.string())]).nullish(),
  seed: integer,
  presence_penalty: number,
  frequency_penalty: number,
  logit_bias: z.record(z.string(), z.number()).nullish(),
  // TensorRT-LLM's extensions.
  top_k: integer,
  min_p: number,
  top_p_min: number,
  top_p_decay: number,
  top_p_reset_ids: integer,
  repetition_penalty: number,
  no_repeat_ngram_size: integer,
  prompt_ignore_length: integer,
  length_penalty: number,
  early_stopping: z.union([z.boolean(), z.number()]).nullish(),
  use_beam_search: flag,
  beam_search_diversity_rate: number,
  best_of: integer,
  ignore_eos: flag,
  min_tokens: integer,
  stop_token_ids: z.array(z.int()).nullish(),
  include_stop_str_in_output: flag,
  skip_special_tokens: flag,
  spaces_between_special_tokens: flag,
  truncate_prompt_tokens: integer,
  bad: z.union([z.string(), z.array(z.string())]).nullish(),
} as const;

export type SamplingBody = { [K in keyof typeof samplingFields]?: z.infer<(typeof samplingFields)[K]> };

function biasMap(bias: Readonly<Record<string, number>>): ReadonlyMap<number, number> {
  return new Map(
    Object.entries(bias).map(([id, value]) => {
      if (!/^\d+$/.test(id))
        throw new ServeError('not a token id', {
          status: 400,
          code: 'invalid_value',
          param: 'logit_bias',
          where: 'logit_bias',
          expected: 'token ids as keys',
          got: id,
        });
      return [Number(id), value];
    }),
  );
}

/** Sampling parameters of a request over what the model recommends, over OpenAI's default of temperature 1. */
export function toSamplingParams(body: SamplingBody, recommended: SamplingParams): SamplingParams {
  // Clients send these at their defaults whether they search with beams or not.
  const beams = body.use_beam_search
    ? {
        useBeamSearch: true,
        beamSearchDiversityRate: body.beam_search_diversity_rate,
        lengthPenalty: body.length_penalty,
        earlyStopping: typeof body.early_stopping === 'boolean' ? Number(body.early_stopping) : body.early_stopping,
      }
    : {};
  const given: Record<string, unknown> = {
    temperature: body.temperature,
    topP: body.top_p,
    // -1 means all in vLLM's and TensorRT-LLM's clients.
    topK: body.top_k === -1 ? 0 : body.top_k,
    minP: body.min_p,
    n: body.n,
    bestOf: body.best_of,
    // Seeds are signed in OpenAI's schema.
    seed: typeof body.seed === 'number' && body.seed < 0 ? BigInt.asUintN(64, BigInt(body.seed)) : body.seed,
    stop: typeof body.stop === 'string' ? body.stop : body.stop?.length === 0 ? undefined : body.stop,
    presencePenalty: body.presence_penalty,
    frequencyPenalty: body.frequency_penalty,
    repetitionPenalty: body.repetition_penalty,
    noRepeatNgramSize: body.no_repeat_ngram_size,
    promptIgnoreLength: body.prompt_ignore_length,
    embeddingBias: body.logit_bias && Object.keys(body.logit_bias).length > 0 ? biasMap(body.logit_bias) : undefined,
    topPMin: body.top_p_min,
    topPDecay: body.top_p_decay,
    topPResetIds: body.top_p_reset_ids,
    ...beams,
    ignoreEos: body.ignore_eos,
    minTokens: body.min_tokens,
    stopTokenIds: body.stop_token_ids,
    includeStopStrInOutput: body.include_stop_str_in_output,
    skipSpecialTokens: body.skip_special_tokens,
    spacesBetweenSpecialTokens: body.spaces_between_special_tokens,
    truncatePromptTokens: body.truncate_prompt_tokens,
    bad: body.bad,
  };
  const present = Object.fromEntries(
    Object.entries(given).filter(([, value]) => value !== undefined && value !== null),
  ) as SamplingParams;
  const guidedDecoding = guidedOf(body);
  return {
    // A beam search does not sample.
    ...(body.use_beam_search ? {} : { temperature: 1, ...recommended }),
    ...present,
    ...(guidedDecoding === undefined ? {} : { guidedDecoding }),
  };
}

/** As many tokens as fit, when nothing was said. */
export function fillMaxTokens(params: SamplingParams, promptLength: number, limits: SessionLimits): SamplingParams {
  if (params.maxTokens !== undefined) return params;
  const used = Math.min(promptLength, params.truncatePromptTokens ?? promptLength);
  return { ...params, maxTokens: Math.max(1, params.minTokens ?? 1, limits.maxSeqLen - used) };
}

/** Fields that would change the answer and that nothing here can honour yet. They are refused, never ignored. */
const refused: Readonly<Record<string, { readonly what: string; readonly unless?: (value: unknown) => boolean }>> = {
  suffix: { what: 'text behind the completion is not supported', unless: (value) => value === '' },
  functions: { what: 'replaced by tools' },
  function_call: { what: 'replaced by tool_choice', unless: (value) => value === 'none' },
  audio: { what: 'this server answers with text' },
  modalities: {
    what: 'this server answers with text',
    unless: (value) => Array.isArray(value) && value.every((name) => name === 'text'),
  },
  web_search_options: { what: 'this server searches nothing' },
  lora_request: { what: 'LoRA adapters are not supported yet' },
  disaggregated_params: { what: 'disaggregated serving is not supported' },
  chat_template: { what: 'templates come with the model, not with the request' },
  prompt_embeds: { what: 'embeddings as prompts are not supported' },
};

/** Throws ServeError 400 for fields that cannot be honoured. Fields that nobody knows are left alone, as OpenAI's API does. */
export function refuseUnsupported(body: Readonly<Record<string, unknown>>): void {
  for (const [field, { what, unless }] of Object.entries(refused)) {
    const value = body[field];
    if (value !== undefined && value !== null && !(unless?.(value) ?? false)) refuseField(field, what);
  }
}
