// Mixtral (Jiang et al. 2024): Mistral with a mixture of experts in place of the feed-forward part.
import { concat, source, stack } from '../checkpoint/weights.ts';
import { Moe } from '../nn/mlp.ts';
import { type DecoderConfig, decoderConfig, llamaWeights, preNormDecoder } from './decoder-config.ts';
import type { ModelDefinition } from './registry.ts';

interface MixtralConfig extends DecoderConfig {
  readonly moe: { readonly numExperts: number; readonly topK: number };
}

export const mixtral: ModelDefinition<MixtralConfig> = {
  architectures: ['MixtralForCausalLM'],
  parseConfig: (fields) => ({
    ...decoderConfig(fields, 'MixtralForCausalLM'),
    moe: { numExperts: fields.size('num_local_experts'), topK: fields.size('num_experts_per_tok') },
  }),
  build: (config, context) =>
    preNormDecoder(config, context, {
      mlp: () =>
        new Moe(config.hiddenSize, {
          ...config.moe,
          intermediateSize: config.intermediateSize,
          kind: config.hiddenAct,
          normalize: true,
        }),
    }),
  weights: (config) => {
    const expert = (n: string, e: number, part: string) =>
      source(`model.layers.${n}.block_sparse_moe.experts.${e}.${part}.weight`);
    const all = Array.from({ length: config.moe.numExperts }, (_, e) => e);
    return llamaWeights(config, {
      'transformer.layers.{n}.mlp.router.weight': 'model.layers.{n}.block_sparse_moe.gate.weight',
      'transformer.layers.{n}.mlp.fc.weight': ({ n }) =>
        stack(all.map((e) => concat(0, [expert(n!, e, 'w1'), expert(n!, e, 'w3')]))),
      'transformer.layers.{n}.mlp.proj.weight': ({ n }) => stack(all.map((e) => expert(n!, e, 'w2'))),
    });
  },
};
