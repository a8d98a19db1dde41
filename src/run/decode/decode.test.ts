import { describe, expect, it } from 'vitest';
import { RequestError } from '../../base/errors.ts';
import { createLogitsProcessors, type TokenHistory } from './logits.ts';
import { tokenLogprobs } from './logprobs.ts';
import { checkSamplingParams, impliesGreedy, resolveSamplingParams } from './resolve.ts';
import { rules } from './rules.ts';
import type { SamplingParams } from './sampling-params.ts';
import { checkStop, heldBack } from './stop.ts';

const vocabSize = 10;
const banned = Number.NEGATIVE_INFINITY;

function history(prompt: readonly number[], output: readonly number[] = []): TokenHistory {
  return {
    tokens: Int32Array.from([...prompt, ...output, 99]),
    numTokens: prompt.length + output.length,
    promptLength: prompt.length,
  };
}

/** A row of `logits` (all 1 when not given) after the processors that `params` ask for. */
function processed(params: SamplingParams, at: TokenHistory, logits = new Array<number>(vocabSize).fill(1)): number[] {
  const row = Float32Array.from(logits);
  for (const process of createLogitsProcessors(resolveSamplingParams(params, vocabSize))) process(row, at);
  return Array.from(row);
}

describe('SamplingParams', () => {
  // Values that each kind of field refuses; every field is in one of these lists.
  const notIntegers = [Number.NaN, Number.POSITIVE_INFINITY, -1, 1.5, '3', null, true];
  const notNumbers = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, '1', null];
  const notFlags = [0, 1, 'true', null];
  const notIds = [5, 'a', null, [-1], [1.5], [Number.NaN], ['1']];
  const bad: { readonly [Field in keyof Required<SamplingParams>]: readonly unknown[] } = {
    maxTokens: [0, ...notIntegers],
    minTokens: notIntegers,
    n: [0, 1025, ...notIntegers],
    bestOf: [0, 1025, ...notIntegers],
    temperature: [-0.1, ...notNumbers],
    topK: notIntegers,
    topP: [-0.1, 1.1, ...notNumbers],
    minP: [-0.1, 1.1, ...notNumbers],
    seed: [-1, 1.5, 2 ** 53, -1n, 1n << 64n, Number.NaN, '1', null],
    repetitionPenalty: [0, -1, ...notNumbers],
    presencePenalty: notNumbers,
    frequencyPenalty: notNumbers,
    promptIgnoreLength: notIntegers,
    noRepeatNgramSize: notIntegers,
    embeddingBias: [
      3,
      [Number.NaN],
      [Number.POSITIVE_INFINITY],
      ['1'],
      new Map([[-1, 1]]),
      new Map([[1, Number.NaN]]),
      null,
    ],
    bad: ['', [''], 3, null],
    badTokenIds: notIds,
    badWords: [[[]], [[1], []], [1], 'a', [[-1]], null],
    stop: ['', ['a', ''], 3, null],
    stopTokenIds: notIds,
    stopWords: [[[]], [1], 'a', [[1.5]], null],
    includeStopStrInOutput: notFlags,
    endId: notIntegers,
    padId: notIntegers,
    ignoreEos: notFlags,
    logprobs: notIntegers,
    promptLogprobs: notIntegers,
    returnContextLogits: notFlags,
    returnGenerationLogits: notFlags,
    excludeInputFromOutput: notFlags,
    returnPerfMetrics: notFlags,
    truncatePromptTokens: [0, ...notIntegers],
    detokenize: notFlags,
    addSpecialTokens: notFlags,
    skipSpecialTokens: notFlags,
    spacesBetweenSpecialTokens: notFlags,
    useBeamSearch: notFlags,
    beamWidthArray: [[], [0], [17], [1.5], 3, null],
    beamSearchDiversityRate: [-0.1, ...notNumbers],
    lengthPenalty: notNumbers,
    earlyStopping: notIntegers,
    topPMin: [0, 1.1, ...notNumbers],
    topPResetIds: notIntegers,
    topPDecay: [0, 1.1, ...notNumbers],
    logitsProcessor: [3, [], ['a'], null],
    applyBatchedLogitsProcessor: notFlags,
    guidedDecoding: [
      {},
      { json: true },
      { jsonObject: false },
      { regex: '' },
      { regex: 'a', json: {} },
      { xml: 'a' },
      null,
      3,
    ],
    lookaheadConfig: [{}],
    additionalModelOutputs: [['a']],
    returnEncoderOutput: [true],
  };

  for (const [field, values] of Object.entries(bad)) {
    it(`refuse a ${field} that makes no sense`, () => {
      for (const value of values) {
        const check = () => checkSamplingParams({ [field]: value } as SamplingParams);
        expect(check, `${field}: ${String(value)}`).toThrow(RequestError);
        expect(check).toThrow(`samplingParams.${field}`);
        expect(check).toThrow(
          rules[field as keyof SamplingParams].unsupported
            ? 'not supported yet'
            : rules[field as keyof SamplingParams].expected,
        );
      }
    });
  }

  it("have all the fields of TensorRT-LLM's SamplingParams, in camelCase", () => {
    const theirs =
      'end_id pad_id max_tokens bad bad_token_ids stop stop_token_ids include_stop_str_in_output embedding_bias logits_processor apply_batched_logits_processor n best_of use_beam_search ' +
      'top_k top_p top_p_min top_p_reset_ids top_p_decay seed temperature min_tokens beam_search_diversity_rate repetition_penalty presence_penalty frequency_penalty length_penalty ' +
      'early_stopping no_repeat_ngram_size min_p beam_width_array logprobs prompt_logprobs return_context_logits return_generation_logits exclude_input_from_output return_encoder_output ' +
      'return_perf_metrics additional_model_outputs lookahead_config guided_decoding ignore_eos detokenize add_special_tokens truncate_prompt_tokens skip_special_tokens ' +
      'spaces_between_special_tokens prompt_ignore_length';
    for (const name of theirs.split(' ')) {
      const ours = name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
      expect(Object.keys(rules)).toContain(ours);
    }
    // What is known and not built is refused, and nothing else.
    const unbuilt = Object.entries(rules).flatMap(([field, { unsupported }]) => (unsupported ? [field] : []));
    expect(unbuilt.sort()).toEqual(['additionalModelOutputs', 'lookaheadConfig', 'returnEncoderOutput']);
  });

  it('refuse beams and sampling together', () => {
    const refused: [SamplingParams, string][] = [
      [{ lengthPenalty: 1 }, 'samplingParams.lengthPenalty: only for beam search'],
      [{ useBeamSearch: false, beamWidthArray: [2] }, 'samplingParams.beamWidthArray: only for beam search'],
      [{ useBeamSearch: true, temperature: 0.5 }, 'samplingParams.temperature: beam search does not sample'],
      [{ useBeamSearch: true, n: 17 }, 'at most 16'],
      [{ useBeamSearch: true, bestOf: 4, beamWidthArray: [2, 3] }, '4 as its greatest'],
      [{ useBeamSearch: true, n: 4, beamWidthArray: [2, 3] }, 'n = 4 or more'],
    ];
    for (const [params, message] of refused) expect(() => checkSamplingParams(params)).toThrow(message);
    expect(resolveSamplingParams({ useBeamSearch: true, beamWidthArray: [2, 5], earlyStopping: 7 }, 32)).toMatchObject({
      n: 1,
      bestOf: 5,
      temperature: 0,
      beam: { widths: [2, 5], earlyStopping: 2, lengthPenalty: 0, diversityRate: 0 },
    });
  });

  it('refuse what lies outside the vocabulary, texts, contradictions and unknown names', () => {
    const refused: [SamplingParams, string][] = [
      [{ stopTokenIds: [3, 10] }, 'below 10'],
      [{ badTokenIds: [10] }, 'badTokenIds'],
      [{ badWords: [[1, 10]] }, 'badWords'],
      [{ stopWords: [[10]] }, 'stopWords'],
      [{ endId: 10 }, 'endId'],
      [{ embeddingBias: new Map([[10, 1]]) }, 'embeddingBias'],
      [{ embeddingBias: [1, 2] }, 'expected 10 numbers; got 2'],
      [{ stop: 'x' }, 'stopWords'],
      [{ bad: ['x'] }, 'badWords'],
      [{ n: 3, bestOf: 2 }, 'n = 3 or more'],
      [{ minTokens: 9, maxTokens: 8 }, 'maxTokens = 8'],
      [{ temprature: 1 } as SamplingParams, 'temperature'],
      [7 as SamplingParams, 'an object'],
    ];
    for (const [params, message] of refused) expect(() => resolveSamplingParams(params, vocabSize)).toThrow(message);
  });

  it('have the documented defaults', () => {
    expect(resolveSamplingParams({ topP: undefined } as unknown as SamplingParams, vocabSize)).toMatchObject({
      maxTokens: 32,
      n: 1,
      bestOf: 1,
      temperature: 0,
      topK: 0,
      topP: 1,
      minP: 0,
    });
    expect(resolveSamplingParams({ topP: 0.5, n: 2 }, vocabSize)).toMatchObject({
      temperature: 1,
      topP: 0.5,
      bestOf: 2,
    });
    expect(resolveSamplingParams({ endId: 2, ignoreEos: true }, vocabSize).endId).toBeUndefined();
    const greedy: SamplingParams[] = [{}, { seed: 3 }, { temperature: 0 }, { topK: 1, temperature: 2 }, { topP: 0 }];
    expect(greedy.every(impliesGreedy)).toBe(true);
    expect([{ temperature: 1 }, { topK: 5 }, { topP: 0.9 }, { minP: 0.1 }].some(impliesGreedy)).toBe(false);
  });
});

