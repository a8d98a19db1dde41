// Gemma (Mesnard et al. 2024): embeddings scaled by √hiddenSize, norms around a weight of one, heads wider than hiddenSize/heads.
import { type DecoderConfig, decoderConfig, llamaWeights, preNormDecoder, rmsNorm } from './decoder-config.ts';
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
    preNormDecoder(config, context, {
      norm: () => rmsNorm(config, 1),
      model: { embeddingMultiplier: Math.sqrt(config.hiddenSize) },
    }),
  weights: (config) => llamaWeights(config),
};
