// The config that decoder families share, read from Hugging Face's words; and the parts most of them build alike.

import { ConfigError } from '../../base/errors.ts';
import type { Activation } from '../graph/ops.ts';
import { Attention, type AttentionOptions } from '../nn/attention.ts';
import {
  DecoderForCausalLM,
  type DecoderForCausalLMParts,
  DecoderLayer,
  type DecoderLayerParts,
} from '../nn/decoder.ts';
import { type Norm, RmsNorm } from '../nn/layers.ts';
import { GatedMlp } from '../nn/mlp.ts';
import type { Fields } from './fields.ts';
import type { BuildContext, ModelConfig } from './registry.ts';
import { type RopeConfig, ropeConfig } from './rope-config.ts';
import type { WeightMap } from './weight-map.ts';

/** TensorRT-LLM's pretrained config, in camelCase. */
export interface DecoderConfig extends ModelConfig, RopeConfig {
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headSize: number;
  readonly intermediateSize: number;
  readonly hiddenAct: Activation;
  readonly normEpsilon: number;
  readonly tieWordEmbeddings: boolean;
  readonly attnBias: boolean;
  readonly mlpBias: boolean;
  /** Window of each layer's attention; null: all positions. */
  readonly slidingWindows: readonly (number | null)[];
}

/** Windows by layer from `sliding_window`, `layer_types` and the older switches. */
function windows(fields: Fields, layers: number, usesWindow: boolean): (number | null)[] {
  const window = usesWindow ? (fields.optional('sliding_window', (f, name) => f.size(name)) ?? null) : null;
  if (!fields.has('layer_types')) return Array.from({ length: layers }, () => window);
  const types = fields.texts('layer_types');
  if (types.length !== layers) {
    throw new ConfigError('wrong field', {
      where: `${fields.where}: layer_types`,
      expected: `${layers} entries, as num_hidden_layers`,
      got: String(types.length),
    });
  }
  return types.map((type) => (type === 'sliding_attention' ? window : null));
}

export interface DecoderConfigOptions {
  /** What `tie_word_embeddings` is when absent. */
  readonly tied?: boolean;
  readonly normEpsilon?: string;
  readonly activation?: readonly string[];
  /** Whether `sliding_window` applies. */
  readonly usesWindow?: boolean;
  readonly attnBias?: boolean;
  readonly layerType?: string;
}

/** Reads the fields that Llama-like configs have. */
export function decoderConfig(fields: Fields, architecture: string, options: DecoderConfigOptions = {}): DecoderConfig {
  const hiddenSize = fields.size('hidden_size');
  const numAttentionHeads = fields.size('num_attention_heads');
  const numHiddenLayers = fields.size('num_hidden_layers');
  const numKeyValueHeads = fields.size('num_key_value_heads', numAttentionHeads);
  const headSize = fields.size('head_dim', Math.floor(hiddenSize / numAttentionHeads));
  if (numAttentionHeads % numKeyValueHeads !== 0) {
    throw new ConfigError('wrong field', {
      where: `${fields.where}: num_key_value_heads`,
      expected: `a divisor of num_attention_heads (${numAttentionHeads})`,
      got: String(numKeyValueHeads),
    });
  }
  return {
    architecture,
    dtype: fields.dtype(),
    vocabSize: fields.size('vocab_size'),
    hiddenSize,
    numHiddenLayers,
    numAttentionHeads,
    numKeyValueHeads,
    headSize,
    intermediateSize: fields.size('intermediate_size'),
    hiddenAct: fields.activation(...(options.activation ?? ['hidden_act'])),
    normEpsilon: fields.positive(options.normEpsilon ?? 'rms_norm_eps', 1e-6),
    maxPositionEmbeddings: fields.size('max_position_embeddings', 2048),
    tieWordEmbeddings: fields.flag('tie_word_embeddings', options.tied ?? false),
    attnBias: fields.flag('attention_bias', options.attnBias ?? false),
    mlpBias: fields.flag('mlp_bias', false),
    slidingWindows: windows(fields, numHiddenLayers, options.usesWindow ?? true),
    ...ropeConfig(fields, options.layerType),
  };
}

