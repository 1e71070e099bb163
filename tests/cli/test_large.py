#!/usr/bin/env python3
"""A checkpoint of GPT-2 124M's shape within the promised time, memory and size; prints the
figures.  It writes 1.2 GB, so it runs only when RUNT_LONG=1.  Prints TAP."""
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import RUNT, SANITIZE, Skip, case, environment, main, note, path, read, test

GB = 1e9


def measured(*args):
    """(stdout, seconds, peak bytes) of one run."""
    out = path("stdout.txt")
    t0 = time.monotonic()
    pid = os.fork()
    if not pid:
        fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(fd, 1)
        os.execve(RUNT, [RUNT, *args], environment())
    _, status, usage = os.wait4(pid, 0)
    seconds = time.monotonic() - t0
    assert os.waitstatus_to_exitcode(status) == 0, (args, status)
    note("runt %s: %.2f s (%.2f s of processor), %.0f MB peak" % (
        " ".join(os.path.basename(a) for a in args), seconds,
        usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6))
    return read(out, "r"), seconds, usage.ru_maxrss * 1024


@test
def gpt2_124m():
    if os.environ.get("RUNT_LONG") != "1" or SANITIZE:
        raise Skip("a long test: set RUNT_LONG=1" if not SANITIZE else "a sanitizer build")
    hf, model, q4 = path("hf"), path("f32.gguf"), path("q4.gguf")
    measured("init", "gpt2", "--size", "124M", "--format", "hf", "-o", hf)
    size = os.path.getsize(os.path.join(hf, "model.safetensors"))
    note("the checkpoint has %d bytes" % size)
    with case("the checkpoint has the size of the real one"):
        assert 495e6 < size < 500e6, size
    with case("import within 10 s and 1.2 GB"):
        _, seconds, peak = measured("import", hf, "-o", model, "-q", "-t", "2")
        assert seconds < 10 and peak < 1.2 * GB, (seconds, peak)
    with case("import as q4_0 within 10 s and 1.2 GB"):
        _, seconds, peak = measured("import", hf, "-o", path("direct.gguf"), "--type", "q4_0",
                                    "-q", "-t", "2")
        assert seconds < 10 and peak < 1.2 * GB, (seconds, peak)
    for t in ("q4_0", "q4_1", "q8_0", "r4"):
        with case("quantize to %s within 5 s on 2 threads" % t):
            out, seconds, peak = measured("quantize", model, path("%s.gguf" % t), t, "-o",
                                          "json", "-t", "2")
            report = json.loads(out)
            note("%s: %d bytes, %.3f bits per weight" % (t, report["file_bytes"],
                                                         report["bits_per_weight"]))
            assert seconds < 5 and peak < 1.2 * GB, (seconds, peak)
            assert report["fallbacks"] == 0, report["fallbacks"]
    os.rename(path("q4_0.gguf"), q4)
    with case("importing as q4_0 is importing and quantizing"):
        assert read(path("direct.gguf")) == read(q4)
    with case("a Q4_0 file of at most 76 MB, tokenizer included"):
        assert os.path.getsize(q4) <= 76_000_000, os.path.getsize(q4)
    with case("an R4 file of at most 66,060,288 bytes, tokenizer included"):
        assert os.path.getsize(path("r4.gguf")) <= 66_060_288, os.path.getsize(path("r4.gguf"))
    with case("it runs"):
        out, _, peak = measured("generate", "-m", q4, "-p", "the", "-n", "32", "-o", "json",
                                "--ignore-eos", "-s", "1")
        j = json.loads(out)
        note("decode: %.1f tokens/s" % j["tokens_per_second"])
        assert j["tokens"] == 32 and peak < 0.5 * GB, (j, peak)


if __name__ == "__main__":
    main()
