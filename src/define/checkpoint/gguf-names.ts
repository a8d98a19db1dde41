// GGUF tensors under Hugging Face's names, with what llama.cpp's converter does to contents undone (facts: gguf-py's tensor_mapping.py and
// convert_hf_to_gguf.py). Nothing is converted until it is read, and block formats stay packed wherever rows stay whole.
import { byteLength, type DType, dtypes, isBlockDType } from '../../base/dtype.ts';
import { CheckpointError } from '../../base/errors.ts';
import { toFloat32 } from './cast.ts';
import type { GgufSource } from './gguf.ts';
import { checkRange, missing } from './safetensors.ts';
import type { TensorInfo, TensorSource } from './tensors.ts';

/** The sizes that transforms depend on. */
export interface HeadCounts {
  readonly heads: number;
  readonly kvHeads: number;
}

/** What an architecture does besides renaming. */
interface Naming {
  /** Names outside the blocks, without `.weight` or `.bias`. */
  readonly outer: Readonly<Record<string, string>>;
  /** Prefix of a block's names, before its number. */
  readonly block: string;
  readonly inner: Readonly<Record<string, string>>;
  /** llama's pairwise rotary order: rows of q and k were interleaved. */
  readonly permuted?: boolean;
  /** Norm weights are stored plus one (Gemma). */
  readonly shiftedNorms?: boolean;
  /** Linear weights are [in, out] in Hugging Face's checkpoint (GPT-2's Conv1D): these GGUF names. */
  readonly transposed?: readonly string[];
  /** attn_qkv was reordered from [head, part] to [part, head] (GPT-NeoX). */
  readonly reorderedQkv?: boolean;
  /** Experts' names: GGUF name → name after the expert's number; and what stands before it. */
  readonly experts?: { readonly prefix: string; readonly parts: Readonly<Record<string, string>> };
}

const decoder = { token_embd: 'model.embed_tokens', output_norm: 'model.norm', output: 'lm_head' };
const attention = {
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  attn_q_norm: 'self_attn.q_norm',
  attn_k_norm: 'self_attn.k_norm',
  attn_qkv: 'self_attn.qkv_proj',
};
const preNorms = { attn_norm: 'input_layernorm', ffn_norm: 'post_attention_layernorm' };
const gatedMlp = { ffn_gate: 'mlp.gate_proj', ffn_up: 'mlp.up_proj', ffn_down: 'mlp.down_proj' };
const postNorms = { post_attention_norm: 'post_attention_layernorm', post_ffw_norm: 'post_feedforward_layernorm' };

const plain: Naming = { outer: decoder, block: 'model.layers.', inner: { ...attention, ...preNorms, ...gatedMlp } };
const llama: Naming = { ...plain, permuted: true };
const gemma: Naming = { ...plain, shiftedNorms: true };
const gemma2: Naming = {
  ...gemma,
  inner: {
    ...attention,
    ...gatedMlp,
    ...postNorms,
    attn_norm: 'input_layernorm',
    ffn_norm: 'pre_feedforward_layernorm',
  },
};

