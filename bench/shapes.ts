// Shapes of models that are benched without their files, and checkpoints that have names and shapes alone.
import { readFileSync } from 'node:fs';
import type { Checkpoint, TensorInfo } from '../src/define/checkpoint/tensors.ts';

/** By name; benches that run without type stripping read the file themselves. */
export const shapes = JSON.parse(readFileSync(new URL('./shapes.json', import.meta.url), 'utf8')) as Record<
  'llama-3-8b' | 'qwen3-0.6b',
  ModelShape
>;

interface ModelShape {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly tie_word_embeddings: boolean;
  readonly [field: string]: unknown;
}

export type ShapeName = keyof typeof shapes;

/** A checkpoint whose tensors are described and never read. */
export function describedCheckpoint(name: ShapeName): Checkpoint {
  const shape = shapes[name];
  const { hidden_size: h, intermediate_size: inner, head_dim: d, vocab_size: vocab } = shape;
  const tensors = new Map<string, TensorInfo>();
  const add = (key: string, dims: readonly number[]): void => {
    const bytes = dims.reduce((a, b) => a * b, 2);
    tensors.set(key, { name: key, dtype: 'bfloat16', shape: dims, bytes });
  };
  add('model.embed_tokens.weight', [vocab, h]);
  if (!shape.tie_word_embeddings) add('lm_head.weight', [vocab, h]);
  add('model.norm.weight', [h]);
  for (let i = 0; i < shape.num_hidden_layers; i++) {
    const at = `model.layers.${i}`;
    add(`${at}.input_layernorm.weight`, [h]);
    add(`${at}.post_attention_layernorm.weight`, [h]);
    add(`${at}.self_attn.q_proj.weight`, [shape.num_attention_heads * d, h]);
    add(`${at}.self_attn.k_proj.weight`, [shape.num_key_value_heads * d, h]);
    add(`${at}.self_attn.v_proj.weight`, [shape.num_key_value_heads * d, h]);
    add(`${at}.self_attn.o_proj.weight`, [h, shape.num_attention_heads * d]);
    if (name.startsWith('qwen3')) {
      add(`${at}.self_attn.q_norm.weight`, [d]);
      add(`${at}.self_attn.k_norm.weight`, [d]);
    }
    add(`${at}.mlp.gate_proj.weight`, [inner, h]);
    add(`${at}.mlp.up_proj.weight`, [inner, h]);
    add(`${at}.mlp.down_proj.weight`, [h, inner]);
  }
  const config = shape;
  const read = (): Uint8Array => new Uint8Array();
  return {
    format: 'huggingface',
    path: name,
    config,
    tensors: { label: name, tensors, read, [Symbol.dispose]: () => {} },
    assets: new Map(),
    contentHash: async () => name,
    [Symbol.dispose]: () => {},
  };
}
