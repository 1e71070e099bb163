#!/usr/bin/env python3
"""The sampler's flags, grammars and JSON schemas through the program: each reaches the
sampler, in generate and in chat; what is refused.  Prints TAP."""
import json
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import ROOT, case, fails, main, misuse, path, runt, test

TINY = os.path.join(ROOT, "models", "tiny-gpt2")
PROMPT = "One day, a little girl"


def model():
    p = path("tiny.gguf")
    if not os.path.exists(p):
        runt("import", TINY, "-o", p, "--type", "q8_0", "-q")
    return p


def draw(*args, n=40, prompt=PROMPT):
    return runt("generate", "-m", model(), "-p", prompt, "-n", str(n), "-s", "1",
                "--no-display-prompt", "--ignore-eos", *args).out


def write(name, text):
    with open(path(name), "w", encoding="utf-8") as f:
        f.write(text)
    return path(name)


@test
def each_flag_changes_what_is_drawn():
    plain = draw()
    assert draw() == plain
    for args in (("--temp", "1.5"), ("--top-k", "2"), ("--top-p", "0.2"), ("--min-p", "0.5"),
                 ("--typical", "0.2"), ("--repeat-penalty", "2"), ("--frequency-penalty", "5"),
                 ("--presence-penalty", "5"), ("--dry-multiplier", "5", "--dry-allowed-length", "1"),
                 ("--mirostat", "2"), ("--samplers", "temperature"), ("--logit-bias", "13-inf")):
        with case(" ".join(args)):
            assert draw(*args) != plain


@test
def flags_of_a_stage_reach_it():
    dry = ("--dry-multiplier", "5", "--dry-allowed-length", "1")
    miro = ("--mirostat", "2")
    rep = ("--repeat-penalty", "1.5")
    for stage, more in ((dry, ("--dry-allowed-length", "3")),
                        (dry, ("--dry-penalty-last-n", "4")),
                        (dry, ("--dry-sequence-breaker", " ")),
                        (miro, ("--mirostat-ent", "1")), (miro, ("--mirostat-lr", "0.9")),
                        (rep, ("--repeat-last-n", "2"))):
        with case(" ".join(stage + more)):
            assert draw(*stage, *more, n=100) != draw(*stage, n=100)


@test
def dry_among_two_lines():
    """A grammar leaves two lines to choose from, so that every penalty shows."""
    g = write("lines.gbnf", 'root ::= ("the dog ran\\n" | "the cat ran\\n"){30}\n')
    def say(*args):
        return runt("generate", "-m", model(), "-p", PROMPT, "--grammar", g, "--temp", "0", "-n", "0",
                    "--dry-multiplier", "0.5", "--no-display-prompt", *args).out
    plain = say("--dry-sequence-breaker", "none")
    assert say("--dry-sequence-breaker", "\\n") == say("--dry-sequence-breaker", "\n") != plain
    assert say("--dry-base", "1", "--dry-sequence-breaker", "none") != plain


@test
def the_order_is_kept():
    assert draw("--samplers", "temperature;top_p", "--temp", "2", "--top-p", "0.5", n=100) != \
        draw("--samplers", "top_p;temperature", "--temp", "2", "--top-p", "0.5", n=100)
    assert draw("--samplers", "penalties;dry;top_k;typ_p;top_p;min_p;temperature") == draw()


@test
def a_bias_forces_a_token():
    assert draw("--logit-bias", "13+1000", "--temp", "0", n=5) == ".....\n"


@test
def a_grammar_holds():
    g = write("answer.gbnf", 'root ::= ("yes" | "no") ", " [1-9] [0-9]{0,2} "."\n')
    for seed in range(8):
        out = runt("generate", "-m", model(), "-p", "Is it?", "--grammar", g, "-s", str(seed), "--temp",
                   "2", "--no-display-prompt").out
        assert re.fullmatch(r"(yes|no), [1-9][0-9]{0,2}\.\n", out), out


@test
def a_schema_holds():
    s = write("cat.json", json.dumps({
        "type": "object", "required": ["name", "age"],
        "properties": {"name": {"type": "string", "maxLength": 9},
                       "age": {"type": "integer", "minimum": 3, "maximum": 12}}}))
    for seed in range(8):
        out = json.loads(runt("generate", "-m", model(), "-p", "A cat:", "--json-schema", s, "-s",
                              str(seed), "-n", "0", "--no-display-prompt").out)
        assert set(out) == {"name", "age"} and len(out["name"]) <= 9 and 3 <= out["age"] <= 12


