#!/usr/bin/env python3
"""export: a Hugging Face folder from any model file, and back without loss.  Prints TAP."""
import json
import os
import signal
import stat
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import modelfiles
from modelfiles import STR, Checkpoint, Gguf
from tap import (ROOT, RUNT, Skip, case, environment, fails, limits, main, misuse, only, path, read,
                 runt, test, write)

MINI = os.path.join(ROOT, "tests", "data", "mini")
HELDOUT = os.path.join(ROOT, "models", "heldout.txt")
FILES = ["config.json", "merges.txt", "model.safetensors", "tokenizer_config.json", "vocab.json"]


def model(type=None):
    p = path("%s.gguf" % type)
    if not os.path.exists(p):
        runt("import", MINI, "-o", p, "-q", *(["--type", type] if type else []))
    return p


def same(a, b):
    """Fails where two models' numbers differ; the tensors' names."""
    rows = json.loads(runt("compare", a, b, "-o", "json").out)
    assert all(t["rel_error"] == 0 for t in rows), rows
    return [t["name"] for t in rows]


def tensors(folder):
    """{name without the prefix: (type, shape, bytes)}"""
    header, data = modelfiles.read_safetensors(read(os.path.join(folder, "model.safetensors")))
    header.pop("__metadata__")
    return {name.removeprefix("transformer."):
            (t["dtype"], t["shape"], data[slice(*t["data_offsets"])])
            for name, t in header.items()}


def load(*parts):
    return json.loads(read(path(*parts)))


def there_and_back(file, folder):
    """Exports a model file; importing the folder gives the same bytes."""
    name = Gguf(read(file)).get("general.name").decode()
    runt("export", file, path(folder), "-q")
    runt("import", path(folder), "-o", path(folder + "-again.gguf"), "--name", name, "-q")
    assert read(path(folder + "-again.gguf")) == read(file), folder


@test
def the_checkpoint_comes_back():
    r = runt("export", model(), path("tiny"))
    assert r.out == "%s: GPT-2 of 2 blocks, 4 heads, width 128, context 256\n" % path("tiny"), r
    only(path("tiny"), *FILES)
    with case("its tensors"):
        assert tensors(path("tiny")) == tensors(MINI)
    with case("its configuration"):
        want, got = load(MINI, "config.json"), load("tiny", "config.json")
        assert got.pop("n_inner") == want.pop("n_inner") == 512
        assert got == want, got
    with case("its vocabulary"):
        for name in ("vocab.json", "merges.txt"):
            a, b = read(path("tiny", name)), read(os.path.join(MINI, name))
            assert a.split() == b.split() or json.loads(a) == json.loads(b), name
    with case("settings of its tokenizer"):
        s = load("tiny", "tokenizer_config.json")
        assert s["tokenizer_class"] == "GPT2Tokenizer" and s["model_max_length"] == 256, s
        assert s["bos_token"] == s["eos_token"] == s["unk_token"] == "<|endoftext|>", s
        assert s["add_prefix_space"] is False and "chat_template" not in s, s
        assert s["added_tokens_decoder"] == {"1023": {
            "content": "<|endoftext|>", "special": True, "lstrip": False, "rstrip": False,
            "normalized": False, "single_word": False}}, s
    with case("the same file when it is imported"):
        there_and_back(model(), "tiny-gpt2")
    with case("others may read it"):
        umask = os.umask(0)
        os.umask(umask)
        assert stat.S_IMODE(os.stat(path("tiny")).st_mode) == 0o777 & ~umask


