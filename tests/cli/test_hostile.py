#!/usr/bin/env python3
"""Damaged and lying files through the program: always status 1 and one line that names the
file and the fault; never a crash, a hang, a gigabyte, or half an output.  Prints TAP.

Every damage is made from a small good file, which is first shown to be good."""
import json
import os
import random
import shutil
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import modelfiles as mf
from modelfiles import Checkpoint, Gguf
from tap import case, check_line, limits, main, only, path, read, runt, test, write

GIB = 1 << 30
SECONDS = 10  # of processor time; a busy machine may take longer, but not forever
SHAPE = {"layers": 2, "heads": 2, "embd": 32, "vocab": 300, "ctx": 16}


def guarded(*args, **more):
    return runt(*args, timeout=3 * SECONDS,
                preexec=limits(address_space=GIB, cpu_seconds=SECONDS), **more)


def out_folder():
    shutil.rmtree(path("out"), ignore_errors=True)
    os.makedirs(path("out"))
    return path("out", "x.gguf")


def readers(p):
    """Every way to read the model file p, with what its output folder must hold."""
    text = path("text.txt")
    if not os.path.exists(text):
        write(text, "the tender titan strode into the ash lands, and sat. " * 8)
    return {"inspect": ["inspect", p, "--tensors"],
            "generate": ["generate", "-m", p, "-p", "the", "-n", "2"],
            "chat": ["chat", "-m", p],
            "eval": ["eval", "-m", p, "-f", text, "--window", "8"],
            "tokenize": ["tokenize", "-m", p, "-p", "the"],
            "quantize": ["quantize", p, out_folder(), "q8_0"]}


ALL = ("inspect", "generate", "chat", "eval", "tokenize", "quantize")
MODEL = ("generate", "chat", "eval")  # those that load the whole model
_turn = 0


def in_turn(verbs):
    """Half of the verbs, this time these and next time the others: they share their reader, and
    each is a process.  With RUNT_LONG=1 all of them, every time."""
    global _turn
    _turn += 1
    return verbs if os.environ.get("RUNT_LONG") == "1" else [
        v for i, v in enumerate(verbs) if len(verbs) < 2 or (i + _turn) % 2]


def refused(p, verbs=ALL, words=()):
    verbs = in_turn(verbs)
    for verb, args in readers(p).items():
        if verb not in verbs:
            continue
        r = guarded(*args, stdin="hello\n", expect=1)
        assert r.raw == b"", r
        check_line(r, [p, *words])
        only(path("out"))


def survived(p, verbs=ALL):
    """Accepted or refused, but in good order."""
    verbs = in_turn(verbs)
    n_refused = 0
    for verb, args in readers(p).items():
        if verb not in verbs:
            continue
        r = guarded(*args, stdin="hello\n", expect=None)
        assert r.rc in (0, 1), r
        if r.rc == 1:
            n_refused += 1
            if verb == "chat":  # may have said something before it met the fault
                r.err = r.err.splitlines(True)[-1]
            check_line(r)
        only(path("out"), *(["x.gguf"] if verb == "quantize" and r.rc == 0 else []))
    return n_refused


_good = {}


def good(type_name="q8_0"):
    """A small model file that every verb accepts, parsed."""
    if not _good:
        folder = Checkpoint(**SHAPE).save(path("good"))
        runt("import", folder, "-o", path("good.gguf"))
        for t in ("f32", "q8_0"):
            runt("quantize", path("good.gguf"), path("good-%s.gguf" % t), t)
            _good[t] = Gguf(read(path("good-%s.gguf" % t)))
            assert _good[t].bytes() == read(path("good-%s.gguf" % t))
            for verb, args in readers(path("good-%s.gguf" % t)).items():
                guarded(*args, stdin="hello\n")
    return _good[type_name].copy()


def model(name, g, place=True):
    return write(path(name + ".gguf"), g if isinstance(g, bytes) else g.bytes(place))


# ---- model files ----

@test
def not_a_model_file():
    g = good().bytes()
    for name, data in (("empty", b""), ("one byte", b"G"), ("magic only", b"GGUF"),
                       ("text", b"Once upon a time there was no model.\n" * 10),
                       ("zeros", bytes(4096)), ("ones", b"\xff" * 4096),
                       ("another magic", b"GGML" + g[4:]),
                       ("big-endian", g[:4] + g[4:8][::-1] + g[8:]),
                       ("version 0", g[:4] + bytes(4) + g[8:]),
                       ("version 1", g[:4] + b"\1\0\0\0" + g[8:]),
                       ("version 4", g[:4] + b"\4\0\0\0" + g[8:]),
                       ("a safetensors file", read(path("good", "model.safetensors")))):
        with case("model file: " + name):
            refused(model("not", data))
    with case("model file: a folder"):
        refused(path("good"), [v for v in ALL if v != "tokenize"])  # which reads folders
    with case("model file: a pipe without a writer"):
        os.mkfifo(path("fifo.gguf"))
        refused(path("fifo.gguf"))
    with case("model file: a device"):
        refused("/dev/zero")


