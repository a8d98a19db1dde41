// What each architecture's config.json says besides the common fields (keys: gguf-py's constants.py; what GGUF leaves out because llama.cpp
// fixes it per architecture: llama-model.cpp).
import { ConfigError, nearest } from '../../base/errors.ts';
import type { GgufSource } from './gguf.ts';
import type { GgufMetadata } from './gguf-metadata.ts';
import { kindOf } from './json.ts';

export type Fields = Record<string, unknown>;

export interface Family {
  readonly modelType: string;
  readonly architecture: string;
  /** Fields besides the common ones. */
  readonly fields: (meta: GgufMetadata, file: GgufSource, common: Common) => Fields;
}

/** Sizes that several fields derive from. */
export interface Common {
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly hiddenSize: number;
  readonly headDim: number;
  readonly context: number;
}

export const has = (file: GgufSource, name: string): boolean => file.tensors.has(name);
const silu = { hidden_act: 'silu' };

function rmsFields(meta: GgufMetadata): Fields {
  const eps = meta.decimal('attention.layer_norm_rms_epsilon');
  if (eps === undefined) meta.refuse(`${meta.architecture}.attention.layer_norm_rms_epsilon`, 'a number', undefined);
  return { rms_norm_eps: eps };
}

function layerEps(meta: GgufMetadata): number {
  const eps = meta.decimal('attention.layer_norm_epsilon');
  return eps ?? meta.refuse(`${meta.architecture}.attention.layer_norm_epsilon`, 'a number', undefined);
}

function llamaFields(meta: GgufMetadata, file: GgufSource): Fields {
  return {
    ...silu,
    ...rmsFields(meta),
    attention_bias: has(file, 'blk.0.attn_q.bias'),
    mlp_bias: has(file, 'blk.0.ffn_up.bias'),
  };
}

const window = (meta: GgufMetadata): number | null => meta.number('attention.sliding_window') || null;

/** Every `pattern`-th layer attends to all, the others to a window. */
function layerTypes(layers: number, pattern: number): string[] {
  return Array.from({ length: layers }, (_, i) => ((i + 1) % pattern === 0 ? 'full_attention' : 'sliding_attention'));
}

function gemmaFields(meta: GgufMetadata): Fields {
  return {
    hidden_act: 'gelu_pytorch_tanh',
    hidden_activation: 'gelu_pytorch_tanh',
    ...rmsFields(meta),
    attention_bias: false,
  };
}

/** The 27B models scale by hidden size over heads, all others by the head's size (llama.cpp tells them apart by their layers, too). */
function queryScalar(meta: GgufMetadata, { layers, heads, hiddenSize, headDim }: Common, bigLayers: number): number {
  const scale = meta.number('attention.scale');
  if (scale !== undefined && scale > 0) return Math.round(1 / (scale * scale));
  return layers === bigLayers ? hiddenSize / heads : headDim;
}