@test
def floats_come_back_as_the_same_file():
    for dtype in ("F32", "F16", "BF16"):
        with case("a checkpoint of " + dtype):
            c = Checkpoint(layers=2, heads=3, embd=51, vocab=290, ctx=17, inner=72, dtype=dtype)
            runt("import", c.save(path("c-" + dtype)), "-o", path(dtype + ".gguf"), "-q")
            there_and_back(path(dtype + ".gguf"), "back-" + dtype)
            assert {t[0] for t in tensors(path("back-" + dtype)).values()} == {dtype}
            names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
            assert load("back-" + dtype, "config.json")["torch_dtype"] == names[dtype]
    with case("vectors that half precision cannot hold stay F32"):
        runt("quantize", path("F32.gguf"), path("half.gguf"), "f16", "-q")
        there_and_back(path("half.gguf"), "half")
        t = tensors(path("half"))
        assert t["h.0.attn.c_attn.weight"][0] == "F16" and t["h.1.ln_1.bias"][0] == "F32"
        # a program that wants one type must not lose any
        assert load("half", "config.json")["torch_dtype"] == "float32"
    with case("each matrix has a type of its own"):
        runt("quantize", path("F32.gguf"), path("mixed.gguf"), "bf16", "--tensor",
             "token_embd=f32", "--tensor", "ffn_down.weight=f16", "-q")
        g = Gguf(read(path("mixed.gguf")))
        assert {t["type"] for t in g.tensors} == {0, 1, 30}
        g.set("general.file_type", modelfiles.U32, 0)  # import calls it by its first matrix
        there_and_back(write(path("mixed.gguf"), g.bytes()), "mixed")
    with case("a head of its own"):
        runt("init", "gpt2", "--layers", "2", "--heads", "2", "--embd", "20", "--vocab", "300",
             "--context", "16", "--untied", "-o", path("untied.gguf"))
        there_and_back(path("untied.gguf"), "untied")
        assert load("untied", "config.json")["tie_word_embeddings"] is False
        assert "lm_head.weight" in tensors(path("untied"))


@test
def the_vocabulary_comes_back():
    with case("tokens that are not used are made again"):
        c = Checkpoint(layers=1, heads=2, embd=32, vocab=300, ctx=16)
        tokens = dict(c.tokens)
        for t in list(c.tokens)[270:-1]:
            del c.tokens[t]
        del c.tokens["<|endoftext|>"]
        c.tokens["<|endoftext|>"] = 270
        c.merges = [m for m in c.merges if tokens["".join(m)] < 270]
        c.config["bos_token_id"] = c.config["eos_token_id"] = 270
        runt("import", c.save(path("padded-c")), "-o", path("padded.gguf"), "-q")
        assert Gguf(read(path("padded.gguf"))).get("tokenizer.ggml.tokens")[299] == b"[PAD 299]"
        there_and_back(path("padded.gguf"), "padded")
        assert len(load("padded", "vocab.json")) == 271
    with case("special tokens"):
        write(path("padded-c", "added_tokens.json"),
              json.dumps({"<|im_start|>": 271, "plain \"word\"": 272}))
        runt("import", path("padded-c"), "-o", path("added.gguf"), "-q")
        there_and_back(path("added.gguf"), "added")
        only(path("added"), "added_tokens.json", *FILES)
        got = load("added", "tokenizer_config.json")["added_tokens_decoder"]
        assert {k: (v["content"], v["special"]) for k, v in got.items()} == {
            "270": ("<|endoftext|>", True), "271": ("<|im_start|>", True),
            "272": ("plain \"word\"", False)}, got
    with case("a chat template"):
        template = "{% for m in messages %}\n<|im_start|>\"\u00e9\t{{ m }}{% endfor %}"
        g = Gguf(read(path("added.gguf")))
        g.set("tokenizer.chat_template", STR, template.encode())
        write(path("chatty.gguf"), g.bytes())
        there_and_back(path("chatty.gguf"), "chatty")
        assert load("chatty", "tokenizer_config.json")["chat_template"] == template
    with case("a compact one"):
        runt("quantize", model(), path("tiny-r4.gguf"), "r4", "-q")
        assert b"runt.tokenizer.merges" in read(path("tiny-r4.gguf"))
        runt("export", path("tiny-r4.gguf"), path("from-r4"), "-q")
        runt("export", model(), path("from-f16"), "-q")
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
            assert read(path("from-r4", name)) == read(path("from-f16", name)), name


@test
def blocks_become_floats():
    for type in ("q4_0", "q8_0", "r4"):
        with case("from %s" % type):
            runt("export", model(type), path("from-" + type + "-x"), "-q")
            got = tensors(path("from-" + type + "-x"))
            assert got["h.0.attn.c_attn.weight"][0] == "F32"
            assert {n: t[1] for n, t in got.items()} == {
                n: t[1] for n, t in tensors(MINI).items()}
            runt("import", path("from-" + type + "-x"), "-o", path("x.gguf"), "-q")
            same(model(type), path("x.gguf"))
    for type in ("f32", "bf16", "f16"):
        with case("as " + type):
            runt("export", model("q4_0"), path("as-" + type), "--type", type, "-q")
            assert {t[0] for t in tensors(path("as-" + type)).values()} == {type.upper()}
            assert len(tensors(path("as-" + type))) == len(tensors(MINI))


