#!/usr/bin/env python3
"""--device through the program: what is said where there is no GPU, and, with the program
that has an emulated one (RUNT_EMU), runs, checkpoints and figures against the
processor's.  Prints TAP."""
import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import ROOT, RUNT, SLOW, Skip, case, environment, fails, main, misuse, path, read, runt, test

MINI = os.path.join(ROOT, "tests", "data", "mini")
EMU = os.environ.get("RUNT_EMU")
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}  # on a machine that has one, too


def text():
    p = path("tales.txt")
    if not os.path.exists(p):
        with open(p, "w", encoding="utf-8") as f:
            f.writelines("Tale %d: the goat %s, and the king said %d times no.\n<|endoftext|>\n" %
                         (i, ("ran", "sang", "slept")[i % 3], i % 7) for i in range(200))
    return p


def model():
    """With few tokens: an emulated GPU is slow."""
    p = path("small.gguf")
    if not os.path.exists(p):
        runt("tokenizer", "train", "--data", text(), "--vocab", "300", "-o", path("tok"))
        runt("init", "gpt2", "--layers", "2", "--heads", "2", "--embd", "32", "--context", "32",
             "--tokenizer", path("tok"), "-o", p)
    return p


def arguments(out, *more):
    return ["train", "--data", text(), "--init", model(), "--out", path(out), "--batch", "2",
            "--context", "16", "--lr", "0.01", "--steps", "6", "--eval-tokens", "64", *more]


def gpu(*args, expect=0, env=None):
    """The program with an emulated GPU; status 99: it noticed trouble."""
    if not EMU or not os.path.exists(EMU):
        raise Skip("no C++ compiler, so no emulated GPU")
    p = subprocess.run([EMU, *args], env=environment({"RUNT_EMU_MEMORY": "60000000", **(env or {})}), cwd=path(), capture_output=True,
                       text=True, timeout=600 * SLOW)
    assert p.returncode == expect, (p.returncode, p.stdout, p.stderr)
    return p.stdout + p.stderr


def losses(out):
    lines = [json.loads(x) for x in read(path(out, "log.jsonl"), "r").splitlines()]
    return [x["loss"] for x in lines if "loss" in x]


def near(got, want, most):
    assert len(got) == len(want) > 0, (got, want)
    for x, y in zip(got, want):
        assert abs(x - y) <= most * y, (got, want)


def built():
    r = runt(*arguments("probe", "--device", "cuda"), env=NO_GPU, expect=1)
    return "built without CUDA" not in r.err


# ---- without a GPU ----

@test
def cuda_without_a_gpu_is_refused():
    with case("train says why"):
        r = runt(*arguments("none", "--device", "cuda"), env=NO_GPU, expect=1)
        assert "--device cuda: " in r.err and r.err.count("\n") == 1, r
        assert "there is no GPU" in r.err or "-Dcuda=enabled" in r.err, r
        assert not os.path.exists(path("none", "log.jsonl"))
    with case("eval says why"):
        r = runt("eval", "-m", model(), "-f", text(), "--device", "cuda", env=NO_GPU, expect=1)
        assert "--device cuda: " in r.err and r.err.count("\n") == 1, r


@test
def auto_without_a_gpu_is_the_processor():
    r = runt(*arguments("auto"), env=NO_GPU)
    runt(*arguments("cpu", "--device", "cpu"))
    assert read(path("auto", "model.gguf")) == read(path("cpu", "model.gguf"))
    assert " on the processor)" in r.out, r
    assert ("there is no GPU" in r.out) == built(), r


@test
def a_build_without_cuda_does_not_look_for_it():
    r = runt("eval", "-m", model(), "-f", text(), "--device", "auto", env=NO_GPU)
    assert ("there is no GPU" in r.out) == built(), r


@test
def what_does_not_go_together():
    misuse(*arguments("x", "--device", "tpu"))
    misuse(*arguments("x", "--device", "cuda", "--lora", "2"), words=["adapters"])
    measure = ["eval", "-m", model(), "-f", text(), "--device"]
    misuse(*measure, "gpu")
    misuse(*measure, "cuda", "--derail", words=["answers on the processor"])
    misuse(*measure, "cuda", "--kv", "q8", words=["--kv is how"])
    r = misuse(*measure, "cuda", "--lora-adapter", "any.gguf")
    assert "runt merge" in r.err, r


