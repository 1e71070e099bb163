#!/usr/bin/env python3
"""Seeds for fuzzing what training reads and leaves: packed texts, documents, checkpoints,
adapters (tests/fuzz/corpus/unpack, data, checkpoint, adapter).  Needs build/runt, and zstd
for its seeds.

A checkpoint is one of a run of fuzz_checkpoint.c's shape, made by the program, whole and
with lies: the keys that follow the model's are found by their names.  So is an adapter."""
import gzip
import json
import lzma
import os
import struct
import subprocess
import tempfile

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
RUNT = os.path.join(TOP, "build", "runt")
TEXT = b"User: Who sang?\nBot: A goat.\n<|endoftext|>\nA crow said nothing.\n" * 3


def put(target, files):
    folder = os.path.join(TOP, "tests", "fuzz", "corpus", target)
    os.makedirs(folder, exist_ok=True)
    for name, data in files.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1:]


def packed():
    files = {"plain": TEXT, "empty_xz": lzma.compress(b""), "bomb": gzip.compress(b"a" * 300000)}
    for name, data in (("gz", gzip.compress(TEXT, mtime=0)), ("xz", lzma.compress(TEXT)),
                       ("zst", subprocess.run(["zstd", "-c"], input=TEXT, check=True,
                                              stdout=subprocess.PIPE).stdout)):
        files |= {name: data, name + "_twice": data * 2, name + "_cut": data[:-5],
                  name + "_flipped": flipped(data, len(data) // 2), name + "_magic": data[:6],
                  name + "_tail": data + b"tail"}
    return files


def documents():
    def line(o):
        return json.dumps(o).encode() + b"\n"
    turns = [{"role": "user", "content": "Who sang?"}, {"role": "assistant", "content": "A goat."}]
    return {"text": TEXT, "marks": b"<|endoftext|>" * 3 + b"\n", "one": b"a",
            "turns": b"Bot: a\nUser: b\nBot:\nBot: c", "nul": b"a\0b", "empty": b"",
            "field": line({"text": "A goat."}) + b"\n" + line({"text": ""}),
            "messages": line({"messages": turns}) + line({"text": turns}),
            "system": line({"messages": [{"role": "system", "content": " be\nUser: kind "}] + turns}),
            "roles": line({"messages": [{"role": "tool", "content": "x"}]}),
            "inner": line({"messages": [{"role": "user", "content": ["x"]}]}),
            "nothing": line({"other": 1}), "number": line({"text": 1}), "cut": b'{"text": "a',
            "nul_inside": b'{"text": "a\\u0000b"}\n', "deep": b"[" * 100 + b"]" * 100}


def trained():
    """A checkpoint, an adapter of its model's blocks, and one of all of its matrices."""
    with tempfile.TemporaryDirectory() as d:
        def run(*args):
            subprocess.run([RUNT, *args], check=True, cwd=d, stdout=subprocess.DEVNULL,
                           env=dict(os.environ, XDG_CACHE_HOME=d))
        with open(os.path.join(d, "t.txt"), "wb") as f:
            f.write(TEXT * 4)
        run("tokenizer", "train", "--data", "t.txt", "--vocab", "257", "-o", "tok")
        run("train", "--data", "t.txt", "--init", "gpt2", "--tokenizer", "tok", "--layers", "1",
            "--heads", "2", "--embd", "4", "--ff", "8", "--context", "8", "--steps", "2", "--batch",
            "1", "--val-share", "0", "--out", "run", "-t", "1", "-q")
        for out, more in (("lora", []), ("all", ["--lora-targets", "."])):
            run("train", "--data", "t.txt", "--init", "run/model.gguf", "--lora", "2", "--context",
                "8", "--steps", "2", "--batch", "1", "--val-share", "0", "--out", out, "-t", "1",
                "-q", *more)
        files = []
        for name in ("run/step-00000002.gguf", "lora/adapter.gguf", "all/adapter.gguf"):
            with open(os.path.join(d, name), "rb") as f:
                files.append(f.read())
        return files


def checkpoints(whole):
    def change(key, old, new):
        at = whole.index(old, whole.index(key))
        return whole[:at] + new + whole[at + len(old):]
    step = b"%016x" % 2
    return {"whole": whole, "cut": whole[:-200], "flipped": flipped(whole, len(whole) - 99),
            "step": change(b"train.step", step, b"000000000000000g"),
            "version": change(b"train.version", struct.pack("<II", 4, 1), struct.pack("<II", 4, 2)),
            "no_version": whole.replace(b"train.version", b"train.wersion"),
            "moments": whole.replace(b"m.output_norm.bias", b"m.output_norm.bia_"),
            "smooth": change(b"train.loss.smooth", b"0x", b"nx")}


def adapters(whole, table):
    def words(key, old, new):
        at = whole.index(old, whole.index(key))
        return whole[:at] + new + whole[at + len(old):]
    return {"whole": whole, "cut": whole[:-200], "type": words(b"general.type", b"adapter", b"adopter"),
            "kind": words(b"adapter.type", b"lora", b"lola"),
            "alpha": words(b"lora.alpha", struct.pack("<If", 6, 4), struct.pack("<If", 6, -4)),
            "base": words(b"adapter.base", b"\x10" + b"\0" * 7, b"\x0f" + b"\0" * 7),
            "half": whole.replace(b"ffn_up.weight.lora_a", b"ffn_up.weight.lora_c"),
            "rank": whole.replace(struct.pack("<IQQ", 2, 4, 2), struct.pack("<IQQ", 2, 4, 1)),
            "nan": whole[:-8] + b"\xff\xff\xff\x7f" + whole[-4:], "table": table,
            "table_shape": table.replace(struct.pack("<IQQ", 2, 2, 257),
                                         struct.pack("<IQQ", 2, 1, 257)),
            "table_half": table.replace(b"token_embd.weight.lora_b", b"token_embd.weight.lora_c")}


put("unpack", packed())
put("data", documents())
checkpoint, *lora = trained()
put("checkpoint", checkpoints(checkpoint))
put("adapter", adapters(*lora))
