#!/usr/bin/env python3
"""OpenAI's own npm client against `runt serve`.  The client is installed into
build/client (tests/client/package.json pins it); without node, npm or the registry the
cases are skipped.  Prints TAP."""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serve_fixture import Server, main, slow, tiny
from tap import ROOT, SLOW, Skip, case, runt, test

FOLDER = os.path.join(ROOT, "build", "client")
FILES = os.path.join(ROOT, "tests", "client")
node = None


def install():
    """The folder with the client; raises Skip where it cannot be had."""
    global node
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        raise Skip("node or npm is not there")
    os.makedirs(FOLDER, exist_ok=True)
    for name in ("package.json", "package-lock.json", "client.mjs"):
        shutil.copyfile(os.path.join(FILES, name), os.path.join(FOLDER, name))
    installed = os.path.join(FOLDER, "node_modules", ".package-lock.json")
    lock = os.path.join(FILES, "package-lock.json")
    if os.path.exists(installed) and os.path.getmtime(installed) > os.path.getmtime(lock):
        return
    done = subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                          cwd=FOLDER, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True)
    if done.returncode:
        shutil.rmtree(os.path.join(FOLDER, "node_modules"), ignore_errors=True)
        raise Skip("npm cannot install the client: " +
                   " ".join(done.stderr.split())[-200:])


def run_case(server, name, env=None):
    with case("openai client: " + name):
        done = subprocess.run(
            [node, "client.mjs", "http://127.0.0.1:%d/v1" % server.port, name], cwd=FOLDER,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120 * SLOW,
            env=dict(os.environ, **(env or {})))
        assert done.returncode == 0, done.stdout + done.stderr
        server.until(lambda: server.get("/health").status == 200)


@test
def openai_client():
    install()
    ids = runt("tokenize", "-m", tiny(), "-p", "Once upon a time", "--ids").out.strip()
    with Server("--api-key", "secret") as s:
        for name in ("chat", "stream", "helper", "completions", "embeddings", "models",
                     "errors", "schema"):
            run_case(s, name, {"PROMPT_IDS": ids})
    with Server("--api-key", "secret", "--parallel", "1", "--queue", "0",
                model=slow()) as s:
        key = {"Authorization": "Bearer secret"}
        run_case(s, "full")
        with case("an aborted answer is not made"):
            get = s.get
            s.get = lambda t, **more: get(t, headers=key)
            s.idle()
    with Server("--api-key", "secret", "--parallel", "1", model=slow()) as s:
        get = s.get
        s.get = lambda t, **more: get(t, headers=key)
        run_case(s, "abort")
        s.idle()
        gone = [l["status"] for l in s.lines if l.get("path") == "/v1/completions"]
        assert gone == [499] * 3, gone


if __name__ == "__main__":
    main()