@test
def where_it_goes():
    with case("an empty folder is filled, with a slash behind it"):
        os.mkdir(path("empty"))
        runt("export", model(), path("empty") + "/", "-q")
        assert tensors(path("empty")) == tensors(MINI)
    with case("a name without a folder"):
        os.mkdir(path("work"))
        runt("export", model(), "here", "-q", cwd=path("work"))
        only(path("work"), "here")
        only(path("work", "here"), *FILES)
    os.mkdir(path("full"))
    write(path("full", "mine.txt"), "mine")
    os.mkdir(path("hollow"))
    write(path("file"), "not a model")
    lies = Gguf(read(model()))
    lies.tensor("blk.1.ffn_up.weight")["name"] = "blk.1.ffn_upper.weight"
    write(path("lies.gguf"), lies.bytes())
    odd = Gguf(read(model()))
    odd.get("tokenizer.ggml.tokens")[1000] = b"\xff\xfe"
    odd.get("tokenizer.ggml.token_type")[1000] = 4
    write(path("odd.gguf"), odd.bytes())
    chatty = Gguf(read(model()))
    chatty.set("tokenizer.chat_template", STR, b"\xff")
    write(path("chatty-odd.gguf"), chatty.bytes())
    large_numbers()
    before = sorted(os.listdir(path(".")))
    for name, args, words in (
            ("a folder with something in it", [model(), path("full")], ["is not empty; name a new folder", path("full")]),
            ("a file in its place", [model(), path("file")], [path("file"), "is a file"]),
            ("a file above it", [model(), path("file", "new")], ["file/new"]),
            ("nothing above it", [model(), path("none", "new")], ["none/new"]),
            ("no name", [model(), ""], ["without a name"]),
            ("not a model", [path("file"), path("new")], [path("file")]),
            ("no model", [path("none.gguf"), path("new")], ["none.gguf"]),
            ("a folder for a model", [MINI, path("new")], ["is a folder"]),
            ("a tensor missing", [path("lies.gguf"), path("new")],
             ["lies.gguf", "no tensor blk.1.ffn_up.weight"]),
            ("the same into an empty folder", [path("lies.gguf"), path("hollow")], ["no tensor"]),
            ("a token that no JSON can hold", [path("odd.gguf"), path("new")],
             ["odd.gguf", "a token is not valid UTF-8"]),
            ("a template that no JSON can hold", [path("chatty-odd.gguf"), path("new")],
             ["chatty-odd.gguf", "the chat template is not valid UTF-8"]),
            ("numbers beyond f16", [path("large.gguf"), path("new"), "--type", "f16"],
             ["large.gguf", "1e+06", "F16 cannot"])):
        with case(name):
            fails("export", *args, words=words)
            assert sorted(os.listdir(path("."))) == before, os.listdir(path("."))
            only(path("hollow"))
    assert read(path("full", "mine.txt")) == b"mine"
    with case("a folder that cannot be written"):
        if os.geteuid() == 0:
            raise Skip("root writes anywhere")
        os.mkdir(path("locked"), 0o555)
        fails("export", model(), path("locked", "new"), words=["locked/new", "cannot create"])
    for type, word in (("q4_0", "Q4_0"), ("int4", "int4"), ("q6_k", "Q6_K")):
        with case("--type " + type):
            misuse("export", model(), path("new"), "--type", type, words=[word])
    with case("no folder named"):
        misuse("export", model(), words=["too few"])


@test
def whole_or_not_at_all():
    os.mkdir(path("work2"))
    for size in (100, 6_000, 60_000, 600_000):
        with case("the disk is full after %d bytes" % size):
            fails("export", model(), "new", words=["cannot write"], cwd=path("work2"),
                  preexec=limits(file_size=size))
            only(path("work2"))
    with case("interrupted"):
        runt("init", "gpt2", "--layers", "8", "--embd", "256", "--heads", "8", "--type", "q8_0",
             "-o", path("wide.gguf"))
        p = subprocess.Popen([RUNT, "export", path("wide.gguf"), "new"], env=environment(),
                             cwd=path("work2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while p.poll() is None and not os.listdir(path("work2")):
            time.sleep(0.005)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate()
        assert p.returncode == 130 and out == b"" and err.count(b"\n") == 1, (p.returncode, err)
        only(path("work2"))


def large_numbers():
    """A model whose first vector holds 1e6."""
    g = Gguf(read(model()))
    t = g.tensor("blk.0.attn_norm.weight")
    t["data"] = struct.pack("<f", 1e6) + t["data"][4:]
    write(path("large.gguf"), g.bytes())


main()