@test
def lookahead_leaves_a_grammar_alone():
    g = write("list.gbnf", 'root ::= ("the cat sat. " | "the dog ran. "){6}\n')
    args = ("generate", "-m", model(), "-p", "the cat sat. the cat sat.", "--grammar", g, "-s", "4",
            "--temp", "1", "--lookahead")
    assert runt(*args, "8").out == runt(*args, "off").out


@test
def a_chat_has_them_too():
    g = write("yes.gbnf", 'root ::= "Yes." | "No."\n')
    r = runt("chat", "-m", model(), "--template", "turns", "--grammar", g, "-s", "2",
             stdin="Hello?\nReally?\n/set grammar none\n/set n 3\nSo?\n")
    said = r.out.split("\n")
    assert all(a in ("Yes.", "No.") for a in said[:2]) and said[2] not in ("Yes.", "No."), r.out


@test
def set_knows_every_value_of_the_sampler():
    help_text = runt("generate", "--help").out
    flags = re.findall(r"--([a-z0-9-]+)", help_text.split("--seed")[1].split("--stop")[0])
    flags = ["seed"] + [f for f in flags if f != "stop"]
    assert {"typical", "dry-base", "mirostat-lr", "samplers", "json-schema"} <= set(flags), flags
    listed = runt("chat", "-m", model(), stdin="/set\n").err
    for f in flags:
        assert re.search(r"^\W*%s " % re.escape(f), listed, re.M), (f, listed)
    for name, value in (("typical", "0.9"), ("dry-sequence-breaker", "x"), ("logit-bias", "5-2"),
                        ("samplers", "top_k;temperature"), ("mirostat", "2")):
        err = runt("chat", "-m", model(), stdin="/set %s %s\n" % (name, value)).err
        assert "%s is now %s" % (name, value) in err, err


@test
def what_a_chat_refuses_leaves_the_sampler():
    for name, value, why in (("logit-bias", "x", "TOKEN+X"), ("samplers", "top_k;nope", "nope"),
                             ("mirostat", "1", "mirostat"), ("grammar", "/none.gbnf", "/none.gbnf")):
        with case(name):
            err = runt("chat", "-m", model(), stdin="/set %s %s\n/set %s\n" % (name, value, name)).err
            assert why in err and "is now" not in err, err
            assert value not in err.strip().splitlines()[-1], err


@test
def what_is_refused():
    g = write("good.gbnf", 'root ::= "a"\n')
    for args, why in (
            (("--logit-bias", "5"), "TOKEN+X"), (("--logit-bias", "5+nan"), "TOKEN+X"),
            (("--logit-bias", "-1+2"), "TOKEN+X"), (("--logit-bias", "99999999+2"), "99999999"),
            (("--logit-bias", "5+inf"), "bias"), (("--samplers", "top_k;top_k"), "top_k"),
            (("--mirostat", "1"), "mirostat"), (("--dry-multiplier", "1", "--dry-sequence-breaker", ""), "breaker"),
            (("--grammar", path("none.gbnf")), "none.gbnf: "),
            (("--grammar", write("bad.gbnf", "root ::= nope\n")), "bad.gbnf: "),
            (("--json-schema", write("bad.json", '{"type": "x"}')), "bad.json: "),
            (("--json-schema", write("odd.json", '{"multipleOf": 3}')), "multipleOf"),
            (("--json-schema", g), "good.gbnf: "),
            (("--grammar", g, "--json-schema", path("odd.json")), "exclude")):
        with case(" ".join(args[:2]).replace(path(""), "")):
            fails("generate", "-m", model(), "-p", "x", "-n", "1", *args, words=(why,))
    for args in (("--grammar", g, "--ignore-eos"), ("--typical", "2"), ("--dry-base", "0.5"), ("--mirostat-lr", "-1"),
                 ("--frequency-penalty", "x"), ("--dry-penalty-last-n", "-2")):
        with case(" ".join(args).replace(path(""), "")):
            misuse("generate", "-m", model(), "-p", "x", *args)


if __name__ == "__main__":
    main()
