#!/usr/bin/env python3
"""tokenizer: a vocabulary learned from texts, as other programs and other verbs read it, the
same from any number of threads, and what is refused.  Prints TAP."""
import collections
import gzip
import json
import lzma
import os
import random
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import (ROOT, RUNT, Skip, case, environment, fails, limits, main, misuse, only, path, read,
                 runt, test, write)

HELDOUT = os.path.join(ROOT, "models", "heldout.txt")
EOT = "<|endoftext|>"
MARK = "\n" + EOT + "\n"


def documents(n, seed=1):
    """English enough: words of letters, some far more frequent than others."""
    r = random.Random(seed)
    words = ["".join(r.choice("etaoinshrdlu") for _ in range(r.randint(1, 9))) for _ in range(400)]
    return [" ".join(words[min(int(r.expovariate(0.02)), 399)] for _ in range(r.randint(1, 60)))
            + r.choice([".", "!\n", " 42", "'s", "\u00e9\u4e2d"]) for _ in range(n)]


def text(name, n=200, seed=1):
    return write(path(name), MARK.join(documents(n, seed)) + "\n")


def learn(folder, *args):
    return runt("tokenizer", "train", *args, "-o", path(folder))


def files(folder):
    return {name: read(path(folder, name)) for name in ("vocab.json", "merges.txt")}


def merges(folder):
    lines = read(path(folder, "merges.txt")).decode().split("\n")
    assert lines[0] == "#version: 0.2" and lines[-1] == "", lines[:2]
    return [tuple(line.split(" ")) for line in lines[1:-1]]


def by_hand(docs, n):
    """The first n merges of texts whose words are lower-case letters, done the slow way."""
    ids = {chr(c): i for i, c in enumerate(range(ord("!"), ord("~") + 1))}
    ids["\u0120"] = 220
    words = collections.Counter(w.replace(" ", "\u0120") for d in docs
                                for w in re.findall(r" ?[a-z]+|[^a-z]+", d))
    words = [(list(w), k) for w, k in words.items()]
    found = []
    while len(found) < n:
        count = collections.Counter()
        for w, k in words:
            for pair in zip(w, w[1:]):
                count[pair] += k
        best = min(count, key=lambda p: (-count[p], ids[p[0]], ids[p[1]]))
        found.append(best)
        ids["".join(best)] = 256 + len(found) - 1
        for w, _ in words:
            i = 0
            while i + 1 < len(w):
                if (w[i], w[i + 1]) == best:
                    w[i:i + 2] = ["".join(best)]
                i += 1
    return found


@test
def the_files():
    t = text("a.txt")
    r = learn("tok", "--data", t, "--vocab", "600")
    assert r.err == "", r
    only(path("tok"), "merges.txt", "vocab.json")
    vocab, m = json.loads(read(path("tok", "vocab.json"))), merges("tok")
    with case("ids are 0 to 599, the bytes first, <|endoftext|> last"):
        assert sorted(vocab.values()) == list(range(600))
        assert vocab[EOT] == 599 and vocab["!"] == 0 and vocab["\u0120"] == 220
        assert all(len(s) == 1 for s, i in vocab.items() if i < 256)
    with case("a merge makes the next id, of earlier tokens"):
        assert len(m) == 600 - 257
        for rank, (left, right) in enumerate(m):
            assert vocab[left + right] == 256 + rank
            assert max(vocab[left], vocab[right]) < 256 + rank
    with case("the line has the figures"):
        n_bytes = sum(len(d.rstrip("\n").encode()) for d in documents(200))
        got = re.fullmatch(r"(\S+): 600 tokens, 343 merges, from ([\d.]+) kB with (\d+) words, "
                           r"(\d+) different; ([\d.]+) bytes a token; [\d.]+ s\n", r.out)
        assert got and got.group(1) == path("tok"), r
        assert abs(float(got.group(2)) * 1000 - n_bytes) < 0.02 * n_bytes, (n_bytes, r)
        ids = runt("tokenize", "-m", path("tok"), "--special", "--ids", "-f", t).out.split()
        n = len(ids) - 3 * ids.count("599")
        assert abs(n_bytes / n / float(got.group(5)) - 1) < 0.03, (n_bytes, n, r)
    with case("others may read them"):
        umask = os.umask(0)
        os.umask(umask)
        assert os.stat(path("tok", "vocab.json")).st_mode & 0o777 == 0o666 & ~umask


@test
def the_merges_are_those_of_the_definition():
    docs = [re.sub("[^a-z ]", "", d) for d in documents(60, 3)]
    write(path("plain.txt"), MARK.join(docs))
    learn("plain", "--data", path("plain.txt"), "--vocab", "357", "-q")
    assert merges("plain") == by_hand(docs, 100)


