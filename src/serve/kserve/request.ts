// From the input tensors of one inference request to requests of the engine, one for each row of the batch.

import { show } from '../../base/errors.ts';
import type { PromptInput } from '../../llm/inputs.ts';
import type { GuidedDecodingParams, SamplingParams } from '../../run/decode/sampling-params.ts';
import { ServeError } from '../errors.ts';
import type { ServedTokenizer } from '../model.ts';
import type { ModelSpec } from './specs.ts';
import type { Element, Tensor } from './tensors.ts';

export interface InferRequest {
  readonly id: string;
  readonly inputs: readonly Tensor[];
  /** Names of the outputs that are wanted; undefined: all that there are. */
  readonly wanted: readonly string[] | undefined;
}

/** One row of the batch. */
export interface Row {
  readonly input: PromptInput;
  readonly params: SamplingParams;
  readonly withInput: boolean;
  readonly wants: ReadonlySet<string>;
}

export interface Batch {
  readonly rows: readonly Row[];
  readonly streaming: boolean;
  /** Not a request but the end of the one with the same id. */
  readonly stop: boolean;
}

function refuse(what: string, where: string, facts: { expected?: string; got?: string } = {}): never {
  throw new ServeError(what, { status: 400, where, param: where, ...facts });
}

/** The rows of the inputs by name, each checked against its spec. */
class Inputs {
  readonly size: number;
  readonly #tensors = new Map<string, { tensor: Tensor; rows: number }>();

