#!/usr/bin/env python3
"""eval --task and eval --derail through the program: figures, forms of files, and what is
refused.  Prints TAP."""
import json
import lzma
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import ROOT, Skip, case, fails, main, misuse, path, read, runt, test, write

MINI = os.path.join(ROOT, "tests", "data", "mini")
PROMPTS = os.path.join(ROOT, "models", "prompts.txt")
DATA = os.environ.get("RUNT_TEST_DATA")
PASSAGES = ["The cat sat on the mat. The cat likes the mat",
            "Once upon a time there was a little girl named Lily. She had a dog",
            "Tom was sad, so his mom gave him a hug and said, \"I love you"]


def model():
    p = path("f.gguf")
    if not os.path.exists(p):
        runt("import", MINI, "-o", p, "-q")
    return p


def q4():
    p = path("q4.gguf")
    if not os.path.exists(p):
        runt("quantize", model(), p, "q4_0", "-q")
    return p


def report(*args, **more):
    return json.loads(runt("eval", "-m", model(), "-o", "json", *args, **more).out)


def without_time(r):
    return {k: v for k, v in r.items() if k != "seconds"}


@test
def last_words():
    jsonl = "".join(json.dumps({"text": p}) + "\n" for p in PASSAGES)
    a = report("--task", "lambada", "-f", write(path("l.jsonl"), jsonl))
    with case("a report"):
        assert a["task"] == "lambada" and a["tasks"] == 3 and a["truncated"] == 0, a
        assert a["acc"] in (1 / 3, 2 / 3, 1), a
        assert a["perplexity"] > 1 and a["perplexity_se"] > 0, a
        p = a["acc"]
        assert abs(a["acc_se"] - (p * (1 - p) / 2) ** 0.5) < 1e-12, a
    with case("plain text, standard input, another number of threads"):
        b = report("--task", "lambada", "-f", "-", "-t", "3", stdin="\n".join(PASSAGES))
        assert without_time(a) == without_time(b), (a, b)
    with case("--limit"):
        b = report("--task", "lambada", "-f", path("l.jsonl"), "--limit", "2")
        assert b["tasks"] == 2, b
        one = report("--task", "lambada", "-f", path("l.jsonl"), "--limit", "1")
        assert one["acc_se"] is None and one["perplexity"] > 1, one
    with case("packed by xz"):
        write(path("l.jsonl.xz"), lzma.compress(jsonl.encode()))
        r = runt("eval", "-m", model(), "-o", "json", "--task", "lambada", "-f",
                 path("l.jsonl.xz"), expect=None)
        if r.rc and "without liblzma" in r.err:
            raise Skip("built without liblzma")
        assert without_time(json.loads(r.out)) == without_time(a), r
    with case("for people"):
        out = runt("eval", "-m", model(), "--task", "lambada", "-f", path("l.jsonl")).out
        assert re.search(r"^acc +%.2f%%" % (100 * a["acc"]), out, re.M), out
        assert "perplexity      %.4f" % a["perplexity"] in out, out


@test
def endings():
    rows = [["Playing: A dog sees a ball. the dog", 1, "is a spoon.", "runs to the ball.",
             "sky.", "was two"],
            ["Eating: The girl has a big cake. she", 0, "eats the cake.", "moon.", "of of",
             "flew on a table and did so very well that day."]]
    text = "".join("\n".join(map(str, r)) + "\n" for r in rows)
    a = report("--task", "hellaswag", "-f", write(path("h.txt"), text))
    with case("a report"):
        assert a["tasks"] == 2 and a["acc"] in (0, 0.5, 1) and a["acc_norm"] in (0, 0.5, 1), a
        assert "perplexity" not in a, a
    with case("the same as JSON lines"):
        jsonl = ""
        for r in rows:
            activity, ctx = r[0].split(": ")
            first, second = ctx.rsplit(". ", 1)
            # "the dog" is capitalized by the rule, so here it is no ctx_b
            jsonl += json.dumps({"activity_label": activity, "ctx_a": first + ". " + second,
                                 "ctx_b": "", "endings": r[2:], "label": r[1]}) + "\n"
        b = report("--task", "hellaswag", "-f", write(path("h.jsonl"), jsonl))
        assert without_time(a) == without_time(b), (a, b)