@test
def machines_whose_gpu_does_not_do():
    out = gpu(*arguments("y", "--device", "cuda"), env={"RUNT_EMU_GPU": "1"}, expect=1)
    assert "compute capability 7.5" in out, out
    out = gpu(*arguments("y", "--device", "cuda"), env={"RUNT_EMU_GPU": "2"}, expect=1)
    assert "there is no GPU" in out, out
    out = gpu(*arguments("old"), env={"RUNT_EMU_GPU": "1"})
    assert "compute capability 7.5" in out and " on the processor)" in out, out


# ---- with an emulated one ----

@test
def runs_have_the_processors_losses():
    for precision, most in (("f32", 1e-5), ("bf16", 1e-2)):
        with case(precision):
            a, b = "gpu-" + precision, "cpu-" + precision
            out = gpu(*arguments(a, "--precision", precision, "--dropout", "0.1"))
            assert "an emulated GPU" in out, out  # auto
            runt(*arguments(b, "--precision", precision, "--dropout", "0.1", "--device", "cpu"))
            near(losses(a), losses(b), most)
            runt("generate", "-m", path(a, "model.gguf"), "-p", "Tale", "-n", "4", "-s", "1")


@test
def checkpoints_go_from_one_to_the_other():
    whole = arguments("whole", "--precision", "f32", "--save-every", "3", "--keep", "9")
    gpu(*whole, "--device", "cuda")
    for name, go_on in (("gpu to gpu", gpu), ("gpu to processor", runt)):
        with case(name):
            out = path(name.replace(" ", "-"))
            shutil.copytree(path("whole"), out)
            os.remove(os.path.join(out, "step-00000006.gguf"))
            os.remove(os.path.join(out, "model.gguf"))
            go_on("train", "--resume", "--out", out, "--device", "cuda" if go_on is gpu else "cpu")
            if go_on is gpu:
                assert read(os.path.join(out, "model.gguf")) == read(path("whole", "model.gguf"))
            near(losses(out), losses("whole"), 1e-5)
    with case("processor to gpu"):
        runt(*arguments("other", "--precision", "f32", "--save-every", "3", "--keep", "9",
                        "--device", "cpu"))
        os.remove(path("other", "step-00000006.gguf"))
        os.remove(path("other", "model.gguf"))
        want = losses("other")
        assert "an emulated GPU" in gpu("train", "--resume", "--out", path("other"))
        near(losses("other"), want, 1e-5)
        assert os.path.exists(path("other", "model.gguf"))


@test
def a_lost_gpu_ends_the_run_and_it_goes_on():
    out = gpu(*arguments("lost", "--save-every", "1"), env={"RUNT_EMU_FAIL": "launch:200"}, expect=1)
    assert "the GPU (an emulated GPU) failed" in out, out
    gpu("train", "--resume", "--out", path("lost"))
    assert os.path.exists(path("lost", "model.gguf"))


@test
def adapters_stay_on_the_processor():
    out = gpu(*arguments("lora", "--lora", "2"))
    assert "an emulated GPU" not in out and " on the processor)" in out, out


@test
def evaluation_has_the_processors_figures():
    measure = ["eval", "-m", model(), "-f", text(), "--max-tokens", "600", "-o", "json", "--device"]
    for name, more in (("a text", []), ("windows that overlap", ["--window", "24", "--stride", "9"])):
        with case(name):
            a = json.loads(gpu(*measure, "cuda", *more))
            b = json.loads(runt(*measure, "cpu", *more).out)
            same_figures(a, b)
    with case("with a base"):
        runt("quantize", model(), path("q8.gguf"), "q8_0")
        args = ["eval", "-m", path("q8.gguf"), "--base", model(), "-f", text(), "--max-tokens", "600",
                "-o", "json", "--device", "cuda"]
        a = json.loads(gpu(*args))
        assert 0 < a["kl_mean"] < 1e-2, a
    with case("a task"):
        tasks = path("words.jsonl")
        with open(tasks, "w", encoding="utf-8") as f:
            for i in range(4):
                print(json.dumps({"text": "the goat ran, and the king said %d" % i}), file=f)
        args = ["eval", "-m", model(), "--task", "lambada", "-f", tasks, "-o", "json", "--device"]
        same_figures(json.loads(gpu(*args, "cuda")), json.loads(runt(*args, "cpu").out))


def same_figures(a, b):
    assert set(a) == set(b), (a, b)
    n = 0
    for key, x in a.items():
        if isinstance(x, float) and "second" not in key:
            n += 1
            assert abs(x - b[key]) <= 1e-4 * abs(b[key]) + 1e-9, (key, a, b)
    assert n, a


if __name__ == "__main__":
    main()
