#!/usr/bin/env python3
"""quantize --calib through the program: closer to the float model than plain rounding, the
same bytes on any number of threads and from a kept calibration, and what is refused.
Prints TAP."""
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import ROOT, RUNT, Skip, case, environment, fails, main, misuse, path, read, runt, test, write

MINI = os.path.join(ROOT, "tests", "data", "mini")
HELDOUT = os.path.join(ROOT, "models", "heldout.txt")  # to measure with, never to calibrate
TOKENS = ["--calib-tokens", "8192"]


def model():
    p = path("f.gguf")
    if not os.path.exists(p):
        runt("import", MINI, "-o", p, "-q")
    return p


def calib():
    """The model's own text: there is no other in the checkout that is not measured with."""
    p = path("c.cal")
    if not os.path.exists(p):
        r = runt("quantize", model(), path("x.gguf"), "r4", *TOKENS, "--save-calib", p, "-q",
                 expect=None)
        if r.rc and "OpenBLAS" in r.err:
            raise Skip("no OpenBLAS here")
        assert r.rc == 0, r
    return p


def kl(p):
    r = runt("eval", "-m", p, "--base", model(), "-f", HELDOUT, "--window", "256",
             "--max-tokens", "4096", "-o", "json")
    return json.loads(r.out)["kl_mean"]


@test
def closer_to_the_float_model():
    c = calib()
    for t, most in (("r4", 0.75), ("q4_0", 0.75), ("q4_1", 0.85), ("iq4_nl", 0.8),
                    ("q5_0", 0.8), ("q5_1", 0.85), ("q8_0", 1.05)):
        with case(t):
            plain, best = path("plain.gguf"), path("best.gguf")
            runt("quantize", model(), plain, t, "-q")
            r = json.loads(runt("quantize", model(), best, t, "--load-calib", c, "-o",
                                "json").out)
            assert os.path.getsize(plain) == os.path.getsize(best)
            a, b = kl(plain), kl(best)
            assert b < most * a, (a, b)
            for x in r["tensors"]:
                matrix = x["rows"] > 1 and x["name"] != "position_embd.weight"
                assert (x["output_error"] is not None) == matrix, x
                assert not matrix or 0 < x["output_error"] < x["rel_error"], x


@test
def the_same_bytes():
    c = calib()
    want = read(path("x.gguf"))
    for n in ("1", "3"):
        with case("%s threads, from the kept calibration" % n):
            runt("quantize", model(), path("y.gguf"), "r4", "--load-calib", c, "-q", "-t", n)
            assert read(path("y.gguf")) == want
    with case("gathered again, 1 thread"):
        runt("quantize", model(), path("y.gguf"), "r4", *TOKENS, "-q", "-t", "1")
        assert read(path("y.gguf")) == want


