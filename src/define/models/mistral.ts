// Mistral (Jiang et al. 2023): Llama with a sliding window in every layer.
import { type DecoderConfig, decoderConfig, llamaWeights, preNormDecoder } from './decoder-config.ts';
import type { ModelDefinition } from './registry.ts';

export const mistral: ModelDefinition<DecoderConfig> = {
  architectures: ['MistralForCausalLM'],
  parseConfig: (fields) => decoderConfig(fields, 'MistralForCausalLM'),
  build: (config, context) => preNormDecoder(config, context),
  weights: (config) => llamaWeights(config),
};
