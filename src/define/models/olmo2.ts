// OLMo 2 (OLMo team 2024): norms after both parts instead of before, q and k normed over all their columns.
import { DecoderForCausalLM, DecoderLayer } from '../nn/decoder.ts';
import {
  type DecoderConfig,
  decoderAttention,
  decoderConfig,
  gatedMlp,
  layersOf,
  llamaWeights,
  rmsNorm,
} from './decoder-config.ts';
import type { ModelDefinition } from './registry.ts';

export const olmo2: ModelDefinition<DecoderConfig> = {
  architectures: ['Olmo2ForCausalLM'],
  parseConfig: (fields) => decoderConfig(fields, 'Olmo2ForCausalLM', { usesWindow: false }),
  build: (config, context) =>
    new DecoderForCausalLM({
      vocabSize: config.vocabSize,
      hiddenSize: config.hiddenSize,
      layers: layersOf(
        config,
        (layer) =>
          new DecoderLayer({
            attention: decoderAttention(config, layer, context, {
              qkNorm: { kind: 'rms', eps: config.normEpsilon, over: 'all' },
            }),
            postAttentionLayernorm: rmsNorm(config),
            mlp: gatedMlp(config),
            postFeedforwardLayernorm: rmsNorm(config),
          }),
      ),
      lnF: rmsNorm(config),
    }),
  weights: (config) =>
    llamaWeights(config, {
      'transformer.layers.{n}.post_attention_layernorm.weight': 'model.layers.{n}.post_attention_layernorm.weight',
      'transformer.layers.{n}.post_feedforward_layernorm.weight': 'model.layers.{n}.post_feedforward_layernorm.weight',
    }),
};
