#!/usr/bin/env python3
"""Makes the GGUF fixtures of test/goldens/gguf with the Python package `gguf` (an implementation independent of ours).

usage: make-gguf-fixtures.py GOLDENS OUT [--blocks] [CASE ...]
needs: pip install gguf numpy safetensors

GOLDENS holds one Hugging Face folder a case. Each named case is written as OUT/CASE.gguf, changed as llama.cpp's convert_hf_to_gguf.py changes
it: rows of q and k interleaved for the llama family, Gemma's norms plus one, GPT-2's matrices transposed, GPT-NeoX's qkv by parts, experts
stacked. Weights are BF16 (exact: the cases hold bf16 values), vectors F32. `CASE:Q8_0` quantises the matrices.
--blocks writes OUT/blocks.bin and blocks.json: random blocks of every format with what `gguf.quants.dequantize` makes of them.
"""

import json
import math
import struct
import sys
from pathlib import Path

import gguf
import numpy as np

ARCH = {
    "llama": "llama", "mistral": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3_moe": "qwen3moe",
    "gemma": "gemma", "gemma2": "gemma2", "gemma3_text": "gemma3", "phi3": "phi3", "gpt2": "gpt2", "gpt_neox": "gptneox",
    "starcoder2": "starcoder2", "olmo2": "olmo2", "granite": "granite", "smollm3": "smollm3",
}
PERMUTED = {"llama", "mistral", "mixtral", "granite", "smollm3"}


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    out = {}
    for name, info in header.items():
        begin, end = info["data_offsets"]
        raw = np.frombuffer(data[8 + length + begin : 8 + length + end], np.uint8)
        if info["dtype"] == "BF16":
            array = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            array = raw.view({"F32": np.float32, "F16": np.float16}[info["dtype"]]).astype(np.float32)
        out[name] = array.reshape(info["shape"])
    return out


def interleave(array, heads):
    """Half-split rows of each head to pairs."""
    return array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def stack_experts(tensors, count):
    parts = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    groups = {}
    for name in [n for n in tensors if ".experts." in n]:
        before, after = name.split(".experts.")
        number, part, _ = after.split(".")
        groups.setdefault((before, part), {})[int(number)] = tensors.pop(name)
    for (before, part), members in groups.items():
        layer = before.split(".layers.")[1].split(".")[0]
        merged = f"model.layers.{layer}.mlp.experts.{parts.get(part, part)}.weight"
        tensors[merged] = np.stack([members[i] for i in range(count)])


def convert_tensors(config, tensors):
    kind = config["model_type"]
    heads = config.get("num_attention_heads") or config["n_head"]
    kv_heads = config.get("num_key_value_heads") or heads
    if kind in ("mixtral", "qwen3_moe"):
        stack_experts(tensors, config["num_local_experts"])
    for name, array in list(tensors.items()):
        if kind in PERMUTED and ".q_proj." in name:
            array = interleave(array, heads)
        if kind in PERMUTED and ".k_proj." in name:
            array = interleave(array, kv_heads)
        if kind.startswith("gemma") and name.endswith("norm.weight"):
            array = array + np.float32(1)
        if kind == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            array = array.T
        if kind == "gpt_neox" and "query_key_value" in name:
            split = array.reshape(heads, 3, array.shape[0] // heads // 3, *array.shape[1:])
            array = np.concatenate([split[:, i].reshape(-1, *array.shape[1:]) for i in range(3)])
        tensors[name] = np.ascontiguousarray(array)


def llama3_factors(rope, dim):
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    context = rope["original_max_position_embeddings"]
    out = []
    for i in range(0, dim, 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (i / dim)
        if wave < context / high:
            out.append(1.0)
        elif wave > context / low:
            out.append(factor)
        else:
            smooth = (context / wave - low) / (high - low)
            out.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(out, np.float32)


def write_rope(writer, config, head_dim):
    rope = config.get("rope_parameters")
    if rope is None:
        return
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1)))
    kind = rope["rope_type"]
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if kind == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, head_dim))
    if kind == "longrope":
        original = rope["original_max_position_embeddings"]
        scale = config["max_position_embeddings"] / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0)
        writer.add_tensor("rope_factors_long.weight", np.array(rope["long_factor"], np.float32))
        writer.add_tensor("rope_factors_short.weight", np.array(rope["short_factor"], np.float32))


