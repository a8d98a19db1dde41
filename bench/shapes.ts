// Shapes of models that are benched without their files, and checkpoints that have names and shapes alone.
import type { Checkpoint, TensorInfo } from '../src/define/checkpoint/tensors.ts';

export const shapes = {
  'llama-3-8b': {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    vocab_size: 128256,
    hidden_size: 4096,
    intermediate_size: 14336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    head_dim: 128,
    tie_word_embeddings: false,
  },
  'qwen3-0.6b': {
    architectures: ['Qwen3ForCausalLM'],
    model_type: 'qwen3',
    vocab_size: 151936,
    hidden_size: 1024,
    intermediate_size: 3072,
    num_hidden_layers: 28,
    num_attention_heads: 16,
    num_key_value_heads: 8,
    head_dim: 128,
    tie_word_embeddings: true,
  },
} as const;

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
  const config = {
    ...shape,
    max_position_embeddings: 16384,
    rope_theta: 500000,
    rms_norm_eps: 1e-5,
    hidden_act: 'silu',
    attention_bias: false,
    mlp_bias: false,
    torch_dtype: 'bfloat16',
  };
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
