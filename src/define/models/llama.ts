// Llama (Touvron et al. 2023) and its many finetunes. Mistral's dense models are the same with a window.
import { type DecoderConfig, decoderConfig, llamaWeights, preNormDecoder } from './decoder-config.ts';
import type { ModelDefinition } from './registry.ts';

export const llama: ModelDefinition<DecoderConfig> = {
  architectures: ['LlamaForCausalLM'],
  parseConfig: (fields) => decoderConfig(fields, 'LlamaForCausalLM', { usesWindow: false }),
  build: (config, context) => preNormDecoder(config, context),
  weights: (config) => llamaWeights(config),
};
