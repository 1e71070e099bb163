#!/usr/bin/env python3
"""prune through the program: how many weights go, that feedback makes good for them, the
same bytes on any number of threads, and what is refused.  Prints TAP."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import ROOT, Skip, case, fails, main, misuse, path, read, runt, test

MINI = os.path.join(ROOT, "tests", "data", "mini")
HELDOUT = os.path.join(ROOT, "models", "heldout.txt")  # to measure with, never to calibrate
BLOCKS = ("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight")


def model():
    p = path("f.gguf")
    if not os.path.exists(p):
        runt("import", MINI, "-o", p, "-q")
    return p


def calib():
    p = path("c.cal")
    if not os.path.exists(p):
        r = runt("quantize", model(), path("x.gguf"), "r4", "--calib-tokens", "8192",
                 "--save-calib", p, "-q", expect=None)
        if r.rc and "OpenBLAS" in r.err:
            raise Skip("no OpenBLAS here")
        assert r.rc == 0, r
    return p


def pruned(*args):
    """The report, and perplexity and divergence of the result."""
    r = json.loads(runt("prune", model(), path("p.gguf"), *args, "-o", "json").out)
    e = runt("eval", "-m", path("p.gguf"), "--base", model(), "-f", HELDOUT, "--window", "256",
             "--max-tokens", "4096", "-o", "json")
    return r, json.loads(e.out)


def is_block(name):
    return name.startswith("blk.") and name.endswith(BLOCKS)


def rise(e):
    return e["perplexity"] / e["base_perplexity"] - 1


@test
def a_share_goes():
    load = ["--load-calib", calib()]
    got = {}
    for method, more in (("magnitude", []), ("hessian", load)):
        with case(method):
            r, got[method] = pruned("--sparsity", "0.3", "--method", method, *more)
            for t in r["tensors"]:
                n = t["rows"] * t["columns"]
                if is_block(t["name"]):
                    assert abs(t["zeros"] - 0.3 * n) < 1e-4 * n, t
                    assert t["type"] == "F16"
                else:
                    assert t["rel_error"] == 0, t
    with case("feedback makes good for most of it"):
        assert rise(got["hessian"]) < rise(got["magnitude"]) / 2, got
        assert got["hessian"]["kl_mean"] < got["magnitude"]["kl_mean"] / 3 + 1e-3, got
    with case("rounded on the same walk"):
        r, e = pruned("--sparsity", "0.3", "--then", "q4_0", *load)
        plain, f = pruned("--sparsity", "0.3", "--then", "q4_0", "--method", "magnitude")
        runt("quantize", model(), path("q.gguf"), "q4_0", "-q")
        assert os.path.getsize(path("p.gguf")) == os.path.getsize(path("q.gguf"))
        for t in r["tensors"] + plain["tensors"]:
            if is_block(t["name"]):
                assert t["type"] == "Q4_0" and t["zeros"] >= 0.2999 * t["rows"] * t["columns"]
        assert e["kl_mean"] < 0.6 * f["kl_mean"], (e, f)
    for type in ("q5_0", "q8_0"):
        with case("rounded to %s" % type):
            r, _ = pruned("--sparsity", "0.3", "--then", type, *load)
            for t in r["tensors"]:
                if is_block(t["name"]):
                    assert t["type"] == type.upper(), t
                    assert t["zeros"] >= 0.2999 * t["rows"] * t["columns"], t
    with case("2 of 4"):
        r, e = pruned("--pattern", "2:4", *load)
        _, f = pruned("--pattern", "2:4", "--method", "magnitude")
        assert e["kl_mean"] < 0.6 * f["kl_mean"], (e, f)  # 0.53
        for t in r["tensors"]:
            if is_block(t["name"]):
                assert t["zeros"] * 2 == t["rows"] * t["columns"], t
    with case("other matrices"):
        r, _ = pruned("--sparsity", "0.5", "--tensors", "token_embd|ffn_up.weight", *load)
        gone = [t["name"] for t in r["tensors"] if t["rel_error"]]
        assert "token_embd.weight" in gone and len(gone) == 3, gone


@test
def the_same_bytes():
    for args in (["--sparsity", "0.4", "--then", "r4"], ["--pattern", "4:8"]):
        for method in (["--load-calib", calib()], ["--method", "magnitude"]):
            with case(" ".join(args + method[:1])):
                for n in ("1", "2", "3"):
                    runt("prune", model(), path(n + ".gguf"), *args, *method, "-q", "-t", n)
                assert read(path("1.gguf")) == read(path("2.gguf")) == read(path("3.gguf"))


@test
def what_is_refused():
    c, out = calib(), path("no.gguf")
    runt("quantize", model(), path("q8.gguf"), "q8_0", "-q")
    for share in ("0", "1", "-1", "nan", "inf", "1.5", "", "half", "0.3x"):
        with case("a sparsity of '%s'" % share):
            fails("prune", model(), out, "--sparsity", share, "--load-calib", c,
                  words=["--sparsity", "'%s'" % share])
    for pattern in ("4:4", "4:2", "0:4", "2", "2:", ":4", "2:4:8", "-1:4", "2:999", "a:b"):
        with case("a pattern of '%s'" % pattern):
            fails("prune", model(), out, "--pattern", pattern, words=["--pattern", pattern])
    for name, args, words in (
            ("a pattern that divides no row", ["--pattern", "2:5"],
             ["2:5 does not divide", "128", "blk.0"]),
            ("the same by magnitude", ["--pattern", "3:7", "--method", "magnitude"],
             ["3:7 does not divide"]),
            ("a type without a zero", ["--sparsity", "0.3", "--then", "q4_1"],
             ["Q4_1", "zero"]),
            ("no such tensor", ["--sparsity", "0.3", "--tensors", "zzz"], ["zzz"]),
            ("a malformed pattern", ["--sparsity", "0.3", "--tensors", "("], ["'('"]),
            ("a matrix without a calibration",
             ["--sparsity", "0.3", "--tensors", "position", "--load-calib", c],
             ["position_embd.weight"])):
        with case(name):
            fails("prune", model(), out, *args, words=words)
    with case("a model that is rounded already"):
        fails("prune", path("q8.gguf"), out, "--sparsity", "0.3", words=["Q8_0", "floats"])
    with case("its own input"):
        fails("prune", model(), model(), "--sparsity", "0.3", words=["is the input too"])
    for name, args in (("nothing asked", []),
                       ("a share and a pattern", ["--sparsity", "0.3", "--pattern", "2:4"]),
                       ("an unknown method", ["--sparsity", "0.3", "--method", "luck"]),
                       ("a calibration for nothing", ["--sparsity", "0.3", "--method",
                                                      "magnitude", "--load-calib", c])):
        with case(name):
            misuse("prune", model(), out, *args)
    assert not os.path.exists(out)


main()