/** By `model_type`, as `ggufConfig` derives it. */
const namings: Readonly<Record<string, Naming>> = {
  llama,
  mistral: llama,
  granite: llama,
  smollm3: llama,
  mixtral: {
    ...llama,
    inner: { ...attention, ...preNorms, ffn_gate_inp: 'block_sparse_moe.gate' },
    experts: { prefix: 'block_sparse_moe.experts.', parts: { ffn_gate: 'w1', ffn_down: 'w2', ffn_up: 'w3' } },
  },
  qwen2: plain,
  qwen3: plain,
  qwen3_moe: {
    ...plain,
    inner: { ...attention, ...preNorms, ...gatedMlp, ffn_gate_inp: 'mlp.gate' },
    experts: { prefix: 'mlp.experts.', parts: { ffn_gate: 'gate_proj', ffn_down: 'down_proj', ffn_up: 'up_proj' } },
  },
  gemma,
  gemma2,
  gemma3_text: gemma2,
  phi3: { ...plain, inner: { ...attention, ...preNorms, ffn_up: 'mlp.gate_up_proj', ffn_down: 'mlp.down_proj' } },
  starcoder2: { ...plain, inner: { ...attention, ...preNorms, ffn_up: 'mlp.c_fc', ffn_down: 'mlp.c_proj' } },
  olmo2: { ...plain, inner: { ...attention, ...gatedMlp, ...postNorms } },
  gpt2: {
    outer: {
      token_embd: 'transformer.wte',
      position_embd: 'transformer.wpe',
      output_norm: 'transformer.ln_f',
      output: 'lm_head',
    },
    block: 'transformer.h.',
    inner: {
      attn_norm: 'ln_1',
      attn_qkv: 'attn.c_attn',
      attn_output: 'attn.c_proj',
      ffn_norm: 'ln_2',
      ffn_up: 'mlp.c_fc',
      ffn_down: 'mlp.c_proj',
    },
    transposed: ['attn_qkv', 'attn_output', 'ffn_up', 'ffn_down'],
  },
  gpt_neox: {
    outer: { token_embd: 'gpt_neox.embed_in', output_norm: 'gpt_neox.final_layer_norm', output: 'embed_out' },
    block: 'gpt_neox.layers.',
    inner: {
      attn_norm: 'input_layernorm',
      attn_qkv: 'attention.query_key_value',
      attn_output: 'attention.dense',
      ffn_norm: 'post_attention_layernorm',
      ffn_up: 'mlp.dense_h_to_4h',
      ffn_down: 'mlp.dense_4h_to_h',
    },
    reorderedQkv: true,
  },
};

/** How a tensor is made from the one that is stored. */
type Transform =
  /** Bytes [`at`, `at + bytes`) as they are. */
  | { readonly kind: 'part'; readonly at: number }
  /** Row r is row `from(r)` of the stored one. */
  | { readonly kind: 'rows'; readonly from: (row: number) => number }
  | { readonly kind: 'transpose' }
  | { readonly kind: 'minus one' };

interface Entry extends TensorInfo {
  readonly stored: TensorInfo;
  readonly transform: Transform;
}

const whole: Transform = { kind: 'part', at: 0 };

/** Row of the interleaved matrix that holds row `row` of the half-split one, for heads of `dim` rows. */
export function interleavedRow(row: number, dim: number): number {
  const inHead = row % dim;
  const half = dim / 2;
  return row - inHead + 2 * (inHead % half) + Math.floor(inHead / half);
}

/** Row of [part, head, dim] that holds row `row` of [head, part, dim], for three parts. */
function partMajorRow(row: number, heads: number, dim: number): number {
  const inner = row % dim;
  const part = Math.floor(row / dim) % 3;
  const head = Math.floor(row / (3 * dim));
  return (part * heads + head) * dim + inner;
}

function shapeError(label: string, stored: TensorInfo, expected: string): CheckpointError {
  return new CheckpointError('wrong shape', {
    where: `${label}: tensor ${stored.name}`,
    expected,
    got: `[${stored.shape}]`,
    remedy: 'The metadata and the tensors of this file do not belong together: fetch it again',
  });
}

/** A block of q or k, or a fused qkv, whose rows were reordered. */
function rowsOf(
  label: string,
  stored: TensorInfo,
  naming: Naming,
  base: string,
  { heads, kvHeads }: HeadCounts,
): Transform {
  const rows = stored.shape[0] ?? 0;
  if (naming.permuted && (base === 'attn_q' || base === 'attn_k')) {
    const count = base === 'attn_q' ? heads : kvHeads;
    const dim = rows / count;
    if (!Number.isInteger(dim) || dim % 2 !== 0)
      throw shapeError(label, stored, `rows for ${count} heads of an even size`);
    return { kind: 'rows', from: (row) => interleavedRow(row, dim) };
  }
  if (naming.reorderedQkv && base === 'attn_qkv') {
    const dim = rows / (3 * heads);
    if (!Number.isInteger(dim)) throw shapeError(label, stored, `rows for 3 × ${heads} heads`);
    return { kind: 'rows', from: (row) => partMajorRow(row, heads, dim) };
  }
  return whole;
}

