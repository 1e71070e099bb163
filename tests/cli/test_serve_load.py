#!/usr/bin/env python3
"""`runt serve` under load, by tests/serve_load.c (RUNT_LOAD names it): 64 clients stream at
once, and every answer has to be what it is alone.  With RUNT_LONG=1 for 60 seconds, with
the throughput of `runt bench -b 32` in the same run beside it, and then 20,000 short
requests; otherwise for 3 seconds and 4,000 requests.  Prints TAP."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serve_fixture import Server, main, prompts
from tap import ROOT, SANITIZE, SLOW, Skip, note, path, runt, test

LONG = os.environ.get("RUNT_LONG") == "1"
CLIENTS = 64


def bundled():
    p = path("pocket.gguf")
    if not os.path.exists(p):
        runt("import", os.path.join(ROOT, "models", "pocket"), "-o", p, "--type", "q4_0", "-q")
    return p


def bodies(n, max_tokens):
    """Requests of n different prompts, the beginnings of lines of the held-out text."""
    return "".join(json.dumps({
        "prompt": p, "max_tokens": max_tokens, "temperature": 0,
        "stream": True, "stream_options": {"include_usage": True}}) + "\n"
        for p in prompts(n))


def load(server, seconds, texts, requests=0):
    tool = os.environ.get("RUNT_LOAD")
    if not tool:
        raise Skip("RUNT_LOAD does not name the program that makes the load")
    done = subprocess.run([tool, str(server.port), str(CLIENTS), str(seconds), str(requests)],
                          input=texts, capture_output=True, text=True,
                          timeout=(seconds + 120) * SLOW)
    assert done.stdout, (done.returncode, done.stderr)
    r = json.loads(done.stdout)
    note("%d requests, %d tokens in %.1f s: %.0f tokens/s; first token p50 %.0f ms, p95 "
         "%.0f ms, at most %.0f ms; the load itself used %.2f of a core" % (
             r["requests"], r["tokens"], r["seconds"], r["tokens_per_second"],
             1000 * r["first_p50"], 1000 * r["first_p95"], 1000 * r["first_max"],
             r["cores_used"]))
    assert done.returncode == 0 and not r["errors"] and not r["different"], (r, done.stderr)
    return r


def bench():
    r = runt("bench", "-m", bundled(), "-b", "32", "-p", "0", "-n", "128", "-r", "5", "-o",
             "json")
    return json.loads(r.out)[0]["tokens_per_second"]


@test
def many_streams_at_once():
    with Server("--log", "none", model=bundled()) as s:
        before = bench() if LONG else 0
        r = load(s, 60 if LONG else 3, bodies(40, 100))
        if LONG:
            best = (before + bench()) / 2
            part = r["tokens_per_second"] / best
            note("bench -b 32 before and after: %.0f tokens/s; the server has %.0f%% of it"
                 % (best, 100 * part))
            assert part >= 0.6, part
        if not SANITIZE:
            assert r["first_p95"] < 1, r["first_p95"]
        assert s.metric("requests_refused_total") == 0


@test
def many_short_requests():
    with Server("--log", "none", model=bundled()) as s:
        texts = bodies(20, 4)
        n = 10000 if LONG else 2000
        load(s, 600, texts, requests=n)  # every thread has allocated all it ever does
        # How many requests are in hand at once, and so the most that is ever allocated, is a matter
        # of timing: a round may go beyond those before.  A leak grows in every round.
        for rounds in range(2, 6):
            before = s.memory()
            load(s, 600, texts, requests=n)
            grown = s.memory() - before
            note("%d bytes in memory after %d requests, %d more after %d" % (
                before, n * (rounds - 1), grown, n * rounds))
            if grown < (1 << 20):
                break
        assert grown < (1 << 20) or SANITIZE, grown


if __name__ == "__main__":
    main()