@test
def the_same_from_anything_that_holds_the_texts():
    docs = documents(300, 2)
    first, second = MARK.join(docs[:120]) + "\n", MARK.join(docs[120:]) + "\n"
    one = write(path("one.txt"), first + EOT + "\n" + second)
    learn("one", "--data", one, "--vocab", "700", "-t", "1", "-q")
    a = write(path("1.txt.xz"), lzma.compress(first.encode()))
    b = write(path("2.txt.gz"), gzip.compress(second.encode()))
    lines = write(path("all.jsonl"), "".join(
        json.dumps({"body": d.rstrip("\n") if d.endswith("!\n") else d}) + "\n" for d in docs))
    for name, args in (("on three threads", ["--data", one, "-t", "3"]),
                       ("in two packed files", ["--data", a, "--data", b]),
                       ("in another order", ["--data", b, "--data", a]),
                       ("as .jsonl", ["--data", lines, "--field", "body"])):
        with case(name):
            r = runt("tokenizer", "train", *args, "--vocab", "700", "-q", "-o",
                     path("same " + name), expect=None)
            if r.rc and "built without" in r.err:
                raise Skip("a library is not here")
            assert r.rc == 0 and r.out == r.err == "", r
            assert files("same " + name) == files("one")


@test
def other_verbs_take_it():
    learn("held", "--data", HELDOUT, "--vocab", "500", "-q")
    with case("tokenize, there and back"):
        s = "One day, a little girl\u00e9 \u4e2d \x07  x"
        ids = runt("tokenize", "-m", path("held"), "--ids", stdin=s).out
        assert len(ids.split()) < len(s.encode())
        assert runt("tokenize", "-m", path("held"), "--decode", stdin=ids).raw == s.encode()
        got = runt("tokenize", "-m", path("held"), "--special", "--ids", stdin=EOT).out
        assert got == "499\n", got
    shape = ["--layers", "1", "--heads", "2", "--embd", "32", "--context", "32"]
    with case("init"):
        runt("init", "gpt2", *shape, "--tokenizer", path("held"), "-o", path("m.gguf"))
        assert runt("tokenize", "-m", path("m.gguf"), "--ids", stdin="a girl").out == \
            runt("tokenize", "-m", path("held"), "--ids", stdin="a girl").out
        runt("quantize", path("m.gguf"), path("m-r4.gguf"), "r4", "-q")
        assert b"runt.tokenizer.merges" in read(path("m-r4.gguf"))  # the compact form fits
    with case("train, and back to the same files"):
        r = runt("train", "--data", HELDOUT, "--init", "gpt2", "--tokenizer", path("held"), *shape,
                 "--out", path("run"), "--steps", "2", "--batch", "2", "-q", expect=None)
        if r.rc and "OpenBLAS" in r.err:
            raise Skip("no library of products here")
        assert r.rc == 0, r
        runt("export", path("run", "model.gguf"), path("run-hf"), "-q")
        assert {n: read(path("run-hf", n)) for n in files("held")} == files("held")


@test
def it_ends_where_the_pairs_do():
    t = write(path("few.txt"), "abab abab cd")
    with case("the note says so"):
        r = learn("few", "--data", t, "--vocab", "1000")
        assert r.err == "note: no pair occurs 2 times any more: 259 tokens instead of 1000\n", r
        assert r.out.startswith("%s: 259 tokens, 2 merges, " % path("few")), r
        assert merges("few") == [("a", "b"), ("ab", "ab")]
    with case("--min-count 1 goes on"):
        learn("fewer", "--data", t, "--vocab", "1000", "--min-count", "1")
        assert ("c", "d") in merges("fewer")
    with case("--min-count 5 takes none"):
        learn("none", "--data", t, "--vocab", "1000", "--min-count", "5")
        assert merges("none") == [] and len(json.loads(read(path("none", "vocab.json")))) == 257
        assert runt("tokenize", "-m", path("none"), "-p", "abab", "--count").out == "4\n"
    with case("the smallest vocabulary"):
        assert learn("least", "--data", t, "--vocab", "257").err == ""
        assert merges("least") == []


@test
def odd_texts():
    for name, data in (("bytes that are no text", bytes(range(1, 256)) * 40),
                       ("a merge that looks like a comment", b"## ## ### # ##\n" * 30),
                       ("quotes and backslashes", b"\\\\\"\" \"\\\" \\\"\\\n" * 30),
                       ("one word of 300 kB", b"a" * 300000),
                       ("many different words", b" ".join(b"%x" % (i * 7919) for i in range(50000))),
                       ("one word without repetition",
                        bytes(random.Random(4).choice(b"abcdefgh") for _ in range(100000)))):
        with case(name):
            f = write(path("odd.txt"), data)
            folder = "odd " + name
            learn(folder, "--data", f, "--vocab", "400")
            ids = runt("tokenize", "-m", path(folder), "--ids", "-f", f).out
            assert len(ids.split()) < len(data) * 0.8
            assert runt("tokenize", "-m", path(folder), "--decode", stdin=ids).raw == data