def derail(*args, m=None, **more):
    return json.loads(runt("eval", "-m", m or q4(), "--derail", "-f", PROMPTS, "-o", "json",
                           *args, **more).out)


@test
def long_answers():
    a = derail("-n", "60", "--base", model())
    with case("a row for each answer"):
        assert a["prompts"] == 3 and len(a["answers"]) == 9, a
        assert [x["sampled"] for x in a["answers"]] == [False, True, True] * 3
        assert [x["seed"] for x in a["answers"] if x["sampled"]] == [1, 2, 3, 4, 5, 6]
        assert all("text" not in x for x in a["answers"])
    with case("the table adds them up"):
        for kind in ("greedy", "sampled"):
            rows = [x for x in a["answers"] if x["sampled"] == (kind == "sampled")]
            f = a[kind]
            assert f["answers"] == len(rows)
            assert f["tokens"] == sum(x["tokens"] for x in rows)
            assert abs(f["rep4"] - sum(x["rep4"] for x in rows) / len(rows)) < 1e-12
            assert f["loops"] == sum("loop_begin" in x for x in rows)
            assert f["kl"] > 0 and f["base_perplexity"] > 1, f
    with case("the same again, on 3 threads"):
        b = derail("-n", "60", "--base", model(), "-t", "3")
        assert without_time(a) == without_time(b)
    with case("another seed changes what is sampled only"):
        b = derail("-n", "60", "--base", model(), "-s", "9")
        assert a["greedy"] == b["greedy"] and a["sampled"] != b["sampled"]
    with case("the greedy answer is that of generate"):
        prompt = read(PROMPTS, "r").split("\n")[0]
        b = derail("-n", "30", "--samples", "0", "--show", "1")
        g = runt("generate", "-m", q4(), "-p", prompt, "-n", "30", "--temp", "0",
                 "--no-display-prompt").out
        assert b["answers"][0]["text"] == g.rstrip("\n"), (b["answers"][0], g)
        assert "sampled" not in b and "kl" not in b["greedy"], b
    with case("a sampled answer is that of generate"):
        prompt = read(PROMPTS, "r").split("\n")[1]
        b = derail("-n", "30", "--show", "5")
        g = runt("generate", "-m", q4(), "-p", prompt, "-n", "30", "-s", "3",
                 "--no-display-prompt").out
        assert b["answers"][4]["text"] == g.rstrip("\n"), (b["answers"][4], g)
    with case("for people"):
        out = runt("eval", "-m", q4(), "--derail", "-f", "-", "-n", "20", "--show", "1",
                   stdin="The cat\n").out
        assert re.search(r"^4-grams repeated, % ", out, re.M), out
        assert "[line 1, greedy, 20 tokens" in out and "\nThe cat" in out, out


@test
def a_model_in_a_loop():
    """Greedy answers of a random model go round in circles."""
    p = path("random.gguf")
    runt("init", "gpt2", "--layers", "1", "--heads", "2", "--embd", "32", "--vocab", "300",
         "--context", "256", "-o", p)
    r = json.loads(runt("eval", "-m", p, "--derail", "-f", PROMPTS, "-n", "150", "-o",
                        "json").out)
    assert r["greedy"]["looping"] == 1 and r["greedy"]["loops"] == 3, r["greedy"]
    assert r["greedy"]["rep4"] > 0.5 > r["sampled"]["rep4"], r
    assert r["greedy"]["loop_begin"] < 100, r["greedy"]


