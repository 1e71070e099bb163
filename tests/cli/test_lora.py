#!/usr/bin/env python3
"""LoRA through the program: adapters are trained, stopped and resumed to the same bytes;
applied at run time, merged; and what is refused.  Prints TAP."""
import glob
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from modelfiles import ARR, F32, STR, Gguf, f32, pack, unpack
from tap import (ROOT, RUNT, SANITIZE, Skip, case, environment, fails, main, misuse, path, read,
                 runt, test, write)

MINI = os.path.join(ROOT, "tests", "data", "mini")
MATRICES = {"attn_qkv": (108, 36), "attn_output": (36, 36), "ffn_up": (144, 36),
            "ffn_down": (36, 144)}


def text(name="tales.txt", n=400):
    p = path(name)
    if not os.path.exists(p):
        write(p, "".join("Tale %d: the goat %s, and the king said %d times no.\n<|endoftext|>\n" %
                         (i, ("ran", "sang", "slept")[i % 3], i % 7) for i in range(n)))
    return p


def rhymes():
    p = path("rhymes.txt")
    if not os.path.exists(p):
        write(p, "".join("A crow, a crow, and %d more: who shut the door of %d?\n<|endoftext|>\n" %
                         (i % 5, i) for i in range(300)))
    return p


def base():
    """A model that has learnt the tales a little."""
    p = path("base.gguf")
    if not os.path.exists(p):
        runt("init", "gpt2", "--layers", "2", "--heads", "3", "--embd", "36", "--context", "40",
             "--tokenizer", MINI, "-o", path("odd.gguf"))
        r = runt("train", "--data", text(), "--init", path("odd.gguf"), "--out", path("first"),
                 "--batch", "3", "--context", "24", "--lr", "0.01", "--steps", "30", "-q",
                 expect=None)
        if r.rc and "library for matrix products" in r.err:
            raise Skip("neither oneDNN nor OpenBLAS is here")
        assert r.rc == 0, r
        os.rename(path("first/model.gguf"), p)
    return p


def arguments(out, *more):
    return ["train", "--data", rhymes(), "--init", base(), "--out", path(out), "--batch", "3",
            "--context", "24", "--lr", "0.02", "--lora", "4", *more]


def train(out, *more, **how):
    return runt(*arguments(out, *more), **how)


def adapter():
    if not os.path.exists(path("a/adapter.gguf")):
        train("a", "--steps", "40", "--eval-every", "10", "--save-every", "15", "--sample-every",
              "20", "--sample-prompt", "A")
    return path("a/adapter.gguf")


