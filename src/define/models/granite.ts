// Granite 3 (IBM 2024): Llama with four factors: on embeddings, scores, residuals and logits.
import { type DecoderConfig, decoderAttention, decoderConfig, llamaWeights, preNormDecoder } from './decoder-config.ts';
import type { ModelDefinition } from './registry.ts';

interface GraniteConfig extends DecoderConfig {
  readonly embeddingMultiplier: number;
  readonly attentionMultiplier: number;
  readonly residualMultiplier: number;
  readonly logitsScaling: number;
}

export const granite: ModelDefinition<GraniteConfig> = {
  architectures: ['GraniteForCausalLM'],
  parseConfig: (fields) => ({
    ...decoderConfig(fields, 'GraniteForCausalLM', { usesWindow: false }),
    embeddingMultiplier: fields.positive('embedding_multiplier', 1),
    attentionMultiplier: fields.positive('attention_multiplier', 1),
    residualMultiplier: fields.positive('residual_multiplier', 1),
    logitsScaling: fields.positive('logits_scaling', 1),
  }),
  build: (config, context) =>
    preNormDecoder(config, context, {
      attention: (layer) => decoderAttention(config, layer, context, { scale: config.attentionMultiplier }),
      layer: { residualMultiplier: config.residualMultiplier },
      model: { embeddingMultiplier: config.embeddingMultiplier, logitsMultiplier: 1 / config.logitsScaling },
    }),
  weights: (config) => llamaWeights(config),
};
