// Qwen2 and Qwen2.5 (Yang et al. 2024): Llama with biases on q, k and v, and a window on the upper layers when switched on.
import { type DecoderConfig, decoderAttention, decoderConfig, llamaWeights, preNormDecoder } from './decoder-config.ts';
import type { Fields } from './fields.ts';
import type { ModelDefinition } from './registry.ts';

/** Qwen's switch: `use_sliding_window` turns windows on, from layer `max_window_layers` where `layer_types` is absent. */
export function qwenWindows(fields: Fields, config: DecoderConfig): DecoderConfig {
  if (fields.has('layer_types') || !fields.flag('use_sliding_window', false)) return config;
  const first = fields.count('max_window_layers', 0);
  return { ...config, slidingWindows: config.slidingWindows.map((window, layer) => (layer < first ? null : window)) };
}

export const qwen2: ModelDefinition<DecoderConfig> = {
  architectures: ['Qwen2ForCausalLM'],
  parseConfig: (fields) =>
    qwenWindows(
      fields,
      decoderConfig(fields, 'Qwen2ForCausalLM', {
        attnBias: true,
        usesWindow: fields.flag('use_sliding_window', false),
      }),
    ),
  build: (config, context) =>
    preNormDecoder(config, context, {
      attention: (layer) => decoderAttention(config, layer, context, { denseBias: false }),
    }),
  weights: (config) => llamaWeights(config),
};