@test
def what_is_refused():
    good = write(path("good.jsonl"), json.dumps({"text": PASSAGES[0]}) + "\n")
    m = ["eval", "-m", model()]
    write(path("bad.jsonl"), json.dumps({"text": "a b"}) + "\n{\"text\": \n")
    write(path("empty.txt"), "\n\n")
    write(path("binary.bin"), bytes(range(256)))
    write(path("label.txt"), "ctx\n4\na\nb\nc\nd\n")
    write(path("short.txt"), "ctx\n3\na\nb\n")
    write(path("long.txt"), "Hello\n" + "word " * 400 + "\n")
    write(path("cut.xz"), b"\xfd7zXZ\0\0\4")
    for name, args, words in (
            ("a bad line", ["--task", "lambada", "-f", path("bad.jsonl")],
             ["bad.jsonl, line 2"]),
            ("an empty file", ["--task", "lambada", "-f", path("empty.txt")],
             ["empty.txt", "no tasks"]),
            ("a binary file", ["--task", "lambada", "-f", path("binary.bin")],
             ["binary.bin, line 1", "not a text"]),
            ("a wrong label", ["--task", "hellaswag", "-f", path("label.txt")],
             ["label.txt, line 2", "index"]),
            ("a file cut short", ["--task", "hellaswag", "-f", path("short.txt")],
             ["short.txt, line 4", "6 lines"]),
            ("the other task's file", ["--task", "hellaswag", "-f", good],
             ["good.jsonl, line 1"]),
            ("no file", ["--task", "lambada", "-f", path("nix")], ["nix"]),
            ("a folder", ["--task", "lambada", "-f", MINI], [MINI]),
            ("a damaged .xz", ["--task", "lambada", "-f", path("cut.xz")], ["cut.xz"]),
            ("no prompts", ["--derail", "-f", path("empty.txt")], ["empty.txt", "no prompts"]),
            ("binary prompts", ["--derail", "-f", path("binary.bin")],
             ["binary.bin, line 1", "not a text"]),
            ("a prompt that fills the context", ["--derail", "-f", path("long.txt")],
             ["long.txt", "line 2", "256"]),
            ("no prompts file", ["--derail", "-f", path("nix")], ["nix"]),
            ("a base that is not there",
             ["--derail", "-f", PROMPTS, "--base", path("nix.gguf")], ["nix.gguf"])):
        with case(name):
            fails(*m, *args, words=words)
    for name, args, words in (
            ("an unknown task", ["--task", "lambda", "-f", good], ["lambda", "hellaswag"]),
            ("a task and a base", ["--task", "lambada", "-f", good, "--base", model()],
             ["--base"]),
            ("a task and derailment", ["--task", "lambada", "--derail", "-f", good],
             ["exclude"]),
            ("a window of a task", ["--task", "lambada", "-f", good, "--window", "8"],
             ["--window"]),
            ("a limit without a task", ["-f", good, "--limit", "8"], ["--limit"]),
            ("a show without derailment", ["-f", good, "--show", "8"], ["--show"]),
            ("no tokens", ["--derail", "-f", PROMPTS, "-n", "0"], ["-n"]),
            ("no file", ["--derail"], ["-f"]),
            ("no model", ["--derail", "-f", PROMPTS], ["-m"])):
        with case("misuse: " + name):
            args = [x for x in ["eval", "-m", model(), *args]]
            misuse(*(args if name != "no model" else args[:1] + args[3:]), words=words)


@test
def the_real_files():
    if not DATA:
        raise Skip("RUNT_TEST_DATA is not set")
    with case("LAMBADA"):
        r = report("--task", "lambada", "-f", os.path.join(DATA, "eval", "lambada.jsonl"),
                   "--limit", "40")
        assert r["tasks"] == 40 and r["perplexity"] > 1, r
    with case("HellaSwag, packed"):
        r = runt("eval", "-m", model(), "-o", "json", "--task", "hellaswag", "--limit", "20",
                 "-f", os.path.join(DATA, "eval", "hellaswag_first3000.txt.xz"), expect=None)
        if r.rc and "without liblzma" in r.err:
            raise Skip("built without liblzma")
        r = json.loads(r.out)
        assert r["tasks"] == 20 and 0 <= r["acc"] <= 1, r


main()