  constructor(tensors: readonly Tensor[], { inputs }: ModelSpec, maxBatchSize: number) {
    const specs = new Map(inputs.map((spec) => [spec.name, spec]));
    let size = 0;
    for (const tensor of tensors) {
      const spec = specs.get(tensor.name);
      if (spec === undefined) refuse('the model has no such input', tensor.name);
      if (tensor.datatype !== spec.datatype)
        refuse('wrong datatype', tensor.name, { expected: spec.datatype, got: tensor.datatype });
      // With the batch before the dims, or without when there is one row.
      const batched = tensor.shape.length > spec.dims.length;
      if (tensor.shape.length > spec.dims.length + 1)
        refuse('wrong rank', tensor.name, { expected: `[batch, ${spec.dims.join(', ')}]`, got: show(tensor.shape) });
      const dims = batched ? tensor.shape.slice(1) : tensor.shape;
      const fits = dims.length === spec.dims.length && spec.dims.every((dim, i) => dim === -1 || dim === dims[i]);
      // [batch] stands for [batch, 1], as some clients write scalars.
      const scalars = spec.dims.length === 1 && spec.dims[0] === 1 && tensor.shape.length === 1;
      if (!fits && !scalars)
        refuse('wrong shape', tensor.name, { expected: `[batch, ${spec.dims.join(', ')}]`, got: show(tensor.shape) });
      const rows = batched || scalars ? tensor.shape[0]! : 1;
      this.#tensors.set(tensor.name, { tensor, rows });
      if (spec.optional === undefined) size = Math.max(size, rows);
    }
    this.size = Math.max(1, size);
    if (this.size > maxBatchSize)
      refuse('more rows than the batch holds', 'inputs', {
        expected: `at most ${maxBatchSize}`,
        got: String(this.size),
      });
    for (const [name, { rows }] of this.#tensors)
      if (rows !== this.size && rows !== 1)
        refuse('not one row a request', name, { expected: String(this.size), got: String(rows) });
  }

  all(name: string, row: number): readonly Element[] {
    const found = this.#tensors.get(name);
    if (found === undefined) return [];
    const { tensor, rows } = found;
    const width = tensor.data.length / rows;
    return tensor.data.slice((rows === 1 ? 0 : row) * width, (rows === 1 ? 1 : row + 1) * width);
  }

  number(name: string, row: number): number | undefined {
    const [value] = this.all(name, row);
    return value === undefined ? undefined : Number(value);
  }

  flag(name: string, row = 0): boolean {
    return this.all(name, row)[0] === true;
  }

  texts(name: string, row: number): string[] {
    return this.all(name, row)
      .map(String)
      .filter((text) => text !== '');
  }

  has(name: string): boolean {
    return this.#tensors.has(name);
  }
}

/** Two rows, ids and ends of words, padded with -1: TensorRT-LLM's form of a list of words. */
function words(flat: readonly Element[]): number[][] {
  const half = flat.length / 2;
  const ids = flat.slice(0, half).map(Number);
  const ends = flat
    .slice(half)
    .map(Number)
    .filter((end) => end > 0);
  return ends.map((end, i) => ids.slice(i === 0 ? 0 : ends[i - 1], end)).filter((word) => word.length > 0);
}

function bias(inputs: Inputs, row: number, tokenizer: ServedTokenizer | undefined): SamplingParams['embeddingBias'] {
  const dense = inputs.all('embedding_bias', row).map(Number);
  if (dense.length > 0) return dense;
  const texts = inputs.texts('embedding_bias_words', row);
  const weights = inputs.all('embedding_bias_weights', row).map(Number);
  if (texts.length !== weights.length)
    refuse('not one weight a word', 'embedding_bias_weights', {
      expected: `${texts.length}`,
      got: `${weights.length}`,
    });
  const map = new Map<number, number>();
  texts.forEach((text, i) => {
    for (const id of tokenizer?.encode(text, { addSpecialTokens: false }) ?? []) map.set(id, weights[i]!);
  });
  return map.size === 0 ? undefined : map;
}

/** Types by TensorRT-LLM's names. */
function guide(inputs: Inputs, row: number): GuidedDecodingParams | undefined {
  const [type] = inputs.texts('guided_decoding_guide_type', row);
  const [value = ''] = inputs.texts('guided_decoding_guide', row);
  switch (type) {
    case undefined:
      return undefined;
    case 'json':
      return { jsonObject: true };
    case 'json_schema':
      return { json: value };
    case 'regex':
      return { regex: value };
    case 'ebnf_grammar':
      return { grammar: value };
    case 'structural_tag':
      return { structuralTag: value };
    default:
      return refuse('not a type of guide', 'guided_decoding_guide_type', {
        expected: 'json, json_schema, regex, ebnf_grammar, structural_tag',
        got: type,
      });
  }
}

function paramsOf(
  inputs: Inputs,
  row: number,
  spec: ModelSpec,
  tokenizer: ServedTokenizer | undefined,
): SamplingParams {
  const number = (...names: string[]) =>
    names.map((name) => inputs.number(name, row)).find((value) => value !== undefined);
  const text = spec.kind === 'text';
  const beams = number('beam_width') ?? 1;
  const endId = number('end_id');
  const stopWords = words(inputs.all('stop_words_list', row));
  const badWords = words(inputs.all('bad_words_list', row));
  const stop = inputs.texts('stop_words', row);
  const bad = inputs.texts('bad_words', row);
  const seed = inputs.all('seed', row)[0] ?? inputs.all('random_seed', row)[0];
  const given = {
    maxTokens: number(text ? 'max_tokens' : 'request_output_len'),
    minTokens: number('min_tokens', 'min_length'),
    n: number('num_return_sequences') ?? (beams > 1 ? beams : undefined),
    topPMin: number('runtime_top_p_min'),
    topPDecay: number('runtime_top_p_decay'),
    topPResetIds: number('runtime_top_p_reset_ids'),
    temperature: number('temperature'),
    topK: number('top_k', 'runtime_top_k'),
    topP: number('top_p', 'runtime_top_p'),
    repetitionPenalty: number('repetition_penalty'),
    presencePenalty: number('presence_penalty'),
    frequencyPenalty: number('frequency_penalty'),
    seed: seed === undefined ? undefined : BigInt(seed),
    endId: endId === undefined || endId < 0 ? undefined : endId,
    ...(beams > 1
      ? {
          useBeamSearch: true,
          bestOf: beams,
          lengthPenalty: number('length_penalty', 'len_penalty'),
          earlyStopping: inputs.has('early_stopping') ? Number(inputs.flag('early_stopping', row)) : undefined,
          beamSearchDiversityRate: number('beam_search_diversity_rate'),
        }
      : {}),
    stop: stop.length > 0 ? stop : undefined,
    bad: bad.length > 0 ? bad : undefined,
    stopWords: stopWords.length > 0 ? stopWords : undefined,
    badWords: badWords.length > 0 ? badWords : undefined,
    embeddingBias: bias(inputs, row, tokenizer),
    guidedDecoding: guide(inputs, row),
    logprobs: inputs.flag('return_log_probs', row) ? 0 : undefined,
    returnContextLogits: inputs.flag('return_context_logits', row) || undefined,
    returnGenerationLogits: inputs.flag('return_generation_logits', row) || undefined,
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as SamplingParams;
}

/** Reads the inputs of a request. Throws ServeError 400. */
export function readInputs(
  { inputs: tensors, wanted }: InferRequest,
  spec: ModelSpec,
  context: { readonly tokenizer: ServedTokenizer | undefined; readonly maxBatchSize: number },
): Batch {
  const inputs = new Inputs(tensors, spec, context.maxBatchSize);
  const stop = inputs.flag('stop');
  const streaming = inputs.flag('stream') || inputs.flag('streaming');
  if (stop) return { rows: [], streaming, stop };
  for (const { name, optional } of spec.inputs)
    if (optional === undefined && !inputs.has(name)) refuse('missing input', name);
  for (const name of wanted ?? [])
    if (!spec.outputs.some((output) => output.name === name)) refuse('the model has no such output', name);
  const rows = Array.from({ length: inputs.size }, (_, row): Row => {
    const asked = (name: string, output: string) => (inputs.flag(name, row) ? [output] : []);
    const wants = new Set([
      ...(spec.kind === 'text' ? ['text_output'] : ['output_ids', 'sequence_length']),
      ...(inputs.flag('return_log_probs', row) ? ['cum_log_probs', 'output_log_probs'] : []),
      ...asked('return_context_logits', 'context_logits'),
      ...asked('return_generation_logits', 'generation_logits'),
      ...asked('return_num_input_tokens', 'num_input_tokens'),
      ...asked('return_num_output_tokens', 'num_output_tokens'),
      ...['batch_index', 'sequence_index'],
    ]);
    const input: PromptInput =
      spec.kind === 'text'
        ? { prompt: String(inputs.all('text_input', row)[0]) }
        : { promptTokenIds: inputs.all('input_ids', row).slice(0, inputs.number('input_lengths', row)).map(Number) };
    return {
      input,
      params: paramsOf(inputs, row, spec, context.tokenizer),
      withInput: !inputs.flag('exclude_input_in_output', row),
      wants: wanted === undefined ? wants : new Set([...wants].filter((name) => wanted.includes(name))),
    };
  });
  return { rows, streaming, stop };
}
