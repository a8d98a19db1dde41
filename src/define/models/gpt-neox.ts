// GPT-NeoX and Pythia (Black et al. 2022): parallel residual, a quarter of each head rotates, q, k and v interleaved by head in the checkpoint.
import { reshape, slice, source, type WeightExpr } from '../checkpoint/weights.ts';
import { LayerNorm } from '../nn/layers.ts';
import { Mlp } from '../nn/mlp.ts';
import { type DecoderConfig, decoderConfig, preNormDecoder } from './decoder-config.ts';
import type { ModelDefinition } from './registry.ts';

interface GptNeoXConfig extends DecoderConfig {
  readonly parallelResidual: boolean;
}

export const gptNeoX: ModelDefinition<GptNeoXConfig> = {
  architectures: ['GPTNeoXForCausalLM'],
  parseConfig: (fields) => ({
    ...decoderConfig(fields, 'GPTNeoXForCausalLM', { normEpsilon: 'layer_norm_eps', attnBias: true }),
    // Before transformers 5 the default share was a quarter; a config that names neither means that.
    ...(fields.has('rope_parameters') || fields.has('rotary_pct') || fields.has('partial_rotary_factor')
      ? {}
      : { rotaryPct: 0.25 }),
    mlpBias: true,
    parallelResidual: fields.flag('use_parallel_residual', true),
  }),
  build: (config, context) =>
    preNormDecoder(config, context, {
      norm: () => new LayerNorm(config.hiddenSize, config.normEpsilon),
      mlp: () => new Mlp(config.hiddenSize, config.intermediateSize, config.hiddenAct, { bias: true }),
      layer: { parallel: config.parallelResidual },
    }),
  weights: ({ numAttentionHeads: heads, headSize, hiddenSize, tieWordEmbeddings }) => {
    const layer = 'transformer.layers.{n}';
    const from = 'gpt_neox.layers.{n}';
    const part: Readonly<Record<string, number>> = { q: 0, k: 1, v: 2 };
    // [heads, 3, headSize, …] → the q, k or v of every head.
    const pick = (of: WeightExpr, which: string, rest: readonly number[]) =>
      reshape(slice(reshape(of, [heads, 3, headSize * (rest[0] ?? 1)]), 1, part[which]!, part[which]! + 1), [
        heads * headSize,
        ...rest,
      ]);
    return {
      'transformer.vocab_embedding.weight': 'gpt_neox.embed_in.weight',
      [`${layer}.attention.dense.{p}`]: `${from}.attention.dense.{p}`,
      [`${layer}.attention.{h}.weight`]: ({ n, h }) =>
        pick(source(`gpt_neox.layers.${n}.attention.query_key_value.weight`), h!, [hiddenSize]),
      [`${layer}.attention.{h}.bias`]: ({ n, h }) =>
        pick(source(`gpt_neox.layers.${n}.attention.query_key_value.bias`), h!, []),
      [`${layer}.mlp.fc.{p}`]: `${from}.mlp.dense_h_to_4h.{p}`,
      [`${layer}.mlp.proj.{p}`]: `${from}.mlp.dense_4h_to_h.{p}`,
      [`${layer}.input_layernorm.{p}`]: `${from}.input_layernorm.{p}`,
      [`${layer}.post_layernorm.{p}`]: `${from}.post_attention_layernorm.{p}`,
      'transformer.ln_f.{p}': 'gpt_neox.final_layer_norm.{p}',
      'lm_head.weight': tieWordEmbeddings ? 'gpt_neox.embed_in.weight' : 'embed_out.weight',
    };
  },
};
