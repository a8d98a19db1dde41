// The two models that TensorRT-LLM's Triton backend shows, by their tensors: `ensemble` takes text, `tensorrt_llm` takes token ids. Names, datatypes and dims are those of its
// public config.pbtxt files; what an engine here cannot do yet stands in no list, and is refused as an unknown input.
import type { Model } from '../registry.ts';
import type { Datatype } from './tensors.ts';

export interface TensorSpec {
  readonly name: string;
  readonly datatype: Datatype;
  readonly dims: readonly number[];
  readonly optional?: true;
}

function spec(name: string, datatype: Datatype, dims: readonly number[] = [1]): TensorSpec {
  return { name, datatype, dims, optional: true };
}

function required(name: string, datatype: Datatype, dims: readonly number[] = [1]): TensorSpec {
  return { name, datatype, dims };
}

/** What both take under one name. */
const shared: readonly TensorSpec[] = [
  spec('num_return_sequences', 'INT32'),
  spec('exclude_input_in_output', 'BOOL'),
  spec('end_id', 'INT32'),
  spec('pad_id', 'INT32'),
  spec('temperature', 'FP32'),
  spec('repetition_penalty', 'FP32'),
  spec('min_tokens', 'INT32'),
  spec('presence_penalty', 'FP32'),
  spec('frequency_penalty', 'FP32'),
  spec('seed', 'UINT64'),
  spec('return_log_probs', 'BOOL'),
  spec('return_context_logits', 'BOOL'),
  spec('return_generation_logits', 'BOOL'),
  spec('return_num_input_tokens', 'BOOL'),
  spec('return_num_output_tokens', 'BOOL'),
  spec('beam_width', 'INT32'),
  spec('guided_decoding_guide_type', 'BYTES'),
  spec('guided_decoding_guide', 'BYTES'),
  spec('beam_search_diversity_rate', 'FP32'),
  // Older names of seed and min_tokens.
  spec('random_seed', 'UINT64'),
  spec('min_length', 'INT32'),
];

const textInputs: readonly TensorSpec[] = [
  required('text_input', 'BYTES'),
  required('max_tokens', 'INT32'),
  spec('bad_words', 'BYTES', [-1]),
  spec('stop_words', 'BYTES', [-1]),
  spec('top_k', 'INT32'),
  spec('top_p', 'FP32'),
  spec('length_penalty', 'FP32'),
  spec('stream', 'BOOL'),
  spec('stop', 'BOOL'),
  spec('embedding_bias_words', 'BYTES', [-1]),
  spec('embedding_bias_weights', 'FP32', [-1]),
  ...shared,
];

const tokenInputs: readonly TensorSpec[] = [
  required('input_ids', 'INT32', [-1]),
  required('input_lengths', 'INT32'),
  required('request_output_len', 'INT32'),
  spec('stop_words_list', 'INT32', [2, -1]),
  spec('bad_words_list', 'INT32', [2, -1]),
  spec('embedding_bias', 'FP32', [-1]),
  spec('runtime_top_k', 'INT32'),
  spec('runtime_top_p', 'FP32'),
  spec('runtime_top_p_min', 'FP32'),
  spec('runtime_top_p_decay', 'FP32'),
  spec('runtime_top_p_reset_ids', 'INT32'),
  spec('len_penalty', 'FP32'),
  spec('early_stopping', 'BOOL'),
  spec('stop', 'BOOL'),
  spec('streaming', 'BOOL'),
  ...shared,
];

const scores: readonly TensorSpec[] = [
  required('cum_log_probs', 'FP32', [-1]),
  required('output_log_probs', 'FP32', [-1, -1]),
  required('context_logits', 'FP32', [-1, -1]),
  required('generation_logits', 'FP32', [-1, -1, -1]),
  required('batch_index', 'INT32'),
  required('sequence_index', 'INT32'),
  required('num_input_tokens', 'INT32'),
  required('num_output_tokens', 'INT32'),
];

export interface ModelSpec {
  readonly kind: 'text' | 'tokens';
  readonly platform: string;
  readonly backend: string;
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
}

export const textSpec: ModelSpec = {
  kind: 'text',
  platform: 'ensemble',
  backend: '',
  inputs: textInputs,
  outputs: [required('text_output', 'BYTES', [-1]), ...scores],
};

export const tokenSpec: ModelSpec = {
  kind: 'tokens',
  platform: '',
  backend: 'tensorrtllm',
  inputs: tokenInputs,
  outputs: [required('output_ids', 'INT32', [-1, -1]), required('sequence_length', 'INT32', [-1]), ...scores],
};

/** Names that stand for the first model of the server. */
export const wellKnown: Readonly<Record<string, ModelSpec>> = {
  ensemble: textSpec,
  tensorrt_llm_bls: textSpec,
  tensorrt_llm: tokenSpec,
};

const version = '1';

function tensorMetadata({ name, datatype, dims }: TensorSpec): Record<string, unknown> {
  return { name, datatype, shape: [-1, ...dims] };
}

/** GET /v2/models/NAME */
export function metadata(name: string, { platform, backend, inputs, outputs }: ModelSpec): Record<string, unknown> {
  return {
    name,
    versions: [version],
    platform: platform || backend,
    inputs: inputs.map(tensorMetadata),
    outputs: outputs.map(tensorMetadata),
  };
}

/** A datatype as configurations write it. */
export function configType(datatype: Datatype): string {
  return datatype === 'BYTES' ? 'TYPE_STRING' : `TYPE_${datatype}`;
}

function tensorConfig({ name, datatype, dims, optional }: TensorSpec): Record<string, unknown> {
  return {
    name,
    data_type: configType(datatype),
    dims,
    ...(optional ? { optional } : {}),
  };
}

/** GET /v2/models/NAME/config */
export function config(name: string, spec: ModelSpec, model: Model): Record<string, unknown> {
  return {
    name,
    platform: spec.platform,
    backend: spec.backend,
    max_batch_size: model.llm.limits.maxBatchSize,
    version_policy: { latest: { num_versions: 1 } },
    model_transaction_policy: { decoupled: true },
    input: spec.inputs.map(tensorConfig),
    output: spec.outputs.map(tensorConfig),
    instance_group: [{ name, kind: 'KIND_CPU', count: 1 }],
  };
}