@test
def what_is_refused():
    t = text("good.txt", 20)
    write(path("empty.txt"), "")
    write(path("marks.txt"), (EOT + "\n") * 3)
    write(path("binary.txt"), b"text\0and more")
    write(path("cut.txt.xz"), lzma.compress(read(t))[:200])
    write(path("bad.jsonl"), '{"text": "a"}\n{"txt": "b"}\n')
    os.mkdir(path("full"))
    write(path("full", "vocab.json"), "mine")
    new = path("new")
    before = sorted(os.listdir(path(".")))
    for name, data, out, words in (
            ("an empty file", ["empty.txt"], new, ["empty.txt", "is empty"]),
            ("marks only", ["marks.txt"], new, ["marks.txt", "no document"]),
            ("a binary file", ["binary.txt"], new, ["binary.txt", "byte 4 is NUL"]),
            ("a file cut short", ["cut.txt.xz"], new, ["cut.txt.xz"]),
            ("a line without text", ["bad.jsonl"], new, ["bad.jsonl, line 2", "'text'"]),
            ("a missing file", ["none.txt"], new, ["none.txt"]),
            ("a folder for a text", ["full"], new, ["full"]),
            ("a bad file behind a good one", ["good.txt", "binary.txt"], new, ["binary.txt"]),
            ("a folder with something in it", ["good.txt"], path("full"),
             [path("full"), "is not empty; name a new folder"]),
            ("a file in its place", ["good.txt"], t, ["good.txt is a file"]),
            ("nothing above it", ["good.txt"], path("no", "where"), ["no/where"]),
            ("no name", ["good.txt"], "", ["without a name"])):
        with case(name):
            data = [x for d in data for x in ("--data", path(d))]
            fails("tokenizer", "train", *data, "-o", out, words=words)
            assert sorted(os.listdir(path("."))) == before, os.listdir(path("."))
    assert read(path("full", "vocab.json")) == b"mine"
    for name, args, words in (
            ("no action", [], ["too few"]),
            ("another action", ["learn", "--data", t, "-o", new], ["'learn'", "only train"]),
            ("no data", ["train", "-o", new], ["--data"]),
            ("no folder", ["train", "--data", t], ["-o"]),
            ("a weight", ["train", "--data", t + ":2", "-o", new], ["good.txt:2", "no weights"]),
            ("too small", ["train", "--data", t, "-o", new, "--vocab", "256"],
             ["--vocab must be from 257 to 65536, not 256"]),
            ("too large", ["train", "--data", t, "-o", new, "--vocab", "65537"], ["not 65537"]),
            ("no count", ["train", "--data", t, "-o", new, "--min-count", "0"], ["--min-count"])):
        with case(name):
            misuse("tokenizer", *args, words=words)
            assert not os.path.exists(new)
    with case("a file whose name ends like a weight"):
        os.rename(text("odd.txt", 20), path("odd:2"))
        learn("colon", "--data", path("odd:2"), "-q")


@test
def whole_or_not_at_all():
    t = text("b.txt", 2000)
    os.mkdir(path("work"))
    for size in (100, 5000, 12000):
        with case("the disk is full after %d bytes" % size):
            fails("tokenizer", "train", "--data", t, "--vocab", "1200", "-o", "new",
                  words=["cannot write"], cwd=path("work"), preexec=limits(file_size=size))
            only(path("work"))
    with case("an empty folder is filled"):
        os.mkdir(path("work", "new"))
        runt("tokenizer", "train", "--data", t, "-o", "new/", "-q", cwd=path("work"))
        only(path("work", "new"), "merges.txt", "vocab.json")
    with case("interrupted"):
        os.mkfifo(path("pipe"))
        p = subprocess.Popen([RUNT, "tokenizer", "train", "--data", path("pipe"), "-o",
                              path("never")], env=environment(), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        with open(path("pipe"), "wb") as f:
            f.write(b"some text " * 100)
            f.flush()
            time.sleep(0.2)
            p.send_signal(signal.SIGINT)
            time.sleep(0.2)
        out, err = p.communicate()
        assert p.returncode == 130 and out == b"" and err.count(b"\n") <= 1, (p.returncode, err)
        assert not os.path.exists(path("never"))


if __name__ == "__main__":
    main()
