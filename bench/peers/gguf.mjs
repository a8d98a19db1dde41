// Writes a GGUF file of random weights in the shape of a Llama: for speed only, its text means nothing.
import { closeSync, openSync, writeSync } from 'node:fs';

const types = {
  f32: { id: 0, block: 1, bytes: 4 },
  q4_0: { id: 2, block: 32, bytes: 18 },
  q8_0: { id: 8, block: 32, bytes: 34 },
};
const alignment = 32;

/** The shape of Llama 3.2 1B. */
export const llama1b = {
  hidden: 2048,
  layers: 16,
  heads: 32,
  kvHeads: 8,
  headDim: 64,
  inner: 8192,
  vocab: 128256,
  context: 4096,
};

/** Little-endian bytes of metadata. */
class Bytes {
  #parts = [];
  u32(value) {
    const part = Buffer.alloc(4);
    part.writeUInt32LE(value);
    return this.push(part);
  }
  u64(value) {
    const part = Buffer.alloc(8);
    part.writeBigUInt64LE(BigInt(value));
    return this.push(part);
  }
  f32(value) {
    const part = Buffer.alloc(4);
    part.writeFloatLE(value);
    return this.push(part);
  }
  string(text) {
    const part = Buffer.from(text);
    return this.u64(part.length).push(part);
  }
  push(part) {
    this.#parts.push(part);
    return this;
  }
  done() {
    return Buffer.concat(this.#parts);
  }
}

const kinds = { u32: 4, f32: 6, string: 8, array: 9, i32: 5 };

function metadata({ hidden, layers, heads, kvHeads, headDim, inner, vocab, context }) {
  const out = new Bytes();
  const entries = [
    ['general.architecture', 'string', 'llama'],
    ['general.name', 'string', 'random'],
    ['llama.block_count', 'u32', layers],
    ['llama.context_length', 'u32', context],
    ['llama.embedding_length', 'u32', hidden],
    ['llama.feed_forward_length', 'u32', inner],
    ['llama.attention.head_count', 'u32', heads],
    ['llama.attention.head_count_kv', 'u32', kvHeads],
    ['llama.rope.dimension_count', 'u32', headDim],
    ['llama.rope.freq_base', 'f32', 500000],
    ['llama.attention.layer_norm_rms_epsilon', 'f32', 1e-5],
    ['llama.vocab_size', 'u32', vocab],
    ['tokenizer.ggml.model', 'string', 'llama'],
    ['tokenizer.ggml.bos_token_id', 'u32', 1],
    ['tokenizer.ggml.eos_token_id', 'u32', 2],
    ['tokenizer.ggml.unknown_token_id', 'u32', 0],
  ];
  for (const [key, kind, value] of entries) {
    out.string(key).u32(kinds[kind]);
    out[kind](value);
  }
  // Three control tokens, the bytes, then words.
  const token = (i) => {
    if (i < 3) return ['<unk>', '<s>', '</s>'][i];
    return i < 259 ? `<0x${(i - 3).toString(16).toUpperCase().padStart(2, '0')}>` : `▁w${i}`;
  };
  const list = (key, kind, write) => {
    out.string(key).u32(kinds.array).u32(kinds[kind]).u64(vocab);
    for (let i = 0; i < vocab; i++) write(i);
  };
  list('tokenizer.ggml.tokens', 'string', (i) => out.string(token(i)));
  list('tokenizer.ggml.scores', 'f32', (i) => out.f32(-i));
  list('tokenizer.ggml.token_type', 'i32', (i) => out.u32(i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1));
  return { bytes: out.done(), count: entries.length + 3 };
}

function tensors({ hidden, layers, heads, kvHeads, headDim, inner, vocab }, type) {
  // Dims as GGUF lists them: the one whose elements stand side by side first.
  const list = [
    { name: 'token_embd.weight', type, dims: [hidden, vocab] },
    { name: 'output_norm.weight', type: 'f32', dims: [hidden] },
  ];
  for (let i = 0; i < layers; i++) {
    const add = (name, dims) =>
      list.push({ name: `blk.${i}.${name}.weight`, type: dims.length === 1 ? 'f32' : type, dims });
    add('attn_norm', [hidden]);
    add('attn_q', [hidden, heads * headDim]);
    add('attn_k', [hidden, kvHeads * headDim]);
    add('attn_v', [hidden, kvHeads * headDim]);
    add('attn_output', [heads * headDim, hidden]);
    add('ffn_norm', [hidden]);
    add('ffn_gate', [hidden, inner]);
    add('ffn_up', [hidden, inner]);
    add('ffn_down', [inner, hidden]);
  }
  return list;
}

/** Random bytes of a tensor: norms are 1, blocks have a scale that keeps weights near 0.02. */
function fill(type, bytes) {
  if (type === 'f32') {
    for (let i = 0; i < bytes.length; i += 4) bytes.writeFloatLE(1, i);
    return;
  }
  let state = 0x12345;
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  // As halves: 2.7e-4 and 4.3e-3.
  const scale = type === 'q8_0' ? 0x0c6c : 0x1c67;
  for (let i = 0; i < bytes.length; i += types[type].bytes) bytes.writeUInt16LE(scale, i);
}

/** Writes `path`; `type` is the format of all matrices. */
export function writeRandomGguf(path, shape, type) {
  const list = tensors(shape, type);
  const { bytes, count } = metadata(shape);
  const header = new Bytes().push(Buffer.from('GGUF')).u32(3).u64(list.length).u64(count).push(bytes);
  let offset = 0;
  const sizes = list.map((tensor) => {
    const { id, block, bytes: unit } = types[tensor.type];
    const size = (tensor.dims.reduce((a, b) => a * b, 1) / block) * unit;
    header.string(tensor.name).u32(tensor.dims.length);
    for (const dim of tensor.dims) header.u64(dim);
    header.u32(id).u64(offset);
    offset += Math.ceil(size / alignment) * alignment;
    return size;
  });
  const file = openSync(path, 'w');
  const pad = (length) => Buffer.alloc((alignment - (length % alignment)) % alignment);
  const head = header.done();
  writeSync(file, head);
  writeSync(file, pad(head.length));
  const data = new Map();
  list.forEach(({ type: each }, i) => {
    const key = `${each} ${sizes[i]}`;
    if (!data.has(key)) {
      data.set(key, Buffer.alloc(sizes[i]));
      fill(each, data.get(key));
    }
    writeSync(file, data.get(key));
    writeSync(file, pad(sizes[i]));
  });
  closeSync(file);
}
