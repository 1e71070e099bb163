#!/usr/bin/env python3
"""train on dialogues: what counts, messages, and that chat and other programs know how to
talk to the result.  Prints TAP."""
import glob
import json
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import ROOT, Skip, case, fails, main, path, read, runt, test, write

MINI = os.path.join(ROOT, "tests", "data", "mini")
NAMES = {"user": "User", "assistant": "Bot"}


def model():
    p = path("odd.gguf")
    if not os.path.exists(p):
        runt("init", "gpt2", "--layers", "2", "--heads", "2", "--embd", "32", "--context", "48",
             "--tokenizer", MINI, "-o", p)
    return p


def talks(n=60):
    """Dialogues of different lengths, as messages."""
    who, what = ("goat", "king", "crow", "cat"), ("sang", "ran", "slept")
    out = []
    for i in range(n):
        turns = []
        for k in range(1 + i % 3):
            turns.append({"role": "user", "content": "What did the %s of day %d do?" % (
                who[(i + k) % 4], i)})
            turns.append({"role": "assistant", "content": "It %s%s." % (
                what[(i * 7 + k) % 3], ", and then it sang again" * ((i + k) % 4))})
        out.append(turns)
    return out


def as_text(turns):
    return "\n".join("%s: %s" % (NAMES[t["role"]], t["content"]) for t in turns)


def texts():
    return write(path("talks.txt"), "\n<|endoftext|>\n".join(map(as_text, talks())) + "\n")


def messages():
    return write(path("talks.jsonl"), "".join(json.dumps({"messages": t}) + "\n"
                                              for t in talks()))


def arguments(data, out, *more):
    return ["train", "--data", data, "--init", model(), "--out", path(out), "--batch", "2",
            "--context", "32", "--lr", "0.002", "--precision", "f32", *more]


def train(data, out, *more, **how):
    return runt(*arguments(data, out, *more), **how)


def log(out):
    return [json.loads(line) for line in read(path(out, "log.jsonl"), "r").splitlines()]


def result(out):
    return read(path(out, "model.gguf"))


def need_products():
    r = train(texts(), "probe", "--steps", "1", "-q", expect=None)
    if r.rc and "library for matrix products" in r.err:
        raise Skip("neither oneDNN nor OpenBLAS is here")


@test
def only_answers_count():
    need_products()
    how = ["--steps", "3", "--batch", "1", "--val-share", "0", "-q"]
    # What a person says last is behind all that counts: neither targets nor, through
    # attention, inputs of the loss.
    for name, last in (("goat", "the goat"), ("king", "the king")):
        p = write(path(name + ".txt"), "User: who?\nBot: me.\nUser: no, " + last)
        train(p, name, *how, "--mask-prompts")
        train(p, name + "-all", *how)
    with case("other words of the person, the same losses and weights"):
        assert [x["loss"] for x in log("goat")] == [x["loss"] for x in log("king")]
        assert [x["grad_norm"] for x in log("goat")] == [x["grad_norm"] for x in log("king")]
        assert result("goat") == result("king")
    with case("without the mask they differ"):
        assert log("goat-all")[0]["loss"] != log("king-all")[0]["loss"]
        assert log("goat")[0]["loss"] != log("goat-all")[0]["loss"]
    with case("other words of the answer, another loss"):
        p = write(path("you.txt"), "User: who?\nBot: you.\nUser: no, the goat")
        train(p, "you", *how, "--mask-prompts")
        assert log("you")[0]["loss"] != log("goat")[0]["loss"]
    with case("what is printed"):
        p = write(path("some.txt"), "User: a\nBot: b\n<|endoftext|>\nBot: c\n<|endoftext|>\nd")
        r = train(p, "some", "--mask-prompts", "--steps", "1", "--eval-every", "0")
        assert "1 documents without an answer" in r.out and "data: 2 documents" in r.out, r


@test
def the_mean_is_over_what_counts():
    need_products()
    how = ["--steps", "3", "--mask-prompts", "-q", "--eval-every", "0"]
    train(texts(), "wide", *how, "--batch", "4")
    train(texts(), "deep", *how, "--batch", "1", "--accumulate", "4")
    for a, b in zip(log("wide"), log("deep")):
        assert abs(a["loss"] - b["loss"]) < 1e-5, (a, b)
        assert abs(a["grad_norm"] - b["grad_norm"]) < 1e-4 * a["grad_norm"], (a, b)


@test
def steps_in_which_nothing_counts():
    need_products()
    # Of every 41 windows one holds the answer.
    p = write(path("rare.txt"), "User:" + " no" * 640 + "\nBot: yes")
    train(p, "rare", "--steps", "30", "--batch", "1", "--mask-prompts", "--val-share", "0", "-q",
          "--context", "16")
    lines = log("rare")
    assert len(lines) == 30, lines
    with_loss = [x for x in lines if "loss" in x]
    assert len(with_loss) < 10 and all(x["grad_norm"] > 0 for x in with_loss), lines
    assert all(x["grad_norm"] == 0 for x in lines if "loss" not in x), lines


