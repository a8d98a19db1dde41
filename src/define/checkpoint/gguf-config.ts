// A Hugging Face config made from GGUF metadata (keys: gguf-py's constants.py; what is fixed per architecture: llama.cpp's llama-model.cpp).
import { ConfigError, nearest } from '../../base/errors.ts';
import { toFloat32 } from './cast.ts';
import type { GgufSource, GgufValue } from './gguf.ts';
import { kindOf } from './json.ts';

/** The metadata of one file, typed access with the architecture's prefix. */
export class GgufMetadata {
  readonly #file: GgufSource;
  readonly architecture: string;

  constructor(file: GgufSource) {
    this.#file = file;
    const architecture = file.metadata.get('general.architecture');
    if (typeof architecture !== 'string')
      this.refuse('general.architecture', 'the name of an architecture', architecture);
    this.architecture = architecture as string;
  }

  refuse(key: string, expected: string, value: GgufValue | undefined): never {
    throw new ConfigError(value === undefined ? 'metadata is missing' : 'metadata is of another type', {
      where: `${this.#file.label}: ${key}`,
      expected,
      got: value === undefined ? 'nothing' : kindOf(typeof value === 'bigint' ? String(value) : value),
      remedy: 'The file was not written as llama.cpp writes them: convert the model again with a recent llama.cpp',
    });
  }

  get(key: string): GgufValue | undefined {
    return this.#file.metadata.get(key);
  }

  own(key: string): GgufValue | undefined {
    return this.get(`${this.architecture}.${key}`);
  }

  /** A finite number under the architecture's prefix; an array (a value per layer) must hold one value throughout. */
  number(key: string): number | undefined {
    const value = this.own(key);
    if (value === undefined) return undefined;
    const one =
      Array.isArray(value) && value.length > 0 && value.every((item) => item === value[0])
        ? (value[0] as GgufValue)
        : value;
    if (typeof one !== 'number' || !Number.isFinite(one))
      this.refuse(`${this.architecture}.${key}`, 'one number', value);
    return one as number;
  }

  /** A positive integer that must be there. */
  size(key: string): number {
    const value = this.number(key);
    if (value === undefined || !Number.isInteger(value) || value < 1 || value > 2 ** 31) {
      this.refuse(`${this.architecture}.${key}`, 'a positive integer', this.own(key));
    }
    return value as number;
  }

  optionalSize(key: string): number | undefined {
    return this.own(key) === undefined ? undefined : this.size(key);
  }

  /** float32 as the shortest decimal that reads back to it: 1e-5 was written as 0.000009999999747. */
  decimal(key: string): number | undefined {
    const value = this.number(key);
    return value === undefined ? undefined : shortest(value);
  }

  text(key: string): string | undefined {
    const value = this.get(key);
    return typeof value === 'string' ? value : undefined;
  }
}

