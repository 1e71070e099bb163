"""Training over several processes.  In a build without MPI only its refusal is tested."""
import json
import os
import shutil
import signal
import subprocess
import time

from tap import ROOT, RUNT, SLOW, Skip, environment, main, path, read, runt, test, write

MODEL = os.path.join(ROOT, "tests", "data", "mini")
DATA = path("data.txt")
COMMON = ["train", "--data", DATA, "--init", MODEL, "--context", "32", "--precision", "f32",
          "-t", "1", "--eval-tokens", "512"]
SETTINGS = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def text():
    """Some documents that are all different."""
    kinds = ["the cat", "a small bird", "my neighbour", "the old train", "nobody"]
    acts = ["sleeps under", "looks at", "has forgotten", "waits for", "sings about"]
    return "<|endoftext|>\n".join(
        "On day %d %s %s the window, and %s %s it.\n" % (
            i, kinds[i % 5], acts[i // 5 % 5], kinds[(i * 3 + 1) % 5], acts[(i * 7 + 2) % 5])
        for i in range(400))


def start(n, *args):
    if not shutil.which("mpirun"):
        raise Skip("there is no mpirun")
    return subprocess.Popen(
        ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(n), RUNT, *args],
        env=environment(SETTINGS), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, cwd=path())


def mpirun(n, *args, expect=0):
    p = start(n, *args)
    try:
        out, err = p.communicate(timeout=120 * SLOW)
    finally:
        p.kill()
    assert p.returncode == expect, (p.returncode, out, err)
    return out.decode(), err.decode()


def needs_mpi():
    if not shutil.which("mpirun"):
        raise Skip("there is no mpirun")
    p = start(2, *COMMON, "--steps", "1", "--out", path("probe"), "-q")
    _, err = p.communicate(timeout=120 * SLOW)
    shutil.rmtree(path("probe"), ignore_errors=True)
    if b"without MPI" in err:
        raise Skip("a build without MPI")


def log(folder):
    return [json.loads(line) for line in read(os.path.join(path(folder), "log.jsonl"), "r")
            .splitlines()]


def same_losses(a, b, tolerance):
    a, b = log(a), log(b)
    assert [x["step"] for x in a] == [x["step"] for x in b], (len(a), len(b))
    for x, y in zip(a, b):
        for key in ("loss", "val_loss", "lr"):
            assert (key in x) == (key in y)
            assert key not in x or abs(x[key] - y[key]) <= tolerance, (x, y)


@test
def a_build_without_mpi_says_so():
    write(DATA, text())
    p = start(2, *COMMON, "--steps", "1", "--out", path("none"), "-q")
    _, err = p.communicate(timeout=120 * SLOW)
    if p.returncode == 0:
        raise Skip("a build with MPI")
    assert b"built without MPI (-Dmpi=enabled)" in err, err


@test
def losses_do_not_depend_on_the_number_of_processes():
    needs_mpi()
    run = [*COMMON, "--steps", "50", "--batch", "4", "--accumulate", "2", "--eval-every", "20",
           "--dropout", "0.1"]
    runt(*run, "--out", path("one"), "-q")
    out, _ = mpirun(2, *run, "--out", path("two"))
    same_losses("one", "two", 1e-5)
    assert out.count("data: 400 documents") == 1, out  # one process speaks
    mpirun(3, *run, "--out", path("three"), "-q")  # 4 sequences over 3: shares differ
    same_losses("one", "three", 1e-5)
    runt("generate", "-m", path("two", "model.gguf"), "-n", "4", "-p", "The")


@test
def only_answers_count():
    """Their number differs from sequence to sequence; the mean is over those of all."""
    needs_mpi()
    talk = path("talk.txt")
    write(talk, "<|endoftext|>\n".join(
        "User: what happened on day %d?\nBot: nothing%s.\n" % (i, ", and more of it" * (i % 5))
        for i in range(200)))
    run = ["train", "--data", talk, *COMMON[3:], "--mask-prompts", "--steps", "6", "--batch", "4",
           "--accumulate", "2", "--eval-every", "3"]
    runt(*run, "--out", path("m1"), "-q")
    mpirun(3, *run, "--out", path("m3"), "-q")
    same_losses("m1", "m3", 1e-5)


@test
def frozen_weights_and_recomputation():
    needs_mpi()
    run = [*COMMON, "--steps", "6", "--batch", "2", "--train", r"blk\.1\.", "--recompute"]
    runt(*run, "--out", path("f1"), "-q")
    mpirun(2, *run, "--out", path("f2"), "-q")
    same_losses("f1", "f2", 1e-5)


@test
def adapters():
    needs_mpi()
    run = [*COMMON, "--steps", "8", "--batch", "4", "--lora", "4", "--lr", "3e-3", "--dropout", "0.1",
           "--save-every", "4", "--keep", "9"]
    runt(*run, "--out", path("l1"), "-q")
    mpirun(2, *run, "--out", path("l2"), "-q")
    same_losses("l1", "l2", 1e-5)
    os.unlink(path("l2", "step-00000008.gguf"))
    before = read(path("l2", "adapter.gguf"))
    mpirun(2, "train", "--resume", "--out", path("l2"), "-t", "1", "-q")
    assert read(path("l2", "adapter.gguf")) == before


@test
def a_run_goes_on_to_the_same_bits():
    needs_mpi()
    run = [*COMMON, "--steps", "12", "--batch", "2", "--save-every", "6", "--keep", "9"]
    mpirun(2, *run, "--out", path("whole"), "-q")
    shutil.copytree(path("whole"), path("part"))
    os.unlink(path("part", "step-00000012.gguf"))
    os.unlink(path("part", "model.gguf"))
    mpirun(2, "train", "--resume", "--out", path("part"), "-t", "1", "-q")
    assert read(path("part", "model.gguf")) == read(path("whole", "model.gguf"))
    # Moments of all processes are in the file: one process alone goes on as well.
    shutil.rmtree(path("part"))
    shutil.copytree(path("whole"), path("part"))
    os.unlink(path("part", "step-00000012.gguf"))
    runt("train", "--resume", "--out", path("part"), "-t", "1", "-q")
    same_losses("part", "whole", 1e-5)


def children(pid):
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = read("/proc/%s/stat" % name, "r")
            except OSError:
                continue
            if int(stat.rsplit(")", 1)[1].split()[1]) == pid:
                found.append((int(name), read("/proc/%s/environ" % name)))
    return found


@test
def a_process_that_dies_is_named():
    needs_mpi()
    p = start(2, *COMMON, "--steps", "100000", "--batch", "2", "--save-every", "5",
              "--eval-every", "0", "--out", path("killed"), "-q")
    try:
        for _ in range(600 * SLOW):
            if os.path.exists(path("killed", "step-00000010.gguf")):
                break
            time.sleep(0.1)
        victim = [pid for pid, env in children(p.pid) if b"OMPI_COMM_WORLD_RANK=1\0" in env]
        assert len(victim) == 1, children(p.pid)
        os.kill(victim[0], signal.SIGKILL)
        out, err = p.communicate(timeout=60 * SLOW)
    finally:
        p.kill()
    assert p.returncode != 0
    assert b"process 1 of 2" in err and b"pid %d" % victim[0] in err, err
    assert any(n.startswith("step-") for n in os.listdir(path("killed")))


@test
def faults_are_told_once():
    needs_mpi()
    _, err = mpirun(2, *COMMON, "--batch", "1", "--steps", "1", "--out", path("small"), expect=1)
    assert err.count("too small for 2 processes") == 1, err
    write(path("binary.txt"), b"\0\1\2\3" * 100)
    _, err = mpirun(2, "train", "--data", path("binary.txt"), "--init", MODEL, "--out",
                    path("bad"), "-t", "1", expect=1)
    assert err.count("binary.txt") == 1, err


@test
def an_interruption_saves():
    needs_mpi()
    p = start(2, *COMMON, "--steps", "100000", "--batch", "2", "--save-every", "0",
              "--eval-every", "0", "--out", path("stopped"), "-q")
    try:
        for _ in range(600 * SLOW):
            if os.path.exists(path("stopped", "log.jsonl")) and len(log("stopped")) > 3:
                break
            time.sleep(0.1)
        # To a process itself: mpirun, interrupted, kills its processes a second later.
        ranks = [pid for pid, env in children(p.pid) if b"OMPI_COMM_WORLD_RANK=" in env]
        assert len(ranks) == 2, ranks
        os.kill(ranks[1], signal.SIGINT)
        out, err = p.communicate(timeout=60 * SLOW)
    finally:
        p.kill()
    assert p.returncode == 130, (p.returncode, out, err)
    steps = [n for n in os.listdir(path("stopped")) if n.startswith("step-")]
    assert len(steps) == 1, (os.listdir(path("stopped")), err)
    assert log("stopped")[-1]["step"] == int(steps[0][5:13])


main()
