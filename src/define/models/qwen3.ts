// Qwen3 (Yang et al. 2025): each head of q and k is normed before rotation.

import type { Attention } from '../nn/attention.ts';
import { type DecoderConfig, decoderAttention, decoderConfig, llamaWeights, preNormDecoder } from './decoder-config.ts';
import { qwenWindows } from './qwen2.ts';
import type { BuildContext, ModelDefinition } from './registry.ts';

export function qwen3Attention(config: DecoderConfig, layer: number, context: BuildContext): Attention {
  return decoderAttention(config, layer, context, { qkNorm: { kind: 'rms', eps: config.normEpsilon, over: 'head' } });
}

export const qwen3: ModelDefinition<DecoderConfig> = {
  architectures: ['Qwen3ForCausalLM'],
  parseConfig: (fields) =>
    qwenWindows(
      fields,
      decoderConfig(fields, 'Qwen3ForCausalLM', { usesWindow: fields.flag('use_sliding_window', false) }),
    ),
  build: (config, context) =>
    preNormDecoder(config, context, { attention: (layer) => qwen3Attention(config, layer, context) }),
  weights: (config) => llamaWeights(config),
};
