// Gemma (Mesnard et al. 2024): embeddings scaled by √hiddenSize, norms around a weight of one, heads wider than hiddenSize/heads.
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
import type { Fields } from './fields.ts';
import type { ModelDefinition } from './registry.ts';

/** Gemma configs say `hidden_activation`; where only the older `hidden_act` "gelu" is given, the tanh form is meant. */
export function gemmaConfig(fields: Fields, architecture: string): DecoderConfig {
  const config = decoderConfig(fields, architecture, { tied: true, activation: ['hidden_activation', 'hidden_act'] });
  return { ...config, hiddenAct: config.hiddenAct === 'gelu' ? 'gelu_tanh' : config.hiddenAct };
}

export const gemma: ModelDefinition<DecoderConfig> = {
  architectures: ['GemmaForCausalLM'],
  parseConfig: (fields) => gemmaConfig(fields, 'GemmaForCausalLM'),
  build: (config, context) =>
    new DecoderForCausalLM({
      vocabSize: config.vocabSize,
      hiddenSize: config.hiddenSize,
      embeddingMultiplier: Math.sqrt(config.hiddenSize),
      layers: layersOf(
        config,
        (layer) =>
          new DecoderLayer({
            inputLayernorm: rmsNorm(config, 1),
            attention: decoderAttention(config, layer, context),
            postLayernorm: rmsNorm(config, 1),
            mlp: gatedMlp(config),
          }),
      ),
      lnF: rmsNorm(config, 1),
    }),
  weights: (config) => llamaWeights(config),
};