/** Attention as most decoders have it: rope on all layers, windows by layer. `more` overrides; `positions: 'none'` leaves the rope out. */
export function decoderAttention(
  config: DecoderConfig,
  layer: number,
  { maxSeqLen }: BuildContext,
  { positions = 'rope', ...more }: Partial<AttentionOptions> & { readonly positions?: 'rope' | 'none' } = {},
): Attention {
  const window = config.slidingWindows[layer] ?? undefined;
  return new Attention({
    layer,
    hiddenSize: config.hiddenSize,
    numHeads: config.numAttentionHeads,
    numKvHeads: config.numKeyValueHeads,
    headDim: config.headSize,
    qkvBias: config.attnBias,
    denseBias: config.attnBias,
    ...(positions === 'rope' ? { rope: decoderRope(config, maxSeqLen) } : {}),
    ...(window === undefined ? {} : { window }),
    ...more,
  });
}

export function decoderRope(
  config: DecoderConfig,
  maxSeqLen: number,
  rope: RopeConfig = config,
): NonNullable<AttentionOptions['rope']> {
  const rotaryDim = Math.floor((config.headSize * rope.rotaryPct) / 2) * 2;
  return {
    theta: rope.rotaryBase,
    rotaryDim,
    scaling: rope.rotaryScaling,
    maxPositionEmbeddings: config.maxPositionEmbeddings,
    maxSeqLen,
  };
}

export function gatedMlp(config: DecoderConfig): GatedMlp {
  return new GatedMlp(config.hiddenSize, config.intermediateSize, config.hiddenAct, { bias: config.mlpBias });
}

export function rmsNorm(config: DecoderConfig, weightOffset = 0): RmsNorm {
  return new RmsNorm(config.hiddenSize, config.normEpsilon, weightOffset);
}

/** n times what `make` gives. */
export function layersOf<T>(config: ModelConfig, make: (layer: number) => T): T[] {
  return Array.from({ length: config.numHiddenLayers }, (_, layer) => make(layer));
}

/** What a family changes in the common decoder. */
export interface PreNormParts {
  readonly norm?: () => Norm;
  readonly attention?: (layer: number) => Attention;
  readonly mlp?: (layer: number) => DecoderLayerParts['mlp'];
  readonly layer?: Pick<DecoderLayerParts, 'parallel' | 'residualMultiplier'>;
  readonly model?: Partial<DecoderForCausalLMParts>;
}

/** The decoder that most families are: a norm before attention and before the feed-forward part, and one at the end. */
export function preNormDecoder(
  config: DecoderConfig,
  context: BuildContext,
  parts: PreNormParts = {},
): DecoderForCausalLM {
  const {
    norm = () => rmsNorm(config),
    attention = (layer) => decoderAttention(config, layer, context),
    mlp = () => gatedMlp(config),
  } = parts;
  return new DecoderForCausalLM({
    vocabSize: config.vocabSize,
    hiddenSize: config.hiddenSize,
    layers: layersOf(
      config,
      (layer) =>
        new DecoderLayer({
          inputLayernorm: norm(),
          attention: attention(layer),
          postLayernorm: norm(),
          mlp: mlp(layer),
          ...parts.layer,
        }),
    ),
    lnF: norm(),
    ...parts.model,
  });
}

/** Names of the tensors of a Llama-like Hugging Face checkpoint; rules in `more` come first and replace those of the same pattern. */
export function llamaWeights(config: DecoderConfig, more: WeightMap = {}): WeightMap {
  const layer = 'transformer.layers.{n}';
  return {
    ...more,
    'transformer.vocab_embedding.weight': 'model.embed_tokens.weight',
    [`${layer}.attention.dense.{p}`]: 'model.layers.{n}.self_attn.o_proj.{p}',
    [`${layer}.attention.q_layernorm.weight`]: 'model.layers.{n}.self_attn.q_norm.weight',
    [`${layer}.attention.k_layernorm.weight`]: 'model.layers.{n}.self_attn.k_norm.weight',
    [`${layer}.attention.{h}.{p}`]: 'model.layers.{n}.self_attn.{h}_proj.{p}',
    [`${layer}.mlp.fc.{p}`]: 'model.layers.{n}.mlp.gate_proj.{p}',
    [`${layer}.mlp.gate.{p}`]: 'model.layers.{n}.mlp.up_proj.{p}',
    [`${layer}.mlp.proj.{p}`]: 'model.layers.{n}.mlp.down_proj.{p}',
    [`${layer}.input_layernorm.{p}`]: 'model.layers.{n}.input_layernorm.{p}',
    [`${layer}.post_layernorm.{p}`]: 'model.layers.{n}.post_attention_layernorm.{p}',
    'transformer.ln_f.{p}': 'model.norm.{p}',
    'lm_head.weight': config.tieWordEmbeddings ? 'model.embed_tokens.weight' : 'lm_head.weight',
    'lm_head.bias': 'lm_head.bias',
    ...more,
  };
}