def log(out):
    with open(path(out, "log.jsonl"), encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def measure(model, *more):
    return json.loads(runt("eval", "-m", model, "-f", rhymes(), "--max-tokens", "400", "-o",
                           "json", *more).out)


def lines_of(memory):
    """Bytes of a plan's lines; they have three digits."""
    units = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
    return {name.strip(): float(n) * units[unit] for name, n, unit in
            re.findall(r"^(.{16}) +([\d.]+) (\w+)$", memory, re.M)}


@test
def the_rate_where_none_is_named():
    for rank, rate in (("4", 3e-3), ("0", 3e-4)):
        train("rate" + rank, "--lora", rank, "--lr", "-1", "--warmup", "0", "--steps", "1", "-q")
        assert abs(log("rate" + rank)[-1]["lr"] - rate) < rate / 9, log("rate" + rank)


@test
def it_learns():
    adapter()
    with case("the loss falls"):
        lines = log("a")
        assert [x["step"] for x in lines] == list(range(41)), lines
        assert lines[-1]["val_loss"] < lines[0]["val_loss"] - 1, lines
    with case("what the folder holds"):
        assert sorted(os.listdir(path("a"))) == [
            "adapter.gguf", "best.gguf", "log.jsonl", "step-00000030.gguf", "step-00000040.gguf"]
    with case("what an adapter's file holds"):
        for name in ("adapter", "best"):
            g = Gguf(read(path("a", name + ".gguf")))
            assert g.keys() == ["general.type", "general.architecture", "adapter.type",
                                "adapter.lora.alpha", "runt.adapter.base"], g.keys()
            assert [g.get(k) for k in g.keys()[:4]] == [b"adapter", b"gpt2", b"lora", 8.0]
            want = {}
            for layer in range(2):
                for matrix, (rows, cols) in MATRICES.items():
                    stem = "blk.%d.%s.weight.lora_" % (layer, matrix)
                    want |= {stem + "a": [cols, 4], stem + "b": [4, rows]}
            assert {t["name"]: t["dims"] for t in g.tensors} == want
    with case("a checkpoint holds adapters, their moments, and no weights"):
        g = Gguf(read(path("a/step-00000040.gguf")))
        kinds = {t["name"].split("blk.")[0] for t in g.tensors}
        assert kinds == {"", "m.", "v."}, kinds
        assert all(".lora_" in t["name"] for t in g.tensors)
        assert os.path.getsize(path("a/step-00000040.gguf")) < 100_000
    with case("the base is not touched"):
        runt("eval", "-m", base(), "-f", text(), "--max-tokens", "100")
    with case("what is printed"):
        r = train("said", "--steps", "2", "--sample-every", "2", "--sample-prompt", "Tale")
        n = 2 * sum(4 * (a + b) for a, b in MATRICES.values())
        assert "training %d of " % n in r.out and "said/adapter.gguf: 2 steps" in r.out, r
        assert "step 2: Tale" in r.out and r.err == "", r
    with case("the plan of memory"):
        whole = lines_of(runt(*arguments("plan", "--lora", "0"), "--memory").out)
        some = lines_of(train("plan", "--memory").out)
        share = sum(a + b for a, b in MATRICES.values()) * 2 * 4 / (whole["weights"] / 4)
        for what in ("gradients", "moments"):
            assert abs(some[what] / whole[what] - share) < 0.01 * share, (some, whole)
        assert abs(some["weights"] - whole["weights"] - some["gradients"]) < 0.01 * whole["weights"]
        assert not os.path.exists(path("plan"))
    with case("only some matrices"):
        train("some", "--steps", "2", "-q", "--lora-targets", r"qkv|^blk\.1\.ffn_up", "--lora-alpha",
              "3")
        g = Gguf(read(path("some/adapter.gguf")))
        assert {t["name"].split(".lora_")[0] for t in g.tensors} == {
            "blk.0.attn_qkv.weight", "blk.1.attn_qkv.weight", "blk.1.ffn_up.weight"}
        assert g.get("adapter.lora.alpha") == 3
    with case("a folder, or other types, as the base"):
        runt("export", base(), path("hf"), "-q")
        runt("quantize", base(), path("b8.gguf"), "q8_0", "-q")
        for start in (path("hf"), path("b8.gguf")):
            shutil.rmtree(path("other"), ignore_errors=True)
            train("other", "--init", start, "--steps", "2", "-q", "--eval-every", "0")
            assert Gguf(read(path("other/adapter.gguf"))).get("runt.adapter.base") == Gguf(
                read(adapter())).get("runt.adapter.base")


@test
def the_same_bytes():
    base()
    extra = ["--steps", "12", "--dropout", "0.1", "--accumulate", "2", "-q"]
    for precision in ("f32", "bf16"):
        how = [*extra, "--precision", precision]
        for n in ("1", "2", "3"):
            train(precision + n, *how, "-t", n)
        want = read(path(precision + "1", "adapter.gguf"))
        with case("on any number of threads, " + precision):
            assert all(read(path(precision + n, "adapter.gguf")) == want for n in "23")
        with case("with --recompute, " + precision):
            train(precision + "re", *how, "--recompute")
            assert read(path(precision + "re", "adapter.gguf")) == want
    with case("another seed, other bytes"):
        train("seed", *extra, "--precision", "f32", "-s", "7")
        assert read(path("seed/adapter.gguf")) != read(path("f321/adapter.gguf"))


def killed(out, how, seconds, most):
    """A run that is killed at random moments, `most` times at most, and resumed to its end;
    how often it was."""
    kills = 0
    while kills < most:
        p = subprocess.Popen([RUNT, *arguments(out, *how), "--resume"],
                             env=environment(), stderr=subprocess.DEVNULL)
        try:
            p.wait(random.uniform(0.01, seconds))
            assert p.returncode == 0
            return kills
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
            kills += 1
    train(out, *how, "--resume")
    return kills


@test
def stopped_and_resumed():
    how = ["--steps", "40", "--save-every", "4", "--eval-every", "8", "--dropout", "0.1",
           "--accumulate", "2", "-q"]
    base()
    begin = time.monotonic()
    train("whole", *how)
    whole = time.monotonic() - begin
    random.seed(5)
    kills = 3 if SANITIZE else 8
    with case("killed %d times" % kills):
        while kills:
            shutil.rmtree(path("killed"), ignore_errors=True)
            kills -= killed("killed", how, whole, kills)
            for name in ("adapter.gguf", "best.gguf"):
                assert read(path("killed", name)) == read(path("whole", name)), name
            assert sorted(os.listdir(path("killed"))) == sorted(os.listdir(path("whole")))
    with case("--resume --out alone"):
        shutil.copytree(path("whole"), path("part"))
        os.unlink(path("part/step-00000040.gguf"))
        os.unlink(path("part/adapter.gguf"))
        runt("train", "--resume", "--out", path("part"))
        assert read(path("part/adapter.gguf")) == read(path("whole/adapter.gguf"))
    for name, more in (("rank", ["--lora", "5"]), ("alpha", ["--lora-alpha", "5"]),
                       ("targets", ["--lora-targets", "qkv"]), ("options", ["--lr", "0.5"])):
        with case("other %s: refused" % name):
            fails("train", "--resume", "--out", path("whole"), *more,
                  words=["other data or options"])
    with case("another base: refused"):
        fails("train", "--resume", "--out", path("whole"), "--init", path("odd.gguf"),
              words=["step-00000040.gguf", "not the model that the run began with"])
    with case("a base that is gone: refused"):
        os.rename(base(), path("moved.gguf"))
        fails("train", "--resume", "--out", path("whole"), words=[path("base.gguf")])
        runt("train", "--resume", "--out", path("whole"), "--init", path("moved.gguf"))
        os.rename(path("moved.gguf"), path("base.gguf"))
    with case("a damaged checkpoint"):
        p = path("whole/step-00000040.gguf")
        raw = bytearray(read(p))
        raw[-100] ^= 1
        write(p, bytes(raw))
        fails("train", "--resume", "--out", path("whole"), words=[p, "damaged"])


@test
def applied_and_merged():
    a = adapter()
    merged = path("merged.gguf")
    runt("merge", base(), a, "-o", merged, "-q")
    with case("merged weights, to the last bit"):
        was, now, low = (Gguf(read(p)) for p in (base(), merged, a))
        numbers = {t["name"]: unpack(t["data"], "F32") for t in low.tensors}
        for t in was.tensors:
            w = unpack(t["data"], "F32")
            if t["name"] + ".lora_a" in numbers:
                la, lb, n = numbers[t["name"] + ".lora_a"], numbers[t["name"] + ".lora_b"], t["dims"][0]
                for i in range(len(w)):
                    row, col = divmod(i, n)
                    w[i] = f32(w[i] + 2.0 * sum(lb[row * 4 + k] * la[k * n + col] for k in range(4)))
            assert unpack(now.tensor(t["name"])["data"], "F32") == w, t["name"]
        assert [k for k in now.kv] == [k for k in was.kv]
    with case("the same logits: on floats to float accuracy"):
        r = measure(base(), "--lora-adapter", a, "--base", merged)
        assert r["top1"] == 1 and r["kl_mean"] < 1e-10, r
        assert abs(r["perplexity"] / r["base_perplexity"] - 1) < 1e-6, r
        plain = measure(base(), "--base", merged)
        assert plain["kl_mean"] > 0.5, plain
    with case("the same words"):
        args = ["-p", "A crow", "-n", "20", "--temp", "0", "--ignore-eos"]
        want = runt("generate", "-m", merged, *args).out
        for threads in ("1", "2", "3"):
            assert runt("generate", "-m", base(), "--lora-adapter", a, "-t", threads,
                        *args).out == want
        assert runt("generate", "-m", base(), *args).out != want
    for kind, most in (("f16", 1e-4), ("q8_0", 1e-2), ("q4_0", 0.2), ("r4", 0.2)):
        with case("on a base in " + kind):
            small = path("b-%s.gguf" % kind)
            runt("quantize", base(), small, kind, "-q")
            r = runt("eval", "-m", small, "--lora-adapter", a, "--base", merged, "-f", rhymes(),
                     "--max-tokens", "400", "-o", "json")
            assert json.loads(r.out)["kl_mean"] < most and r.err == "", r
    with case("two adapters, and how much of each"):
        train("b", "--steps", "5", "-q", "--lora", "3", "--lora-targets", "ffn", "-s", "9")
        b = path("b/adapter.gguf")
        runt("merge", base(), a + ":0.5", b + ":-2", "-o", path("both.gguf"), "-q")
        r = measure(base(), "--lora-adapter", a + ":0.5", "--lora-adapter", b + ":-2", "--base",
                    path("both.gguf"))
        assert r["top1"] == 1 and r["kl_mean"] < 1e-10, r
        runt("merge", path("both.gguf"), a + ":0.5", b + ":2", "-o", path("back.gguf"), "-q")
        r = measure(path("back.gguf"), "--base", merged)
        assert r["kl_mean"] < 1e-9, r
    with case("0 times an adapter"):
        runt("merge", base(), a + ":0", "-o", path("zero.gguf"), "-q")
        assert read(path("zero.gguf")) == read(base())
    with case("the types of merged weights"):
        def types(p):
            return set(json.loads(runt("inspect", p, "-o", "json").out)["types"])
        runt("quantize", base(), path("h.gguf"), "bf16", "-q")
        for start, more, want in ((path("h.gguf"), [], {"F32", "BF16"}),
                                  (path("b-q8_0.gguf"), [], {"F32", "F16"}),
                                  (base(), ["--type", "r4"], {"F32", "F16", "R4"}),
                                  (path("b-r4.gguf"), ["--type", "f32"], {"F32"})):
            runt("merge", start, a, "-o", path("t.gguf"), "-q", *more)
            assert types(path("t.gguf")) == want, (start, types(path("t.gguf")))
            runt("generate", "-m", path("t.gguf"), "-n", "3", "-p", "A")
    with case("the report"):
        assert "attn_qkv" in runt("merge", base(), a, "-o", path("t.gguf")).out
    with case("bench, chat and run take one, too"):
        runt("bench", "-m", path("b-q4_0.gguf"), "--lora-adapter", a, "-p", "4", "-n", "4", "-r", "1")
        plain = runt("chat", "-m", base(), "-n", "8", "--temp", "0", stdin="A\n").out
        for verb in (["chat", "-m", base()], ["run", base()]):
            r = runt(*verb, "--lora-adapter", a, "-n", "8", "--temp", "0", stdin="A\n")
            assert r.out != plain and "made for another" not in r.err, r
    with case("an adapter of another model is used, with a note"):
        runt("train", "--data", rhymes(), "--init", path("odd.gguf"), "--out", path("foreign"),
             "--lora", "2", "--steps", "1", "--batch", "1", "-q", "--eval-every", "0")
        f = path("foreign/adapter.gguf")
        for verb in (["generate", "-m", base(), "-p", "A", "-n", "2", "--lora-adapter", f],
                     ["merge", base(), f, "-o", path("t.gguf"), "-q"]):
            r = runt(*verb)
            assert r.err == "note: %s was made for another model\n" % f, r
    with case("a cache of a prompt belongs to the adapter"):
        args = ["generate", "-m", base(), "-p", "A crow", "-n", "2", "--prompt-cache", path("kv")]
        runt(*args, "--lora-adapter", a)
        assert json.loads(runt(*args, "--lora-adapter", a, "-o", "json").out)["cached_tokens"] > 0
        for more in ([], ["--lora-adapter", a + ":0.5"]):
            r = runt(*args, "--no-display-prompt", *more, expect=1)
            assert "the prompt cache of another model" in r.err, r


@test
def the_token_table():
    """Named, it is adapted, too, as what tokens are looked up in and as the head."""
    how = ["--lora-targets", r"^token|ffn_up", "--steps", "24", "--eval-every", "8", "--dropout",
           "0.1", "--precision", "f32", "-q"]
    base()
    for n in ("1", "3"):
        train("table" + n, *how, "-t", n)
    a, merged = path("table1/adapter.gguf"), path("table.gguf")
    n_vocab = Gguf(read(base())).tensor("token_embd.weight")["dims"][1]
    with case("its tensors lie as llama.cpp has them"):
        assert {t["name"]: t["dims"] for t in Gguf(read(a)).tensors} == {
            "token_embd.weight.lora_a": [4, n_vocab], "token_embd.weight.lora_b": [4, 36],
            **{"blk.%d.ffn_up.weight.lora_%s" % (i, k): dims for i in (0, 1)
               for k, dims in (("a", [36, 4]), ("b", [4, 144]))}}
    with case("the same bytes on any number of threads, and resumed"):
        assert read(a) == read(path("table3/adapter.gguf"))
        train("table2", *how, "--save-every", "10")
        for name in ("adapter.gguf", "step-00000024.gguf"):
            os.unlink(path("table2", name))
        runt("train", "--resume", "--out", path("table2"))
        assert read(a) == read(path("table2/adapter.gguf"))
    with case("merged weights, to the last bit"):
        runt("merge", base(), a, "-o", merged, "-q")
        low = Gguf(read(a))
        la, lb = (unpack(low.tensor("token_embd.weight.lora_" + k)["data"], "F32") for k in "ab")
        was, now = (unpack(Gguf(read(p)).tensor("token_embd.weight")["data"], "F32")
                    for p in (base(), merged))
        assert was != now
        for i in range(0, len(was), 7):
            row, col = divmod(i, 36)
            assert now[i] == f32(was[i] + 2.0 * sum(la[row * 4 + k] * lb[col * 4 + k]
                                                    for k in range(4))), (row, col)
    with case("the loss of the training is that of the merged model"):
        train("after", "--init", merged, "--lora", "0", "--steps", "1", "--eval-every", "1",
              "--precision", "f32", "-q")
        first, last = log("after")[0]["val_loss"], log("table1")[-1]["val_loss"]
        assert abs(first - last) < 1e-4 and log("table1")[0]["val_loss"] - last > 1, (first, last)
    with case("the same logits, applied"):
        r = measure(base(), "--lora-adapter", a, "--base", merged)
        assert r["top1"] == 1 and r["kl_mean"] < 1e-10, r
    for kind, most in (("f16", 1e-4), ("q8_0", 1e-2), ("q4_0", 0.2), ("r4", 0.2)):
        with case("on a base in " + kind):
            small = path("t-%s.gguf" % kind)
            runt("quantize", base(), small, kind, "-q")
            with_it = measure(small, "--lora-adapter", a, "--base", merged)
            plain = measure(small, "--base", merged)
            assert with_it["kl_mean"] < most and plain["kl_mean"] > 0.5, (with_it, plain)
    with case("two adapters of it"):
        runt("merge", merged, a + ":-0.5", "-o", path("t-half.gguf"), "-q")
        r = measure(base(), "--lora-adapter", a, "--lora-adapter", a + ":-0.5", "--base",
                    path("t-half.gguf"))
        assert r["top1"] == 1 and r["kl_mean"] < 1e-10, r


@test
def adapters_that_others_made():
    """As llama.cpp's converter writes them: half precision, no key of ours."""
    g = Gguf(read(adapter()))
    g.drop("runt.adapter.base")
    g.set("general.name", STR, b"other")
    for t in g.tensors:
        t["data"] = pack(unpack(t["data"], "F32"), "F16")
        t["type"] = 1
    half = write(path("half.gguf"), g.bytes())
    for alpha, scale in ((8.0, ":1"), (0.0, ":2"), (None, ":2"), (16.0, ":0.5")):
        with case("alpha %s" % alpha):
            g.drop("adapter.lora.alpha")
            if alpha is not None:
                g.set("adapter.lora.alpha", F32, alpha)
            write(half, g.bytes())
            r = runt("eval", "-m", base(), "--lora-adapter", half + scale, "--base",
                     path("merged.gguf"), "-f", rhymes(), "--max-tokens", "200", "-o", "json")
            assert json.loads(r.out)["kl_mean"] < 1e-5 and r.err == "", r


@test
def a_template_comes_with_it():
    base()
    talk = write(path("talk.txt"), "".join("User: Who %s %d?\nBot: A crow.\n<|endoftext|>\n" %
                                           (("sang", "ran")[i % 2], i) for i in range(200)))
    runt("train", "--data", talk, "--mask-prompts", "--init", base(), "--out", path("talks"),
         "--lora", "4", "--steps", "20", "--batch", "3", "--context", "24", "--lr", "0.02", "-q")
    a = path("talks/adapter.gguf")
    with case("the file has it"):
        assert b"User:" in Gguf(read(a)).get("tokenizer.chat_template")
    with case("chat needs no option"):
        args = ["chat", "-m", base(), "-n", "12", "--temp", "0"]
        r = runt(*args, "--lora-adapter", a, stdin="Who ran 3?\n")
        turns = runt(*args, "--lora-adapter", a, "--template", "turns", stdin="Who ran 3?\n")
        assert r.out == turns.out and r.err == "", (r, turns)
    with case("a merged model has it"):
        runt("merge", base(), a, "-o", path("talking.gguf"), "-q")
        r2 = runt("chat", "-m", path("talking.gguf"), *args[3:], stdin="Who ran 3?\n")
        assert r2.out == r.out and r2.err == "", r2


def lying(change):
    g = Gguf(read(adapter()))
    change(g)
    return g.bytes()


@test
def files_that_lie():
    a, raw = adapter(), read(adapter())
    name = "blk.1.ffn_down.weight.lora_a"

    def rename(old, new):
        return lying(lambda g: g.tensor(old).update(name=new))

    def reshape(g, dims):
        t = g.tensor(name)
        t.update(dims=dims, data=bytes(4 * dims[0] * dims[1]))

    def number(g, bits):
        t = g.tensor(name)
        t["data"] = t["data"][:40] + bits + t["data"][44:]
    lies = {
        "cut.gguf": (raw[:len(raw) // 2], ["cut.gguf"]),
        "head.gguf": (raw[:50], ["head.gguf"]),
        "empty.gguf": (b"", ["empty.gguf"]),
        "nan.gguf": (lying(lambda g: number(g, b"\xff\xff\xff\x7f")), [name, "number 10 is"]),
        "inf.gguf": (lying(lambda g: number(g, b"\0\0\x80\x7f")), [name, "number 10 is inf"]),
        "wide.gguf": (lying(lambda g: reshape(g, [145, 4])), [name, "4 x 145", "36 x 144"]),
        "rank.gguf": (lying(lambda g: reshape(g, [144, 3])), [name, "rank 3"]),
        "zero.gguf": (lying(lambda g: g.tensor(name).update(dims=[0, 4], data=b"")), ["zero.gguf"]),
        "huge.gguf": (lying(lambda g: g.tensor(name).update(dims=[144, 1 << 40])), ["huge.gguf"]),
        "half.gguf": (lying(lambda g: g.tensors.remove(g.tensor(name))),
                      ["blk.1.ffn_down.weight.lora_b, but no " + name]),
        "name.gguf": (rename(name, "blk.1.ffn_dawn.weight.lora_a"), ["ffn_down.weight.lora_b, but"]),
        "layer.gguf": (rename(name, "blk.2.ffn_down.weight.lora_a"), ["ffn_down.weight.lora_b, but"]),
        "twice.gguf": (rename(name, "blk.0.ffn_down.weight.lora_a"), ["twice.gguf"]),
        "more.gguf": (lying(lambda g: g.tensors.append(dict(g.tensor(name), name="output.weight"))),
                      ["output.weight adapts no matrix"]),
        "type.gguf": (lying(lambda g: g.set("general.type", STR, b"model")), ["not an adapter"]),
        "arch.gguf": (lying(lambda g: g.set("general.architecture", STR, b"llama")), ["'llama'"]),
        "kind.gguf": (lying(lambda g: g.set("adapter.type", STR, b"\x1b[2Jx")), ["adapter.type"]),
        "alpha.gguf": (lying(lambda g: g.set("adapter.lora.alpha", F32, float("nan"))),
                       ["adapter.lora.alpha"]),
        "base.gguf2": (lying(lambda g: g.set("runt.adapter.base", STR, b"x" * 16)),
                       ["runt.adapter.base is damaged"]),
        "template": (lying(lambda g: g.set("tokenizer.chat_template", ARR, [STR, [b"a"]])),
                     ["tokenizer.chat_template"]),
    }
    for file, (data, words) in lies.items():
        with case(file):
            p = write(path(file), data)
            fails("generate", "-m", base(), "--lora-adapter", p, "-p", "A", "-n", "1",
                  words=[p, *words])
            fails("merge", base(), p, "-o", path("never.gguf"), words=[p, *words])
            assert not os.path.exists(path("never.gguf"))
    with case("cut anywhere"):
        for n in random.Random(1).sample(range(len(raw)), 20):
            p = write(path("some.gguf"), raw[:n])
            fails("eval", "-m", base(), "--lora-adapter", p, "-f", rhymes(), words=[p])
    with case("any byte another"):
        rng = random.Random(2)
        for _ in range(40):
            b = bytearray(raw)
            b[rng.randrange(2000)] ^= 1 << rng.randrange(8)
            p = write(path("some.gguf"), bytes(b))
            r = runt("generate", "-m", base(), "--lora-adapter", p, "-p", "A", "-n", "1", expect=None)
            assert r.rc in (0, 1) and (r.rc == 0 or r.err.count("\n") == 1), r
    with case("a model of another shape"):
        runt("init", "gpt2", "--layers", "2", "--heads", "2", "--embd", "16", "--context", "40",
             "--tokenizer", MINI, "-o", path("slim.gguf"))
        runt("init", "gpt2", "--layers", "1", "--heads", "3", "--embd", "36", "--context", "40",
             "--tokenizer", MINI, "-o", path("short.gguf"))
        fails("generate", "-m", path("slim.gguf"), "--lora-adapter", a, "-p", "A",
              words=[a, "an adapter of another model"])
        fails("generate", "-m", path("short.gguf"), "--lora-adapter", a, "-p", "A",
              words=[a, "blk.1.", "adapts no matrix of this model"])
    with case("a model for an adapter, and the other way round"):
        fails("generate", "-m", base(), "--lora-adapter", base(), "-p", "A",
              words=[base(), "not an adapter"])
        for args in (["generate", "-p", "A", "-m", a], ["quantize", a, path("x.gguf"), "r4"],
                     ["merge", a, a, "-o", path("x.gguf")],
                     ["train", "--data", text(), "--out", path("x"), "--init", a]):
            fails(*args, words=[a, "is an adapter"])
    with case("a checkpoint of adapters is neither"):
        p = path("a/step-00000040.gguf")
        fails("generate", "-m", p, "-p", "A", words=[p, "checkpoint"])
        fails("generate", "-m", base(), "--lora-adapter", p, "-p", "A", words=[p])


@test
def what_is_refused():
    a = adapter()
    for name, more, words in (
            ("a rank beyond the matrix", ["--lora", "37"], ["rank 37", "blk.0.attn_qkv", "108 x 36"]),
            ("a pattern of nothing", ["--lora-targets", "nothing"], ["'nothing'"]),
            ("a pattern of no matrix", ["--lora-targets", "position_embd|bias"], ["position_embd|bias"]),
            ("a bad pattern", ["--lora-targets", "("], ["'('"])):
        with case(name):
            fails(*arguments("refused", "--steps", "2", *more), words=words)
            assert not glob.glob(path("refused/*.gguf"))
    with case("ranks at the edge"):
        for rank in ("1", "36"):
            train("rank" + rank, "--lora", rank, "--steps", "2", "-q", "--eval-every", "0")
    for name, more in (("a rank below 0", ["--lora", "-1"]), ("an alpha of 0", ["--lora-alpha", "0"]),
                       ("--train, too", ["--train", "ffn"]), ("no rank", ["--lora", "x"]),
                       ("alpha alone", ["--lora", "0", "--lora-alpha", "2"]),
                       ("targets alone", ["--lora", "0", "--lora-targets", "ffn"])):
        with case("misused: " + name):
            misuse(*arguments("refused", *more))
    with case("misused: from scratch"):
        misuse("train", "--data", text(), "--init", "gpt2", "--lora", "2", "--layers", "1",
               "--heads", "1", "--embd", "8", "--tokenizer", MINI, "--out", path("x"))
    with case("no such adapter, no such scale"):
        fails("generate", "-m", base(), "-p", "A", "--lora-adapter", path("none"), words=[path("none")])
        for scale in ("x", "", "nan", "1e999"):
            fails("generate", "-m", base(), "-p", "A", "--lora-adapter", a + ":" + scale, words=[a])
    with case("merge: where to, and of what"):
        misuse("merge", base(), a)
        misuse("merge", base(), "-o", path("x.gguf"))
        misuse("merge", base(), a, "-o", path("x.gguf"), "--type", "q2_k")
    with case("merge does not write over what it reads"):
        before = read(a), read(base())
        fails("merge", base(), a, "-o", a, words=[a])
        fails("merge", base(), a, "-o", base(), words=[base()])
        assert (read(a), read(base())) == before


if __name__ == "__main__":
    main()
