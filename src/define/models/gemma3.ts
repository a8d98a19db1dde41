// Gemma 3's language model (Kamath et al. 2025): Gemma 2 with normed heads, five layers with windows to one without, each kind with its own rope.
import { type DecoderConfig, decoderRope } from './decoder-config.ts';
import { buildGemma2, type Gemma2Config, gemma2Config, gemma2Weights } from './gemma2.ts';
import type { ModelDefinition } from './registry.ts';
import { type RopeConfig, ropeConfig } from './rope-config.ts';

interface Gemma3Config extends Gemma2Config {
  /** Rope of the layers with a window. */
  readonly localRope: RopeConfig;
}

export const gemma3: ModelDefinition<Gemma3Config> = {
  architectures: ['Gemma3ForCausalLM'],
  parseConfig: (fields) => {
    const pattern = fields.size('sliding_window_pattern', fields.size('_sliding_window_pattern', 6));
    const config = gemma2Config(fields, 'Gemma3ForCausalLM', (layer) => (layer + 1) % pattern !== 0);
    const byType = fields.has('rope_parameters');
    return {
      ...config,
      ...(byType ? ropeConfig(fields, 'full_attention') : { rotaryBase: fields.positive('rope_theta', 1_000_000) }),
      localRope: byType
        ? ropeConfig(fields, 'sliding_attention')
        : {
            rotaryBase: fields.positive('rope_local_base_freq', 10_000),
            rotaryPct: 1,
            rotaryScaling: { ropeType: 'default' },
          },
    };
  },
  build: (config, context) =>
    buildGemma2(config, context, (layer) => ({
      qkNorm: { kind: 'rms', eps: config.normEpsilon, weightOffset: 1, over: 'head' },
      ...(config.slidingWindows[layer] === null
        ? {}
        : { rope: decoderRope(config, context.maxSeqLen, config.localRope) }),
    })),
  weights: (config: DecoderConfig) => gemma2Weights(config),
};
