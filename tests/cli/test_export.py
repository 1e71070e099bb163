#!/usr/bin/env python3
"""export: a Hugging Face folder from any model file, and back without loss.  Prints TAP."""
import json
import os
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import ROOT, Skip, case, fails, main, misuse, path, read, runt, test

TINY = os.path.join(ROOT, "models", "tiny-gpt2")


def model(type=None):
    p = path("%s.gguf" % type)
    if not os.path.exists(p):
        runt("import", TINY, "-o", p, "-q", *(["--type", type] if type else []))
    return p


def same(a, b):
    """Fails where two models' numbers differ; the tensors' names."""
    rows = json.loads(runt("compare", a, b, "-o", "json").out)
    assert all(t["rel_error"] == 0 for t in rows), rows
    return [t["name"] for t in rows]


def tensors(folder):
    with open(os.path.join(folder, "model.safetensors"), "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(size))
        data = f.read()
    header.pop("__metadata__", None)
    return {name.removeprefix("transformer."):
            (t["dtype"], t["shape"], data[slice(*t["data_offsets"])])
            for name, t in header.items()}


@test
def there_and_back():
    with case("the checkpoint's own numbers"):
        runt("export", model(), path("hf"))
        assert tensors(path("hf")) == tensors(TINY)
        assert sorted(os.listdir(path("hf"))) == [
            "config.json", "merges.txt", "model.safetensors", "tokenizer_config.json",
            "vocab.json"]
    with case("imported again"):
        runt("import", path("hf"), "-o", path("again.gguf"), "-q")
        same(model(), path("again.gguf"))
        for args in (["-p", "A b  c\n", "--ids"], ["-f", os.path.join(ROOT, "models", "heldout.txt"),
                                                 "--count"]):
            assert (runt("tokenize", "-m", model(), *args).out ==
                    runt("tokenize", "-m", path("again.gguf"), *args).out)
        logits = [runt("eval", "-m", p, "-f", os.path.join(ROOT, "models", "heldout.txt"),
                       "--max-tokens", "512", "-o", "json").out for p in (model(), path("again.gguf"))]
        assert [json.loads(x)["perplexity"] for x in logits][0] == json.loads(logits[1])["perplexity"]
    with case("its settings"):
        with open(path("hf/tokenizer_config.json"), encoding="utf-8") as f:
            s = json.load(f)
        assert s["eos_token"] == "<|endoftext|>" and s["model_max_length"] == 256, s
    for type, want in (("f32", "F32"), ("bf16", "BF16"), ("q4_0", "F32"), ("r4", "F32")):
        with case("from %s" % type):
            runt("export", model(type), path("from-" + type), "-q")
            got = tensors(path("from-" + type))
            # norms and biases of a bf16 file are floats that bf16 cannot hold
            assert {t[0] for t in got.values()} <= {want, "F32"}, type
            assert {n: t[1] for n, t in got.items()} == {
                n: t[1] for n, t in tensors(TINY).items()}
            runt("import", path("from-" + type), "-o", path("x.gguf"), "-q")
            same(model(type), path("x.gguf"))
    with case("as asked"):
        runt("export", model(), path("as-bf16"), "--type", "bf16", "-q")
        assert {t[0] for t in tensors(path("as-bf16")).values()} == {"BF16"}
    with case("an empty folder is filled, with a slash behind it"):
        os.mkdir(path("empty"))
        runt("export", model(), path("empty") + "/", "-q")
        assert tensors(path("empty")) == tensors(TINY)
    with case("a head of its own"):
        runt("init", "gpt2", "--layers", "2", "--heads", "2", "--embd", "20", "--vocab", "300",
             "--context", "16", "--untied", "-o", path("u.gguf"))
        runt("export", path("u.gguf"), path("untied"), "-q")
        runt("import", path("untied"), "-o", path("u2.gguf"), "-q")
        assert "output.weight" in same(path("u.gguf"), path("u2.gguf"))


@test
def what_is_refused():
    os.mkdir(path("full"))
    with open(path("full/mine.txt"), "w") as f:
        f.write("mine")
    with open(path("file"), "w") as f:
        f.write("not a model")
    for name, args, words in (
            ("a folder with something in it", [model(), path("full")], [path("full"), "already"]),
            ("a file in its place", [model(), path("file")], [path("file"), "already"]),
            ("not a model", [path("file"), path("new")], [path("file")]),
            ("no model", [path("none.gguf"), path("new")], ["none.gguf"]),
            ("numbers beyond f16", None, ["F16"])):
        with case(name):
            if args is None:
                large_numbers()
                args = [path("large.gguf"), path("new"), "--type", "f16"]
            before = sorted(os.listdir(path(".")))
            fails("export", *args, words=words)
            assert sorted(os.listdir(path("."))) == before
    assert read(path("full/mine.txt")) == b"mine"
    with case("a type in blocks"):
        misuse("export", model(), path("new"), "--type", "q4_0")
    with case("no folder named"):
        misuse("export", model())


def large_numbers():
    """A model whose first vector holds 1e6."""
    p = model("f32")
    data = bytearray(open(p, "rb").read())
    at = len(data) - 4  # the last number of the last vector
    data[at:] = struct.pack("<f", 1e6)
    with open(path("large.gguf"), "wb") as f:
        f.write(data)


if __name__ == "__main__":
    main()