@test
def messages_are_dialogues():
    need_products()
    how = ["--steps", "4", "-q"]
    train(texts(), "t", *how, "--mask-prompts")
    train(messages(), "m", *how, "--mask-prompts")
    with case("the same bytes as from a text"):
        assert result("t") == result("m")
        assert [x.get("val_loss") for x in log("t")] == [x.get("val_loss") for x in log("m")]
    with case("with a cache that knows them, again"):
        r = train(messages(), "m2", "--steps", "4", "--mask-prompts")
        assert "(cached)" in r.out and result("m2") == result("m"), r
    with case("learning all, the model knows how to talk; of a text nobody knows"):
        train(messages(), "all", *how)
        train(texts(), "plain", *how)
        assert b"tokenizer.chat_template" in result("all")
        assert b"tokenizer.chat_template" not in result("plain")
        assert result("all") != result("t")


@test
def how_one_talks_to_it():
    need_products()
    if not os.path.exists(path("m")):
        train(messages(), "m", "--steps", "4", "-q", "--mask-prompts")
    tuned = path("m", "model.gguf")
    with case("chat needs no option"):
        r = runt("chat", "-m", tuned, "-n", "12", "--temp", "0", stdin="Who sang?\nWhy?\n")
        assert r.err == "", r
        turns = runt("chat", "-m", tuned, "-n", "12", "--temp", "0", "--template", "turns",
                     stdin="Who sang?\nWhy?\n")
        none = runt("chat", "-m", tuned, "-n", "12", "--temp", "0", "--template", "none",
                    stdin="Who sang?\nWhy?\n")
        assert r.out == turns.out != none.out, (r.out, none.out)
    with case("nor when it is quantized"):
        runt("quantize", tuned, path("q.gguf"), "q8_0", "-q")
        assert runt("chat", "-m", path("q.gguf"), "-n", "3", stdin="Who?\n").err == ""
    with case("training goes on from it, on anything"):
        train(texts(), "on", "--steps", "1", "-q", "--init", tuned)
        assert result("on").count(b"tokenizer.chat_template") == 1
    with case("other programs are told"):
        runt("export", tuned, path("hf"), "-q")
        with open(path("hf", "tokenizer_config.json"), encoding="utf-8") as f:
            template = json.load(f)["chat_template"]
        try:
            import jinja2
        except ImportError:
            raise Skip("there is no jinja2") from None
        t = jinja2.Environment().from_string(template)
        turns = [{"role": "system", "content": "Be kind."}, *talks()[1][:3]]
        want = "Be kind.\n" + as_text(turns[1:]) + "\n"
        assert t.render(messages=turns) == want, t.render(messages=turns)
        assert t.render(messages=turns, add_generation_prompt=True) == want + "Bot:"


@test
def stopped_and_resumed():
    need_products()
    how = ["--steps", "12", "--save-every", "6", "--keep", "9", "--eval-every", "3",
           "--accumulate", "2", "--dropout", "0.1", "--mask-prompts", "-q"]
    train(messages(), "whole", *how)
    shutil.copytree(path("whole"), path("part"))
    for name in ("step-00000012.gguf", "model.gguf"):
        os.unlink(path("part", name))
    shutil.rmtree(path(".cache"))
    with case("the same bytes, tokens made again"):
        runt("train", "--resume", "--out", path("part"), "-q")
        assert result("part") == result("whole")
        for name in ("best.gguf", "step-00000012.gguf"):
            a, b = read(path("part", name)), read(path("whole", name))
            assert a == b, name
    with case("another mask is another run"):
        train(messages(), "plain-run", "--steps", "6", "--save-every", "3", "-q")
        os.unlink(path("plain-run", "model.gguf"))
        fails("train", "--resume", "--out", path("plain-run"), "--mask-prompts",
              words=["other data or options"])


@test
def what_is_refused():
    need_products()
    good = json.dumps({"messages": talks()[0]}) + "\n"
    for name, content, words in (
            ("prompts.txt", "User: a\n<|endoftext|>\nb\n", ["prompts.txt", "2 documents", "Bot:"]),
            ("role.jsonl", good + '{"messages": [{"role": "tool", "content": "a"}]}\n',
             ["role.jsonl, line 2", "message 1", "'tool'"]),
            ("parts.jsonl", good + good + '{"messages": [{"role": "user", "content": [1]}]}\n',
             ["parts.jsonl, line 3", "message 1"]),
            ("late.jsonl", '{"messages": [{"role": "user", "content": "a"}, {"role": "system", '
             '"content": "b"}]}\n', ["late.jsonl, line 1", "message 2"]),
            ("other.jsonl", '{"message": "a"}\n', ["other.jsonl, line 1", "'text'", "messages"])):
        with case(name):
            fails(*arguments(write(path(name), content), "refused", "--mask-prompts"), words=words)
            assert not glob.glob(path("refused/*.gguf"))


@test
def a_tokenizer_of_messages():
    a = runt("tokenizer", "train", "--data", messages(), "--vocab", "300", "-o", path("tok-m"))
    b = runt("tokenizer", "train", "--data", texts(), "--vocab", "300", "-o", path("tok-t"))
    assert "300 tokens" in a.out and "300 tokens" in b.out, (a, b)
    assert read(path("tok-m", "merges.txt")) == read(path("tok-t", "merges.txt"))


if __name__ == "__main__":
    main()