function shortest(value: number): number {
  if (Number.isInteger(value)) return value;
  for (let digits = 1; digits < 17; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return value;
}

type Fields = Record<string, unknown>;

interface Family {
  readonly modelType: string;
  readonly architecture: string;
  /** Fields besides the common ones. */
  readonly fields: (meta: GgufMetadata, file: GgufSource, common: Common) => Fields;
}

interface Common {
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly hiddenSize: number;
  readonly headDim: number;
  readonly context: number;
}

const has = (file: GgufSource, name: string): boolean => file.tensors.has(name);
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

/** The family of a file: llama.cpp writes Llama, Mistral and Mixtral all as `llama`. */
function familyOf(meta: GgufMetadata, file: GgufSource): Family {
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

/** Values of a small float tensor (rotary factors). */
function floats(file: GgufSource, name: string): number[] | undefined {
  const info = file.tensors.get(name);
  if (info === undefined) return undefined;
  if (info.bytes > 1 << 20) {
    throw new ConfigError('is too large', {
      where: `${file.label}: ${name}`,
      expected: 'a factor per rotary frequency',
      got: `[${info.shape}]`,
      remedy: 'Fetch the file again',
    });
  }
  return Array.from(toFloat32({ ...info, data: file.read(name) }), shortest);
}

function ropeParameters(meta: GgufMetadata, file: GgufSource, { headDim, context }: Common): Fields {
  const partial = (meta.number('rope.dimension_count') ?? headDim) / headDim;
  const base = {
    rope_theta: meta.decimal('rope.freq_base') ?? 10000,
    ...(partial === 1 ? {} : { partial_rotary_factor: partial }),
  };
  const original = meta.number('rope.scaling.original_context_length');
  const attention = meta.decimal('rope.scaling.attn_factor');
  const long = floats(file, 'rope_factors_long.weight');
  const short = floats(file, 'rope_factors_short.weight');
  if (long !== undefined && short !== undefined) {
    return {
      ...base,
      rope_type: 'longrope',
      long_factor: long,
      short_factor: short,
      original_max_position_embeddings: original ?? context,
      ...(attention === undefined ? {} : { attention_factor: attention }),
    };
  }
  const factors = floats(file, 'rope_freqs.weight') ?? floats(file, 'blk.0.rope_freqs.weight');
  if (factors !== undefined) return { ...base, rope_type: 'factors', factors };
  const type = meta.text(`${meta.architecture}.rope.scaling.type`);
  // Older files carry only the factor, and mean linear scaling.
  const factor = meta.decimal('rope.scaling.factor') ?? meta.decimal('rope.scale_linear');
  if (factor === undefined || factor === 0 || factor === 1 || type === 'none') return { ...base, rope_type: 'default' };
  if (type === undefined || type === 'linear') return { ...base, rope_type: 'linear', factor };
  if (type !== 'yarn') meta.refuse(`${meta.architecture}.rope.scaling.type`, 'none, linear, yarn or longrope', type);
  return {
    ...base,
    rope_type: 'yarn',
    factor,
    original_max_position_embeddings: original ?? Math.round(context / factor),
    beta_fast: meta.decimal('rope.scaling.yarn_beta_fast') ?? 32,
    beta_slow: meta.decimal('rope.scaling.yarn_beta_slow') ?? 1,
    // llama.cpp multiplies YaRN's own attention factor by this one; Hugging Face states the product.
    ...(attention === undefined ? {} : { attention_factor: attention * (1 + 0.1 * Math.log(factor)) }),
  };
}

/** What most of the weights were before they were packed: block formats are nearly always made from bfloat16. */
function mainDType(file: GgufSource): string {
  const bytes = new Map<string, number>();
  for (const { dtype, bytes: size } of file.tensors.values()) bytes.set(dtype, (bytes.get(dtype) ?? 0) + size);
  const [main] = [...bytes].sort((a, b) => b[1] - a[1])[0] ?? ['float32'];
  return main === 'float32' || main === 'float16' ? main : 'bfloat16';
}

function tokenId(meta: GgufMetadata, key: string): number | undefined {
  const value = meta.get(`tokenizer.ggml.${key}_token_id`);
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 ? value : undefined;
}

export interface GgufConfig {
  readonly config: Readonly<Record<string, unknown>>;
  readonly modelType: string;
  readonly heads: number;
  readonly kvHeads: number;
}

/**
 * The config.json that Hugging Face transformers would have for the file. Two things have no word there: `rope_parameters` of `rope_type`
 * "factors" holds llama.cpp's factors, by which each rotary frequency is divided; `quantization_source` is "gguf". Throws ConfigError.
 */
export function ggufConfig(file: GgufSource): GgufConfig {
  const meta = new GgufMetadata(file);
  const family = familyOf(meta, file);
  const hiddenSize = meta.size('embedding_length');
  const heads = meta.size('attention.head_count');
  const kvHeads = meta.optionalSize('attention.head_count_kv') ?? heads;
  const headDim = meta.optionalSize('attention.key_length') ?? hiddenSize / heads;
  if (!Number.isInteger(headDim) || heads % kvHeads !== 0) {
    meta.refuse(
      `${meta.architecture}.attention.head_count`,
      `heads that divide ${hiddenSize} and are a multiple of ${kvHeads}`,
      heads,
    );
  }
  const common: Common = {
    layers: meta.size('block_count'),
    heads,
    kvHeads,
    hiddenSize,
    headDim,
    context: meta.size('context_length'),
  };
  const embedding = file.tensors.get('token_embd.weight');
  const vocabSize = embedding?.shape[0] ?? meta.optionalSize('vocab_size');
  if (vocabSize === undefined) meta.refuse('token_embd.weight', 'the embedding table', undefined);
  const rope = ropeParameters(meta, file, common);
  const local = meta.decimal('rope.freq_base_swa') ?? 10000;
  const ids = {
    bos_token_id: tokenId(meta, 'bos'),
    eos_token_id: tokenId(meta, 'eos'),
    pad_token_id: tokenId(meta, 'padding'),
  };
  const config = {
    architectures: [family.architecture],
    model_type: family.modelType,
    hidden_size: hiddenSize,
    intermediate_size: meta.size('feed_forward_length'),
    num_hidden_layers: common.layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: headDim,
    vocab_size: vocabSize,
    max_position_embeddings: common.context,
    tie_word_embeddings: !has(file, 'output.weight'),
    dtype: mainDType(file),
    // Gemma 3 turns its windowed layers by another base, and never scales them.
    ...(family.modelType === 'gpt2'
      ? {}
      : {
          rope_parameters:
            family.modelType === 'gemma3_text'
              ? { full_attention: rope, sliding_attention: { rope_theta: local, rope_type: 'default' } }
              : rope,
        }),
    ...family.fields(meta, file, common),
    ...Object.fromEntries(Object.entries(ids).filter(([, id]) => id !== undefined)),
    quantization_source: 'gguf',
  };
  return { config, modelType: family.modelType, heads, kvHeads };
}
