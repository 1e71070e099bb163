#!/usr/bin/env python3
"""--lookahead through the program: the same text with and without, in generate and chat, at
any temperature, however the text ends; figures; what is refused.  Prints TAP."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import ROOT, case, main, misuse, path, runt, test

TINY = os.path.join(ROOT, "models", "tiny-gpt2")
PROMPT = "The cat sat on the mat. The dog sat on the mat. The cat sat on"
WAYS = ("auto", "1", "4", "31")


def model(type_name):
    p = path("tiny-%s.gguf" % type_name)
    if not os.path.exists(p):
        runt("import", TINY, "-o", p, "--type", type_name, "-q")
    return p


def generate(ahead, *args, m="r4", **more):
    r = runt("generate", "-m", model(m), "-p", PROMPT, "--lookahead", ahead, "-o", "json", *args,
             **more)
    return json.loads(r.out)


@test
def the_same_text():
    n_accepted = 0
    for args in (("-n", "100", "--temp", "0"), ("-n", "100", "-s", "3"),
                 ("-n", "100", "-s", "3", "--temp", "0.3", "--repeat-penalty", "1.2"),
                 ("-n", "60", "--temp", "0", "--stop", "dog."),
                 ("-n", "400", "--temp", "0", "-c", "64", "--ignore-eos"),  # it slides
                 ("-n", "200", "-s", "8", "-c", "64", "--ignore-eos"),
                 ("-n", "1", "--temp", "0"), ("-n", "0", "-s", "1", "--temp", "0.5")):
        for m in ("q4_0", "r4", "f16"):
            with case("%s %s" % (m, " ".join(args))):
                want = generate("off", *args, m=m)
                assert want["drafted_tokens"] == want["accepted_tokens"] == 0, want
                for ahead in WAYS:
                    got = generate(ahead, *args, m=m)
                    for key in ("text", "tokens", "end", "dropped_tokens"):
                        assert got[key] == want[key], (ahead, got, want)
                    assert got["accepted_tokens"] <= got["drafted_tokens"], got
                    assert got["accepted_tokens"] < got["tokens"], got
                    n_accepted += got["accepted_tokens"]
    assert n_accepted > 1000, n_accepted


@test
def drafts_save_passes():
    """Counted, not timed: weights are read once a pass, so bytes a token fall."""
    def weights(ahead):
        r = runt("generate", "-m", model("r4"), "-p", PROMPT, "-n", "100", "--temp", "0",
                 "--ignore-eos", "--profile", "--lookahead", ahead)
        table = r.err.split("tokens drawn")[1]
        row = next(line for line in table.splitlines() if "| head " in line)
        return float(row.split("|")[4]), r
    off, r = weights("off")
    assert "drafted" not in r.err, r
    four, r = weights("4")
    figures = r.err.splitlines()[-1]
    words = figures.replace(",", "").split()
    assert words[:2] == ["tokens", "drafted:"] and words[3] == "accepted:", figures
    drafted, accepted = int(words[2]), int(words[4])
    assert 0 < accepted <= drafted, figures
    assert abs(four / off - (100 - accepted) / 100) < 0.001, (four, off, figures)


@test
def a_prompt_cache_beside_it():
    want = generate("off", "-n", "30", "--temp", "0")
    for ahead in WAYS:
        for _ in range(2):
            got = generate(ahead, "-n", "30", "--temp", "0", "--prompt-cache",
                           path("p%s.kv" % ahead))
            assert got["text"] == want["text"], (got, want)


@test
def chat_says_the_same():
    lines = "Hello.\n/regen\nHello. Hello. Hello.\n/set temp 0.7\nThe cat sat on the mat.\n"
    said = {runt("chat", "-m", model("r4"), "--temp", "0", "-s", "5", "-n", "50", "-c", "96",
                 "--lookahead", ahead, stdin=lines).out for ahead in ("off",) + WAYS}
    assert len(said) == 1, said


@test
def refused():
    for verb in ("generate", "chat"):
        for bad in ("0", "-1", "32", "1.5", "", "on", "4x", "99999999999999999999"):
            misuse(verb, "-m", model("r4"), "--lookahead", bad,
                   words=["--lookahead", "auto, off", "31", "'%s'" % bad])


if __name__ == "__main__":
    main()
