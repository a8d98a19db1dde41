// SamplingParams → DecodingParams: every field is checked before anything is computed, and nothing that is written is ignored.
import { nearest, RequestError, show } from '../../base/errors.ts';
import type { BeamParams } from './beam-search.ts';
import { maxBeamWidth, rules } from './rules.ts';
import type { DecodingParams, SamplingParams } from './sampling-params.ts';

/**
 * Checks the types and ranges of all fields. `undefined` counts as left out. Throws RequestError that names the field, what it may hold and what came; for an unknown field, the
 * nearest names; for a field that is not built yet, that.
 */
export function checkSamplingParams(params: SamplingParams): void {
  if (typeof params !== 'object' || params === null || Array.isArray(params))
    throw new RequestError('not sampling parameters', { expected: 'an object', got: show(params) });
  for (const [field, value] of Object.entries(params)) {
    if (value === undefined) continue;
    const where = `samplingParams.${field}`;
    if (!Object.hasOwn(rules, field))
      throw new RequestError('unknown field', {
        where,
        expected: `one such as ${nearest(field, Object.keys(rules)).join(', ')}`,
      });
    const rule = rules[field as keyof SamplingParams];
    if (rule.accepts(value)) continue;
    if (rule.unsupported)
      throw new RequestError('not supported yet', { where, expected: rule.expected, got: show(value) });
    throw new RequestError('not acceptable', { where, expected: rule.expected, got: describe(value) });
  }
  checkBeams(params);
  const { n = 1, bestOf = numBeams(params) ?? n, minTokens = 0, maxTokens = 32 } = params;
  if (bestOf < n)
    throw new RequestError('fewer than n', {
      where: 'samplingParams.bestOf',
      expected: `n = ${n} or more`,
      got: show(bestOf),
    });
  if (minTokens > maxTokens)
    throw new RequestError('more than maxTokens', {
      where: 'samplingParams.minTokens',
      expected: `maxTokens = ${maxTokens} or fewer`,
      got: show(minTokens),
    });
}

/** Beams of a beam search when `bestOf` does not say it. */
function numBeams({ useBeamSearch, beamWidthArray }: SamplingParams): number | undefined {
  return useBeamSearch && beamWidthArray !== undefined ? Math.max(...beamWidthArray) : undefined;
}

const beamFields = ['beamWidthArray', 'beamSearchDiversityRate', 'lengthPenalty', 'earlyStopping'] as const;
const samplingFields = ['temperature', 'topK', 'topP', 'minP'] as const;

/** A beam search does not sample, and sampling has no beams: what belongs to the other is refused unless it says nothing. */
function checkBeams(params: SamplingParams): void {
  if (!params.useBeamSearch) {
    for (const field of beamFields) {
      if (params[field] !== undefined)
        throw new RequestError('only for beam search', {
          where: `samplingParams.${field}`,
          expected: 'useBeamSearch: true beside it',
          got: show(params[field]),
        });
    }
    return;
  }
  for (const field of samplingFields) {
    if (params[field] !== undefined && params[field] !== 0 && params[field] !== 1)
      throw new RequestError('beam search does not sample', {
        where: `samplingParams.${field}`,
        expected: 'it left out',
        got: show(params[field]),
      });
  }
  if (params.guidedDecoding !== undefined)
    throw new RequestError('not with beam search yet', {
      where: 'samplingParams.guidedDecoding',
      expected: 'it left out, or useBeamSearch: false',
    });
  const { n = 1, bestOf = numBeams(params) ?? n, beamWidthArray = [bestOf] } = params;
  if (bestOf > maxBeamWidth)
    throw new RequestError('too many beams', {
      where: 'samplingParams.bestOf',
      expected: `at most ${maxBeamWidth} with useBeamSearch`,
      got: show(bestOf),
    });
  if (Math.max(...beamWidthArray) !== bestOf)
    throw new RequestError('the greatest width is not bestOf', {
      where: 'samplingParams.beamWidthArray',
      expected: `${bestOf} as its greatest`,
      got: show(beamWidthArray),
    });
}

function resolveBeams(params: SamplingParams, bestOf: number): BeamParams | undefined {
  if (!params.useBeamSearch) return undefined;
  const { earlyStopping = 1 } = params;
  return {
    widths: params.beamWidthArray ?? [bestOf],
    lengthPenalty: params.lengthPenalty ?? 0,
    earlyStopping: earlyStopping === 0 || earlyStopping === 1 ? earlyStopping : 2,
    diversityRate: params.beamSearchDiversityRate ?? 0,
  };
}

function describe(value: unknown): string {
  if (value instanceof Map) return show([...value].slice(0, 8));
  if (value instanceof Float32Array) return show(Array.from(value.subarray(0, 8)));
  return typeof value === 'bigint' ? `${value}n` : show(value);
}

/** True when decoding takes the likeliest token each time (TensorRT-LLM's rule, with minP among the fields that ask for sampling). */
export function impliesGreedy({ temperature, topK, topP, minP }: SamplingParams): boolean {
  const nothingSet = temperature === undefined && topK === undefined && topP === undefined && minP === undefined;
  return nothingSet || temperature === 0 || topK === 1 || topP === 0;
}

