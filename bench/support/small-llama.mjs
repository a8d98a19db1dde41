// A Llama of 30 million random weights with 2,048 positions: for benches of what does not depend on the words.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const vocabSize = 8000;

/** Writes its config.json; load it with `loadFormat: 'dummy'`. */
export function writeSmallLlama(folder) {
  writeFileSync(
    join(folder, 'config.json'),
    JSON.stringify({
      ...{ architectures: ['LlamaForCausalLM'], model_type: 'llama', hidden_act: 'silu', dtype: 'float32' },
      ...{ hidden_size: 512, intermediate_size: 1408, num_hidden_layers: 8, num_attention_heads: 8 },
      ...{ num_key_value_heads: 4, vocab_size: vocabSize, max_position_embeddings: 2048, rms_norm_eps: 1e-5 },
      ...{ tie_word_embeddings: true, rope_theta: 10000, eos_token_id: 2, bos_token_id: 1 },
    }),
  );
}
