#!/usr/bin/env python3
"""train through the program: it learns, its files are models, a run that is stopped
anywhere ends in the same bytes, and what is refused.  Prints TAP."""
import fcntl
import glob
import json
import os
import pty
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import ROOT, RUNT, SANITIZE, Skip, case, environment, fails, main, misuse, path, read, runt, test

MINI = os.path.join(ROOT, "tests", "data", "mini")


def model():
    p = path("odd.gguf")
    if not os.path.exists(p):
        runt("init", "gpt2", "--layers", "2", "--heads", "3", "--embd", "36", "--context", "40",
             "--tokenizer", MINI, "-o", p)
    return p


def text(name="tales.txt", n=400):
    p = path(name)
    if not os.path.exists(p):
        with open(p, "w", encoding="utf-8") as f:
            f.writelines("Tale %d: the goat %s, and the king said %d times no.\n<|endoftext|>\n" %
                         (i, ("ran", "sang", "slept")[i % 3], i % 7) for i in range(n))
    return p


def arguments(out, *more):
    return ["train", "--data", text(), "--init", model(), "--out", path(out), "--batch", "3",
            "--context", "24", "--lr", "0.01", *more]


def train(out, *more, **how):
    return runt(*arguments(out, *more), **how)


def log(out):
    with open(path(out, "log.jsonl"), encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def need_products():
    r = train("probe", "--steps", "1", "-q", expect=None)
    if r.rc and "library for matrix products" in r.err:
        raise Skip("neither oneDNN nor OpenBLAS is here")


@test
def it_learns():
    need_products()
    r = train("a", "--steps", "40", "--eval-every", "10", "--save-every", "15", "--sample-every",
              "20", "--sample-prompt", "Tale")
    with case("the loss falls"):
        lines = log("a")
        assert [x["step"] for x in lines] == list(range(41)), lines
        assert lines[-1]["loss"] < lines[1]["loss"] - 2, lines
    with case("what a line of the log holds"):
        for x in lines[1:]:
            assert set(x) - {"val_loss"} == {"step", "loss", "lr", "grad_norm",
                                             "tokens_per_second"}, x
        assert [x["step"] for x in lines if "val_loss" in x] == [0, 10, 20, 30, 40]
        assert lines[-1]["val_loss"] < lines[0]["val_loss"] - 2
    with case("the schedule"):
        rates = [x["lr"] for x in lines[1:]]
        assert rates[0] == 0.0025 and max(rates) == 0.01 and abs(rates[-1] - 0.001) < 1e-12, rates
    with case("what is printed"):
        assert "validation" in r.out and "step 20: Tale" in r.out and "held out" in r.out, r
        assert r.err == "", r
    with case("what the folder holds"):
        assert sorted(os.listdir(path("a"))) == [
            "best.gguf", "log.jsonl", "model.gguf", "step-00000030.gguf", "step-00000040.gguf"]
    with case("the models are models"):
        for name in ("model", "best"):
            runt("generate", "-m", path("a", name + ".gguf"), "-p", "Tale", "-n", "5")
        runt("quantize", path("a/model.gguf"), path("q.gguf"), "q8_0", "-q")
        runt("eval", "-m", path("q.gguf"), "-f", text())
        runt("export", path("a/model.gguf"), path("hf"), "-q")
    with case("a checkpoint is not"):
        for verb in (["generate", "-p", "x", "-m"], ["inspect"], ["quantize"], ["export"]):
            more = {"quantize": [path("x.gguf"), "r4"], "export": [path("x")]}.get(verb[0], [])
            r = runt(*verb, path("a/step-00000040.gguf"), *more, expect=None)
            assert verb[0] == "inspect" or (r.rc == 1 and "checkpoint" in r.err), r
    with case("the exported model trains on as the other does"):
        for start, out in ((path("a/model.gguf"), "b"), (path("hf"), "c")):
            runt("train", "--data", text(), "--init", start, "--out", path(out), "--steps", "3",
                 "--batch", "2", "--context", "24", "-q")
        assert [x["loss"] for x in log("b")[1:]] == [x["loss"] for x in log("c")[1:]]
    with case("from scratch"):
        runt("train", "--data", text(), "--init", "gpt2", "--tokenizer", MINI, "--layers", "1",
             "--heads", "2", "--embd", "16", "--context", "16", "--steps", "2", "--out",
             path("fresh"), "-q")
        info = json.loads(runt("inspect", path("fresh/model.gguf"), "-o", "json").out)
        assert "fresh" in json.dumps(info)
    with case("the plan of memory"):
        small = train("plan", "--memory").out
        assert "moments" in small and not os.path.exists(path("plan"))
        assert train("plan", "--memory", "--recompute").out != small
    with case("the profile"):
        assert "attention, backward" in train("profile", "--steps", "2", "-q", "--profile").out


@test
def the_same_bytes():
    need_products()
    extra = ["--steps", "12", "--dropout", "0.1", "--accumulate", "2", "-q"]
    for n in ("1", "2", "3"):
        train("t" + n, *extra, "-t", n)
    with case("on any number of threads"):
        assert read(path("t1/model.gguf")) == read(path("t2/model.gguf")) == read(
            path("t3/model.gguf"))
    with case("with --recompute"):
        train("re", *extra, "--recompute")
        assert read(path("re/model.gguf")) == read(path("t1/model.gguf"))
    with case("another seed, other bytes"):
        train("seed", *extra, "-s", "7")
        assert read(path("seed/model.gguf")) != read(path("t1/model.gguf"))
    with case("from cached tokens"):
        assert "cached" in train("cached", "--steps", "1").out


def killed(out, how, seconds, most):
    """A run that is killed at random moments, `most` times at most, and resumed to its end;
    how often it was."""
    kills = 0
    while kills < most:
        p = subprocess.Popen([RUNT, *arguments(out, *how), "--resume"],
                             env=environment(), stderr=subprocess.DEVNULL)
        try:
            p.wait(random.uniform(0.01, seconds))
            assert p.returncode == 0
            return kills
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
            kills += 1
    train(out, *how, "--resume")
    return kills


@test
def stopped_and_resumed():
    need_products()
    how = ["--steps", "40", "--save-every", "4", "--eval-every", "8", "--dropout", "0.1",
           "--accumulate", "2", "--train", r"blk\.1|token", "-q"]
    begin = time.monotonic()
    train("whole", *how)
    whole = time.monotonic() - begin
    random.seed(3)
    kills = int(os.environ.get("RUNT_KILLS") or (3 if SANITIZE else 8))
    with case("killed %d times" % kills):
        while kills:
            shutil.rmtree(path("killed"), ignore_errors=True)
            kills -= killed("killed", how, whole, kills)
            assert read(path("killed/model.gguf")) == read(path("whole/model.gguf"))
            a, b = ([{k: v for k, v in x.items() if k != "tokens_per_second"} for x in log(out)]
                    for out in ("whole", "killed"))
            assert a == b
            assert sorted(os.listdir(path("killed"))) == sorted(os.listdir(path("whole")))
    with case("interrupted"):
        p = subprocess.Popen([RUNT, *arguments("int", *how[:-1], "--steps", "100000")],
                             env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while b"loss" not in p.stdout.readline():
            pass
        p.send_signal(signal.SIGINT)
        out, err = p.communicate()
        assert p.returncode == 130 and b"interrupted" in err, (p.returncode, err)
        done = log("int")[-1]["step"]
        assert path("int", "step-%08d.gguf" % done) in glob.glob(path("int/step-*"))
    with case("--resume --out alone"):
        p = subprocess.Popen([RUNT, *arguments("alone", *how)], env=environment())
        while not glob.glob(path("alone/step-*")) and p.poll() is None:
            time.sleep(0.005)
        p.kill()
        p.wait()
        runt("train", "--resume", "--out", path("alone"))
        assert read(path("alone/model.gguf")) == read(path("whole/model.gguf"))
    with case("when it is done"):
        before = read(path("whole/model.gguf"))
        runt("train", "--resume", "--out", path("whole"))
        assert read(path("whole/model.gguf")) == before
    for name, more in (("other options", ["--lr", "0.5"]), ("other data", ["--data", text("b.txt", 50)]),
                       ("another seed", ["-s", "5"])):
        with case("%s: refused" % name):
            fails("train", "--resume", "--out", path("whole"), *more,
                  words=["other data or options"])
    with case("a run is there already"):
        fails(*arguments("whole", *how), words=[path("whole"), "--resume"])
    with case("a damaged checkpoint"):
        last = sorted(glob.glob(path("whole/step-*")))[-1]
        with open(last, "r+b") as f:
            f.seek(os.path.getsize(last) // 2)
            b = f.read(1)[0]
            f.seek(-1, 1)
            f.write(bytes([b ^ 1]))
        fails("train", "--resume", "--out", path("whole"), words=[last, "damaged"])


@test
def what_is_refused():
    need_products()
    with open(path("binary.txt"), "wb") as f:
        f.write(b"text\0text")
    for name, content in (("empty.txt", ""), ("marks.txt", "<|endoftext|>\n" * 3),
                          ("bad.jsonl", '{"text": "a"}\n{"txt": "b"}\n'),
                          ("cut.jsonl", '{"text": "a"}\n{"text"'), ("not.gguf", "GGUF?")):
        with open(path(name), "w", encoding="utf-8") as f:
            f.write(content)
    cut = path("cut.txt.xz")
    with open(cut, "wb") as f:
        f.write(b"\xfd7zXZ\0\0\4" + b"\0" * 20)
    for name, more, words in (
            ("no such data", ["--data", path("none")], [path("none")]),
            ("empty data", ["--data", path("empty.txt")], ["empty.txt", "empty"]),
            ("binary data", ["--data", path("binary.txt")], ["binary.txt", "byte 4"]),
            ("no document", ["--data", path("marks.txt")], ["marks.txt", "no document"]),
            ("no such member", ["--data", path("bad.jsonl")], ["bad.jsonl, line 2", "'text'"]),
            ("half a line", ["--data", path("cut.jsonl")], ["cut.jsonl, line 2"]),
            ("damaged xz", ["--data", cut], ["cut.txt.xz"]),
            ("a weight of 0", ["--data", text() + ":0"], [":0"]),
            ("a weight below 0", ["--data", text() + ":-1"], [":-1"]),
            ("a weight that is none", ["--data", text() + ":nan"], [":nan"]),
            ("no such model", ["--init", path("none.gguf")], ["none.gguf"]),
            ("not a model", ["--init", path("not.gguf")], ["not.gguf"]),
            ("beyond the context", ["--context", "41"], ["41", "40"]),
            ("more than memory", ["--init", MINI, "--batch", "65536", "--context", "256"], ["MB", "--memory"]),
            ("a bad pattern", ["--train", "("], ["'('"]),
            ("a pattern of nothing", ["--train", "nothing"], ["'nothing'"]),
            ("a folder that is a file", ["--out", text()], [text()])):
        with case(name):
            fails(*arguments("refused", "--steps", "2", *more), words=words)
            assert not glob.glob(path("refused/*.gguf")) and not glob.glob(path("refused/.*"))
    for name, more in (("no data", ["train", "--init", model(), "--out", path("x")]),
                       ("no model", ["train", "--data", text(), "--out", path("x")]),
                       ("no folder", ["train", "--data", text(), "--init", model()]),
                       ("a schedule", arguments("x", "--schedule", "sine")),
                       ("a precision", arguments("x", "--precision", "f8")),
                       ("a rate", arguments("x", "--lr", "nan")),
                       ("steps", arguments("x", "--steps", "0")),
                       ("a shape", arguments("x", "--layers", "3")),
                       ("heads", ["train", "--data", text(), "--init", "gpt2", "--tokenizer", MINI,
                                  "--layers", "1", "--heads", "3", "--embd", "16", "--out",
                                  path("x")])):
        with case("misused: " + name):
            misuse(*more)
    with case("a vocabulary of its own"):
        runt("init", "gpt2", "--layers", "1", "--heads", "1", "--embd", "8", "--vocab", "300",
             "--context", "16", "-o", path("v.gguf"))
        runt("train", "--data", text(), "--init", path("v.gguf"), "--out", path("v"), "--steps",
             "1", "--batch", "1", "-q")
    with case("documents longer than the context"):
        with open(path("long.txt"), "w", encoding="utf-8") as f:
            f.write("word " * 500)
        r = runt("train", "--data", path("long.txt"), "--init", model(), "--out", path("long"),
                 "--steps", "1", "--batch", "1")
        assert "longer than the context" in r.out, r


@test
def runs_that_go_wrong():
    need_products()
    with case("a run that diverges"):
        train("wild", "--steps", "10", "--save-every", "5", "-q")
        r = runt(*arguments("wilder", "--steps", "200", "--lr", "900", "--warmup", "30", "--clip",
                            "0", "--save-every", "2", "-q"), expect=1)
        assert "the last good checkpoint is" in r.err and r.err.count("\n") == 1, r
        good = r.err.strip().split()[-1]
        assert os.path.exists(good), r
    with case("weights that are no numbers"):
        data = bytearray(read(model()))  # 16 bytes of padding at the end
        data[-20:-16] = b"\xff\xff\xff\x7f"
        with open(path("nan.gguf"), "wb") as f:
            f.write(data)
        fails("train", "--data", text(), "--init", path("nan.gguf"), "--out", path("nan"),
              "--eval-every", "0", "-q", words=["not a number"])
    with case("a full disk"):
        size = os.path.getsize(path("wild/step-00000010.gguf"))

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1000, size - 1000))
        p = subprocess.run([RUNT, *arguments("full", "--steps", "10", "--save-every", "5", "-q",
                                             "--eval-every", "0")],
                           env=environment(), capture_output=True, preexec_fn=limit)
        assert p.returncode == 1 and p.stderr.count(b"\n") == 1 and b"step-" in p.stderr, p
        assert sorted(os.listdir(path("full"))) == ["log.jsonl"], os.listdir(path("full"))
    with case("the live line fits a narrow terminal"):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 30, 0, 0))
        p = subprocess.Popen([RUNT, *arguments("view", "--steps", "60", "--eval-every", "0")],
                             env=environment(), stdout=subprocess.DEVNULL, stderr=slave)
        os.close(slave)
        shown = b""
        while True:
            try:
                shown += os.read(master, 4096)
            except OSError:  # the other end is closed
                break
        os.close(master)
        assert p.wait() == 0
        lines = re.split(rb"\r\x1b\[K", shown)
        assert max(map(len, lines)) == 29 and b"step  5/60  loss" in shown, lines
    with case("two runs in one folder"):
        p = subprocess.Popen([RUNT, *arguments("two", "--steps", "100000")], env=environment(),
                             stdout=subprocess.PIPE)
        while not p.stdout.readline().startswith(b"step"):
            pass
        r = runt(*arguments("two", "--steps", "5"), expect=1)
        p.kill()
        p.communicate()
        assert "at work" in r.err or "--resume" in r.err, r


if __name__ == "__main__":
    main()
