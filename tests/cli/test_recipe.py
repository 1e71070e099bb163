#!/usr/bin/env python3
"""The recipe of the bundled model: its conversations are sound, and its script runs from texts to
a model that talks, two small steps a stage.  Prints TAP."""
import lzma
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import ROOT, RUNT, main, path, runt, test

END = "\n<|endoftext|>\n"
N_DOCUMENTS = 400  # so that some of each kind are held out


def script(name, *args, expect=0):
    r = subprocess.run([sys.executable, os.path.join(ROOT, "recipes", name), *args],
                       capture_output=True, text=True, env={**os.environ, "RUNT_BIN": RUNT})
    assert r.returncode == expect, (r.stdout[-2000:], r.stderr[-2000:])
    return r


def texts(folder, **more):
    """A little of each kind."""
    kinds = {
        "stories": "Once a dog called Rex{0} found ball {0}. He ran home. It was late. The sun was low. "
                   "He ate his soup. Then he slept.",
        "dialogues": "User: I saw {0} birds today .\nBot: I ' m glad about the {0} birds .",
        "quotes": "\"Friends are {0} times better than gold.\" - Ada Number {0}",
        "twitch": "that was move number {0}, well played",
        "books": "It was the evening of day {0}, and the ship lay still upon the water."}
    os.makedirs(folder)
    for name, form in kinds.items():
        docs = [form.format(i) for i in range(N_DOCUMENTS)] + more.get(name, [])
        with lzma.open(os.path.join(folder, name + ".txt.xz"), "wt", preset=0) as f:
            f.write("".join(d + END for d in docs))
    return folder


@test
def conversations_have_their_form():
    r = script("check_dialogues.py")
    assert r.stdout.startswith("conversations  ") and not r.stderr, r


@test
def a_conversation_without_its_form_is_told():
    with open(path("bad.txt"), "w", encoding="ascii") as f:
        f.write("User: Hello there!\nBot: Hello, how are you today?\nBot: Are you there?" + END)
    r = script("check_dialogues.py", path("bad.txt"), expect=1)
    assert "does not begin with 'User: '" in r.stderr, r.stderr


@test
def from_texts_to_a_model_that_talks():
    r = script("pocket.py", texts(path("data")), path("out"), "--quick")
    for stage in ("pre", "talk", "more", "still-more", "all", "chat", "last"):
        assert os.path.exists(path("out", stage, "model.gguf")), (stage, r.stdout[-2000:])
    runt("import", path("out", "pocket"), "-o", path("pocket.gguf"))
    facts = runt("inspect", path("pocket.gguf"), "-o", "json").out
    assert '"gpt2.embedding_length":256' in facts.replace(" ", ""), facts[:2000]
    assert "'Bot: ' + message" in facts, facts[:2000]  # its template, learned from messages
    runt("chat", "-m", path("pocket.gguf"), "-n", "8", stdin="Hello!\n")


@test
def what_is_there_is_not_made_again():
    r = script("pocket.py", path("data"), path("out"), "--quick")
    assert r.stdout == "", r.stdout


@test
def an_opening_is_not_learned_from():
    with open(os.path.join(ROOT, "tests", "data", "openings.txt"), encoding="utf-8") as f:
        opening = f.readline().split("\t")[0]
    r = script("pocket.py", texts(path("told"), books=["He said: " + opening.upper()]),
               path("none"), "--quick", expect=1)
    assert "an opening is in books" in r.stderr, r.stderr
    assert not os.path.exists(path("none", "books.txt"))


if __name__ == "__main__":
    main()
