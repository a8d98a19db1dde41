// Phi-3 and Phi-4 (Abdin et al. 2024): Llama whose checkpoint holds q, k, v and gate, up merged; LongRoPE in the long-context versions.
import { slice, source } from '../checkpoint/weights.ts';
import { type DecoderConfig, decoderConfig, llamaWeights, preNormDecoder } from './decoder-config.ts';
import type { ModelDefinition } from './registry.ts';

export const phi3: ModelDefinition<DecoderConfig> = {
  architectures: ['Phi3ForCausalLM'],
  parseConfig: (fields) => decoderConfig(fields, 'Phi3ForCausalLM'),
  build: (config, context) => preNormDecoder(config, context),
  weights: (config) => {
    const { numAttentionHeads, numKeyValueHeads, headSize, intermediateSize } = config;
    const q = numAttentionHeads * headSize;
    const kv = numKeyValueHeads * headSize;
    const rows = (tensor: string, start: number, size: number) => slice(source(tensor), 0, start, start + size);
    const qkv = (n: string) => `model.layers.${n}.self_attn.qkv_proj.weight`;
    const gateUp = (n: string) => `model.layers.${n}.mlp.gate_up_proj.weight`;
    return llamaWeights(config, {
      'transformer.layers.{n}.attention.q.weight': ({ n }) => rows(qkv(n!), 0, q),
      'transformer.layers.{n}.attention.k.weight': ({ n }) => rows(qkv(n!), q, kv),
      'transformer.layers.{n}.attention.v.weight': ({ n }) => rows(qkv(n!), q + kv, kv),
      'transformer.layers.{n}.mlp.fc.weight': ({ n }) => rows(gateUp(n!), 0, intermediateSize),
      'transformer.layers.{n}.mlp.gate.weight': ({ n }) => rows(gateUp(n!), intermediateSize, intermediateSize),
    });
  },
};
