#!/usr/bin/env python3
"""R4, runt's own format: import, quantize, inspect, tokenize, and the way back to the types
that other programs read.  Prints TAP."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import modelfiles
from modelfiles import ARR, STR, Checkpoint, Gguf
from tap import ROOT, case, fails, main, path, read, runt, test, write

MINI = os.path.join(ROOT, "tests", "data", "mini")
ARRAYS = ["tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"]
PAIRS = ["runt.tokenizer.bytes", "runt.tokenizer.merges", "runt.tokenizer.tail",
         "runt.tokenizer.kinds"]


def tiny():
    if not os.path.exists(path("tiny.gguf")):
        runt("import", MINI, "-o", path("tiny.gguf"), "-q")
        runt("quantize", path("tiny.gguf"), path("tiny-r4.gguf"), "r4", "-q")
    return path("tiny.gguf")


@test
def import_and_quantize_give_the_same_bytes():
    tiny()
    for n in ("1", "2", "7"):
        runt("import", MINI, "-o", path("direct.gguf"), "--type", "R4", "-q", "-t", n,
             "--name", "mini")
        assert read(path("direct.gguf")) == read(path("tiny-r4.gguf")), n


@test
def inspect_shows_it():
    tiny()
    j = json.loads(runt("inspect", path("tiny-r4.gguf"), "-o", "json", "--tensors").out)
    assert j["types"]["R4"]["tensors"] == 9, j["types"]
    assert j["metadata"]["general.file_type"] == modelfiles.R4, j["metadata"]
    assert j["metadata"]["runt.tokenizer.merges"] == "%d values" % (2 * 767), j["metadata"]
    assert not any(k in j["metadata"] for k in ARRAYS), j["metadata"]
    for t in j["tensors"]:
        if t["type"] == "R4":
            n = modelfiles.tensor_bytes(modelfiles.R4, [t["columns"], t["rows"]])
            assert t["bytes"] == n, t
    vectors = {t["type"] for t in j["tensors"] if t["rows"] == 1}
    assert vectors == {"F32"}, vectors
    text = runt("inspect", path("tiny-r4.gguf"), "--tensors").out
    assert "  R4 " in text and "runt.tokenizer.merges" in text, text


@test
def odd_shapes_need_no_fallback():
    c = Checkpoint(layers=1, heads=3, embd=51, vocab=301)
    runt("import", c.save(path("odd")), "-o", path("odd.gguf"), "-q")
    r = json.loads(runt("quantize", path("odd.gguf"), path("odd-r4.gguf"), "r4", "-o",
                        "json").out)
    raw = read(path("odd-r4.gguf"))
    assert r["file_bytes"] == len(raw), r
    # positions ask for Q8_0, which rows of 51 are not
    assert r["fallbacks"] == 1, r
    runt("quantize", path("odd-r4.gguf"), path("odd-f32.gguf"), "f32", "-q")
    g, back = Gguf(raw), Gguf(read(path("odd-f32.gguf")))
    for x in r["tensors"]:
        with case("a decoder of our own agrees on " + x["name"]):
            t = g.tensor(x["name"])
            assert len(t["data"]) == x["bytes"], x
            if t["type"] != modelfiles.R4:
                assert x["name"] == "position_embd.weight" or x["rows"] == 1, x
                continue
            n_cols, n_rows = t["dims"]
            got = modelfiles.decode_r4(t["data"], n_cols, n_rows)
            floats = modelfiles.unpack(back.tensor(x["name"])["data"], "F32")
            assert got == list(floats)
            assert 0 < x["rel_error"] < 0.12, x
    with case("the note is about positions only"):
        out = runt("quantize", path("odd.gguf"), path("odd-r4.gguf"), "r4").out
        notes = [line for line in out.splitlines() if line.startswith("note:")]
        assert len(notes) == 1 and "position_embd.weight becomes F16" in notes[0], notes


@test
def mixed_with_other_types():
    tiny()
    mixed = path("mixed.gguf")
    out = runt("quantize", tiny(), mixed, "q8_0", "--tensor", "blk.1.ffn_up=r4").out
    assert "F16 -> R4" in out, out
    assert "note: blk.1.ffn_up.bias becomes F32: a vector of 512 numbers fills no R4 tile" \
        in out, out
    g = Gguf(read(mixed))
    assert g.tensor("blk.1.ffn_up.weight")["type"] == modelfiles.R4
    # the matrices are Q8_0: other programs' arrays stay
    assert all(g.get(k) is not None for k in ARRAYS) and not set(PAIRS) & set(g.keys())


@test
def the_tokenizer_is_the_same():
    tiny()
    text = "Lily said: \u00e9t\u00e9 \u4e2d 12345  <|endoftext|>\n\tdon't \0 \U0001f600"
    for args in (["--ids"], ["--text"], ["--ids", "--special"]):
        want, got = (runt("tokenize", "-m", m, *args, stdin=text).raw
                     for m in (tiny(), path("tiny-r4.gguf")))
        assert want == got and len(want) > 20, args
    ids = " ".join(map(str, range(1024)))
    want, got = (runt("tokenize", "-m", m, "--decode", stdin=ids).raw
                 for m in (tiny(), path("tiny-r4.gguf")))
    assert want == got and len(want) > 1024


@test
def the_way_back_to_standard_types():
    tiny()
    for t in ("q4_0", "q8_0", "f16", "f32"):
        with case("metadata of r4 -> %s is that of a direct conversion" % t):
            runt("quantize", tiny(), path("direct.gguf"), t, "-q")
            runt("quantize", path("tiny-r4.gguf"), path("back.gguf"), t, "-q")
            direct, back = read(path("direct.gguf")), read(path("back.gguf"))
            g = Gguf(direct)
            assert len(direct) == len(back)
            assert direct[:g.meta_bytes] == back[:g.meta_bytes]
    with case("r4 -> r4 keeps the metadata"):
        runt("quantize", path("tiny-r4.gguf"), path("again.gguf"), "r4", "-q")
        a, b = read(path("tiny-r4.gguf")), read(path("again.gguf"))
        assert a[:Gguf(a).meta_bytes] == b[:Gguf(a).meta_bytes]


@test
def metadata_of_others_is_kept():
    tiny()
    g = Gguf(read(tiny()))
    g.kv.insert(3, ["author", STR, b"someone"])
    g.kv.append(["last.numbers", ARR, [modelfiles.STR, [b"a", b""]]])
    write(path("more.gguf"), g.bytes())
    runt("quantize", path("more.gguf"), path("more-r4.gguf"), "r4", "-q")
    r4 = Gguf(read(path("more-r4.gguf")))
    plain = [k for k in g.keys() if k not in ARRAYS]
    assert [k for k in r4.keys() if k not in PAIRS] == plain, r4.keys()
    # the pairs stand where the arrays stood
    assert r4.keys().index(PAIRS[0]) == g.keys().index(ARRAYS[0]), r4.keys()
    assert r4.get("author") == b"someone" and r4.get("last.numbers") == [b"a", b""]


@test
def vocabularies_of_another_shape_stay_arrays():
    tiny()
    g = Gguf(read(tiny()))
    merges = g.get("tokenizer.ggml.merges")
    merges[0], merges[1] = merges[1], merges[0]
    write(path("shuffled.gguf"), g.bytes())
    runt("quantize", path("shuffled.gguf"), path("shuffled-r4.gguf"), "r4", "-q")
    r4 = Gguf(read(path("shuffled-r4.gguf")))
    assert r4.get("tokenizer.ggml.merges") == merges and not set(PAIRS) & set(r4.keys())


@test
def hostile_pairs():
    tiny()
    g = Gguf(read(path("tiny-r4.gguf")))

    def lie(words, change):
        with case(" ".join(words)):
            bad = g.copy()
            change(bad)
            write(path("lie.gguf"), bad.bytes())
            fails("tokenize", "-m", path("lie.gguf"), "-p", "a", words=["lie.gguf", *words])
            fails("quantize", path("lie.gguf"), path("out.gguf"), "q4_0",
                  words=["lie.gguf", *words])
            assert not os.path.exists(path("out.gguf"))

    def later(bad):
        bad.get("runt.tokenizer.merges")[21] = 300

    def doubling(bad):
        pairs = bad.get("runt.tokenizer.merges")
        for i in range(40):
            pairs[2 * i] = pairs[2 * i + 1] = 255 + i if i else 70

    def twice(bad):
        bad.get("runt.tokenizer.bytes")[9] = bad.get("runt.tokenizer.bytes")[8]

    def short(bad):
        bad.get("runt.tokenizer.bytes").pop()

    def odd(bad):
        bad.get("runt.tokenizer.merges").pop()

    def kinds(bad):
        bad.set("runt.tokenizer.kinds", ARR, [modelfiles.U32, [5000, 3]])

    lie(["runt.tokenizer.merges", "merge 10 of tokens", "only 266 come before"], later)
    lie(["runt.tokenizer.merges", "merge 10 makes a token of 2048 bytes"], doubling)
    lie(["tokens 8 and 9 are both byte"], twice)
    lie(["runt.tokenizer.bytes has 255 elements, not 256"], short)
    lie(["runt.tokenizer.merges has 1533 elements: no pairs"], odd)
    lie(["runt.tokenizer.kinds: token 5000 after -1, of 1024 tokens"], kinds)
    lie(["has no key runt.tokenizer.tail"], lambda bad: bad.drop("runt.tokenizer.tail"))
    lie(["has both keys"], lambda bad: bad.set("tokenizer.ggml.tokens", ARR, [STR, [b"a"]]))


@test
def hostile_tensors():
    tiny()
    raw = read(path("tiny-r4.gguf"))
    for name, n_rows, words in (("rows", 1 << 62, ["overflow"]),
                                ("a tile more", 4097, ["overlap"]),
                                ("columns", 0, ["dimension 1 is 0"])):
        with case("lying about " + name):
            g = Gguf(raw)
            g.tensor("token_embd.weight")["dims"][1] = n_rows
            write(path("lie.gguf"), g.bytes())
            fails("inspect", path("lie.gguf"), words=["token_embd.weight", *words])
    with case("a file that ends in its last tile"):
        g = Gguf(raw)
        last = g.tensors[-1]
        write(path("lie.gguf"), raw[:-len(last["data"]) - 100])
        fails("inspect", path("lie.gguf"), words=["beyond the file's"])


if __name__ == "__main__":
    main()