function* expertsOf(label: string, stored: TensorInfo, prefix: string, part: string): Generator<Entry> {
  const [experts, ...shape] = stored.shape;
  if (experts === undefined || shape.length !== 2) throw shapeError(label, stored, '[experts, rows, columns]');
  const bytes = stored.bytes / experts;
  for (let expert = 0; expert < experts; expert++) {
    const name = `${prefix}${expert}.${part}.weight`;
    yield { name, dtype: stored.dtype, shape, bytes, stored, transform: { kind: 'part', at: expert * bytes } };
  }
}

/** A tensor inside block `block`; nothing when the architecture has no such name. */
function* blockEntries(label: string, stored: TensorInfo, naming: Naming, counts: HeadCounts): Generator<Entry> {
  const match = /^blk\.(\d+)\.([a-z_]+?)(_exps|\.(\d+))?\.(weight|bias)$/.exec(stored.name);
  if (match === null) return;
  const [, block, base, merged, single, suffix] = match as unknown as [
    string,
    string,
    string,
    string?,
    string?,
    string?,
  ];
  const prefix = `${naming.block}${block}.`;
  const { dtype, shape, bytes } = stored;
  if (merged !== undefined) {
    const part = naming.experts?.parts[base];
    if (part === undefined) return;
    const before = `${prefix}${naming.experts!.prefix}`;
    if (single === undefined) yield* expertsOf(label, stored, before, part);
    else yield { name: `${before}${single}.${part}.${suffix}`, dtype, shape, bytes, stored, transform: whole };
    return;
  }
  const inner = naming.inner[base];
  if (inner === undefined) return;
  const name = `${prefix}${inner}.${suffix}`;
  if (suffix === 'weight' && naming.transposed?.includes(base)) yield transposedEntry(label, name, stored);
  else if (suffix === 'weight' && naming.shiftedNorms && base.endsWith('norm')) yield shiftedEntry(name, stored);
  else yield { name, dtype, shape, bytes, stored, transform: rowsOf(label, stored, naming, base, counts) };
}

function transposedEntry(label: string, name: string, stored: TensorInfo): Entry {
  const [rows, columns] = stored.shape;
  if (rows === undefined || columns === undefined || stored.shape.length !== 2)
    throw shapeError(label, stored, 'a matrix');
  // Blocks lie along the axis that is turned: they have to be unpacked.
  const dtype: DType = isBlockDType(stored.dtype) ? 'float32' : stored.dtype;
  return {
    name,
    dtype,
    shape: [columns, rows],
    bytes: byteLength(dtype, rows * columns),
    stored,
    transform: { kind: 'transpose' },
  };
}

function shiftedEntry(name: string, stored: TensorInfo): Entry {
  const count = stored.shape.reduce((product, n) => product * n, 1);
  return {
    name,
    dtype: 'float32',
    shape: stored.shape,
    bytes: byteLength('float32', count),
    stored,
    transform: { kind: 'minus one' },
  };
}

function* outerEntries(stored: TensorInfo, naming: Naming): Generator<Entry> {
  const match = /^([a-z_]+)\.(weight|bias)$/.exec(stored.name);
  const outer = match === null ? undefined : naming.outer[match[1]!];
  if (match === null || outer === undefined) return;
  const name = `${outer}.${match[2]}`;
  const { dtype, shape, bytes } = stored;
  if (naming.shiftedNorms && match[1] === 'output_norm') yield shiftedEntry(name, stored);
  else yield { name, dtype, shape, bytes, stored, transform: whole };
}

/** Rotary factors are carried in the config; the converter's row for older llama.cpp holds nothing. */
const inConfig = /^(rope_freqs|rope_factors_(long|short))\.weight$|\.attn_rot_embd\.weight$|\.rope_freqs\.weight$/;

/**
 * The file's tensors under the names and in the layout of Hugging Face's checkpoint of `modelType`. Tensors that TypeRT does not know are an
 * error: they would change the model's answers silently. Throws CheckpointError.
 */
