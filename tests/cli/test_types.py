#!/usr/bin/env python3
"""Every type that model files come in: loaded, run, converted to floats, and refused where
it does not fit.  The files' matrices are random blocks; a decoder in Python says what numbers
they are.  Prints TAP."""
import json
import os
import random
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import modelfiles
from modelfiles import HALVES, NUMBERS, TYPES, Checkpoint, Gguf
from tap import case, fails, main, misuse, path, read, runt, test, write

WRITTEN = ["Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL"]
# what a scale is multiplied with, about: so that numbers are about 0.1 in size
SIZES = {"Q8_0": 100, "Q4_0": 5, "Q4_1": 10, "Q5_0": 10, "Q5_1": 20, "Q2_K": 16, "Q3_K": 32,
         "Q4_K": 250, "Q5_K": 500, "Q6_K": 1000, "IQ4_NL": 60, "TQ1_0": 1, "TQ2_0": 1,
         "Q1_0": 1, "Q2_0": 1}
MINIMA = {"Q4_1": -0.08, "Q5_1": -0.08, "Q2_K": 0.01, "Q4_K": 0.004, "Q5_K": 0.004}
BY_Q8_0 = [t for t in HALVES if t not in MINIMA and not t.endswith("_K")]
TEXT = "Once upon a time there was a little test, and it was a good one. " * 4


def base():
    if not os.path.exists(path("base.gguf")):
        c = Checkpoint(layers=1, heads=4, embd=256, vocab=290, ctx=32, inner=512)
        runt("import", c.save(path("base")), "-o", path("base.gguf"), "-q")
        write(path("text.txt"), TEXT)
    return Gguf(read(path("base.gguf")))


def of_type(t):
    """A model whose matrices, positions too, are of this type."""
    rng, g = random.Random(t), base()
    for x in g.tensors:
        if len(x["dims"]) == 2:
            x["type"] = NUMBERS[t]
            n = x["dims"][0] * x["dims"][1] // TYPES[NUMBERS[t]][1]
            x["data"] = modelfiles.random_blocks(rng, t, n, 0.1 / SIZES[t], MINIMA.get(t, 0))
    return g


def evaluate(p, *args):
    r = runt("eval", "-m", p, "-f", path("text.txt"), "--window", "32", "-o", "json", *args)
    return {k: v for k, v in json.loads(r.out).items() if k != "seconds"}


@test
def each_type_runs_and_becomes_floats():
    for t in HALVES:
        with case(t):
            g, p, q = of_type(t), path("%s.gguf" % t), path("%s-f32.gguf" % t)
            write(p, g.bytes())
            out = runt("quantize", p, q, "f32").out
            assert "token_embd.weight was already rounded to " + t in out, out
            f = Gguf(read(q))
            for x in g.tensors:
                y = f.tensor(x["name"])
                assert y["type"] == 0 and y["dims"] == x["dims"]
                name = TYPES[x["type"]][0]
                want = modelfiles.decode_row(x["data"], name)
                assert modelfiles.pack(want, "F32") == y["data"], x["name"]
                size = sum(v * v for v in want) / len(want)
                assert len(x["dims"]) == 1 or 0.01 < size ** 0.5 < 1, size
            runt("generate", "-m", p, "-p", "Once", "-n", "5", "-s", "1")
            assert t in runt("inspect", p).out
            # activations are floats for the K types; else in 8 bits
            j, kv = evaluate(p, "--base", q, "--kv", "f32"), 1e-7 if t.endswith("_K") else 0.02
            assert j["kl_mean"] < kv and j["base_perplexity"] > 2, j


@test
def small_codes_are_those_of_q8_0():
    for t in BY_Q8_0:
        with case(t):
            g, p, q = of_type(t), path("%s.gguf" % t), path("%s-q8.gguf" % t)
            write(p, g.bytes())
            for x in g.tensors:
                if x["type"] == NUMBERS[t]:
                    x["type"], x["data"] = 8, modelfiles.as_q8_0(x["data"], t)
            write(q, g.bytes())
            a, b = evaluate(p), evaluate(q)
            assert a == b and a["perplexity"] > 2, (a, b)


@test
def what_is_read_but_not_written():
    base()
    for t in HALVES:
        with case(t):
            if t in WRITTEN:
                runt("quantize", path("base.gguf"), path("w.gguf"), t.lower(), "-q")
                g = Gguf(read(path("w.gguf")))
                assert g.tensor("blk.0.ffn_up.weight")["type"] == NUMBERS[t]
                assert g.get("general.file_type") == \
                    {"Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q4_0": 2, "Q4_1": 3, "IQ4_NL": 25}[t]
            else:
                misuse("quantize", path("base.gguf"), path("no.gguf"), t.lower(),
                       words=[t + " is read but not written"])
    with case("the list of types"):
        r = misuse("quantize", path("base.gguf"), path("no.gguf"), "q5_9")
        for t in [*WRITTEN, "R4", "F16"]:
            assert t in r.err, r.err


@test
def rows_that_are_no_whole_blocks():
    for t in HALVES:
        length = TYPES[NUMBERS[t]][1]
        with case("%s, %d columns too many" % (t, length // 2)):
            g = of_type(t)
            g.tensor("blk.0.ffn_up.weight")["dims"][0] += length // 2
            write(path("lie.gguf"), g.bytes())
            for verb in (["inspect"], ["generate", "-n", "1", "-p", "a", "-m"],
                         ["quantize", "-q"]):
                more = [path("lie-out.gguf"), "f32"] if verb[0] == "quantize" else []
                fails(*verb, path("lie.gguf"), *more,
                      words=["blk.0.ffn_up.weight", "not whole %s blocks of %d" % (t, length)])
            assert not os.path.exists(path("lie-out.gguf"))
        with case("%s, a file cut in its last block" % t):
            g = of_type(t)
            last = [x for x in g.tensors if len(x["dims"]) == 2][-1]
            g.tensors = [x for x in g.tensors if x is not last] + [last]
            raw = g.bytes()
            padding = -len(last["data"]) % 32
            write(path("cut.gguf"), raw[:len(raw) - padding - 1])
            fails("inspect", path("cut.gguf"), words=[last["name"], "beyond the file's"])


if __name__ == "__main__":
    main()