describe('logits processors', () => {
  it('penalise repetition as CTRL does: positive logits divided, negative multiplied, once each', () => {
    const logits = [2, -2, 1, 1, 1, 1, 1, 1, 1, 1];
    expect(processed({ repetitionPenalty: 2 }, history([0, 1, 1], [2]), logits).slice(0, 4)).toEqual([1, -4, 0.5, 1]);
  });

  it('penalise presence once and frequency each time, over prompt and output', () => {
    const at = history([0, 0, 1], [0, 2]);
    expect(processed({ presencePenalty: 0.5 }, at).slice(0, 4)).toEqual([0.5, 0.5, 0.5, 1]);
    expect(processed({ frequencyPenalty: 0.25 }, at).slice(0, 4)).toEqual([0.25, 0.75, 0.75, 1]);
    expect(processed({ frequencyPenalty: 0.25, promptIgnoreLength: 50 }, at).slice(0, 4)).toEqual([0.75, 1, 0.75, 1]);
  });

  it('count along as the text grows', () => {
    const [process] = createLogitsProcessors(resolveSamplingParams({ frequencyPenalty: 1 }, vocabSize));
    const row = (at: TokenHistory) => {
      const logits = new Float32Array(vocabSize);
      process!(logits, at);
      return Array.from(logits.subarray(0, 3)).map((x) => x + 0);
    };
    expect(row(history([1]))).toEqual([0, -1, 0]);
    expect(row(history([1], [1]))).toEqual([0, -2, 0]);
    expect(row(history([1], [1, 2]))).toEqual([0, -2, -1]);
  });

  it('ban what would repeat an n-gram', () => {
    const at = history([1, 2, 3, 1], [2]);
    expect(processed({ noRepeatNgramSize: 3 }, at).map((x) => x === banned)).toEqual(
      [...'0001000000'].map((x) => x === '1'),
    );
    expect(processed({ noRepeatNgramSize: 2 }, at)[3]).toBe(banned);
    expect(processed({ noRepeatNgramSize: 1 }, at).filter((x) => x === banned)).toHaveLength(3);
    expect(processed({ noRepeatNgramSize: 9 }, at)).not.toContain(banned);
  });

  it('ban words where the text ends with their beginning', () => {
    const params = { badWords: [[4], [1, 2, 5], [2, 6], [3, 3, 3, 3, 3, 3, 3]], badTokenIds: [7] };
    const out = processed(params, history([1], [2]));
    expect(out.flatMap((x, i) => (x === banned ? [i] : []))).toEqual([4, 5, 6, 7]);
    expect(processed(params, history([2], [1])).flatMap((x, i) => (x === banned ? [i] : []))).toEqual([4, 7]);
  });

  it('ban the end until minTokens', () => {
    const params = { minTokens: 2, endId: 3, stopTokenIds: [4], stopWords: [[5], [6, 7]] };
    const bans = (output: number[]) =>
      processed(params, history([1], output)).flatMap((x, i) => (x === banned ? [i] : []));
    expect(bans([])).toEqual([3, 4, 5]);
    expect(bans([1])).toEqual([3, 4, 5]);
    expect(bans([1, 1])).toEqual([]);
  });

  it('add biases, dense or sparse', () => {
    const sparse = processed(
      {
        embeddingBias: new Map([
          [2, 1.5],
          [3, banned],
        ]),
      },
      history([1]),
    );
    expect(sparse.slice(1, 5)).toEqual([1, 2.5, banned, 1]);
    const dense = processed({ embeddingBias: [0, 0, 1.5, banned, 0, 0, 0, 0, 0, 0] }, history([1]));
    expect(dense).toEqual(sparse);
  });

  it('come in the order of transformers: bias before penalty', () => {
    expect(processed({ embeddingBias: new Map([[1, 3]]), repetitionPenalty: 2 }, history([1]))[1]).toBe(2);
  });
});

