#!/usr/bin/env python3
"""--prompt-cache through the program: what is kept, what is used again, and files that are
not a cache, not this model's, damaged, or in a place that cannot be written.  Prints TAP."""
import json
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import ROOT, case, check_line, main, only, path, read, runt, test, write

MINI = os.path.join(ROOT, "tests", "data", "mini")
PROMPT = "Once upon a time there was a little girl who had a red ball. "


def model(type_name="q4_0"):
    p = path("tiny-%s.gguf" % type_name)
    if not os.path.exists(p):
        runt("import", MINI, "-o", p, "--type", type_name, "-q")
    return p


def generate(cache, prompt=PROMPT, m=None, **more):
    args = ["--prompt-cache", cache] if cache else []
    return runt("generate", "-m", m or model(), "-p", prompt, "-n", "12", "--temp", "0",
                "-o", "json", *args, *more.pop("args", []), **more)


def answer(r):
    return json.loads(r.out)


@test
def the_same_answer_with_and_without():
    cache = path("a.kv")
    want = answer(generate(None))
    first = answer(generate(cache))
    size = os.path.getsize(cache)
    again = answer(generate(cache))
    longer = answer(generate(cache, PROMPT + "She ran to the park. "))
    assert first["text"] == want["text"] == again["text"], (want, first, again)
    assert longer["text"] == answer(generate(None, PROMPT + "She ran to the park. "))["text"]
    assert not first["cached_tokens"] and again["cached_tokens"] > 10, (first, again)
    assert os.path.getsize(cache) > size  # the longer prompt replaced it
    short = answer(generate(cache, "Once upon"))
    assert short["text"] == answer(generate(None, "Once upon"))["text"]


@test
def across_threads_and_instruction_sets():
    want = answer(generate(None))["text"]
    for n, cpu in (("1", "ref"), ("2", ""), ("3", "ref")):
        cache = path("b%s.kv" % n)
        generate(cache, args=["-t", n], env={"RUNT_CPU": cpu})
        with case("made by %s threads, RUNT_CPU=%s" % (n, cpu)):
            assert answer(generate(cache))["text"] == want
    made = {read(path("b%s.kv" % n)) for n in "123"}
    with case("one file, whoever made it"):
        assert len(made) == 1


@test
def not_this_models():
    cache = path("c.kv")
    generate(cache)
    kept = read(cache)
    for name, more in (("another model", {"m": model("r4")}),
                       ("another kind of cache", {"args": ["--kv", "q8"]})):
        with case(name):
            r = generate(cache, expect=1, **more)
            check_line(r, [cache])
            assert read(cache) == kept


@test
def damaged_files():
    cache = path("d.kv")
    generate(cache)
    good = read(cache)
    for name, bad in (("empty", b""), ("text", b"not a cache\n"),
                      ("cut", good[:len(good) // 2]), ("longer", good + b"\0"),
                      ("a header alone", good[:24]),
                      ("a flipped bit", good[:5000] + bytes([good[5000] ^ 4]) + good[5001:]),
                      ("many tokens", good[:20] + b"\xff\xff\xff\x7f" + good[24:])):
        with case(name):
            write(cache, bad)
            r = generate(cache, expect=1)
            check_line(r, [cache])
            assert r.raw == b"" or b'"text"' not in r.raw, r
            assert read(cache) == bad


@test
def places_that_cannot_be_written():
    os.makedirs(path("folder"), exist_ok=True)
    for name, cache in (("a folder", path("folder")), ("a missing folder", path("no", "a.kv"))):
        with case(name):
            check_line(generate(cache, expect=1), [cache])
    if os.path.exists("/dev/full"):
        shutil.rmtree(path("out"), ignore_errors=True)
        os.makedirs(path("out"))
        os.symlink("/dev/full", path("out", "full.kv"))
        with case("no file, no half of one"):
            generate(path("out", "full.kv"), expect=1)
            only(path("out"), "full.kv")


main()
