// Mistral (Jiang et al. 2023): Llama with a sliding window in every layer.
import { type DecoderConfig, decoderConfig, llamaWeights } from './decoder-config.ts';
import { buildLlama } from './llama.ts';
import type { ModelDefinition } from './registry.ts';

export const mistral: ModelDefinition<DecoderConfig> = {
  architectures: ['MistralForCausalLM'],
  parseConfig: (fields) => decoderConfig(fields, 'MistralForCausalLM'),
  build: buildLlama,
  weights: (config) => llamaWeights(config),
};
