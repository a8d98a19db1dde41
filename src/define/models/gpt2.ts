// GPT-2 (Radford et al. 2019): learned positions, layer norms, biases everywhere; its checkpoint holds weights transposed ([in, out]).

import { slice, source, transpose, type WeightExpr } from '../checkpoint/weights.ts';
import type { Activation } from '../graph/ops.ts';
import { Attention } from '../nn/attention.ts';
import { DecoderForCausalLM, DecoderLayer } from '../nn/decoder.ts';
import { LayerNorm } from '../nn/layers.ts';
import { Mlp } from '../nn/mlp.ts';
import { layersOf } from './decoder-config.ts';
import type { ModelConfig, ModelDefinition } from './registry.ts';

interface Gpt2Config extends ModelConfig {
  readonly numAttentionHeads: number;
  readonly intermediateSize: number;
  readonly hiddenAct: Activation;
  readonly normEpsilon: number;
  readonly tieWordEmbeddings: boolean;
  readonly scaleByLayer: boolean;
  readonly scaleAttention: boolean;
}

export const gpt2: ModelDefinition<Gpt2Config> = {
  architectures: ['GPT2LMHeadModel'],
  parseConfig: (fields) => {
    const hiddenSize = fields.size('n_embd');
    fields.require('add_cross_attention', (value) => value === false, 'false: TypeRT runs GPT-2 as a decoder');
    return {
      architecture: 'GPT2LMHeadModel',
      dtype: fields.dtype(),
      vocabSize: fields.size('vocab_size'),
      hiddenSize,
      numHiddenLayers: fields.size('n_layer'),
      numAttentionHeads: fields.size('n_head'),
      intermediateSize: fields.size('n_inner', 4 * hiddenSize),
      hiddenAct: fields.activation('activation_function'),
      normEpsilon: fields.positive('layer_norm_epsilon', 1e-5),
      maxPositionEmbeddings: fields.size(fields.has('n_positions') ? 'n_positions' : 'n_ctx'),
      tieWordEmbeddings: fields.flag('tie_word_embeddings', true),
      scaleByLayer: fields.flag('scale_attn_by_inverse_layer_idx', false),
      scaleAttention: fields.flag('scale_attn_weights', true),
    };
  },
  build: (config) => {
    const { hiddenSize, numAttentionHeads: heads, normEpsilon } = config;
    const headDim = hiddenSize / heads;
    const norm = () => new LayerNorm(hiddenSize, normEpsilon);
    return new DecoderForCausalLM({
      vocabSize: config.vocabSize,
      hiddenSize,
      numPositions: config.maxPositionEmbeddings,
      layers: layersOf(
        config,
        (layer) =>
          new DecoderLayer({
            inputLayernorm: norm(),
            attention: new Attention({
              layer,
              hiddenSize,
              numHeads: heads,
              numKvHeads: heads,
              headDim,
              qkvBias: true,
              denseBias: true,
              scale: (config.scaleAttention ? 1 / Math.sqrt(headDim) : 1) / (config.scaleByLayer ? layer + 1 : 1),
            }),
            postLayernorm: norm(),
            mlp: new Mlp(hiddenSize, config.intermediateSize, config.hiddenAct, { bias: true }),
          }),
      ),
      lnF: norm(),
    });
  },
  weights: ({ hiddenSize, tieWordEmbeddings }) => {
    const layer = 'transformer.layers.{n}';
    const part: Readonly<Record<string, number>> = { q: 0, k: 1, v: 2 };
    const rows = (of: WeightExpr, which: string) =>
      slice(of, 0, part[which]! * hiddenSize, (part[which]! + 1) * hiddenSize);
    const conv =
      (name: string) =>
      ({ n }: Readonly<Record<string, string>>) =>
        transpose(source(`transformer.h.${n}.${name}.weight`));
    return {
      'transformer.vocab_embedding.weight': 'transformer.wte.weight',
      'transformer.position_embedding.weight': 'transformer.wpe.weight',
      [`${layer}.attention.dense.weight`]: conv('attn.c_proj'),
      [`${layer}.attention.dense.bias`]: 'transformer.h.{n}.attn.c_proj.bias',
      [`${layer}.attention.{h}.weight`]: ({ n, h }) =>
        rows(transpose(source(`transformer.h.${n}.attn.c_attn.weight`)), h!),
      [`${layer}.attention.{h}.bias`]: ({ n, h }) => rows(source(`transformer.h.${n}.attn.c_attn.bias`), h!),
      [`${layer}.mlp.fc.weight`]: conv('mlp.c_fc'),
      [`${layer}.mlp.fc.bias`]: 'transformer.h.{n}.mlp.c_fc.bias',
      [`${layer}.mlp.proj.weight`]: conv('mlp.c_proj'),
      [`${layer}.mlp.proj.bias`]: 'transformer.h.{n}.mlp.c_proj.bias',
      [`${layer}.input_layernorm.{p}`]: 'transformer.h.{n}.ln_1.{p}',
      [`${layer}.post_layernorm.{p}`]: 'transformer.h.{n}.ln_2.{p}',
      'transformer.ln_f.{p}': 'transformer.ln_f.{p}',
      'lm_head.weight': tieWordEmbeddings ? 'transformer.wte.weight' : 'lm_head.weight',
    };
  },
};