/**
 * Checks `params` against the rules and the vocabulary, and fills in the defaults that SamplingParams documents. `stop` and `bad` texts are refused here: who has the tokenizer
 * handles them and leaves them out. Throws RequestError.
 */
export function resolveSamplingParams(params: SamplingParams, vocabSize: number): DecodingParams {
  checkSamplingParams(params);
  refuseText(params, 'stop', 'stopWords');
  refuseText(params, 'bad', 'badWords');
  const badWords = [...(params.badTokenIds ?? []).map((id) => [id]), ...(params.badWords ?? [])];
  checkVocabulary(params, vocabSize);
  const greedy = impliesGreedy(params) || params.useBeamSearch === true;
  const bestOf = params.bestOf ?? numBeams(params) ?? params.n ?? 1;
  return {
    maxTokens: params.maxTokens ?? 32,
    minTokens: params.minTokens ?? 0,
    n: params.n ?? 1,
    bestOf,
    beam: resolveBeams(params, bestOf),
    temperature: greedy ? 0 : (params.temperature ?? 1),
    topK: params.topK ?? 0,
    topP: params.topP ?? 1,
    topPDecay: params.topPDecay ?? 1,
    topPMin: params.topPMin ?? 1e-6,
    topPResetIds: params.topPResetIds,
    minP: params.minP ?? 0,
    guidedDecoding: params.guidedDecoding,
    userProcessor: userProcessor(params),
    seed: params.seed === undefined ? undefined : BigInt(params.seed),
    repetitionPenalty: params.repetitionPenalty ?? 1,
    presencePenalty: params.presencePenalty ?? 0,
    frequencyPenalty: params.frequencyPenalty ?? 0,
    promptIgnoreLength: params.promptIgnoreLength ?? 0,
    noRepeatNgramSize: params.noRepeatNgramSize ?? 0,
    embeddingBias: resolveBias(params.embeddingBias),
    badWords,
    stopTokenIds: params.stopTokenIds ?? [],
    stopWords: params.stopWords ?? [],
    includeStopStrInOutput: params.includeStopStrInOutput ?? false,
    endId: params.ignoreEos ? undefined : params.endId,
    logprobs: params.logprobs,
    promptLogprobs: params.promptLogprobs,
    returnContextLogits: params.returnContextLogits ?? false,
    returnGenerationLogits: params.returnGenerationLogits ?? false,
    excludeInputFromOutput: params.excludeInputFromOutput ?? true,
    returnPerfMetrics: params.returnPerfMetrics ?? false,
    truncatePromptTokens: params.truncatePromptTokens,
  };
}

function userProcessor({
  logitsProcessor,
  applyBatchedLogitsProcessor,
}: SamplingParams): 'own' | 'batched' | undefined {
  if (!applyBatchedLogitsProcessor) return logitsProcessor === undefined ? undefined : 'own';
  if (logitsProcessor === undefined) return 'batched';
  throw new RequestError('either the own or the batched logits processor', {
    where: 'samplingParams.applyBatchedLogitsProcessor',
    expected: 'no logitsProcessor beside it',
  });
}

/** topP for the token after `token`. */
export function nextTopP(params: DecodingParams, topP: number, token: number): number {
  if (params.topPDecay === 1) return topP;
  if (token === params.topPResetIds) return params.topP;
  return Math.max(topP * params.topPDecay, Math.min(params.topPMin, params.topP));
}

function refuseText(params: SamplingParams, field: 'stop' | 'bad', instead: 'stopWords' | 'badWords'): void {
  if (params[field] === undefined) return;
  throw new RequestError('texts need a tokenizer', {
    where: `samplingParams.${field}`,
    expected: 'token ids at this level',
    got: show(params[field]),
    remedy: `Use samplingParams.${instead}, or the LLM class`,
  });
}

function checkVocabulary(params: SamplingParams, vocabSize: number): void {
  const check = (field: string, id: number | undefined): void => {
    if (id !== undefined && id >= vocabSize)
      throw new RequestError('token id outside the vocabulary', {
        where: `samplingParams.${field}`,
        expected: `below ${vocabSize}`,
        got: String(id),
      });
  };
  check('endId', params.endId);
  check('topPResetIds', params.topPResetIds);
  for (const id of params.stopTokenIds ?? []) check('stopTokenIds', id);
  for (const id of params.badTokenIds ?? []) check('badTokenIds', id);
  for (const id of (params.stopWords ?? []).flat()) check('stopWords', id);
  for (const id of (params.badWords ?? []).flat()) check('badWords', id);
  const bias = params.embeddingBias;
  if (bias instanceof Map) for (const id of bias.keys()) check('embeddingBias', id);
  else if (bias !== undefined && (bias as Float32Array).length !== vocabSize)
    throw new RequestError('not one number a token', {
      where: 'samplingParams.embeddingBias',
      expected: `${vocabSize} numbers`,
      got: `${(bias as Float32Array).length}`,
    });
}

function resolveBias(bias: SamplingParams['embeddingBias']): DecodingParams['embeddingBias'] {
  if (bias === undefined || bias instanceof Map || bias instanceof Float32Array) return bias;
  return Float32Array.from(bias as readonly number[]);
}
