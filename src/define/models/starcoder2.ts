// StarCoder2 (Lozhkov et al. 2024): layer norms, biases, a plain feed-forward part, grouped queries, a window.
import { LayerNorm } from '../nn/layers.ts';
import { Mlp } from '../nn/mlp.ts';
import { type DecoderConfig, decoderConfig, llamaWeights, preNormDecoder } from './decoder-config.ts';
import type { ModelDefinition } from './registry.ts';

export const starcoder2: ModelDefinition<DecoderConfig> = {
  architectures: ['Starcoder2ForCausalLM'],
  parseConfig: (fields) => {
    const bias = fields.flag('use_bias', true);
    return {
      ...decoderConfig(fields, 'Starcoder2ForCausalLM', { tied: true, normEpsilon: 'norm_epsilon' }),
      attnBias: bias,
      mlpBias: bias,
    };
  },
  build: (config, context) =>
    preNormDecoder(config, context, {
      norm: () => new LayerNorm(config.hiddenSize, config.normEpsilon),
      mlp: () => new Mlp(config.hiddenSize, config.intermediateSize, config.hiddenAct, { bias: config.mlpBias }),
    }),
  weights: (config) =>
    llamaWeights(config, {
      'transformer.layers.{n}.mlp.fc.{p}': 'model.layers.{n}.mlp.c_fc.{p}',
      'transformer.layers.{n}.mlp.proj.{p}': 'model.layers.{n}.mlp.c_proj.{p}',
    }),
};
