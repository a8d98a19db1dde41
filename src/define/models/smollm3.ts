// SmolLM3 (Hugging Face 2025): Llama in which every fourth layer has no position embedding.
import {
  type DecoderConfig,
  decoderAttention,
  decoderConfig,
  layersOf,
  llamaWeights,
  preNormDecoder,
} from './decoder-config.ts';
import type { ModelDefinition } from './registry.ts';

interface SmolLM3Config extends DecoderConfig {
  /** Layers whose q and k rotate. */
  readonly ropeLayers: readonly boolean[];
}

export const smolLM3: ModelDefinition<SmolLM3Config> = {
  architectures: ['SmolLM3ForCausalLM'],
  parseConfig: (fields) => {
    const config = decoderConfig(fields, 'SmolLM3ForCausalLM', {
      tied: true,
      usesWindow: fields.flag('use_sliding_window', false),
    });
    const interval = fields.size('no_rope_layer_interval', 4);
    // Despite its name, `no_rope_layers` holds 1 for layers with rope.
    const listed = fields.has('no_rope_layers') ? fields.numbers('no_rope_layers') : undefined;
    return {
      ...config,
      ropeLayers: layersOf(config, (layer) =>
        listed === undefined ? (layer + 1) % interval !== 0 : listed[layer] !== 0,
      ),
    };
  },
  build: (config, context) =>
    preNormDecoder(config, context, {
      attention: (layer) =>
        decoderAttention(config, layer, context, { positions: config.ropeLayers[layer] ? 'rope' : 'none' }),
    }),
  weights: (config) => llamaWeights(config),
};