def write_config(writer, config):
    get = lambda *names: next((config[n] for n in names if config.get(n) is not None), None)
    hidden, heads = get("hidden_size", "n_embd"), get("num_attention_heads", "n_head")
    kind = config["model_type"]
    writer.add_block_count(get("num_hidden_layers", "n_layer"))
    writer.add_context_length(get("max_position_embeddings", "n_positions"))
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(get("intermediate_size") or 4 * hidden)
    writer.add_head_count(heads)
    if get("num_key_value_heads"):
        writer.add_head_count_kv(get("num_key_value_heads"))
    if get("rms_norm_eps"):
        writer.add_layer_norm_rms_eps(get("rms_norm_eps"))
    if eps := get("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon"):
        writer.add_layer_norm_eps(eps)
    if get("head_dim"):
        writer.add_key_length(get("head_dim"))
        writer.add_value_length(get("head_dim"))
    if get("sliding_window"):
        writer.add_sliding_window(get("sliding_window"))
    if get("num_local_experts"):
        writer.add_expert_count(get("num_local_experts"))
        writer.add_expert_used_count(get("num_experts_per_tok"))
    if get("moe_intermediate_size"):
        writer.add_expert_feed_forward_length(get("moe_intermediate_size"))
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(get("attn_logit_softcapping"))
        writer.add_final_logit_softcapping(get("final_logit_softcapping"))
    if kind == "granite":
        writer.add_attention_scale(get("attention_multiplier"))
        writer.add_embedding_scale(get("embedding_multiplier"))
        writer.add_residual_scale(get("residual_multiplier"))
        writer.add_logit_scale(get("logits_scaling"))
    if kind == "gpt_neox":
        writer.add_parallel_residual(config["use_parallel_residual"])
    if kind not in ("gemma", "gemma2", "gemma3_text"):
        writer.add_vocab_size(config["vocab_size"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    write_rope(writer, config, get("head_dim") or hidden // heads)


def write_case(folder, out, quant):
    config = json.loads((folder / "config.json").read_text())
    tensors = read_safetensors(folder / "model.safetensors")
    convert_tensors(config, tensors)
    arch = ARCH[config["model_type"]]
    writer = gguf.GGUFWriter(out, arch)
    write_config(writer, config)
    layers = config.get("num_hidden_layers") or config["n_layer"]
    ids = {name: i for i, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(ids[arch], layers)
    for name, array in tensors.items():
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise SystemExit(f"{folder.name}: no GGUF name for {name}")
        kind = gguf.GGMLQuantizationType.F32 if array.ndim == 1 else gguf.GGMLQuantizationType[quant]
        writer.add_tensor(new, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def half(rng, count, scale):
    return (rng.standard_normal(count) * scale).astype(np.float16).view(np.uint8).reshape(count, 2)


def write_blocks(out):
    """Random bits are the hardest input: every scale, sign and nibble occurs. Only the half-precision scales are kept finite."""
    rng = np.random.default_rng(7)
    blob, index = bytearray(), []
    scales = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
    for name, places in scales.items():
        kind = gguf.GGMLQuantizationType[name]
        size, width = gguf.GGML_QUANT_SIZES[kind]
        count = 512 // size * 2
        data = rng.integers(0, 256, (count, width), dtype=np.uint8)
        for place in places:
            data[:, place : place + 2] = half(rng, count, 0.01)
        values = gguf.quants.dequantize(data, kind).astype(np.float32).reshape(-1)
        index.append({"dtype": name.lower(), "count": len(values), "at": len(blob), "bytes": data.size})
        blob += data.tobytes() + values.tobytes()
    (out / "blocks.bin").write_bytes(blob)
    (out / "blocks.json").write_text(json.dumps(index, indent=1) + "\n")


def main():
    goldens, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for case in sys.argv[3:]:
        if case == "--blocks":
            write_blocks(out)
            continue
        name, _, quant = case.partition(":")
        target = out / (f"{name}.{quant.lower()}.gguf" if quant else f"{name}.gguf")
        write_case(goldens / name, target, quant or "BF16")


main()
