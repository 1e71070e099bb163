#!/usr/bin/env python3
"""From the hub to the chat: `runt run`, and ORG/NAME wherever a model is expected."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import hub_server
from tap import Skip, fails, main, path, runt, test

MODEL = "someone/tiny-gpt2"
MINI = os.path.join(os.environ.get("RUNT_SOURCE_ROOT", "."), "tests", "data", "mini")
PROMPT = "One day, a little girl named Lily found a"


def model_files():
    files = {}
    for name in sorted(os.listdir(MINI)):
        with open(os.path.join(MINI, name), "rb") as f:
            files[name] = hub_server.File(f.read(), lfs=name == "model.safetensors")
    return files


def need_hub(result):
    if "without hub support" in result.err:
        raise Skip("built without hub support")


@test
def run_pulls_imports_quantizes_and_chats():
    hub = hub_server.Hub()
    try:
        hub.models[MODEL] = model_files()
        env = {"HF_ENDPOINT": hub.ports["api"], "HOME": path("home")}
        os.makedirs(path("home"))
        words = ("run", MODEL, "--temp", "0", "-n", "20")
        first = runt(*words, stdin=PROMPT + "\n", env=env, expect=None)
        need_hub(first)
        assert first.rc == 0, first
        assert first.out.startswith("big, she saw"), first
        assert "pulling" in first.err and "Q4_0" in first.err, first
        n_requests = len(hub.log)
        again = runt(*words, stdin=PROMPT + "\n", env=env)
        assert again.out == first.out and "pulling" not in again.err, again
        assert len(hub.log) == n_requests, "the second time asks the hub"
        other = runt(*words, "--type", "Q8_0", stdin=PROMPT + "\n", env=env)
        assert "Q8_0" in other.err and len(hub.log) == n_requests, other
    finally:
        hub.close()
    # and now without any hub
    offline = {"HF_HUB_OFFLINE": "1", "HOME": path("home")}
    assert runt(*words, stdin=PROMPT + "\n", env=offline).out == first.out
    told = runt("generate", "-m", MODEL, "-p", PROMPT, "--temp", "0", "-n", "10",
                env=offline).out
    assert told.startswith(PROMPT + " big, Lily."), told
    runt("import", MINI, "-o", path("tiny.gguf"), "-q")
    for verb in (("inspect", MODEL), ("tokenize", "-m", MODEL, "-p", PROMPT, "--ids"),
                 ("quantize", MODEL, path("q.gguf"), "q4_0", "-q"),
                 ("eval", "-m", MODEL, "-f", os.path.join(MINI, "merges.txt"),
                  "--window", "64", "--max-tokens", "64")):
        runt(*verb, env=offline)
    direct = runt("tokenize", "-m", path("tiny.gguf"), "-p", PROMPT, "--ids").out
    assert runt("tokenize", "-m", MODEL, "-p", PROMPT, "--ids", env=offline).out == direct
    runt("rm", MODEL, env=offline)
    gone = fails("generate", "-m", MODEL, "-p", "x", env=offline)
    assert "runt pull " + MODEL in gone.err, gone


@test
def a_pulled_gguf_file_runs_as_it_is():
    runt("import", MINI, "-o", path("one.gguf"), "--type", "q8_0", "-q")
    with open(path("one.gguf"), "rb") as f:
        content = f.read()
    hub = hub_server.Hub()
    try:
        hub.models["a/gguf"] = {"one.gguf": hub_server.File(content, lfs=True),
                                "two.gguf": hub_server.File(content, lfs=True)}
        env = {"HF_ENDPOINT": hub.ports["api"], "HOME": path("gguf-home")}
        os.makedirs(path("gguf-home"))
        first = runt("pull", "a/gguf", "--file", "one.gguf", env=env, expect=None)
        need_hub(first)
        words = ("run", "a/gguf", "--temp", "0", "-n", "5")
        assert runt(*words, stdin=PROMPT + "\n", env=env).out.startswith("big"), first
        runt("generate", "-m", "a/gguf", "-p", "x", "-n", "1", env=env)
        runt("pull", "a/gguf", "--file", "two.gguf", env=env)
        several = fails("generate", "-m", "a/gguf", "-p", "x", env=env)
        assert "2 .gguf files" in several.err, several
    finally:
        hub.close()


@test
def run_says_what_is_wrong():
    offline = {"HF_HUB_OFFLINE": "1", "HOME": path("nobody")}
    gone = runt("run", "no/such-model", env=offline, expect=1)
    assert gone.raw == b"" and "no/such-model (revision main) is not" in gone.err, gone
    fails("run", path("missing.gguf"))


if __name__ == "__main__":
    main()