export function huggingFaceTensors(gguf: GgufSource, modelType: string, counts: HeadCounts): TensorSource {
  const naming = namings[modelType]!;
  const tensors = new Map<string, Entry>();
  for (const stored of gguf.tensors.values()) {
    if (inConfig.test(stored.name)) continue;
    let known = false;
    const entries = stored.name.startsWith('blk.')
      ? blockEntries(gguf.label, stored, naming, counts)
      : outerEntries(stored, naming);
    for (const entry of entries) {
      known = true;
      tensors.set(entry.name, entry);
    }
    if (!known) {
      throw new CheckpointError('unknown tensor', {
        where: gguf.label,
        expected: `tensors of ${modelType}`,
        got: `${stored.name} [${stored.shape}]`,
        remedy:
          'This file is of a newer kind or another architecture than its metadata says: use the safetensors checkpoint of the model',
      });
    }
  }
  return {
    label: gguf.label,
    tensors,
    read: (name, offset = 0, length) => {
      const entry = tensors.get(name);
      if (entry === undefined) throw missing(gguf.label, name, tensors.size);
      const size = length ?? entry.bytes - offset;
      checkRange(gguf.label, entry, offset, size);
      return readEntry(gguf, entry, offset, size);
    },
    [Symbol.dispose]: () => gguf[Symbol.dispose](),
  };
}

function readEntry(gguf: GgufSource, entry: Entry, offset: number, length: number): Uint8Array {
  const { stored, transform } = entry;
  switch (transform.kind) {
    case 'part':
      return gguf.read(stored.name, transform.at + offset, length);
    case 'rows':
      return readRows(gguf, entry, transform.from, offset, length);
    case 'transpose':
      return section(transpose(gguf, entry), offset, length);
    case 'minus one': {
      const values = toFloat32({ dtype: stored.dtype, shape: stored.shape, data: gguf.read(stored.name) });
      for (let i = 0; i < values.length; i++) values[i] = values[i]! - 1;
      return section(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), offset, length);
    }
    default:
      return transform satisfies never;
  }
}

/** Bytes of `all` in a buffer of their own, so that what is not asked for can be freed. */
function section(all: Uint8Array, offset: number, length: number): Uint8Array {
  return offset === 0 && length === all.length ? all : all.slice(offset, offset + length);
}

/** Rows that a byte range touches, each from its stored place; the stored rows between the lowest and the highest are read at once. */
function readRows(
  gguf: GgufSource,
  entry: Entry,
  from: (row: number) => number,
  offset: number,
  length: number,
): Uint8Array {
  const rowBytes = entry.bytes / entry.shape[0]!;
  const first = Math.floor(offset / rowBytes);
  const sources: number[] = [];
  for (let row = first; row * rowBytes < offset + length; row++) sources.push(from(row));
  if (sources.length === 0) return new Uint8Array(0);
  const low = sources.reduce((a, b) => Math.min(a, b));
  const high = sources.reduce((a, b) => Math.max(a, b));
  const block = gguf.read(entry.stored.name, low * rowBytes, (high - low + 1) * rowBytes);
  const rows = new Uint8Array(sources.length * rowBytes);
  sources.forEach((row, i) => {
    rows.set(block.subarray((row - low) * rowBytes, (row - low + 1) * rowBytes), i * rowBytes);
  });
  return section(rows, offset - first * rowBytes, length);
}

function transpose(gguf: GgufSource, entry: Entry): Uint8Array {
  const { stored } = entry;
  const [columns, rows] = entry.shape as [number, number];
  let data = gguf.read(stored.name);
  if (isBlockDType(stored.dtype)) {
    const values = toFloat32({ dtype: stored.dtype, shape: stored.shape, data });
    data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  }
  const size = dtypes[entry.dtype].blockBytes;
  const out = new Uint8Array(data.length);
  const View = size === 1 ? Uint8Array : size === 2 ? Uint16Array : size === 4 ? Uint32Array : BigUint64Array;
  const source = new View(data.buffer as ArrayBuffer, data.byteOffset, rows * columns);
  const target = new View(out.buffer, 0, rows * columns);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) target[column * rows + row] = source[row * columns + column]!;
  return out;
}