@test
def truncated_model_files():
    g = good()
    raw = g.bytes()
    cuts = [9, 16, 23, 24, 25, 40, 100, g.meta_bytes - 1, g.meta_bytes, len(raw) // 2,
            len(raw) - 33]
    rng = random.Random(2)
    cuts += [rng.randrange(24, g.meta_bytes) for _ in range(12)]
    for cut in sorted(cuts):
        with case("model file cut at byte %d of %d" % (cut, len(raw))):
            refused(model("cut", raw[:cut]))


@test
def lying_counts_and_lengths():
    raw = good().bytes()
    huge = (0, 1 << 20, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
    for where, at in (("tensor count", 8), ("key count", 16), ("length of the first key", 24)):
        for n in huge:
            if n == 0 and where == "tensor count":
                continue  # a file of metadata alone is a sound file, if no model
            with case("%s %d" % (where, n)):
                refused(model("lie", raw[:at] + struct.pack("<Q", n) + raw[at + 8:]))
    with case("no tensors"):
        g = good()
        g.tensors = []
        refused(model("lie", g), MODEL)
    with case("no keys"):
        g = good()
        g.kv = []
        refused(model("lie", g), [v for v in ALL if v != "inspect"])
    tokens = raw.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens")
    for n in huge[1:]:
        with case("token list of %d" % n):
            refused(model("lie", raw[:tokens + 8] + struct.pack("<Q", n) + raw[tokens + 16:]))
        with case("first token of %d bytes" % n):
            at = tokens + 16
            refused(model("lie", raw[:at] + struct.pack("<Q", n) + raw[at + 8:]))
    name = raw.index(b"general.name") + len(b"general.name")
    for kind in (13, 255, 1 << 31):
        with case("value type %d" % kind):
            refused(model("lie", raw[:name] + struct.pack("<I", kind) + raw[name + 4:]))
        with case("element type %d" % kind):
            refused(model("lie", raw[:tokens + 4] + struct.pack("<I", kind) + raw[tokens + 8:]))
    with case("an array of arrays"):
        refused(model("lie", raw[:tokens + 4] + struct.pack("<I", mf.ARR) + raw[tokens + 8:]))


@test
def lying_tensors():
    def one(title, verbs=ALL, place=True, f32=False, **changes):
        with case("tensor: " + title):
            g = good("f32" if f32 else "q8_0")
            t = g.tensor("blk.1.ffn_up.weight")
            for key, value in changes.items():
                t[key] = value(t) if callable(value) else value
            refused(model("tensor", g, place), verbs)

    for n in (0, 1 << 31, 1 << 32, 1 << 60, (1 << 64) - 32):
        one("%d columns" % n, dims=[n, 128])
        one("%d rows" % n, dims=[32, n])
    one("sizes whose product overflows to 0", dims=[1 << 32, 1 << 32])
    one("columns that are no whole blocks", dims=[33, 128])
    for number, (name, length, _) in mf.TYPES.items():
        if length > 32:
            one("%d columns in %s" % (32 + length, name), type=number, dims=[32 + length, 128])
            one("larger than the data, " + name, type=number, dims=[1 << 20, 128])
    one("no dimensions", dims=[])
    one("3 real dimensions", dims=[32, 64, 2])
    one("5 dimensions", dims=[32, 128, 1, 1, 1])
    one("rows missing", MODEL, dims=[32, 64])
    one("dimensions swapped", MODEL, f32=True, dims=[128, 32])
    one("type 4, long gone", type=4)
    one("type 31", type=31)
    one("type 4294967295", type=0xffffffff)
    one("type larger than the data", type=0)
    for n in (1, 31, 1 << 40, (1 << 63) - 32 + 32, (1 << 64) - 32):
        one("offset %d" % n, place=False, offset=n)
    one("overlapping another", place=False,
        offset=lambda t: t["offset"] - 32)
    one("at the place of another", place=False, offset=0)
    one("named twice", name="blk.0.ffn_up.weight")
    one("without a name", name="")
    one("a name of 64 bytes", name="n" * 64)
    one("a name with a newline", name="blk.1.ffn_up\nweight")
    one("a name with a zero", name="blk.1.ffn_up\0weight")
    for n in good().tensors:
        if not n["name"].startswith("blk.0"):
            with case("without " + n["name"]):
                g = good()
                g.tensors = [t for t in g.tensors if t["name"] != n["name"]]
                refused(model("tensor", g), MODEL)


@test
def lying_metadata():
    def one(name, verbs, **changes):
        with case("metadata: " + name):
            g = good()
            for key, value in changes.items():
                key = key.replace("__", ".")
                if value is None:
                    g.drop(key)
                else:
                    g.set(key, *value)
            refused(model("meta", g), verbs)

    shape = MODEL + ("quantize",)
    for key in ("context_length", "embedding_length", "block_count", "feed_forward_length",
                "attention__head_count"):
        key = "gpt2__" + key
        one("no " + key, shape, **{key: None})
        for kind, value in ((mf.U32, 0), (mf.U32, 0xffffffff), (mf.I32, -1),
                            (mf.U64, 1 << 63), (mf.F32, 2.0), (mf.STR, b"2")):
            one("%s is %s of type %d" % (key, value, kind), shape, **{key: (kind, value)})
        one(key + " is a list", shape, **{key: (mf.ARR, [mf.U32, [2]])})
    one("3 heads for a width of 32", shape, gpt2__attention__head_count=(mf.U32, 3))
    one("more blocks than tensors", MODEL, gpt2__block_count=(mf.U32, 3))
    one("1024 blocks", MODEL, gpt2__block_count=(mf.U32, 1024))
    one("a context of a million", MODEL, gpt2__context_length=(mf.U32, 1 << 20))
    for eps in (float("nan"), float("inf"), -1e-5, 2.0):
        one("epsilon %g" % eps, shape, **{"gpt2__attention__layer_norm_epsilon": (mf.F32, eps)})
    one("no epsilon", shape, **{"gpt2__attention__layer_norm_epsilon": None})
    one("no architecture", shape, general__architecture=None)
    one("another architecture", shape, general__architecture=(mf.STR, b"llama"))
    one("architecture is a number", shape, general__architecture=(mf.U32, 1))
    for a in (0, 1, 3, 33, 1 << 31):
        one("alignment %d" % a, ALL, general__alignment=(mf.U32, a))
    one("alignment as text", ALL, general__alignment=(mf.STR, b"32"))
    one("a truth value of 2", ALL, tokenizer__ggml__add_bos_token=(mf.BOOL, 2))
    with case("metadata: a key twice"):
        g = good()
        g.kv.append(list(g.kv[3]))
        refused(model("meta", g))
    for name in ("", "a\nb", "a\0b", "\x1b[31m"):
        with case("metadata: a key called %r" % name):
            g = good()
            g.kv.append([name, mf.U8, 1])
            refused(model("meta", g))


@test
def lying_vocabularies():
    verbs = ("generate", "chat", "eval", "tokenize")
    good()

    def one(name, change, verbs=verbs):
        with case("vocabulary: " + name):
            g = good()
            change(g)
            refused(model("vocab", g), verbs)

    def strings(key, edit):
        def change(g):
            items = list(g.get(key))
            edit(items)
            g.set(key, mf.ARR, [mf.STR, items])
        return change

    tokens, merges = "tokenizer.ggml.tokens", "tokenizer.ggml.merges"
    for key in (tokens, merges, "tokenizer.ggml.model"):
        one("no " + key, lambda g: g.drop(key))
    one("of another kind", lambda g: g.set("tokenizer.ggml.model", mf.STR, b"llama"))
    one("kind is a number", lambda g: g.set("tokenizer.ggml.model", mf.U32, 1))
    one("no tokens", strings(tokens, lambda t: t.clear()))
    one("a token less than rows", strings(tokens, lambda t: t.pop()), MODEL)
    one("a token more than rows", strings(tokens, lambda t: t.append(b"zz")), MODEL)
    one("tokens are numbers", lambda g: g.set(tokens, mf.ARR, [mf.U32, [1] * 300]))
    one("a token twice", strings(tokens, lambda t: t.__setitem__(270, t[260])))
    one("a token that is not UTF-8", strings(tokens, lambda t: t.__setitem__(270, b"\xff\xfe")))
    one("a token outside the alphabet",
        strings(tokens, lambda t: t.__setitem__(270, "日本".encode())))
    one("merge without a space", strings(merges, lambda m: m.__setitem__(3, b"ab")))
    one("merge of unknown tokens", strings(merges, lambda m: m.__setitem__(3, b"zq qz")))
    one("merge that makes no token", strings(merges, lambda m: m.__setitem__(3, b"q z")))
    one("merge of nothing", strings(merges, lambda m: m.__setitem__(3, b" ")))
    one("empty merge", strings(merges, lambda m: m.__setitem__(3, b"")))
    one("merge twice", strings(merges, lambda m: m.__setitem__(3, m[4])))
    one("merges are one text", lambda g: g.set(merges, mf.STR, b"a b"))
    for key in ("bos", "eos"):
        for kind, value in ((mf.U32, 300), (mf.I32, -1), (mf.U32, 0xffffffff), (mf.F32, 1.0)):
            one("%s is %s of type %d" % (key, value, kind), lambda g: g.set(
                "tokenizer.ggml.%s_token_id" % key, kind, value))
    kinds = "tokenizer.ggml.token_type"
    one("token types too few", lambda g: g.set(kinds, mf.ARR, [mf.I32, [1] * 299]))
    one("token types as text", lambda g: g.set(kinds, mf.ARR, [mf.STR, [b"1"] * 300]))
    one("token types of 64 bits",
        lambda g: g.set(kinds, mf.ARR, [mf.I64, [1 << 40] * 300]))


@test
def odd_but_survivable_models():
    def one(name, change, verbs=ALL):
        with case("survives " + name):
            g = good()
            change(g)
            survived(model("odd", g), verbs)

    kinds = "tokenizer.ggml.token_type"
    for k in (0, 2, 3, 4, 5, 6, 7, -1, 1 << 30):
        one("all tokens of type %d" % k,
            lambda g: g.set(kinds, mf.ARR, [mf.I32, [k] * 300]))
    one("a name of 100 kB", lambda g: g.set("general.name", mf.STR, b"n" * 100000))
    one("a name with escapes",
        lambda g: g.set("general.name", mf.STR, b"\x1b]0;title\x07\x1b[2J%s%n"))
    one("a chat template of 1 MB",
        lambda g: g.set("tokenizer.chat_template", mf.STR, b"{{" * 500000))
    one("a chat template with zeros",
        lambda g: g.set("tokenizer.chat_template", mf.STR, b"\0<|im_start|>\0"))
    one("chatml without its tokens", lambda g: g.set(
        "tokenizer.chat_template", mf.STR, b"<|im_start|> <|im_end|>"))
    one("epsilon 0", lambda g: g.set("gpt2.attention.layer_norm_epsilon", mf.F32, 0.0))
    one("an unknown pre-tokenizer", lambda g: g.set("tokenizer.ggml.pre", mf.STR, b"llama3"))
    one("100,000 more keys", lambda g: g.kv.extend(
        ["more.%d" % i, mf.U8, 1] for i in range(100000)))
    for value in (float("nan"), float("inf"), 3e38, -3e38, 1e-45):
        for name in ("token_embd.weight", "blk.0.attn_norm.weight", "output_norm.bias",
                     "blk.1.ffn_down.weight"):
            with case("survives %s full of %g" % (name, value)):
                g = good("f32")
                t = g.tensor(name)
                t["data"] = struct.pack("<f", value) * (len(t["data"]) // 4)
                survived(model("odd", g))
    with case("survives random blocks"):
        g = good()
        rng = random.Random(3)
        for t in g.tensors:
            t["data"] = rng.randbytes(len(t["data"]))
        survived(model("odd", g))


@test
def flipped_bytes():
    """Whatever one wrong byte of the metadata does, it does in good order."""
    g = good()
    raw, rng = g.bytes(), random.Random(4)
    at_first = raw.index(b"gpt2.context_length")
    places = [rng.randrange(4, at_first + 300) for _ in range(50)] + \
        [rng.randrange(24, g.meta_bytes) for _ in range(50)] + \
        [rng.randrange(g.meta_bytes - 1500, g.meta_bytes) for _ in range(50)]
    n_refused = 0
    for i in range(0, len(places), 25):
        with case("bytes flipped, %d to %d" % (i, i + 24)):
            for at in places[i:i + 25]:
                data = bytearray(raw)
                data[at] ^= 1 << rng.randrange(8)
                verbs = ("generate", "tokenize", "quantize", "inspect")
                n_refused += survived(model("flip", bytes(data)), [rng.choice(verbs)])
    with case("flips are noticed often"):
        assert n_refused > 40, n_refused


@test
def overflowing_sums():
    """Many tensors, each of a size that fits, together beyond 64 bits; offsets in a ring."""
    with case("sizes that overflow together"):
        g = good("f32")
        for i in range(8):
            g.tensors.append({"name": "t%d" % i, "dims": [1 << 29, 1 << 30], "type": 0,
                              "offset": 0, "data": b""})
        refused(model("sum", g))
    with case("tensors in each other's places"):
        g = good("f32")
        p = model("swap", g)
        a, b = g.tensor("blk.0.attn_qkv.weight"), g.tensor("blk.1.attn_qkv.weight")
        g = Gguf(read(p))
        a, b = g.tensor("blk.0.attn_qkv.weight"), g.tensor("blk.1.attn_qkv.weight")
        a["offset"], b["offset"] = b["offset"], a["offset"]
        survived(model("swap", g, place=False))  # sound, if surprising


# ---- checkpoints ----

def broken_folder(name="broken"):
    """A fresh copy of the good checkpoint."""
    good()
    shutil.rmtree(path(name), ignore_errors=True)
    return shutil.copytree(path("good"), path(name))


def import_refused(folder, *words, more=()):
    out = out_folder()
    for t in ([], ["--type", "q4_0"]):
        r = guarded("import", folder, "-o", out, *t, *more, expect=1)
        assert r.raw == b"", r
        check_line(r, [folder, *words])
        only(path("out"))


def import_survived(folder):
    out = out_folder()
    r = guarded("import", folder, "-o", out, expect=None)
    assert r.rc in (0, 1), r
    if r.rc:
        check_line(r, [folder])
    only(path("out"), *([] if r.rc else ["x.gguf"]))
    return r


@test
def lying_safetensors():
    good()
    header, data = mf.read_safetensors(read(path("good", "model.safetensors")))
    weight = "transformer.h.1.mlp.c_fc.weight"

    def one(name, content, *words):
        with case("safetensors: " + name):
            d = broken_folder()
            write(os.path.join(d, "model.safetensors"), content)
            import_refused(d, "model.safetensors", *words)

    def lie(name, change, *words):
        h = json.loads(json.dumps(header))
        change(h)
        one(name, mf.with_header(h, data), *words)

    raw = mf.with_header(header, data)
    for n in (0, 1, 7, 8, 9, 200, len(raw) - len(data) - 1, len(raw) - 1):
        one("cut at byte %d" % n, raw[:n])
    for n in (0, 1, len(raw), 1 << 27, 1 << 31, 1 << 62, (1 << 64) - 1, (1 << 64) - 8):
        one("header of %d bytes" % n, struct.pack("<Q", n) + raw[8:])
    for name, text in (("no JSON", b"not json"), ("a list", b"[]"), ("a number", b"12"),
                       ("null", b"null"), ("not UTF-8", b'{"\xff":1}'),
                       ("a member twice", b'{"a":{},"a":{}}'),
                       ("deep", b"[" * 100000 + b"]" * 100000),
                       ("deep objects", b'{"a":' * 50000 + b"1" + b"}" * 50000),
                       ("all spaces", b" " * 64), ("text after it", b"{} {}")):
        one("header is " + name, mf.with_header(text, data))
    d = header[weight]
    begin, end = d["data_offsets"]
    for name, change in (
            ("without dtype", {"dtype": None}), ("dtype is a number", {"dtype": 5}),
            ("dtype I8", {"dtype": "I8"}), ("dtype unheard of", {"dtype": "F5_LONG_NAME_HERE"}),
            ("dtype F64", {"dtype": "F64"}), ("dtype BF16", {"dtype": "BF16"}),
            ("shape missing", {"shape": None}), ("shape is text", {"shape": "32"}),
            ("shape of a float", {"shape": [32.0, 128]}),
            ("shape of a negative", {"shape": [-32, -128]}),
            ("shape swapped", {"shape": [128, 32]}), ("shape flat", {"shape": [4096]}),
            ("shape with a one", {"shape": [32, 128, 1]}),
            ("shape that overflows", {"shape": [1 << 62, 8]}),
            ("shape with a zero", {"shape": [0, 1 << 62]}),
            ("shape of a thousand ones", {"shape": [1] * 1000 + [32, 128]}),
            ("offsets missing", {"data_offsets": None}), ("one offset", {"data_offsets": [0]}),
            ("offsets as text", {"data_offsets": ["0", "16384"]}),
            ("offsets negative", {"data_offsets": [-16384, 0]}),
            ("offsets backwards", {"data_offsets": [end, begin]}),
            ("offsets past the end", {"data_offsets": [len(data), len(data) + end - begin]}),
            ("offsets huge", {"data_offsets": [(1 << 63) - 16384, (1 << 63) - 1]}),
            ("offsets beyond 64 bits", {"data_offsets": [1 << 64, (1 << 64) + 16384]}),
            ("offsets short", {"data_offsets": [begin, end - 4]}),
            ("shared bytes", {"data_offsets": [begin - 4, end - 4]})):
        lie("tensor " + name, lambda h: h[weight].update(change))
    lie("tensor is a number", lambda h: h.__setitem__(weight, 1))
    with case("safetensors: no tensors"):
        d = broken_folder()
        write(os.path.join(d, "model.safetensors"), mf.with_header({}))
        import_refused(d, "wte.weight")
    for name in ("wte.weight", "wpe.weight", "ln_f.bias", "h.0.ln_1.weight",
                 "h.1.mlp.c_fc.weight"):
        with case("safetensors: no " + name):
            h = json.loads(json.dumps(header))
            h.pop("transformer." + name)
            d = broken_folder()
            write(os.path.join(d, "model.safetensors"), mf.with_header(h, data))
            import_refused(d, name)
    with case("safetensors: a header of 25 MB"):
        h = {"x%d" % i: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
             for i in range(400000)}
        d = broken_folder()
        write(os.path.join(d, "model.safetensors"), mf.with_header(h, data))
        import_refused(d)


@test
def lying_shards():
    c = Checkpoint(**SHAPE)
    weight = "transformer.wpe.weight"

    def one(name, change, *words):
        with case("shards: " + name):
            shutil.rmtree(path("shards"), ignore_errors=True)
            d = c.save(path("shards"), shards=3)
            p = os.path.join(d, "model.safetensors.index.json")
            index = json.loads(read(p))
            changed = change(d, index)
            write(p, changed if isinstance(changed, (bytes, str)) else json.dumps(index))
            import_refused(d, *words)

    second = "model-00002-of-00003.safetensors"

    def mapped(to):
        return lambda d, i: i["weight_map"].__setitem__(weight, to)

    one("one missing", lambda d, i: os.unlink(os.path.join(d, second)), second)
    one("one cut", lambda d, i: os.truncate(os.path.join(d, second), 500), second)
    one("one is a folder", lambda d, i: (os.unlink(os.path.join(d, second)),
                                         os.mkdir(os.path.join(d, second)))[0], second)
    one("a tensor in another shard", mapped("model-00001-of-00003.safetensors"), weight)
    for to in ("../good/model.safetensors", "/etc/passwd", "", ".", "..", ".hidden", "a/b",
               "x\0y", 5, None, ["a"], "model.safetensors.index.json",
               "no-such.safetensors", "n" * 5000):
        one("a tensor mapped to %.40r" % (to,), mapped(to))
    one("index without a map", lambda d, i: i.pop("weight_map") and None, "weight_map")
    one("index with a list", lambda d, i: i.__setitem__("weight_map", []), "weight_map")
    one("index is no JSON", lambda d, i: "{", "index.json")
    one("index is empty", lambda d, i: b"", "index.json")
    one("index without tensors", lambda d, i: i.__setitem__("weight_map", {}))
    one("index of 100 shards", lambda d, i: i["weight_map"].update(
        ("x%d" % k, "shard%d" % k) for k in range(100)))


@test
def lying_configs():
    good()

    def one(name, content, *words):
        with case("config: " + name):
            d = broken_folder()
            p = os.path.join(d, "config.json")
            os.unlink(p)
            if content is not None:
                write(p, content)
            import_refused(d, *words)

    one("missing", None, "config.json")
    for name, text in (("empty", ""), ("no JSON", "{"), ("a list", "[]"), ("null", "null"),
                       ("not UTF-8", b'{"model_type": "\xff"}'), ("deep", "[" * 100000),
                       ("text after it", "{} x"), ("NaN", '{"n_embd": NaN}'),
                       ("a zero byte", b'{"a":1}\0')):
        one(name, text, "config.json")
    base = json.loads(read(path("good", "config.json")))
    bad_sizes = (0, -1, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 10 ** 400, 32.0, 1e300, "32", [32],
                 True, {})
    for key in ("n_embd", "n_layer", "n_head", "n_positions", "vocab_size"):
        one("no " + key, json.dumps({k: v for k, v in base.items() if k != key}), key)
        one(key + " is null", json.dumps(dict(base, **{key: None})), key)
        for value in bad_sizes:
            one("%s is %.20r" % (key, value), json.dumps(dict(base, **{key: value})))
    for value in bad_sizes:
        one("n_inner is %.20r" % (value,), json.dumps(dict(base, n_inner=value)))
    for key, value in (("n_head", 3), ("n_embd", 64), ("n_layer", 3), ("n_layer", 1024),
                       ("n_positions", 17), ("vocab_size", 301), ("vocab_size", 299),
                       ("n_inner", 64), ("model_type", "llama"),
                       ("activation_function", "relu"), ("activation_function", 1),
                       ("scale_attn_weights", False), ("scale_attn_weights", "yes"),
                       ("scale_attn_by_inverse_layer_idx", True),
                       ("layer_norm_epsilon", -1), ("layer_norm_epsilon", "small"),
                       ("eos_token_id", 300), ("eos_token_id", -2), ("bos_token_id", 1 << 40),
                       ("bos_token_id", "a"), ("tie_word_embeddings", 1),
                       ("quantization_config", {"bits": 4})):
        one("%s is %r" % (key, value), json.dumps(dict(base, **{key: value})))


@test
def lying_tokenizers():
    good()

    def one(name, file, content, *words, drop=(), alone=True):
        """`alone`: the tokenizer is at fault by itself, not only beside its model."""
        with case("%s: %s" % (file, name)):
            d = broken_folder()
            for f in (file, *drop):
                if os.path.exists(os.path.join(d, f)):
                    os.unlink(os.path.join(d, f))
            if content is not None:
                write(os.path.join(d, file), content)
            import_refused(d, *words)
            r = guarded("tokenize", "-m", d, "-p", "the", expect=1 if alone else None)
            if r.rc:
                check_line(r, [d, *words])

    vocab = json.loads(read(path("good", "vocab.json")))
    merges = read(path("good", "merges.txt"), "r")
    one("missing", "vocab.json", None)
    one("missing", "merges.txt", None)
    for name, text in (("empty", ""), ("no JSON", "{\"a\":"), ("a list", "[\"a\"]"),
                       ("an empty object", "{}"), ("not UTF-8", b'{"\xff\xfe": 0}'),
                       ("a zero byte in a token", json.dumps(dict(vocab, **{"a\0": 300})))):
        one(name, "vocab.json", text, "vocab.json")

    def changed(**changes):
        return json.dumps(dict(vocab, **changes))

    for name, text in (("an id twice", changed(a=98)),
                       ("a negative id", changed(a=-1)), ("a huge id", changed(a=1 << 40)),
                       ("an id that is text", changed(a="97")), ("an id of 1.5", changed(a=1.5)),
                       ("a token twice", json.dumps(vocab)[:-1] + ', "a": 300}')):
        one(name, "vocab.json", text)
    for name, text in (("more tokens than rows", changed(zz=300)),
                       ("a gap in the ids", changed(a=305)),
                       ("a token outside the alphabet", changed(日本=300))):
        one(name, "vocab.json", text, alone=False)
    for name, text in (("no pair", merges + "abc\n"), ("three parts", merges + "a b c\n"),
                       ("unknown parts", merges + "zq qz\n"),
                       ("makes no token", merges + "q z\n"),
                       ("a pair twice", merges + merges.split("\n")[1] + "\n"),
                       ("binary", b"#version: 0.2\n" + bytes(range(128, 256)) * 10 + b"\n"),
                       ("a line of 10 MB", merges + "a" * 10_000_000 + " b\n"),
                       ("zeros", b"\0" * 1000)):
        one(name, "merges.txt", text, "merges.txt")
    with case("vocab.json: 30 MB of tokens"):
        d = broken_folder()
        write(os.path.join(d, "vocab.json"), json.dumps(
            {"%020d" % i: i for i in range(1000000)}))
        import_refused(d)
    with case("merges.txt: 30 MB of merges"):
        d = broken_folder()
        write(os.path.join(d, "merges.txt"), merges + "t h\n" * 7_000_000)
        import_refused(d)

    c = Checkpoint(**SHAPE)
    shutil.rmtree(path("tj"), ignore_errors=True)
    base = json.loads(read(os.path.join(c.save(path("tj"), tokenizer="json"),
                                        "tokenizer.json")))
    two = ("vocab.json", "merges.txt")

    def json_one(name, change, *words):
        j = json.loads(json.dumps(base))
        change(j)
        one(name, "tokenizer.json", json.dumps(j), *words, drop=two)

    for name, text in (("empty", ""), ("a list", "[]"), ("no JSON", "{{"),
                       ("deep", '{"model":' * 60000), ("an empty object", "{}")):
        one(name, "tokenizer.json", text, "tokenizer.json", drop=two)
    model_ = ("model", "vocab", "merges")
    json_one("no model", lambda j: j.pop("model"))
    json_one("model of words", lambda j: j["model"].__setitem__("type", "WordPiece"))
    for key in model_[1:]:
        json_one("no " + key, lambda j: j["model"].pop(key))
        json_one(key + " is a number", lambda j: j["model"].__setitem__(key, 5))
    json_one("merge of three", lambda j: j["model"]["merges"].append(["a", "b", "c"]))
    json_one("merge is a number", lambda j: j["model"]["merges"].append(7))
    json_one("merge unknown", lambda j: j["model"]["merges"].append("zq qz"))
    json_one("id twice", lambda j: j["model"]["vocab"].__setitem__("zz", 5))
    json_one("id huge", lambda j: j["model"]["vocab"].__setitem__("zz", 1 << 62))
    json_one("added token beyond",
             lambda j: j["added_tokens"].append({"id": 5000000, "content": "<x>",
                                                 "special": True}))
    json_one("added token negative",
             lambda j: j["added_tokens"].append({"id": -7, "content": "<x>",
                                                 "special": True}))
    json_one("added token without text",
             lambda j: j["added_tokens"].append({"id": 300, "special": True}))
    json_one("added tokens are text", lambda j: j.__setitem__("added_tokens", "none"))
    with case("tokenizer_config.json: damaged"):
        d = broken_folder()
        write(os.path.join(d, "tokenizer_config.json"), '{"chat_template": "')
        import_refused(d, "tokenizer_config.json")
    for name, value in (("a list", [{"name": "x"}]), ("a number", 5),
                        ("huge", "x" * 1000000), ("with zeros", "a\0b")):
        with case("tokenizer_config.json: chat_template is " + name):
            d = broken_folder()
            write(os.path.join(d, "tokenizer_config.json"), json.dumps(
                {"chat_template": value}))
            r = import_survived(d)
            assert r.rc == 0, r
            guarded("generate", "-m", path("out", "x.gguf"), "-p", "the", "-n", "1")


@test
def files_that_are_no_files():
    for name in ("model.safetensors", "config.json", "vocab.json", "merges.txt"):
        for kind in ("a folder", "a pipe", "a link to itself", "an endless device"):
            with case("%s is %s" % (name, kind)):
                d = broken_folder()
                p = os.path.join(d, name)
                os.unlink(p)
                if kind == "a folder":
                    os.mkdir(p)
                elif kind == "a pipe":
                    os.mkfifo(p)
                else:
                    os.symlink(name if kind == "a link to itself" else "/dev/zero", p)
                import_refused(d)


@test
def safetensors_flipped_bytes():
    good()
    raw = read(path("good", "model.safetensors"))
    n_header = struct.unpack_from("<Q", raw)[0] + 8
    rng = random.Random(6)
    n_refused = 0
    for i in range(4):
        with case("flipped bytes of a header, part %d" % (i + 1)):
            for _ in range(25):
                d = broken_folder()
                data = bytearray(raw)
                at = rng.randrange(n_header) if i else rng.randrange(8)
                data[at] ^= 1 << rng.randrange(8)
                write(os.path.join(d, "model.safetensors"), bytes(data))
                n_refused += import_survived(d).rc
    with case("flips of a header are noticed often"):
        assert n_refused > 50, n_refused


@test
def quantize_and_init_refuse_bad_targets():
    good()
    for name, target in (("a folder", path("good")), ("a device", "/dev/null"),
                         ("a name of 300 letters", path("n" * 300)),
                         ("below a file", path("good.gguf", "x")), ("nothing", "")):
        with case("quantize into " + name):
            before = sorted(os.listdir(path()))
            r = guarded("quantize", path("good.gguf"), target, "q8_0", expect=1)
            check_line(r)
            assert sorted(os.listdir(path())) == before
    with case("init --format hf onto a file"):
        r = guarded("init", "gpt2", "--layers", "1", "--heads", "1", "--embd", "8", "--vocab",
                    "300", "--format", "hf", "-o", path("good.gguf"), expect=1)
        check_line(r, [path("good.gguf")])
        assert read(path("good.gguf"))[:4] == b"GGUF"
    with case("init with a broken tokenizer"):
        d = broken_folder()
        write(os.path.join(d, "merges.txt"), "a\n")
        out = out_folder()
        r = guarded("init", "gpt2", "--layers", "1", "--heads", "1", "--embd", "8",
                    "--tokenizer", d, "-o", out, expect=1)
        check_line(r, ["merges.txt"])
        only(path("out"))


if __name__ == "__main__":
    main()
