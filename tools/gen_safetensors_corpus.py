#!/usr/bin/env python3
"""Seeds for the checkpoint fuzzers: small safetensors files and config.json texts.

Usage: gen_safetensors_corpus.py [CORPUS_DIR]

Writes CORPUS_DIR/safetensors/ and CORPUS_DIR/config/ (default: tests/fuzz/corpus beside
this tool), the same bytes on every run.  Some seeds are whole models of the shape that
tests/fuzz/fuzz_safetensors.c expects; the rest break one rule of the format each.
"""

import json
import struct
import sys
from pathlib import Path

V, T, C, F = 5, 4, 4, 8  # vocabulary, context, width, feed-forward width; 1 layer
ITEM = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "U8": 1, "BOOL": 1, "I8": 1}
ONE = {"F32": b"\0\0\x80\x3f", "F16": b"\0\x3c", "BF16": b"\x80\x3f"}


def count(shape):
    n = 1
    for d in shape:
        n *= d
    return n


def gpt2(prefix="transformer.", head=False, masks=False):
    """Names and shapes of a one-layer model, as Hugging Face has them."""
    block = prefix + "h.0."
    t = [
        (prefix + "wte.weight", [V, C]),
        (prefix + "wpe.weight", [T, C]),
        (block + "ln_1.weight", [C]),
        (block + "ln_1.bias", [C]),
        (block + "attn.c_attn.weight", [C, 3 * C]),
        (block + "attn.c_attn.bias", [3 * C]),
        (block + "attn.c_proj.weight", [C, C]),
        (block + "attn.c_proj.bias", [C]),
        (block + "ln_2.weight", [C]),
        (block + "ln_2.bias", [C]),
        (block + "mlp.c_fc.weight", [C, F]),
        (block + "mlp.c_fc.bias", [F]),
        (block + "mlp.c_proj.weight", [F, C]),
        (block + "mlp.c_proj.bias", [C]),
        (prefix + "ln_f.weight", [C]),
        (prefix + "ln_f.bias", [C]),
    ]
    if head:
        t.append(("lm_head.weight", [V, C]))
    if masks:
        t.append((block + "attn.bias", [1, 1, T, T]))
        t.append((block + "attn.masked_bias", []))
    return t


def pack(header, data=b"", length=None, pad=True):
    """A file from a header (an object or raw bytes) and its data."""
    if not isinstance(header, bytes):
        header = json.dumps(header, separators=(",", ":")).encode()
    if pad:
        header += b" " * (-len(header) % 8)
    n = len(header) if length is None else length
    return struct.pack("<Q", n) + header + data


def model(tensors, dtype, gap=0, shuffle=False, pad=True, odd=None):
    """A file of all these tensors; `odd` gives some names another dtype."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for i, (name, shape) in enumerate(tensors):
        d = (odd or {}).get(name, dtype)
        n = count(shape)
        body = ONE.get(d, b"\x01" * ITEM[d]) * n
        if d in ONE and n > 1:  # not all the same, so that a head differs from wte
            body = body[: -ITEM[d]] + bytes([i % 64]) * ITEM[d]
        header[name] = {
            "dtype": d,
            "shape": shape,
            "data_offsets": [len(data), len(data) + len(body)],
        }
        data += body + b"\0" * gap
    if shuffle:
        header = dict(reversed(list(header.items())))
    return pack(header, data, pad=pad)


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors_seeds():
    whole = model(gpt2(), "F32")
    mask = {"transformer.h.0.attn.bias": "BOOL"}
    seeds = {
        "model_f32": whole,
        "model_f16_bare": model(gpt2(""), "F16"),
        "model_bf16_odd_header": model(gpt2(), "BF16", pad=False),
        "model_head": model(gpt2(head=True), "F16"),
        "model_masks": model(gpt2(masks=True), "F16", odd=mask),
        "model_holes_reversed": model(gpt2(), "F32", gap=3, shuffle=True),
        "model_f64": model(gpt2(), "F64"),
        "model_missing": model(gpt2()[:-1], "F16"),
        "model_shape": model([("wte.weight", [C, V])] + gpt2("")[1:], "F16"),
        "model_cut": whole[:-9],
        "empty": b"",
        "seven_bytes": b"\x02\0\0\0\0\0\0",
        "no_tensors": pack({}),
        "length_huge": pack({}, length=2**64 - 1),
        "length_past_end": pack({}, length=4096),
        "length_zero": pack(b"", b"{}", length=0),
        "not_json": pack(b"{'wte.weight': 1}"),
        "not_object": pack([1, 2, 3]),
        "deep": pack(b"[" * 3000),
        "duplicate": pack(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
            b"\1\2",
        ),
        "overlap": pack({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [3], 3, 6)}, b"x" * 8),
        "backwards": pack({"a": tensor("U8", [4], 4, 0)}, b"x" * 8),
        "out_of_range": pack({"a": tensor("U8", [16], 0, 16)}, b"x" * 8),
        "size_mismatch": pack({"a": tensor("F32", [3], 0, 8)}, b"x" * 8),
        "shape_overflow": pack({"a": tensor("F32", [2**62, 4, 4], 0, 0)}),
        "shape_negative": pack({"a": tensor("F32", [-1, 4], 0, 8)}, b"x" * 8),
        "unknown_dtype": pack({"a": tensor("Q9", [4], 0, 8), "": tensor("F4", [3], 0, 1)}, b"x" * 8),
        "scalars": pack({"s": tensor("F32", [], 0, 4), "e": tensor("F16", [0, 7], 4, 4)}, b"x" * 4),
    }
    return {name + ".safetensors": data for name, data in seeds.items()}


def config_seeds():
    base = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_ctx": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "layer_norm_epsilon": 1e-05,
        "activation_function": "gelu_new",
        "bos_token_id": 50256,
        "eos_token_id": 50256,
    }
    aliases = {
        "architectures": ["GPT2Model"],
        "vocab_size": 5,
        "max_position_embeddings": 4,
        "hidden_size": 4,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    seeds = {
        "gpt2": base,
        "aliases": aliases,
        "untied": {**base, "tie_word_embeddings": False, "n_inner": 3072},
        "inner_null": {**base, "n_inner": None, "bos_token_id": None, "eos_token_id": -1},
        "llama": {**base, "model_type": "llama"},
        "relu": {**base, "activation_function": "relu"},
        "heads": {**base, "n_head": 7},
        "zero": {**base, "n_layer": 0},
        "negative": {**base, "n_embd": -768},
        "huge": {**base, "vocab_size": 2**62},
        "text_size": {**base, "n_ctx": "1024", "n_positions": "1024"},
        "epsilon": {**base, "layer_norm_epsilon": 1e300},
        "flags": {**base, "scale_attn_by_inverse_layer_idx": True},
        "quantized": {**base, "quantization_config": {"bits": 4}},
        "list": [base],
    }
    texts = {name: json.dumps(v, indent=1).encode() for name, v in seeds.items()}
    texts["cut"] = texts["gpt2"][:-20]
    texts["duplicate"] = b'{"model_type":"gpt2","model_type":"llama"}'
    texts["big_number"] = b'{"model_type":"gpt2","vocab_size":1e999}'
    return {name + ".json": data for name, data in texts.items()}


def main():
    here = Path(__file__).resolve().parent
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else here.parent / "tests/fuzz/corpus"
    for folder, seeds in (
        ("safetensors", safetensors_seeds()),
        ("config", config_seeds()),
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (root / folder / name).write_bytes(data)
        print(f"{root / folder}: {len(seeds)} seeds")


if __name__ == "__main__":
    main()
