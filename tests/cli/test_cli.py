#!/usr/bin/env python3
"""The verbs that turn files into files and text into text, each through the program:
help, import, quantize, init, inspect, tokenize, eval, generate.  Prints TAP."""
import json
import os
import random
import re
import select
import signal
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import modelfiles
from modelfiles import Checkpoint, Gguf
from tap import (RUNT, ROOT, SANITIZE, SLOW, case, check_line, environment, fails, limits,
                 main, misuse, only, path, read, runt, test, write)

TINY = os.path.join(ROOT, "models", "tiny-gpt2")
HELDOUT = os.path.join(ROOT, "models", "heldout.txt")
PROMPT = "One day, a little girl"
TYPES = ["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
VERBS = ["run", "pull", "list", "rm", "import", "init", "quantize", "prune", "train", "export", "plot", "eval", "bench",
         "generate",
         "chat", "inspect", "compare", "tokenize", "tokenizer", "merge", "serve", "help"]
EOT = "<|endoftext|>"
NORMAL = 1
CONTROL = 3


def made(name, *args):
    """The file `name`, made by the program when it is asked for the first time."""
    p = path(name)
    if not os.path.exists(p):
        runt(*args, "-o", p)
    return p


def tiny():
    return made("tiny.gguf", "import", TINY)


def tiny_as(type_name):
    p = path("tiny-%s.gguf" % type_name)
    if not os.path.exists(p):
        runt("quantize", tiny(), p, type_name)
    return p


def oracle():
    with open(os.path.join(ROOT, "tests", "data", "tiny_oracle.json")) as f:
        return json.load(f)


def folder(name):
    os.makedirs(path(name), exist_ok=True)
    return path(name)


def ids_of(text, *more, model=None):
    out = runt("tokenize", "-m", model or tiny(), "--ids", *more, stdin=text).out
    assert out.endswith("\n") and out.count("\n") == 1, out
    return [int(x) for x in out.split()]


def bytes_of(ids, model=None):
    return runt("tokenize", "-m", model or tiny(), "--decode",
                stdin=" ".join(map(str, ids))).raw


# ---- help and misuse ----

@test
def without_arguments_usage_goes_to_stderr():
    r = runt(expect=2)
    assert r.raw == b"" and "usage: runt VERB" in r.err, r


@test
def help_lists_every_verb():
    first = runt("--help")
    assert first.err == "", first
    listed = re.findall(r"^  ([a-z]+) {2,}\S", first.out, re.M)
    assert sorted(listed) == sorted(VERBS), listed
    for other in ("-h", "help"):
        assert runt(other).out == first.out


@test
def version_is_one_line():
    assert re.fullmatch(r"runt \d+\.\d+\.\d+\n", runt("--version").out)


@test
def each_verb_has_help_with_an_example():
    for verb in VERBS:
        with case("help of " + verb):
            r = runt(verb, "--help")
            assert r.err == "" and runt(verb, "-h").out == r.out, r
            assert r.out.startswith("runt %s: " % verb), r
            assert "usage: runt " + verb in r.out, r
            assert re.search(r"^example:\n  .*\brunt %s\b" % verb, r.out, re.M), r


def options_of(verb):
    return re.findall(r"^  (?:-\w, |    )(--[a-z0-9-]+)", runt(verb, "--help").out, re.M)


@test
def misspelt_options_name_the_nearest():
    for verb in VERBS:
        with case("misspelt options of " + verb):
            options = options_of(verb)
            assert "--help" in options, options
            for option in options:
                typo = option[:3] + option[2:]  # its first letter twice
                misuse(verb, typo, words=["'%s'" % typo, "did you mean '%s'?" % option])
                misuse(verb, typo + "=1", words=["did you mean '%s'?" % option])


@test
def unknown_verbs_name_the_nearest():
    for typo, verb in (("quantise", "quantize"), ("evla", "eval"), ("generat", "generate"),
                       ("tokenise", "tokenize"), ("lst", "list"), ("imp", "import"),
                       ("gen", "generate"), ("tok", "tokenize")):
        with case("unknown verb " + typo):
            misuse(typo, words=["unknown verb '%s'" % typo, "did you mean '%s'?" % verb])
    with case("a verb like none"):
        r = misuse("xyzzyxyzzy")
        assert "did you mean" not in r.err, r


@test
def values_out_of_range_are_misuse():
    m = ["-m", "x.gguf"]
    for args, word in (
            (["generate", *m, "--temp", "-0.1"], "--temp must be from 0 to 100"),
            (["generate", *m, "--temp", "nan"], "'nan'"),
            (["generate", *m, "--temp", "1e999"], "--temp"),
            (["generate", *m, "--temp", "warm"], "--temp wants a number, not 'warm'"),
            (["generate", *m, "--temp="], "--temp wants a number"),
            (["generate", *m, "--top-p", "1.01"], "from 0 to 1"),
            (["generate", *m, "--min-p", "-1"], "from 0 to 1"),
            (["generate", *m, "--top-k", "-1"], "--top-k"),
            (["generate", *m, "--top-k", "99999999999"], "--top-k"),
            (["generate", *m, "--repeat-penalty", "0"], "--repeat-penalty"),
            (["generate", *m, "-n", "-1"], "-n must be from 0"),
            (["generate", *m, "-n", "1.5"], "-n wants a whole number, not '1.5'"),
            (["generate", *m, "-n", ""], "-n wants a whole number"),
            (["generate", *m, "-n", "10x"], "'10x'"),
            (["generate", *m, "-n", "9" * 30], "-n"),
            (["generate", *m, "-s", "-2"], "-s must be from -1"),
            (["generate", *m, "-t", "257"], "-t must be from 0 to 256"),
            (["generate", *m, "-c", "-1"], "-c"),
            (["chat", *m, "--top-p", "2"], "--top-p"),
            (["eval", *m, "-f", "x", "--window", "-1"], "--window"),
            (["eval", *m, "-f", "x", "--stride", "-1"], "--stride"),
            (["eval", *m, "-f", "x", "--max-tokens", "-1"], "--max-tokens"),
            (["init", "gpt2", "-o", "x", "--layers", "1025"], "--layers"),
            (["init", "gpt2", "-o", "x", "--context", "0"], "--context"),
            (["quantize", "a", "b", "q4_0", "-t", "-1"], "-t"),
            (["import", "a", "-o", "b", "-t", "1000"], "-t")):
        with case("refuses " + " ".join(args[:1] + args[-2:])):
            misuse(*args, words=[word])


@test
def other_misuse():
    for args, word in (
            (["generate"], "-m"), (["chat"], "-m"), (["tokenize"], "-m"), (["eval"], "-m"),
            (["eval", "-m", "x.gguf"], "-f"), (["inspect"], "which model"),
            (["import", TINY], "-o"), (["import", "-o", "x"], "too few arguments"),
            (["init", "gpt2"], "-o"), (["init", "-o", "x"], "too few arguments"),
            (["init", "llama", "-o", "x"], "'llama'"),
            (["init", "gpt2", "-o", "x", "--size", "125M"], "124M, 355M, 774M"),
            (["init", "gpt2", "-o", "x", "--format", "onnx"], "'onnx'"),
            (["init", "gpt2", "-o", "x", "--heads", "7", "--embd", "100"], "7 heads"),
            (["init", "gpt2", "-o", "x", "--format", "hf", "--type", "q4_0"], "Q4_0"),
            (["quantize", "a", "b"], "too few arguments"),
            (["quantize", "a", "b", "q4_0", "d"], "unexpected argument 'd'"),
            (["quantize", "a", "b", "q5_7"], "unknown type 'q5_7'; the types are F32, F16"),
            (["import", TINY, "-o", "x", "--type", "int4"], "unknown type 'int4'"),
            (["quantize", "a", "b", "q4_0", "--tensor", "q8_0"], "REGEX=TYPE"),
            (["quantize", "a", "b", "q4_0", "--tensor", "=q8_0"], "REGEX=TYPE"),
            (["quantize", "a", "b", "q4_0", "--tensor", "a=q9"], "unknown type 'q9'"),
            (["generate", "-m"], "-m wants a value"),
            (["generate", "-m", "x", "--special=1"], "--special takes no value"),
            (["generate", "-m", "x", "-p", "a", "-f", "b"], "exclude each other"),
            (["generate", "-m", "x", "--stop", ""], "--stop"),
            (["generate", "-m", "x", "-o", "xml"], "'xml'"),
            (["inspect", "x", "-o", "csv"], "'csv'"),
            (["generate", "-m", "x", "stray"], "unexpected argument 'stray'"),
            (["generate", "-m", "x", "--", "--temp"], "unexpected argument '--temp'"),
            (["tokenize", "-m", "x", "--ids", "--count"], "exclude each other"),
            (["tokenize", "-m", "x", "-p", "a", "-f", "b"], "exclude each other")):
        with case("refuses " + " ".join(os.path.basename(a) or "''" for a in args)):
            misuse(*args, words=[word])


@test
def a_missing_model_says_how_to_get_one():
    text = write(path("some.txt"), "some text")
    for verb, *more in (["generate", "-m"], ["chat", "-m"], ["tokenize", "-p", "x", "-m"],
                        ["eval", "-f", text, "-m"], ["inspect"]):
        with case("%s of a missing model" % verb):
            fails(verb, *more, "no.gguf", stdin="",
                  words=["no.gguf", "runt import", "runt pull"])
            fails(verb, *more, "nobody/nothing", stdin="",
                  words=["runt pull nobody/nothing"])
    with case("quantize of a missing model"):
        fails("quantize", "no.gguf", "out.gguf", "q4_0", words=["no.gguf", "runt import"])
    with case("a folder is not a model"):
        fails("generate", "-m", TINY, "-p", "x", words=["folder", "runt import"])
    with case("import of a missing folder"):
        fails("import", path("nowhere"), "-o", path("x.gguf"), words=["no such folder"])
    with case("import of a file"):
        fails("import", text, "-o", path("x.gguf"), words=["not a folder"])


@test
def a_full_disk_behind_stdout_is_a_failure():
    model = tiny()
    for args in (["inspect", model], ["tokenize", "-m", model, "-p", "hello"],
                 ["tokenize", "-m", model, "-f", HELDOUT, "--ids"],
                 ["generate", "-m", model, "-p", "x", "-n", "3"],
                 ["--help"], ["import", "--help"]):
        with case("full disk: %s %s" % (args[0], args[-1] if len(args) == 2 else "")):
            with open("/dev/full", "wb") as full:
                p = subprocess.run([RUNT, *args], env=environment(), stdout=full,
                                   stderr=subprocess.PIPE)
            assert p.returncode == 1 and p.stderr.count(b"\n") == 1, p


# ---- import ----

@test
def import_tiny_as_each_type_in_any_case():
    plain = Gguf(read(tiny()))
    assert plain.get("general.file_type") == 1  # the checkpoint's own type, F16
    for t in TYPES:
        with case("import --type %s" % t):
            out = [path("any-%d.gguf" % i) for i in range(3)]
            for name, p in zip((t, t.upper(), t.capitalize()), out):
                runt("import", TINY, "-o", p, "--type", name, "-q")
            assert read(out[0]) == read(out[1]) == read(out[2])
            g = Gguf(read(out[0]))
            types = {x["name"]: modelfiles.TYPES[x["type"]][0] for x in g.tensors}
            assert types["token_embd.weight"] == t.upper(), types
            assert types["blk.3.ffn_down.weight"] == t.upper(), types
            assert types["blk.0.attn_norm.weight"] == "F32", types
            whole = "q" in t
            assert types["position_embd.weight"] == ("Q8_0" if whole else t.upper()), types
            assert g.keys() == plain.keys(), g.keys()


@test
def metadata_is_what_other_programs_expect():
    g = Gguf(read(tiny()))
    want = {"general.architecture": b"gpt2", "general.name": b"tiny-gpt2",
            "general.quantization_version": 2, "gpt2.context_length": 256,
            "gpt2.embedding_length": 256, "gpt2.block_count": 4,
            "gpt2.feed_forward_length": 1024, "gpt2.attention.head_count": 4,
            "tokenizer.ggml.model": b"gpt2", "tokenizer.ggml.pre": b"gpt-2",
            "tokenizer.ggml.bos_token_id": 4095, "tokenizer.ggml.eos_token_id": 4095,
            "tokenizer.ggml.add_bos_token": 0}
    for key, value in want.items():
        assert g.get(key) == value, (key, g.get(key))
    for key, kind, _ in g.kv:
        if key.startswith("gpt2.") and not key.endswith("epsilon"):
            assert kind == modelfiles.U32, (key, kind)  # other loaders refuse 64 bits
    assert abs(g.get("gpt2.attention.layer_norm_epsilon") - 1e-5) < 1e-10
    with open(os.path.join(TINY, "vocab.json")) as f:
        vocab = json.load(f)
    tokens = [t.decode() for t in g.get("tokenizer.ggml.tokens")]
    assert tokens == sorted(vocab, key=vocab.get)
    kinds = g.get("tokenizer.ggml.token_type")
    assert kinds == [CONTROL if t == EOT else NORMAL for t in tokens]
    merges = [m.decode() for m in g.get("tokenizer.ggml.merges")]
    with open(os.path.join(TINY, "merges.txt")) as f:
        assert merges == [m for m in f.read().split("\n") if m and m[0] != "#"]


@test
def imported_weights_are_the_checkpoints_transposed():
    c = Checkpoint(layers=1, heads=5, embd=100, vocab=300, ctx=33, inner=72)
    runt("import", c.save(path("plain")), "-o", path("plain.gguf"))
    g = Gguf(read(path("plain.gguf")))
    names = {"wte.weight": "token_embd.weight", "wpe.weight": "position_embd.weight",
             "ln_f.weight": "output_norm.weight", "ln_f.bias": "output_norm.bias"}
    for kind in ("weight", "bias"):
        for hf, own in (("ln_1", "attn_norm"), ("attn.c_attn", "attn_qkv"),
                        ("attn.c_proj", "attn_output"), ("ln_2", "ffn_norm"),
                        ("mlp.c_fc", "ffn_up"), ("mlp.c_proj", "ffn_down")):
            names["h.0.%s.%s" % (hf, kind)] = "blk.0.%s.%s" % (own, kind)
    assert sorted(t["name"] for t in g.tensors) == sorted(names.values())
    for hf, own in names.items():
        shape, values = c.tensors[hf]
        t = g.tensor(own)
        got = modelfiles.decode_row(t["data"], "F32")
        if re.search(r"c_\w+\.weight", hf):  # [in][out] there, rows of `in` here
            n_in, n_out = shape
            values = [values[i * n_out + o] for o in range(n_out) for i in range(n_in)]
            shape = (n_out, n_in)
        assert t["dims"] == list(reversed(shape)), (own, t["dims"])
        assert got == values, own
    assert g.get("gpt2.feed_forward_length") == 72


@test
def importing_as_a_type_is_importing_and_quantizing():
    shapes = {
        "f32-odd": Checkpoint(heads=5, embd=100, vocab=300, dtype="F32"),
        "f16-25-heads": Checkpoint(heads=25, embd=200, vocab=299, dtype="F16", layers=1),
        "bf16-inner": Checkpoint(heads=3, embd=96, vocab=301, dtype="BF16", inner=160),
    }
    for name, c in shapes.items():
        c.save(path(name))
    for dtype, shape in (("f32", ["--heads", "5", "--embd", "100"]),
                         ("f16", ["--heads", "25", "--embd", "200"]),
                         ("bf16", ["--heads", "2", "--embd", "64", "--ff", "96"])):
        name = "init-" + dtype
        runt("init", "gpt2", "--format", "hf", "--type", dtype, "--layers", "2", "--vocab",
             "300", "--context", "40", *shape, "-o", path(name))
        shapes[name] = None
    for name in shapes:
        runt("import", path(name), "-o", path("whole.gguf"))
        for t in TYPES:
            with case("%s as %s" % (name, t)):
                runt("import", path(name), "-o", path("direct.gguf"), "--type", t)
                runt("quantize", path("whole.gguf"), path("two-steps.gguf"), t)
                assert read(path("direct.gguf")) == read(path("two-steps.gguf"))
                runt("import", path(name), "-o", path("u1.gguf"), "--type", t, "--untie")
                runt("quantize", path("whole.gguf"), path("u2.gguf"), t, "--untie")
                assert read(path("u1.gguf")) == read(path("u2.gguf"))
                runt("generate", "-m", path("direct.gguf"), "-p", "the", "-n", "2")


@test
def the_thread_count_changes_no_byte():
    c = Checkpoint(heads=5, embd=160, vocab=700, ctx=50)
    c.save(path("threads"))
    for t in ("f16", "q8_0", "q4_1"):
        with case("threads: " + t):
            outs = []
            for n in ("1", "3"):
                out = path("threads-%s.gguf" % n)
                report = runt("import", path("threads"), "-o", out, "--type", t, "-t", n,
                              "--report", "json").out
                report = json.loads(report)
                for x in report["tensors"]:
                    assert x.pop("seconds") >= 0, x
                outs.append((read(out), report["tensors"]))
                quantized = path("threads-q-%s.gguf" % n)
                runt("quantize", out, quantized, "q4_0", "-t", n)
                outs[-1] += (read(quantized),)
            assert outs[0] == outs[1]


@test
def quantized_blocks_decode_to_the_reported_error():
    c = Checkpoint(layers=1, heads=2, embd=64, vocab=300)
    runt("import", c.save(path("blocks")), "-o", path("blocks.gguf"))
    for t in TYPES:
        with case("report of " + t):
            r = json.loads(runt("quantize", path("blocks.gguf"), path("blocks-q.gguf"), t,
                                "-o", "json").out)
            raw = read(path("blocks-q.gguf"))
            assert r["file_bytes"] == len(raw)
            assert abs(r["bits_per_weight"] - 8 * len(raw) / r["weights"]) < 1e-5, r
            for x in r["tensors"]:
                tensor = Gguf(raw).tensor(x["name"])
                assert len(tensor["data"]) == x["bytes"], x
                if x["name"] != "token_embd.weight":
                    continue
                want = c.tensors["wte.weight"][1]
                got = modelfiles.decode_row(tensor["data"], x["type"])
                err = sum((a - b) ** 2 for a, b in zip(got, want))
                rel = (err / sum(b * b for b in want)) ** 0.5
                # the reader's arithmetic is double, the program's blocks float: 1e-5
                assert abs(rel - x["rel_error"]) <= 1e-5 * rel + 1e-12, (rel, x)
                assert rel < {"f32": 1e-12, "f16": 1e-3, "bf16": 4e-3, "q8_0": 8e-3,
                              "q5_1": 0.06, "q5_0": 0.07, "q4_0": 0.15, "q4_1": 0.13,
                              "iq4_nl": 0.12}[t], rel


@test
def the_same_weights_in_other_clothes_import_the_same():
    c = Checkpoint(dtype="F16", heads=4, embd=64)
    c.save(path("clothes"))
    runt("import", path("clothes"), "-o", path("clothes.gguf"), "--name", "x")
    want = read(path("clothes.gguf"))
    wte = ("F16", (300, 64), modelfiles.pack(c.tensors["wte.weight"][1], "F16"))
    for name, how in (("without-prefix", {"prefix": ""}), ("in-3-shards", {"shards": 3}),
                      ("in-60-shards", {"shards": 60}), ("with-masks", {"masks": True}),
                      ("bare-with-masks", {"masks": True, "prefix": ""}),
                      ("masks-in-shards", {"masks": True, "shards": 2}),
                      ("with-the-head-again", {"more": {"lm_head.weight": wte}}),
                      ("tokenizer-json", {"tokenizer": "json"})):
        with case(name.replace("-", " ")):
            r = runt("import", c.save(path(name), **how), "-o", path("other.gguf"), "--name",
                     "x")
            assert r.err == "", r
            assert read(path("other.gguf")) == want
    with case("sizes under their other names"):
        for old, new in (("n_embd", "hidden_size"), ("n_layer", "num_hidden_layers"),
                         ("n_head", "num_attention_heads")):
            c.config[new] = c.config.pop(old)
        c.config["n_ctx"] = c.config.pop("n_positions")
        c.config["n_inner"] = 256
        del c.config["architectures"]
        os.makedirs(path("aliases"))
        for f in os.listdir(path("clothes")):
            os.link(path("clothes", f), path("aliases", f))
        os.unlink(path("aliases", "config.json"))
        write(path("aliases", "config.json"), json.dumps(c.config))
        runt("import", path("aliases"), "-o", path("other.gguf"), "--name", "x")
        assert read(path("other.gguf")) == want
    with case("a slash at the end names the folder"):
        runt("import", path("clothes") + "/", "-o", path("other.gguf"))
        assert Gguf(read(path("other.gguf"))).get("general.name") == b"clothes"


@test
def tensors_of_no_use_are_told():
    c = Checkpoint(layers=1)
    c.save(path("extra"), more={"score.weight": ("F32", (2, 2), bytes(16))})
    r = runt("import", path("extra"), "-o", path("extra.gguf"))
    assert "score.weight" in r.err and "left out" in r.err, r
    assert Gguf(read(path("extra.gguf"))).tensor("score.weight") is None


@test
def a_head_of_its_own_is_kept():
    c = Checkpoint(layers=1, embd=64, heads=4)
    c.config["tie_word_embeddings"] = False
    c.add("lm_head.weight", 300, 64)
    shape, values = c.tensors.pop("lm_head.weight")
    head = {"lm_head.weight": ("F32", shape, modelfiles.pack(values, "F32"))}
    with case("untied head"):
        runt("import", c.save(path("head"), more=head), "-o", path("head.gguf"))
        t = Gguf(read(path("head.gguf"))).tensor("output.weight")
        assert t["data"] == head["lm_head.weight"][2]
        runt("generate", "-m", path("head.gguf"), "-p", "the", "-n", "3")
    with case("untied without a head"):
        fails("import", c.save(path("headless")), "-o", path("x.gguf"),
              words=["lm_head.weight", "tie_word_embeddings"])


@test
def untie_stores_the_table_again():
    runt("import", TINY, "-o", path("untied.gguf"), "--untie", "--type", "q8_0")
    g, plain = Gguf(read(path("untied.gguf"))), Gguf(read(tiny()))
    assert plain.tensor("output.weight") is None
    assert g.tensor("output.weight")["data"] == g.tensor("token_embd.weight")["data"]
    text = [runt("generate", "-m", m, "-p", PROMPT, "--temp", "0", "-n", "20").out
            for m in (path("untied.gguf"), tiny_as("q8_0"))]
    assert text[0] == text[1]


@test
def a_pickled_checkpoint_is_refused_with_advice():
    c = Checkpoint(layers=1)
    c.save(path("pickle"))
    os.rename(path("pickle", "model.safetensors"), path("pickle", "pytorch_model.bin"))
    fails("import", path("pickle"), "-o", path("x.gguf"),
          words=["pytorch_model.bin", "download", "model.safetensors"])
    assert not os.path.exists(path("x.gguf"))


@test
def rows_that_do_not_divide_fall_back_honestly():
    c = Checkpoint(layers=1, heads=5, embd=100, inner=96)
    c.save(path("odd"))
    for verb, args in (("import", ["import", path("odd"), "-o", path("odd.gguf"), "--type",
                                   "q4_0"]),
                       ("quantize", ["quantize", path("odd-float.gguf"), path("odd.gguf"),
                                     "q4_0"])):
        with case("fallback of " + verb):
            runt("import", path("odd"), "-o", path("odd-float.gguf"))
            r = runt(*args)
            notes = [n for n in r.out.split("\n") if n.startswith("note: ")]
            assert len(notes) == 5, r  # all matrices but ffn_down, whose rows have 96
            assert all("F16" in n and "100" in n and "32" in n for n in notes), notes
            g = Gguf(read(path("odd.gguf")))
            assert modelfiles.TYPES[g.tensor("token_embd.weight")["type"]][0] == "F16"
            assert modelfiles.TYPES[g.tensor("blk.0.ffn_down.weight")["type"]][0] == "Q4_0"
            flag = "--report" if verb == "import" else "-o"
            report = json.loads(runt(*args, flag, "json").out)
            assert report["fallbacks"] == 5, report
    with case("fallback of init"):
        r = runt("init", "gpt2", "--layers", "1", "--heads", "5", "--embd", "100", "--vocab",
                 "300", "--context", "16", "--type", "q4_0", "-o", path("odd-init.gguf"))
        assert "F16" in r.out + r.err, "the fallback is silent: %s" % r


@test
def tensor_overrides():
    def types(*overrides):
        args = [a for o in overrides for a in ("--tensor", o)]
        runt("quantize", tiny(), path("mixed.gguf"), "q4_0", "-q", *args)
        return {t["name"]: modelfiles.TYPES[t["type"]][0]
                for t in Gguf(read(path("mixed.gguf"))).tensors}

    plain = types()
    with case("one override"):
        t = types("ffn_down=Q8_0")
        changed = {n for n in t if t[n] != plain[n]}
        assert changed == {"blk.%d.ffn_down.weight" % i for i in range(4)} and \
            {t[n] for n in changed} == {"Q8_0"} or "blk.0.ffn_down.bias" in changed, t
    with case("the last match wins"):
        t = types("weight$=f16", "^blk\\.[01]\\.ffn_(up|down)\\.weight=q4_1",
                  "^blk\\.1\\.=f32")
        assert t["blk.0.ffn_up.weight"] == "Q4_1" and t["blk.2.ffn_up.weight"] == "F16"
        assert t["blk.1.ffn_up.weight"] == "F32", t
    with case("import takes overrides too"):
        runt("import", TINY, "-o", path("m1.gguf"), "--type", "q4_0", "--tensor",
             "token_embd=q8_0")
        runt("quantize", tiny(), path("m2.gguf"), "q4_0", "--tensor", "token_embd=Q8_0")
        assert read(path("m1.gguf")) == read(path("m2.gguf"))
    for name, pattern, word in (("a bad pattern", "blk[=q8_0", "'blk['"),
                                ("a pattern without a match", "blok=q8_0", "'blok'"),
                                ("a pattern never decisive", None, "ffn_up")):
        with case(name):
            out = folder("overrides")
            more = ["--tensor", pattern] if pattern else \
                ["--tensor", "ffn_up=q8_0", "--tensor", "ffn=f16"]
            fails("quantize", tiny(), os.path.join(out, "x.gguf"), "q4_0", *more,
                  words=[word])
            only(out)


# ---- output appears whole or not at all ----

def broken_checkpoint(name="broken"):
    c = Checkpoint(layers=2)
    c.tensors["h.1.mlp.c_fc.weight"][1][4321] = float("nan")
    return c.save(path(name))


@test
def a_failed_run_leaves_the_old_file():
    bad = broken_checkpoint()
    for what in ("nan", "inf", "too large for f16"):
        with case("import of a weight that is " + what):
            out = folder("old-" + what.replace(" ", "-"))
            keep = write(os.path.join(out, "keep.gguf"), b"the old bytes")
            c = Checkpoint(layers=2)
            c.tensors["h.1.mlp.c_fc.weight"][1][4321] = \
                {"nan": float("nan"), "inf": float("-inf")}.get(what, 1e6)
            fails("import", c.save(path("bad-weight")), "-o", keep, "--type", "f16",
                  words=["bad-weight", "blk.1.ffn_up.weight"])
            assert read(keep) == b"the old bytes"
            only(out, "keep.gguf")
    for how in ("ignored", "as usual"):
        with case("a file size limit, its signal " + how):
            out = folder("limit-" + how.replace(" ", "-"))
            keep = write(os.path.join(out, "keep.gguf"), b"the old bytes")

            def set_limits():
                limits(file_size=1 << 20)()
                action = signal.SIG_IGN if how == "ignored" else signal.SIG_DFL
                signal.signal(signal.SIGXFSZ, action)

            fails("quantize", tiny(), keep, "q8_0", preexec=set_limits,
                  words=["keep.gguf", "File too large"])
            assert read(keep) == b"the old bytes"
            only(out, "keep.gguf")
    with case("into a folder that is not there"):
        fails("import", TINY, "-o", path("no", "such", "x.gguf"), words=["x.gguf"])
    with case("onto a folder"):
        fails("import", TINY, "-o", folder("a-folder"), words=["directory"])
        only(path("a-folder"))
    with case("nothing is written before the input is read"):
        out = folder("untouched")
        fails("import", path("pickle"), "-o", os.path.join(out, "x.gguf"))
        only(out)
    assert bad


@test
def an_existing_file_is_replaced_atomically():
    """A reader that opens the file at any moment sees one whole model or the other."""
    small, large = tiny_as("q4_0"), tiny_as("q8_0")
    target = path("live.gguf")
    runt("quantize", tiny(), target, "q4_0")
    seen, whole = set(), {read(small), read(large)}
    for t in ("q8_0", "q4_0"):
        p = subprocess.Popen([RUNT, "quantize", tiny(), target, t, "-q"], env=environment())
        while p.poll() is None:
            now = read(target)
            assert now in whole, "a file of %d bytes was seen" % len(now)
            seen.add(now)
        assert p.returncode == 0
        assert read(target) == read({"q8_0": large, "q4_0": small}[t])


def interrupt(args, out, sig=signal.SIGINT):
    """Run until a file appears in the folder `out`, then interrupt."""
    p = subprocess.Popen([RUNT, *args], env=environment(), stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60 * SLOW
    while p.poll() is None and not os.listdir(out) and time.monotonic() < deadline:
        time.sleep(0.001)
    p.send_signal(sig)
    try:
        _, err = p.communicate(timeout=60 * SLOW)
    finally:
        p.kill()
    return p.returncode, err


@test
def an_interrupt_leaves_nothing():
    big = path("big.gguf")
    runt("init", "gpt2", "--layers", "6", "--vocab", "20000", "--type", "f16", "-o", big)
    for sig in (signal.SIGINT, signal.SIGTERM):
        for verb in ("init", "quantize"):
            with case("%s during %s" % (sig.name, verb)):
                out = folder("interrupt-%s-%s" % (verb, sig.name))
                target = os.path.join(out, "x.gguf")
                args = ["quantize", big, target, "q4_1", "-t", "1"]
                if verb == "init":
                    args = ["init", "gpt2", "--size", "355M", "-o", target, "-t", "1"]
                rc, err = interrupt(args, out, sig)
                assert rc == 130, (rc, err)
                assert err == b"runt %s: interrupted\n" % verb.encode(), err
                only(out)
    os.unlink(big)


# ---- inspect ----

@test
def inspect_shows_metadata_and_tensors():
    text = runt("inspect", tiny_as("q4_0")).out
    assert "gpt2.context_length" in text and "tiny-gpt2" in text and "Q4_0" in text
    assert "blk.0.attn_qkv.weight" not in text
    long = runt("inspect", "--tensors", tiny_as("q4_0")).out
    assert long.startswith(text) and long.count("blk.") == 48, long
    assert runt("inspect", "-m", tiny_as("q4_0")).out == text


@test
def inspect_json_adds_up():
    raw = read(tiny_as("q4_0"))
    g = Gguf(raw)
    short = json.loads(runt("inspect", tiny_as("q4_0"), "-o", "json").out)
    j = json.loads(runt("inspect", tiny_as("q4_0"), "-o", "JSON", "--tensors").out)
    assert "tensors" not in short
    assert {k: v for k, v in j.items() if k != "tensors"} == short
    assert j["file_bytes"] == len(raw) and j["version"] == 3
    assert j["tensor_count"] == len(j["tensors"]) == len(g.tensors)
    assert list(j["metadata"]) == g.keys()
    assert j["metadata"]["gpt2.block_count"] == 4
    assert j["metadata"]["general.name"] == "tiny-gpt2"
    assert j["metadata"]["tokenizer.ggml.add_bos_token"] is False
    for mine, theirs in zip(g.tensors, j["tensors"]):
        assert mine["name"] == theirs["name"] and len(mine["data"]) == theirs["bytes"]
        assert mine["dims"][0] == theirs["columns"]
    assert j["weights"] == sum(t["rows"] * t["columns"] for t in j["tensors"])
    assert sum(t["bytes"] for t in j["types"].values()) == sum(
        t["bytes"] for t in j["tensors"])
    assert abs(j["bits_per_weight"] - 8 * len(raw) / j["weights"]) < 1e-6


@test
def inspect_json_is_json_whatever_the_metadata():
    g = Gguf(read(tiny_as("q4_0")))
    g.set("general.name", modelfiles.STR, "a \"b\"\\\n\x1b[31m\x7f\x9b".encode() + b"\xff\xfe")
    g.set("odd \"key\"\\ \xe9", modelfiles.STR, b"")
    for kind, value in ((modelfiles.I8, -3), (modelfiles.I64, -(1 << 63)),
                        (modelfiles.U64, (1 << 64) - 1), (modelfiles.F64, 1e300),
                        (modelfiles.F32, float("nan")), (modelfiles.F32, float("inf")),
                        (modelfiles.BOOL, 1), (modelfiles.F64, -0.5)):
        g.set("test.%d.%s" % (kind, value), kind, value)
    g.set("test.list", modelfiles.ARR, [modelfiles.I16, [1, -2, 3]])
    g.set("k" * 400, modelfiles.U8, 7)
    g.tensors.append({"name": "odd \"tensor\"\\", "dims": [32], "type": 0, "offset": 0,
                      "data": bytes(128)})
    p = write(path("odd-meta.gguf"), g.bytes())

    def strict(name):
        raise AssertionError("%s is not JSON" % name)

    with case("json"):
        j = json.loads(runt("inspect", p, "-o", "json", "--tensors").out,
                       parse_constant=strict)
        m = j["metadata"]
        assert list(m) == g.keys()
        assert m["test.7.1"] is True and m["test.12.-0.5"] == -0.5, m
        assert m["test.10.18446744073709551615"] == (1 << 64) - 1, m
        assert j["tensors"][-1]["name"] == "odd \"tensor\"\\"
    with case("negative integers and large keys have their values"):
        m = json.loads(runt("inspect", p, "-o", "json").out)["metadata"]
        assert m["test.1.-3"] == -3 and m["k" * 400] == 7, m
        assert m["test.11.%d" % -(1 << 63)] == -(1 << 63), m
    with case("text cannot drive a terminal"):
        out = runt("inspect", p, "--tensors").raw
        assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]", out), out[:2000]
    with case("the report of quantize is JSON too"):
        r = runt("quantize", p, path("odd-meta-q.gguf"), "q8_0", "-o", "json")
        names = [t["name"] for t in json.loads(r.out, parse_constant=strict)["tensors"]]
        assert names[-1] == "odd \"tensor\"\\"


@test
def a_huge_context_costs_only_what_is_used():
    p = path("huge-context.gguf")
    runt("init", "gpt2", "--layers", "6", "--heads", "2", "--embd", "32", "--vocab", "300",
         "--context", "1048576", "--type", "q4_0", "-o", p)
    r = json.loads(runt("generate", "-m", p, "-p", "hello", "-n", "2", "-o", "json").out)
    # the file is mapped; the caches of a million positions are 1.6 GB
    assert SANITIZE or r["peak_bytes"] < 200e6, r


@test
def small_comforts():
    with case("runt help VERB"):
        assert runt("help", "eval").raw == runt("eval", "--help").raw
    with case("-n5"):
        joined = runt("generate", "-m", tiny(), "-p", PROMPT, "-n5", "--temp", "0").raw
        assert joined == runt("generate", "-m", tiny(), "-p", PROMPT, "-n", "5", "--temp",
                              "0").raw
        misuse("generate", "-m", tiny(), "-p", PROMPT, "-nx", words=["-n wants"])
    with case("quantize does not overwrite its input"):
        p = write(path("same.gguf"), read(tiny()))
        os.link(p, path("same-too.gguf"))
        for out in (p, path("same-too.gguf")):
            fails("quantize", p, out, "q4_0", words=["input"])
        assert read(p) == read(tiny())
    with case("a path that is not there is no model of the hub"):
        os.makedirs(path("folder"))
        for name in ("folder/none", "none/model.gguf"):
            r = fails("inspect", name, cwd=path())
            assert "no such model file" in r.err, r
    with case("SIGHUP leaves nothing"):
        os.makedirs(path("hup"))
        p = subprocess.Popen([RUNT, "init", "gpt2", "--size", "124M", "-o",
                              path("hup", "x.gguf")], stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        p.send_signal(signal.SIGHUP)
        assert p.wait(60) == 130 and not os.listdir(path("hup")), os.listdir(path("hup"))


@test
def quantize_keeps_metadata_and_unknown_tensors():
    g = Gguf(read(tiny()))
    g.set("general.author", modelfiles.STR, b"somebody")
    g.set("custom.list", modelfiles.ARR, [modelfiles.STR, [b"a", b""]])
    g.set("general.alignment", modelfiles.U32, 32)
    p = write(path("custom.gguf"), g.bytes())
    runt("quantize", p, path("custom-q.gguf"), "q8_0")
    q = Gguf(read(path("custom-q.gguf")))
    assert q.get("general.author") == b"somebody" and q.get("custom.list") == [b"a", b""]
    assert q.get("general.file_type") == 7
    assert set(q.keys()) | {"general.alignment"} == set(g.keys())


@test
def files_of_other_writers_load():
    """Other integer widths, version 2, no token types, wider alignment, another order."""
    g = Gguf(read(tiny_as("q8_0")))
    want = runt("generate", "-m", tiny_as("q8_0"), "-p", PROMPT, "--temp", "0", "-n",
                "12").out
    wide = g.copy()
    for e in wide.kv:
        if e[1] == modelfiles.U32:
            e[1] = modelfiles.U64
    old = g.copy()
    old.version = 2
    bare = g.copy()
    bare.drop("tokenizer.ggml.token_type")
    bare.drop("tokenizer.ggml.add_bos_token")
    bare.drop("general.name")
    mixed = g.copy()
    mixed.tensors.reverse()
    mixed.kv.reverse()
    untied = g.copy()
    head = dict(untied.tensor("token_embd.weight"), name="output.weight")
    untied.tensors.append(head)
    for name, model in (("64-bit counts", wide), ("version 2", old), ("bare", bare),
                        ("reversed", mixed), ("untied", untied)):
        with case("loads a file that is " + name):
            p = write(path("other-writer.gguf"), model.bytes())
            r = runt("generate", "-m", p, "-p", PROMPT, "--temp", "0", "-n", "12")
            assert r.out == want, r


# ---- init ----

@test
def init_is_repeatable():
    shape = ["--layers", "1", "--heads", "3", "--embd", "48", "--vocab", "400", "--context",
             "20"]
    def one(name, *args):
        runt("init", "gpt2", *shape, *args, "-o", path(name))
        return read(path(name))
    first = one("i1.gguf", "--seed", "1")
    assert first == one("i2.gguf", "-s", "1", "-t", "3")
    assert first == one("i2.gguf", "--size", "355m", "-s", "1")  # the shape overrides it
    assert first != one("i2.gguf", "--seed", "2")
    with case("init --format hf holds the same model"):
        runt("init", "gpt2", *shape, "--seed", "1", "--format", "HF", "-o", path("i-hf"))
        runt("import", path("i-hf"), "-o", path("i3.gguf"), "--name", "random")
        assert read(path("i3.gguf")) == first
    with case("init --type is quantizing"):
        runt("quantize", path("i1.gguf"), path("i4.gguf"), "q8_0")
        assert one("i5.gguf", "--seed", "1", "--type", "Q8_0") == read(path("i4.gguf"))
    with case("init --untied has a head"):
        g = Gguf(one("i6.gguf", "--untied"))
        assert g.tensor("output.weight")["data"] != g.tensor("token_embd.weight")["data"]


@test
def init_takes_a_tokenizer():
    runt("init", "gpt2", "--layers", "1", "--heads", "2", "--embd", "32", "--context", "32",
         "--tokenizer", TINY, "-o", path("it.gguf"))
    g = Gguf(read(path("it.gguf")))
    assert g.tensor("token_embd.weight")["dims"] == [32, 4096]
    assert g.get("tokenizer.ggml.tokens") == Gguf(read(tiny())).get("tokenizer.ggml.tokens")
    with case("more rows than tokens are padded"):
        runt("init", "gpt2", "--layers", "1", "--heads", "2", "--embd", "32", "--context",
             "32", "--tokenizer", TINY, "--vocab", "4100", "-o", path("it.gguf"))
        g = Gguf(read(path("it.gguf")))
        tokens = g.get("tokenizer.ggml.tokens")
        assert len(tokens) == 4100 and re.fullmatch(rb"\[PAD ?\d+\]", tokens[-1]), tokens[-1]
        assert g.get("tokenizer.ggml.token_type")[-4:] == [5] * 4
        runt("generate", "-m", path("it.gguf"), "-p", "hi", "-n", "30", "--temp", "5")
    with case("fewer rows than tokens are refused"):
        fails("init", "gpt2", "--layers", "1", "--heads", "2", "--embd", "32", "--tokenizer",
              TINY, "--vocab", "4000", "-o", path("no.gguf"), words=["4096", "4000"])
        assert not os.path.exists(path("no.gguf"))
    with case("a synthetic vocabulary of any size"):
        for n in ("257", "258", "3000"):
            runt("init", "gpt2", "--layers", "1", "--heads", "1", "--embd", "8", "--context",
                 "8", "--vocab", n, "-o", path("v.gguf"))
            data = bytes(range(256))
            ids = ids_of(data, model=path("v.gguf"))
            assert bytes_of(ids, model=path("v.gguf")) == data, n
    with case("a vocabulary too small for all bytes says so"):
        r = runt("init", "gpt2", "--layers", "1", "--heads", "1", "--embd", "8", "--vocab",
                 "10", "-o", path("v10.gguf"), expect=None)
        if r.rc == 0:
            fails("generate", "-m", path("v10.gguf"), "-p", "zebra", words=["byte 0x7a", "vocabulary"])


# ---- tokenize ----

TEXTS = ["", " ", "\n", "Hello world", "  two  spaces  ", "don't we'll I'm", "a\n\n\nb\t\tc\r\n",
         "naïve café — 日本語 🙂 👩‍👩‍👧", "x" * 1000, "3.14 1234567 ½ ⅷ", "\u00a0\u2003\u3000",
         "<|endoftext|>", "a<|endoftext|>b", "<|endof", "\0\1\2", "\ufeffbom", "e\u0301"]


@test
def tokenize_round_trips():
    for model, name in ((tiny(), "file"), (TINY, "folder")):
        with case("ids and back, from a " + name):
            for text in TEXTS:
                ids = ids_of(text, model=model)
                assert bytes_of(ids, model=model) == text.encode(), text
                n = runt("tokenize", "-m", model, "--count", stdin=text).out
                assert n == "%d\n" % len(ids), (text, n)
    assert [ids_of(t) for t in TEXTS] == [ids_of(t, model=TINY) for t in TEXTS]
    with case("random bytes"):
        rng = random.Random(5)
        for _ in range(5):
            data = rng.randbytes(3000)
            assert bytes_of(ids_of(data)) == data
    with case("the oracle's ids"):
        o = oracle()
        assert ids_of(o["prompt"]) == o["tokens"]
        whole = ids_of(o["perplexity"]["text"])
        n = len(o["perplexity"]["tokens"])  # of its whole windows
        assert whole[:n] == o["perplexity"]["tokens"] and n > 64, (whole, n)


@test
def tokenize_ways_in_and_out():
    text = 'He said "hi".\n'
    ids = ids_of(text)
    write(path("hi.txt"), text)
    with case("from -p, -f, -f - and stdin"):
        for args, stdin in ((["-p", text], None), (["-f", path("hi.txt")], None),
                            (["-f", "-"], text), ([], text)):
            r = runt("tokenize", "-m", tiny(), "--ids", *args, stdin=stdin)
            assert [int(i) for i in r.out.split()] == ids, r
    with case("an empty -p is empty, not stdin"):
        assert runt("tokenize", "-m", tiny(), "--count", "-p", "", stdin="abc").out == "0\n"
    with case("--text has an id and a piece a line, and is the default"):
        r = runt("tokenize", "-m", tiny(), "--text", stdin=text)
        assert runt("tokenize", "-m", tiny(), stdin=text).out == r.out
        lines = [line.split(None, 1) for line in r.out.splitlines()]
        assert [int(i) for i, _ in lines] == ids
        assert "".join(json.loads(p) for _, p in lines) == text
    with case("--decode takes commas, tabs and lines"):
        r = runt("tokenize", "-m", tiny(), "--decode",
                 stdin=",\n".join("\t%d " % i for i in ids) + "\n")
        assert r.raw == text.encode()
    with case("--decode of nothing"):
        assert runt("tokenize", "-m", tiny(), "--decode", stdin=" \n").raw == b""
    for bad, word in (("4096", "4096"), ("-1", "-1"), ("1 2 x", "'x'"), ("1.5", "'.5'"),
                      ("9" * 40, "outside"), ("1 2\0 3", "")):
        with case("--decode refuses %r" % bad):
            r = runt("tokenize", "-m", tiny(), "--decode", stdin=bad, expect=1)
            assert r.err.count("\n") == 1 and word in r.err, r
    with case("a missing text"):
        fails("tokenize", "-m", tiny(), "-f", path("no.txt"), words=["no.txt"])
        fails("tokenize", "-m", tiny(), "-f", TINY, words=["tiny-gpt2"])


@test
def control_tokens_only_when_asked():
    text = "a%sb" % EOT
    spelt, meant = ids_of(text), ids_of(text, "--special")
    assert 4095 not in spelt and len(spelt) > 4, spelt
    assert meant == ids_of("a") + [4095] + ids_of("b"), meant
    assert bytes_of(spelt) == bytes_of(meant) == text.encode()
    assert ids_of(EOT * 3, "--special") == [4095] * 3


@test
def long_texts_tokenize_in_linear_time():
    for name, text in (("stories", (read(HELDOUT) * 30)[:1 << 20]), ("one letter", "a" * (1 << 20)),
                       ("spaces", " " * (1 << 20)), ("emoji", "🙂" * (1 << 18))):
        with case("1 MB of " + name):
            t0 = time.monotonic()
            n = int(runt("tokenize", "-m", TINY, "--count", stdin=text).out)
            seconds = time.monotonic() - t0
            assert n > 1000 and seconds < 5 * SLOW, (n, seconds)


# ---- eval ----

def evaluate(model, *args, text=HELDOUT, **more):
    r = runt("eval", "-m", model, "-f", text, "-o", "json", *args, timeout=300, **more)
    assert r.err == "", r
    j = json.loads(r.out)
    j.pop("seconds")
    return j


@test
def eval_matches_the_oracle():
    o = oracle()["perplexity"]
    p = write(path("oracle.txt"), o["text"])
    j = evaluate(tiny(), "--window", str(o["window"]), text=p)
    assert j["tokens"] == o["scored"], j
    assert j["stream_tokens"] == len(ids_of(o["text"])), j
    assert abs(j["perplexity"] / o["perplexity"] - 1) <= 1e-4, (j, o["perplexity"])


@test
def eval_keys():
    j = evaluate(tiny_as("q4_0"), "--base", tiny(), "--max-tokens", "1024")
    for key in ("perplexity", "bits_per_byte", "kl_mean", "kl_p99", "top1"):
        assert isinstance(j[key], float) and isinstance(j[key + "_se"], float), (key, j)
        assert j[key] > 0 and j[key + "_se"] > 0, (key, j)
    assert isinstance(j["tokens"], int) and j["tokens"] == 4 * 255, j
    assert j["kl_p99"] > j["kl_mean"] and 0.5 < j["top1"] < 1, j
    with case("without a base there is no divergence"):
        j = evaluate(tiny(), "--max-tokens", "512")
        assert "perplexity" in j and not [k for k in j if "kl" in k or "top1" in k], j
    with case("the text report has the same figures"):
        r = runt("eval", "-m", tiny(), "-f", HELDOUT, "--max-tokens", "512")
        assert re.search(r"^perplexity +%.6f" % j["perplexity"], r.out, re.M), (r, j)


@test
def eval_of_a_model_against_itself():
    for m in (tiny(), tiny_as("q4_0")):
        j = evaluate(m, "--base", m, "--max-tokens", "1024")
        assert j["kl_mean"] == 0 and j["kl_p99"] == 0 and j["top1"] == 1, j
        assert j["perplexity"] == j["base_perplexity"], j


@test
def eight_and_four_bits_cost_little():
    part = ["--max-tokens", "2560"] if SANITIZE else []
    float_ppl = evaluate(tiny(), *part)["perplexity"]
    for t, limit in (("q8_0", 0.001), ("q5_0", 0.02), ("q5_1", 0.02), ("q4_0", 0.08),
                     ("q4_1", 0.08), ("iq4_nl", 0.05)):
        with case("perplexity as " + t):
            ppl = evaluate(tiny_as(t), *part)["perplexity"]
            assert abs(ppl / float_ppl - 1) < limit, (ppl, float_ppl)
    with case("perplexity as f32 is that of f16"):
        ppl = evaluate(tiny_as("f32"), "--max-tokens", "512")["perplexity"]
        half = evaluate(tiny(), "--max-tokens", "512")["perplexity"]
        assert abs(ppl / half - 1) < 1e-5, (ppl, half)


def instruction_sets():
    """Those of this machine's; the program refuses the others by name."""
    have = []
    for cpu in ("ref", "avx2", "avxvnni", "avx512vl", "avx512", "neon", "neondot"):
        r = runt("generate", "-m", tiny_as("q4_0"), "-p", "x", "-n", "1",
                 env={"RUNT_CPU": cpu}, expect=None)
        if r.rc == 0:
            have.append(cpu)
        else:
            check_line(r, ["RUNT_CPU=" + cpu, "this processor"])
    assert have[0] == "ref", have
    return have


@test
def eval_does_not_depend_on_threads_or_instruction_set():
    for t in ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl"):
        with case("same figures, " + t):
            args = ["--base", tiny_as("f32"), "--window", "48", "--max-tokens", "96"]
            m = tiny_as(t)
            want = evaluate(m, *args, "-t", "1")
            assert evaluate(m, *args, "-t", "2") == want
            assert evaluate(m, *args, "-t", "5") == want
            for cpu in instruction_sets():
                assert evaluate(m, *args, env={"RUNT_CPU": cpu}) == want, cpu


@test
def eval_windows_and_strides():
    with case("a stride of the window is the default"):
        a = evaluate(tiny(), "--window", "64", "--max-tokens", "640")
        assert a == evaluate(tiny(), "--window", "64", "--stride", "64", "--max-tokens", "640")
        assert a["tokens"] == 630, a
    with case("a smaller stride scores its last tokens"):
        j = evaluate(tiny(), "--window", "64", "--stride", "16", "--max-tokens", "128")
        assert j["tokens"] == 63 + 4 * 16, j
        whole = evaluate(tiny(), "--window", "64", "--stride", "1", "--max-tokens", "100")
        assert whole["tokens"] == 99, whole
    with case("the tail is dropped"):
        a = evaluate(tiny(), "--window", "64", "--max-tokens", "191")
        b = evaluate(tiny(), "--window", "64", "--max-tokens", "128")
        assert {**a, "stream_tokens": 0} == {**b, "stream_tokens": 0}
    with case("the end-of-text token is one token"):
        p = write(path("eot.txt"), "a" + EOT * 5)
        assert evaluate(tiny(), "--window", "3", text=p)["stream_tokens"] == 6
    with case("stdin"):
        r = runt("eval", "-m", tiny(), "-f", "-", "--window", "8", "-o", "json",
                 stdin="one two three four five six seven eight nine ten")
        assert json.loads(r.out)["tokens"] >= 7
    with case("a window of 2"):
        assert evaluate(tiny(), "--window", "2", "--max-tokens", "64")["tokens"] == 32


@test
def eval_errors():
    short = write(path("short.txt"), "Only a few words.")
    empty = write(path("empty.txt"), "")
    other = made("other.gguf", "init", "gpt2", "--layers", "1", "--heads", "1", "--embd", "16",
                 "--context", "8", "--vocab", "4096")
    small = made("small.gguf", "init", "gpt2", "--layers", "1", "--heads", "1", "--embd",
                 "16", "--context", "8", "--vocab", "300")
    near = made("near.gguf", "init", "gpt2", "--layers", "1", "--heads", "1", "--embd", "16",
                "--context", "8", "--tokenizer", TINY)
    for name, args, words in (
            ("a text shorter than the window", ["-f", short], [short, "--window"]),
            ("an empty text", ["-f", empty], [empty]),
            ("a missing text", ["-f", path("no.txt")], ["no.txt"]),
            ("a window above the context", ["-f", HELDOUT, "--window", "257"],
             ["257", "256"]),
            ("a window of 1", ["-f", HELDOUT, "--window", "1"], ["2"]),
            ("a stride above the window",
             ["-f", HELDOUT, "--window", "64", "--stride", "65"], ["65", "64"]),
            ("too few tokens asked for", ["-f", HELDOUT, "--max-tokens", "255"], ["255"]),
            ("a base of another vocabulary", ["-f", HELDOUT, "--base", other], [other]),
            ("a base of another size", ["-f", HELDOUT, "--base", small], [small, "300"]),
            ("a base of a smaller context", ["-f", HELDOUT, "--base", near], ["8"]),
            ("a missing base", ["-f", HELDOUT, "--base", "nix.gguf"], ["nix.gguf"])):
        with case("eval of " + name):
            fails("eval", "-m", tiny(), *args, words=words)
    with case("the message names the text once"):
        r = fails("eval", "-m", tiny(), "-f", path("no.txt"))
        assert r.err.count("no.txt") == 1, r


# ---- generate ----

def generate(*args, prompt=PROMPT, model=None, **more):
    """What is drawn, without the prompt and the newline at the end."""
    r = runt("generate", "-m", model or tiny(), "--no-display-prompt", "-p", prompt, *args,
             **more)
    told = "(the context of"  # was full, which is said
    assert (r.err == "" or r.err.startswith(told)) and r.out.endswith("\n"), r
    return r.out[:-1]


@test
def greedy_continuation_is_the_oracles():
    o = oracle()
    want = bytes_of(o["greedy"]).decode()
    args = ["--temp", "0", "-n", str(len(o["greedy"]))]
    for t in ("f16", "f32"):
        with case("greedy as " + t):
            assert generate(*args, prompt=o["prompt"], model=tiny_as(t)) == want
    with case("with the prompt in front"):
        r = runt("generate", "-m", tiny(), "-p", o["prompt"], *args)
        assert r.out == o["prompt"] + want + "\n", r
    with case("from a file and from stdin"):
        p = write(path("prompt.txt"), o["prompt"])
        for more, stdin in ((["-f", p], None), (["-f", "-"], o["prompt"])):
            assert runt("generate", "-m", tiny(), *more, *args, stdin=stdin).out == r.out
    with case("seeds, top-k and the others do not matter to greedy"):
        assert generate(*args, "-s", "7", "--top-k", "3", "--top-p", "0.5",
                        prompt=o["prompt"]) == want
    with case("threads and instruction sets do not matter"):
        assert generate(*args, "-t", "3", prompt=o["prompt"]) == want
        assert generate(*args, prompt=o["prompt"], env={"RUNT_CPU": "ref"}) == want
    with case("--top-k 1 is greedy"):
        assert generate("--top-k", "1", "-s", "9", *args[2:], prompt=o["prompt"]) == want


@test
def seeds_repeat_and_differ():
    one = [generate("-s", "1", "-n", "40"), generate("--seed=1", "-n", "40", "-t", "2")]
    assert one[0] == one[1]
    assert len({generate("-s", str(s), "-n", "40") for s in range(1, 5)}) == 4
    with case("seed -1 is the default and differs from run to run"):
        assert len({generate("-n", "40", *s) for s in ([], ["-s", "-1"], [])}) > 1
    with case("large seeds"):
        a, b = (generate("-n", "40", "-s", s) for s in ("9000000000000000000",
                                                        "8999999999999999999"))
        assert a != b
    with case("temperature matters"):
        assert generate("-s", "1", "-n", "40", "--temp", "2") != one[0]
    with case("a repeat penalty matters"):
        args = ["--temp", "0", "-n", "80"]
        assert generate(*args, "--repeat-penalty", "5") != generate(*args)


@test
def stop_texts_hold_back():
    args = ["--temp", "0", "-n", "40"]
    whole = generate(*args)
    ids = ids_of(whole)
    pieces = [bytes_of([i]).decode() for i in ids]
    across = pieces[9][-1] + pieces[10][:2]  # begins in one token, ends in the next
    long = "".join(pieces[5:12])
    for name, stops in (("one token", [pieces[7]]), ("a stop across tokens", [across]),
                        ("a stop of many tokens", [long]),
                        ("the first of several", [pieces[20], pieces[6], long]),
                        ("one letter", ["m"]),
                        ("one that never comes", ["xyzzy"]),
                        ("a beginning that never ends", [pieces[8] + "xyzzy"])):
        with case("stop before " + name):
            more = [a for s in stops for a in ("--stop", s)]
            cut = min((whole.find(s) for s in stops if s in whole), default=len(whole))
            assert generate(*args, *more) == whole[:cut], (stops, whole)
            j = json.loads(runt("generate", "-m", tiny(), "-p", PROMPT, "-o", "json", *args,
                                *more).out)
            assert j["text"] == whole[:cut], (stops, whole, j)
            assert j["end"] == ("stop" if cut < len(whole) else "length"), j


@test
def text_is_valid_utf8_at_every_write():
    hot = ["--temp", "3", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--ignore-eos"]
    for prompt in ("🙂 naïve 日本語", "", "plain"):
        with case("writes after prompt %r" % prompt):
            p = subprocess.Popen([RUNT, "generate", "-m", tiny(), "-p", prompt, "-n", "300",
                                  "-s", "3", *hot], env=environment(),
                                 stdout=subprocess.PIPE)
            n_reads = n_bytes = 0
            while True:
                chunk = os.read(p.stdout.fileno(), 1 << 16)  # whole writes: they are small
                if not chunk:
                    break
                chunk.decode("utf-8")
                n_reads += 1
                n_bytes += len(chunk)
            p.stdout.close()
            assert p.wait() == 0 and n_bytes > 300, (p.returncode, n_bytes)
            assert n_reads > 20, "%d bytes came in only %d writes" % (n_bytes, n_reads)
    with case("bytes that are no text become U+FFFD"):
        data = bytes(range(128, 256)) + b"\xf0\x9f\x99"
        p = write(path("bytes.bin"), data + b" \0 end")
        out = runt("generate", "-m", tiny(), "-f", p, "-n", "3", "-s", "1").out
        assert out.startswith("\ufffd" * 60) and " \0 end" in out, out
    with case("a prompt that ends inside a character"):
        p = write(path("half.bin"), "caf".encode() + b"\xc3")
        assert runt("generate", "-m", tiny(), "-f", p, "-n", "3", "-s", "1").out[:4] == "caf\ufffd"


@test
def streaming_is_token_by_token():
    """The first words come long before the last."""
    p = subprocess.Popen([RUNT, "generate", "-m", tiny(), "-p", "x", "-n", "2000", "--temp",
                          "0", "--ignore-eos"], env=environment(), stdout=subprocess.PIPE)
    ready, _, _ = select.select([p.stdout], [], [], 30 * SLOW)
    assert ready and os.read(p.stdout.fileno(), 100)
    assert p.poll() is None
    p.send_signal(signal.SIGINT)
    rest, _ = p.communicate(timeout=30 * SLOW)
    assert p.returncode == 130 and rest.endswith(b"\n"), (p.returncode, rest[-80:])


@test
def longer_than_the_context():
    with case("more tokens than the context"):
        r = runt("generate", "-m", tiny(), "-p", PROMPT, "-n", "400", "--ignore-eos", "-s", "1",
                 "-o", "json")
        j = json.loads(r.out)
        assert j["tokens"] == 400 and j["end"] == "length", j
    with case("the same text again, on any number of threads"):
        again = runt("generate", "-m", tiny(), "-p", PROMPT, "-n", "400", "--ignore-eos",
                     "-s", "1", "-o", "json", "-t", "1")
        assert json.loads(again.out)["text"] == j["text"]
    with case("a prompt longer than the context"):
        p = write(path("long.txt"), read(HELDOUT)[:8000])
        j = json.loads(runt("generate", "-m", tiny(), "-f", p, "-n", "4", "-o", "json").out)
        assert j["prompt_tokens"] > 1000 and j["tokens"] == 4, j
    for n in ("1", "2", "3", "17"):
        with case("a context of " + n):
            text = generate("-c", n, "-n", "50", "--ignore-eos", "--temp", "0")
            assert text == generate("-c", n, "-n", "50", "--ignore-eos", "--temp", "0")
    with case("a context above the model's is refused"):
        fails("generate", "-m", tiny(), "-p", "x", "-c", "257", words=["257", "256"])


@test
def prompts_of_all_kinds():
    with case("an empty prompt starts a document"):
        want = generate("--temp", "0", "-n", "20", "--special", prompt=EOT)
        assert generate("--temp", "0", "-n", "20", prompt="") == want
        r = runt("generate", "-m", tiny(), "--temp", "0", "-n", "20")
        assert r.out == want + "\n", r
        write(path("nothing.txt"), "")
        r = runt("generate", "-m", tiny(), "-f", path("nothing.txt"), "--temp", "0", "-n", "20")
        assert r.out == want + "\n", r
    with case("control tokens in a prompt only when asked"):
        r = [json.loads(runt("generate", "-m", tiny(), "-p", EOT, "-n", "1", "-o", "json",
                             *more).out)["prompt_tokens"] for more in ([], ["--special"])]
        assert r[0] > 3 and r[1] == 1, r
    with case("a prompt of zeros"):
        p = write(path("zeros.bin"), bytes(100))
        j = json.loads(runt("generate", "-m", tiny(), "-f", p, "-n", "2", "-o", "json").out)
        assert j["prompt_tokens"] > 10, j
    with case("a prompt that begins with a dash"):
        assert runt("generate", "-m", tiny(), "-p", "-- he said", "-n", "2").out[:10] == \
            "-- he said"


@test
def json_has_the_figures():
    r = runt("generate", "-m", tiny(), "-p", PROMPT, "-n", "10", "-s", "1", "-o", "json")
    j = json.loads(r.out)
    assert r.out.count("\n") == 1
    assert j["text"] == generate("-n", "10", "-s", "1"), j
    assert j["prompt_tokens"] == len(ids_of(PROMPT)) and j["tokens"] == 10, j
    assert j["seconds"] > 0 and j["tokens_per_second"] > 0 and j["prompt_seconds"] > 0, j
    assert j["peak_bytes"] > 5e6 and j["end"] == "length", j
    with case("the end of the text ends it"):
        # a little temperature finds the end of a story soon
        ends = [json.loads(runt("generate", "-m", tiny(), "-p", "The end.", "-n", "300", "-s",
                                str(s), "-o", "json").out) for s in range(6)]
        done = [e for e in ends if e["end"] == "eos"]
        assert done and all(EOT not in e["text"] for e in done), ends
        more = generate("-n", "300", "-s", str(ends.index(done[0])), "--ignore-eos",
                        prompt="The end.")
        assert EOT in more, more
    with case("text that is hard to quote"):
        p = write(path("hard.bin"), b"\"\\\n\x01\xff")
        json.loads(runt("generate", "-m", tiny(), "-f", p, "-n", "60", "-s", "2", "-o", "json",
                        "--temp", "5", "--top-k", "0", "--top-p", "1", "--min-p", "0").out)


@test
def a_reader_that_leaves_ends_it():
    for name, action in (("as usual", signal.SIG_DFL), ("with SIGPIPE ignored", signal.SIG_IGN)):
        with case("closed stdout, " + name):
            p = subprocess.Popen([RUNT, "generate", "-m", tiny(), "-p", "x", "-n", "0",
                                  "--ignore-eos"], env=environment(), stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE,
                                 preexec_fn=lambda: signal.signal(signal.SIGPIPE, action))
            assert os.read(p.stdout.fileno(), 1)
            p.stdout.close()
            try:
                rc = p.wait(20 * SLOW)
            except subprocess.TimeoutExpired:
                raise AssertionError("it goes on writing to nobody") from None
            finally:
                p.kill()
            assert rc in (1, -signal.SIGPIPE), rc
            p.stderr.close()


@test
def an_interrupt_while_waiting_for_a_prompt_ends_it():
    for verb in ("generate", "eval", "tokenize"):
        with case("%s -f - interrupted" % verb):
            p = subprocess.Popen([RUNT, verb, "-m", tiny(), "-f", "-"], env=environment(),
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE)
            time.sleep(0.5 * SLOW)
            assert p.poll() is None
            p.send_signal(signal.SIGINT)
            try:
                rc = p.wait(10 * SLOW)
            except subprocess.TimeoutExpired:
                raise AssertionError("it keeps reading") from None
            finally:
                p.kill()
                for pipe in (p.stdin, p.stdout, p.stderr):
                    pipe.close()
            assert rc in (130, -signal.SIGINT), rc


@test
def a_model_with_broken_weights_says_so():
    g = Gguf(read(tiny_as("f32")))
    g.tensor("blk.2.ffn_up.weight")["data"] = struct.pack("<f", float("nan")) + \
        g.tensor("blk.2.ffn_up.weight")["data"][4:]
    p = write(path("nan.gguf"), g.bytes())
    fails("generate", "-m", p, "-p", "x", "--no-display-prompt", "-o", "json",
          words=["nan.gguf", "broken"])
    fails("eval", "-m", p, "-f", HELDOUT, "--max-tokens", "300", words=["nan.gguf"])
    fails("eval", "-m", p, "--task", "lambada", "-f", "-", stdin="a goat sat", words=["nan.gguf"])
    fails("eval", "-m", p, "--derail", "-f", "-", stdin="a goat sat", words=["nan.gguf"])
    fails("eval", "-m", tiny(), "--base", p, "--derail", "-f", "-", stdin="a goat sat",
          words=["nan.gguf"])
    fails("quantize", p, path("nan-q.gguf"), "q8_0", words=["nan.gguf", "blk.2.ffn_up"])
    assert not os.path.exists(path("nan-q.gguf"))


if __name__ == "__main__":
    main()
