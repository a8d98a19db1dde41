// StarCoder2 (Lozhkov et al. 2024): layer norms, biases, a plain feed-forward part, grouped queries, a window.
import { DecoderForCausalLM, DecoderLayer } from '../nn/decoder.ts';
import { LayerNorm } from '../nn/layers.ts';
import { Mlp } from '../nn/mlp.ts';
import { type DecoderConfig, decoderAttention, decoderConfig, layersOf, llamaWeights } from './decoder-config.ts';
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
  build: (config, context) => {
    const norm = () => new LayerNorm(config.hiddenSize, config.normEpsilon);
    return new DecoderForCausalLM({
      vocabSize: config.vocabSize,
      hiddenSize: config.hiddenSize,
      layers: layersOf(
        config,
        (layer) =>
          new DecoderLayer({
            inputLayernorm: norm(),
            attention: decoderAttention(config, layer, context),
            postLayernorm: norm(),
            mlp: new Mlp(config.hiddenSize, config.intermediateSize, config.hiddenAct, { bias: config.mlpBias }),
          }),
      ),
      lnF: norm(),
    });
  },
  weights: (config) =>
    llamaWeights(config, {
      'transformer.layers.{n}.mlp.fc.{p}': 'model.layers.{n}.mlp.c_fc.{p}',
      'transformer.layers.{n}.mlp.proj.{p}': 'model.layers.{n}.mlp.c_proj.{p}',
    }),
};
