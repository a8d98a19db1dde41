// Llama (Touvron et al. 2023) and its many finetunes. Mistral's dense models are the same with a window.
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
import type { BuildContext, ModelDefinition } from './registry.ts';

export function buildLlama(config: DecoderConfig, context: BuildContext): DecoderForCausalLM {
  return new DecoderForCausalLM({
    vocabSize: config.vocabSize,
    hiddenSize: config.hiddenSize,
    layers: layersOf(
      config,
      (layer) =>
        new DecoderLayer({
          inputLayernorm: rmsNorm(config),
          attention: decoderAttention(config, layer, context),
          postLayernorm: rmsNorm(config),
          mlp: gatedMlp(config),
        }),
    ),
    lnF: rmsNorm(config),
  });
}

export const llama: ModelDefinition<DecoderConfig> = {
  architectures: ['LlamaForCausalLM'],
  parseConfig: (fields) => decoderConfig(fields, 'LlamaForCausalLM', { usesWindow: false }),
  build: buildLlama,
  weights: (config) => llamaWeights(config),
};
