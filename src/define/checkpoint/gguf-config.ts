// A Hugging Face config made from GGUF metadata: the fields all architectures share, and rotary embeddings.
import { ConfigError } from '../../base/errors.ts';
import { toFloat32 } from './cast.ts';
import type { GgufSource } from './gguf.ts';
import { type Common, type Fields, familyOf, has } from './gguf-families.ts';
import { GgufMetadata, shortest } from './gguf-metadata.ts';

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