describe('stop rules', () => {
  const resolve = (params: SamplingParams) => resolveSamplingParams(params, vocabSize);

  it('end at the end token, which stays', () => {
    expect(checkStop(history([1], [2, 3]), resolve({ endId: 3 }))).toEqual({
      finishReason: 'stop',
      stopReason: undefined,
      numDropped: 0,
    });
    expect(checkStop(history([1], [2, 3]), resolve({ endId: 3, ignoreEos: true }))).toBeUndefined();
  });

  it('end at stop tokens and words, which go unless asked for', () => {
    expect(checkStop(history([1], [2, 3]), resolve({ stopTokenIds: [3] }))).toEqual({
      finishReason: 'stop',
      stopReason: 3,
      numDropped: 1,
    });
    expect(checkStop(history([1], [2, 3]), resolve({ stopWords: [[2, 3]] }))).toMatchObject({
      stopReason: [2, 3],
      numDropped: 2,
    });
    expect(
      checkStop(history([1], [2, 3]), resolve({ stopWords: [[2, 3]], includeStopStrInOutput: true })),
    ).toMatchObject({ numDropped: 0 });
    expect(checkStop(history([2], [3]), resolve({ stopWords: [[2, 3]] }))).toBeUndefined();
    expect(checkStop(history([1], [2, 3]), resolve({ stopWords: [[2, 3]], minTokens: 3 }))).toBeUndefined();
  });

  it('end at maxTokens', () => {
    expect(checkStop(history([1], [2, 3]), resolve({ maxTokens: 2 }))?.finishReason).toBe('length');
    expect(checkStop(history([1], [2, 3]), resolve({ maxTokens: 3 }))).toBeUndefined();
  });

  it('hold back what may become a stop word', () => {
    const params = resolve({
      stopWords: [
        [2, 3, 4],
        [3, 3, 5],
      ],
    });
    const held = (output: number[]) => heldBack(history([2], output), params);
    expect([held([]), held([3]), held([1, 2]), held([2, 3]), held([2, 3, 3]), held([1])]).toEqual([0, 1, 1, 2, 2, 0]);
  });
});

describe('log-probabilities', () => {
  it('give the chosen token first, then the likeliest others, with ranks', () => {
    const row = Float32Array.from([0.1, 0.4, 0.2, 0.3], Math.log);
    const entries = tokenLogprobs(row, 0, 2);
    expect(entries.map(({ tokenId, rank }) => [tokenId, rank])).toEqual([
      [0, 4],
      [1, 1],
      [3, 2],
    ]);
    expect(Math.exp(entries[0]!.logprob)).toBeCloseTo(0.1, 6);
    expect(tokenLogprobs(row, 3, 2).map(({ tokenId }) => tokenId)).toEqual([3, 1]);
    expect(tokenLogprobs(row, 2, 0)).toHaveLength(1);
  });
});
