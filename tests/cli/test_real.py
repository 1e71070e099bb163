#!/usr/bin/env python3
"""Rounding three real matrices of GPT-2 124M (heavy tails), which random weights do not show:
errors and outliers of the report against figures of our own.  Prints TAP."""
import json
import math
import os
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import Skip, case, main, note, path, runt, test

DATA = os.environ.get("RUNT_TEST_DATA")
TYPES = ("q8_0", "q5_1", "q5_0", "q4_1", "iq4_nl", "q4_0", "r4")
LAYERS = (0, 5, 11)


def tensors(raw):
    """{name: (dtype, shape, offset of its bytes, length)} of a safetensors file."""
    n = struct.unpack("<Q", raw[:8])[0]
    return {k: (v["dtype"], v["shape"], 8 + n + v["data_offsets"][0],
                v["data_offsets"][1] - v["data_offsets"][0])
            for k, v in json.loads(raw[8:8 + n]).items() if k != "__metadata__"}


def rows(numbers):
    """Of a Conv1D weight [in][out]: rows of the outputs."""
    return [numbers[r::768] for r in range(768)]


def rms(w):
    return math.sqrt(sum(x * x for x in w) / len(w))


def half(x):
    return struct.unpack("<e", struct.pack("<e", x))[0]


def q4_0(w):
    """ggml's rounding: the largest magnitude becomes -8."""
    out = []
    for b in range(0, len(w), 32):
        block = w[b:b + 32]
        most = max(block, key=abs)
        d = most / -8
        inv = 1 / d if d else 0
        out += [half(d) * (min(15, int(x * inv + 8.5)) - 8) for x in block]
    return out


@test
def real_matrices():
    if not DATA:
        raise Skip("RUNT_TEST_DATA is not set")
    with open(os.path.join(DATA, "models", "gpt2-124m-some-tensors.safetensors"), "rb") as f:
        raw = f.read()
    real = {}
    for name, (dtype, shape, at, n) in tensors(raw).items():
        assert dtype == "F16" and shape == [768, 768], (name, dtype, shape)
        real[int(name.split(".")[1])] = struct.unpack("<%de" % (n // 2), raw[at:at + n])
    assert tuple(sorted(real)) == LAYERS, sorted(real)

    # a model around them
    hf = path("real")
    runt("init", "gpt2", "--layers", "3", "--heads", "12", "--embd", "768", "--vocab", "300",
         "--context", "32", "--format", "hf", "-o", hf)
    weights = os.path.join(hf, "model.safetensors")
    with open(weights, "r+b") as f:
        there = tensors(f.read())
        for i, layer in enumerate(LAYERS):
            name = [k for k in there if k.endswith("h.%d.attn.c_proj.weight" % i)][0]
            dtype, _, at, n = there[name]
            assert dtype == "F32" and n == 4 * 768 * 768, there[name]
            f.seek(at)
            f.write(struct.pack("<%df" % (768 * 768), *real[layer]))
    runt("import", hf, "-o", path("real.gguf"), "-q")

    errors = {}
    for t in TYPES:
        r = json.loads(runt("quantize", path("real.gguf"), path("x.gguf"), t, "-o", "json").out)
        for i, layer in enumerate(LAYERS):
            errors[t, layer] = [x for x in r["tensors"]
                                if x["name"] == "blk.%d.attn_output.weight" % i][0]
        note("%-6s relative errors of layers 0, 5, 11: %s" % (t, ", ".join(
            "%.4f" % errors[t, layer]["rel_error"] for layer in LAYERS)))
    for layer in LAYERS:
        w = rows(real[layer])
        whole = rms(real[layer])
        with case("layer %d: the largest weight and outliers" % layer):
            peak = max(abs(x) for x in real[layer]) / whole
            far = sum(abs(x) > 6 * whole for x in real[layer])
            note("layer %d: the largest is %.1f standard deviations, %d beyond 6" % (
                layer, peak, far))
            got = errors["r4", layer]
            assert abs(got["peak"] - peak) < 1e-3 * peak, (got, peak)
            assert got["outliers"] == far, (got, far)
        with case("layer %d: the error of Q4_0" % layer):
            e = math.sqrt(sum((a - b) ** 2 for row in w for a, b in zip(q4_0(row), row)) /
                          sum(x * x for x in real[layer]))
            assert abs(errors["q4_0", layer]["rel_error"] - e) < 1e-3 * e, (errors, e)
        with case("layer %d: more bits, less error" % layer):
            e = [errors[t, layer]["rel_error"] for t in TYPES]
            assert e[0] < e[1] < e[2] < e[3] < e[5], e  # 8; 5.5 to 4.5 with and without a minimum
            assert e[4] < e[5], e  # a table made for such tails
    with case("the matrix of layer 11 is the one with tails"):
        assert errors["r4", 11]["peak"] > 40, errors["r4", 11]


main()
