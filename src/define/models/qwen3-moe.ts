// Qwen3's mixtures of experts: Qwen3's attention, experts in the layers that `decoder_sparse_step` and `mlp_only_layers` leave to them.
import { concat, source, stack } from '../checkpoint/weights.ts';
import { Moe } from '../nn/mlp.ts';
import {
  type DecoderConfig,
  decoderConfig,
  gatedMlp,
  layersOf,
  llamaWeights,
  preNormDecoder,
} from './decoder-config.ts';
import { qwenWindows } from './qwen2.ts';
import { qwen3Attention } from './qwen3.ts';
import type { ModelDefinition } from './registry.ts';

interface Qwen3MoeConfig extends DecoderConfig {
  readonly moe: {
    readonly numExperts: number;
    readonly topK: number;
    readonly intermediateSize: number;
    readonly normalize: boolean;
  };
  /** Layers with a plain feed-forward part. */
  readonly denseLayers: readonly number[];
}

export const qwen3Moe: ModelDefinition<Qwen3MoeConfig> = {
  architectures: ['Qwen3MoeForCausalLM'],
  parseConfig: (fields) => {
    const config = qwenWindows(
      fields,
      decoderConfig(fields, 'Qwen3MoeForCausalLM', { usesWindow: fields.flag('use_sliding_window', false) }),
    );
    const step = fields.size('decoder_sparse_step', 1);
    const listed = fields.has('mlp_only_layers') ? fields.numbers('mlp_only_layers') : [];
    return {
      ...config,
      moe: {
        numExperts: fields.size(fields.has('num_experts') ? 'num_experts' : 'num_local_experts'),
        topK: fields.size('num_experts_per_tok'),
        intermediateSize: fields.size('moe_intermediate_size'),
        normalize: fields.flag('norm_topk_prob', false),
      },
      denseLayers: layersOf(config, (layer) => layer).filter(
        (layer) => listed.includes(layer) || (layer + 1) % step !== 0,
      ),
    };
  },
  build: (config, context) =>
    preNormDecoder(config, context, {
      attention: (layer) => qwen3Attention(config, layer, context),
      mlp: (layer) =>
        config.denseLayers.includes(layer)
          ? gatedMlp(config)
          : new Moe(config.hiddenSize, { ...config.moe, kind: config.hiddenAct }),
    }),
  weights: (config) => {
    const expert = (n: string, e: number, part: string) =>
      source(`model.layers.${n}.mlp.experts.${e}.${part}_proj.weight`);
    const all = Array.from({ length: config.moe.numExperts }, (_, e) => e);
    return llamaWeights(config, {
      'transformer.layers.{n}.mlp.router.weight': 'model.layers.{n}.mlp.gate.weight',
      'transformer.layers.{n}.mlp.fc.weight': ({ n }) =>
        stack(all.map((e) => concat(0, [expert(n!, e, 'gate'), expert(n!, e, 'up')]))),
      'transformer.layers.{n}.mlp.proj.weight': ({ n }) => stack(all.map((e) => expert(n!, e, 'down'))),
    });
  },
};