const families: Readonly<Record<string, Family>> = {
  llama: { modelType: 'llama', architecture: 'LlamaForCausalLM', fields: llamaFields },
  mistral: {
    modelType: 'mistral',
    architecture: 'MistralForCausalLM',
    fields: (meta) => ({ ...silu, ...rmsFields(meta), sliding_window: window(meta) }),
  },
  mixtral: {
    modelType: 'mixtral',
    architecture: 'MixtralForCausalLM',
    fields: (meta) => ({
      ...silu,
      ...rmsFields(meta),
      sliding_window: window(meta),
      num_local_experts: meta.size('expert_count'),
      num_experts_per_tok: meta.size('expert_used_count'),
    }),
  },
  qwen2: {
    modelType: 'qwen2',
    architecture: 'Qwen2ForCausalLM',
    fields: (meta) => ({ ...silu, ...rmsFields(meta), sliding_window: null, use_sliding_window: false }),
  },
  qwen3: {
    modelType: 'qwen3',
    architecture: 'Qwen3ForCausalLM',
    fields: (meta) => ({
      ...silu,
      ...rmsFields(meta),
      attention_bias: false,
      sliding_window: null,
      use_sliding_window: false,
    }),
  },
  qwen3moe: {
    modelType: 'qwen3_moe',
    architecture: 'Qwen3MoeForCausalLM',
    fields: (meta) => ({
      ...silu,
      ...rmsFields(meta),
      attention_bias: false,
      sliding_window: null,
      use_sliding_window: false,
      num_experts: meta.size('expert_count'),
      num_local_experts: meta.size('expert_count'),
      num_experts_per_tok: meta.size('expert_used_count'),
      moe_intermediate_size: meta.size('expert_feed_forward_length'),
      norm_topk_prob: meta.own('expert_weights_norm') !== false,
      decoder_sparse_step: 1,
      mlp_only_layers: [],
    }),
  },
  gemma: { modelType: 'gemma', architecture: 'GemmaForCausalLM', fields: gemmaFields },
  gemma2: {
    modelType: 'gemma2',
    architecture: 'Gemma2ForCausalLM',
    fields: (meta, _file, common) => ({
      ...gemmaFields(meta),
      attn_logit_softcapping: meta.decimal('attn_logit_softcapping') ?? 50,
      final_logit_softcapping: meta.decimal('final_logit_softcapping') ?? 30,
      query_pre_attn_scalar: queryScalar(meta, common, 46),
      sliding_window: window(meta) ?? 4096,
      layer_types: layerTypes(common.layers, 2),
    }),
  },
  gemma3: {
    modelType: 'gemma3_text',
    architecture: 'Gemma3ForCausalLM',
    fields: (meta, _file, common) => ({
      ...gemmaFields(meta),
      attn_logit_softcapping: null,
      final_logit_softcapping: meta.decimal('final_logit_softcapping') || null,
      query_pre_attn_scalar: queryScalar(meta, common, 62),
      sliding_window: window(meta),
      layer_types: layerTypes(common.layers, window(meta) === null ? 1 : 6),
    }),
  },
  phi3: {
    modelType: 'phi3',
    architecture: 'Phi3ForCausalLM',
    fields: (meta, _file, common) => ({
      ...silu,
      ...rmsFields(meta),
      sliding_window: window(meta),
      original_max_position_embeddings: meta.number('rope.scaling.original_context_length') ?? common.context,
    }),
  },
  gpt2: {
    modelType: 'gpt2',
    architecture: 'GPT2LMHeadModel',
    fields: (meta, _file, { layers, heads, hiddenSize, context }) => ({
      activation_function: 'gelu_new',
      layer_norm_epsilon: layerEps(meta),
      n_embd: hiddenSize,
      n_head: heads,
      n_layer: layers,
      n_positions: context,
      n_ctx: context,
      n_inner: meta.size('feed_forward_length'),
      scale_attn_weights: true,
      scale_attn_by_inverse_layer_idx: false,
    }),
  },
  gptneox: {
    modelType: 'gpt_neox',
    architecture: 'GPTNeoXForCausalLM',
    fields: (meta, file, { headDim }) => ({
      hidden_act: 'gelu',
      layer_norm_eps: layerEps(meta),
      attention_bias: has(file, 'blk.0.attn_qkv.bias'),
      use_parallel_residual: meta.own('use_parallel_residual') !== false,
      rotary_pct: (meta.number('rope.dimension_count') ?? headDim) / headDim,
    }),
  },
  starcoder2: {
    modelType: 'starcoder2',
    architecture: 'Starcoder2ForCausalLM',
    fields: (meta, file) => ({
      hidden_act: 'gelu_pytorch_tanh',
      norm_epsilon: layerEps(meta),
      use_bias: has(file, 'blk.0.attn_q.bias'),
      sliding_window: window(meta),
    }),
  },
  olmo2: {
    modelType: 'olmo2',
    architecture: 'Olmo2ForCausalLM',
    fields: (meta) => ({ ...silu, ...rmsFields(meta), attention_bias: false }),
  },
  granite: {
    modelType: 'granite',
    architecture: 'GraniteForCausalLM',
    fields: (meta, file, { headDim }) => ({
      ...llamaFields(meta, file),
      attention_multiplier: meta.decimal('attention.scale') ?? 1 / Math.sqrt(headDim),
      embedding_multiplier: meta.decimal('embedding_scale') ?? 1,
      residual_multiplier: meta.decimal('residual_scale') ?? 1,
      logits_scaling: meta.decimal('logit_scale') ?? 1,
    }),
  },
  smollm3: {
    modelType: 'smollm3',
    architecture: 'SmolLM3ForCausalLM',
    fields: (meta, file, { layers }) => ({
      ...llamaFields(meta, file),
      no_rope_layer_interval: 4,
      no_rope_layers: Array.from({ length: layers }, (_, i) => ((i + 1) % 4 === 0 ? 0 : 1)),
      sliding_window: null,
      use_sliding_window: false,
    }),
  },
};

/** The family of a file: llama.cpp writes Llama, Mistral and Mixtral all as `llama`. Throws ConfigError. */
export function familyOf(meta: GgufMetadata, file: GgufSource): Family {
  const { architecture } = meta;
  const family = Object.hasOwn(families, architecture) ? families[architecture] : undefined;
  if (family === undefined) {
    throw new ConfigError('unknown architecture', {
      where: `${file.label}: general.architecture`,
      expected: `one of ${Object.keys(families).join(', ')}`,
      got: kindOf(architecture),
      remedy: `The nearest are ${nearest(architecture.slice(0, 60), Object.keys(families)).join(', ')}; use a model of one of these architectures`,
    });
  }
  if (architecture !== 'llama') return family;
  if ((meta.number('expert_count') ?? 0) > 0) return families.mixtral!;
  return window(meta) === null ? family : families.mistral!;
}