@test
def interrupted_and_resumed():
    calib()
    kept, out = path("k.cal"), path("k.gguf")
    args = ["quantize", model(), out, "q8_0", "--calib-tokens", "4096", "--save-calib", kept,
            "-q"]
    t0 = time.monotonic()
    runt(*args)
    whole = time.monotonic() - t0
    want = read(out), read(kept)
    for f in (out, kept):
        os.unlink(f)
    assert not os.path.exists(kept + ".text")
    wait, stops, seen = whole / 4, 0, set()
    while not os.path.exists(out):
        p = subprocess.Popen([RUNT, *args], env=environment(), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        try:
            _, said = p.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            p.send_signal(signal.SIGINT)
            _, said = p.communicate()
        if p.returncode == 0:
            break
        assert p.returncode == 130, (p.returncode, said)
        stops += 1
        seen.add("text" if not os.path.exists(kept) else "calibration")
        assert not os.path.exists(out)
        assert stops < 100
        wait += whole / 20
    with case("stopped %d times, in %s" % (stops, " and ".join(sorted(seen)))):
        assert stops >= 2 and "text" in seen, (stops, seen)
    with case("the same calibration, the same file"):
        assert (read(out), read(kept)) == want
    with case("nothing is left over"):
        assert sorted(f for f in os.listdir(path("")) if f.startswith("k.")) == ["k.cal", "k.gguf"]
    with case("killed, with the text damaged: begun again"):
        for f in (out, kept):
            os.unlink(f)
        p = subprocess.Popen([RUNT, *args], env=environment(), stderr=subprocess.PIPE)
        time.sleep(whole / 4)
        p.send_signal(signal.SIGINT)
        p.communicate()
        if os.path.exists(kept + ".text"):
            text = bytearray(read(kept + ".text"))
            text[len(text) // 2] ^= 1
            write(kept + ".text", bytes(text))
        runt(*args)
        assert (read(out), read(kept)) == want


@test
def two_models_compared():
    runt("quantize", model(), path("r4.gguf"), "r4", "-q")
    runt("quantize", model(), path("u.gguf"), "q4_0", "--untie", "-q")
    report = json.loads(runt("quantize", model(), path("r4.gguf"), "r4", "-o", "json").out)
    with case("the errors that quantize reported"):
        got = json.loads(runt("compare", model(), path("r4.gguf"), "-o", "json", "-t", "3").out)
        assert [x["name"] for x in got] == [x["name"] for x in report["tensors"]]
        for x, y in zip(got, report["tensors"]):
            assert x["b"] == y["type"] and x["same_shape"], x
            assert abs(x["rel_error"] - y["rel_error"]) <= 1e-6 * y["rel_error"], (x, y)
            assert abs(x["max_error"] - y["max_error"]) <= 1e-6 * y["max_error"], (x, y)
    with case("a model and itself"):
        got = json.loads(runt("compare", model(), model(), "-o", "json").out)
        assert all(x["rel_error"] == x["max_error"] == 0 for x in got)
    with case("a tensor that one of them has"):
        got = json.loads(runt("compare", path("u.gguf"), model(), "-o", "json").out)
        assert [x for x in got if x["b"] is None and x["name"] == "output.weight"], got
        assert "in one of them" in runt("compare", model(), path("u.gguf")).out
    with case("not a model"):
        write(path("text.txt"), "text")
        fails("compare", model(), path("text.txt"), words=["text.txt"])


@test
def what_is_refused():
    c, out = calib(), path("no.gguf")
    write(path("short.txt"), "Once upon a time")
    write(path("empty.txt"), b"")
    write(path("binary.bin"), bytes(range(256)) * 400)
    runt("quantize", model(), path("r4.gguf"), "r4", "-q")
    runt("quantize", model(), path("q8.gguf"), "q8_0", "-q")
    for name, args, words in (
            ("a short text", ["--calib", path("short.txt")], ["short.txt", "tokens"]),
            ("an empty text", ["--calib", path("empty.txt")], ["empty.txt", "0 tokens"]),
            ("no text", ["--calib", path("binary.bin")], ["binary.bin", "not a text"]),
            ("a missing text", ["--calib", path("none.txt")], ["none.txt"]),
            ("a folder", ["--calib", MINI], [MINI]),
            ("no calibration", ["--load-calib", model()], [model(), "not a calibration"]),
            ("a window too long", [*TOKENS, "--calib-window", "300"], ["300", "256"])):
        with case(name):
            fails("quantize", model(), out, "q4_0", *args, words=words)
            assert not os.path.exists(out)
    with case("a model that is rounded already"):
        fails("quantize", path("q8.gguf"), out, "q4_0", *TOKENS, words=["Q8_0", "floats"])
    with case("another model's calibration"):
        fails("quantize", path("r4.gguf"), out, "q4_0", "--load-calib", c,
              words=[c, "another model"])
    with case("a damaged calibration"):
        bad = bytearray(read(c))
        bad[len(bad) // 2] ^= 1
        write(path("bad.cal"), bytes(bad))
        fails("quantize", model(), out, "q4_0", "--load-calib", path("bad.cal"),
              words=["bad.cal", "damaged"])
    with case("two sources"):
        misuse("quantize", model(), out, "q4_0", "--load-calib", c, "--calib", HELDOUT)
    assert not os.path.exists(out)


main()
