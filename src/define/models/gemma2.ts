// Gemma 2 (Rivière et al. 2024): norms before and after both parts, soft caps on scores and logits, windows in every second layer.
import type { AttentionOptions } from '../nn/attention.ts';
import { DecoderForCausalLM, DecoderLayer } from '../nn/decoder.ts';
import { type DecoderConfig, decoderAttention, gatedMlp, layersOf, llamaWeights, rmsNorm } from './decoder-config.ts';
import type { Fields } from './fields.ts';
import { gemmaConfig } from './gemma.ts';
import type { BuildContext, ModelDefinition } from './registry.ts';
import type { WeightMap } from './weight-map.ts';

export interface Gemma2Config extends DecoderConfig {
  readonly queryPreAttnScalar: number;
  readonly attnLogitSoftcapping: number | null;
  readonly finalLogitSoftcapping: number | null;
}

export function gemma2Config(
  fields: Fields,
  architecture: string,
  windowEvery: (layer: number) => boolean,
): Gemma2Config {
  const config = gemmaConfig(fields, architecture);
  const cap = (name: string) => fields.optional(name, (f) => f.positive(name)) ?? null;
  return {
    ...config,
    // Checkpoints from before `layer_types` name only the window; which layers have it is the architecture's pattern.
    slidingWindows: fields.has('layer_types')
      ? config.slidingWindows
      : config.slidingWindows.map((window, layer) => (windowEvery(layer) ? window : null)),
    queryPreAttnScalar: fields.positive('query_pre_attn_scalar', config.headSize),
    attnLogitSoftcapping: cap('attn_logit_softcapping'),
    finalLogitSoftcapping: cap('final_logit_softcapping'),
  };
}

export function buildGemma2(
  config: Gemma2Config,
  context: BuildContext,
  more: (layer: number) => Partial<AttentionOptions> = () => ({}),
): DecoderForCausalLM {
  return new DecoderForCausalLM({
    vocabSize: config.vocabSize,
    hiddenSize: config.hiddenSize,
    embeddingMultiplier: Math.sqrt(config.hiddenSize),
    ...(config.finalLogitSoftcapping === null ? {} : { finalSoftcap: config.finalLogitSoftcapping }),
    layers: layersOf(
      config,
      (layer) =>
        new DecoderLayer({
          inputLayernorm: rmsNorm(config, 1),
          attention: decoderAttention(config, layer, context, {
            scale: config.queryPreAttnScalar ** -0.5,
            ...(config.attnLogitSoftcapping === null ? {} : { softcap: config.attnLogitSoftcapping }),
            ...more(layer),
          }),
          postAttentionLayernorm: rmsNorm(config, 1),
          postLayernorm: rmsNorm(config, 1),
          mlp: gatedMlp(config),
          postFeedforwardLayernorm: rmsNorm(config, 1),
        }),
    ),
    lnF: rmsNorm(config, 1),
  });
}

export function gemma2Weights(config: DecoderConfig): WeightMap {
  return llamaWeights(config, {
    'transformer.layers.{n}.post_attention_layernorm.weight': 'model.layers.{n}.post_attention_layernorm.weight',
    'transformer.layers.{n}.post_layernorm.weight': 'model.layers.{n}.pre_feedforward_layernorm.weight',
    'transformer.layers.{n}.post_feedforward_layernorm.weight': 'model.layers.{n}.post_feedforward_layernorm.weight',
  });
}

export const gemma2: ModelDefinition<Gemma2Config> = {
  architectures: ['Gemma2ForCausalLM'],
  parseConfig: (fields) => gemma2Config(fields, 'Gemma2ForCausalLM', (layer) => layer % 2 === 0),
  build: (config, context) => buildGemma2(config, context),
  weights: gemma2Weights,
};
