#!/usr/bin/env python3
"""The commands in README.md and docs/*.md.  Prints TAP.

Blocks fenced with ```sh run in order, in one scratch folder a document, with `runt` on PATH
and models/ beside them.  Blocks that need a network or a whole build are fenced with
```sh no-run: of those, every verb and option of a `runt` line must be one that the verb's
--help lists.  Trainings in blocks fenced with ```sh small take two steps."""
import glob
import os
import re
import shlex
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import ROOT, RUNT, SLOW, Skip, case, environment, main, path, runt, test

DOCUMENTS = ["README.md"] + sorted(
    os.path.relpath(p, ROOT) for p in glob.glob(os.path.join(ROOT, "docs", "*.md")))


def read(document):
    with open(os.path.join(ROOT, document), encoding="utf-8") as f:
        return f.read()


def blocks(text):
    """(info string, first line number, lines) of every fenced block."""
    found, lines = [], text.split("\n")
    i = 0
    while i < len(lines):
        m = re.match(r"```(.*)$", lines[i])
        if not m:
            i += 1
            continue
        end = i + 1
        while end < len(lines) and lines[end].rstrip() != "```":
            end += 1
        assert end < len(lines), "the block of line %d does not end" % (i + 1)
        found.append((m.group(1).strip(), i + 2, lines[i + 1:end]))
        i = end + 1
    return found


def shell_blocks(document):
    out = [b for b in blocks(read(document)) if b[0].split()[:1] == ["sh"]]
    for info, line, _ in out:
        assert info in ("sh", "sh small", "sh no-run"), "%s line %d: ```%s" % (document, line - 1, info)
    return out


def scratch(document):
    folder = path(document.replace("/", "-"))
    os.makedirs(folder)
    for beside in ("models", "demo"):
        os.symlink(os.path.join(ROOT, beside), os.path.join(folder, beside))
    bin_folder = path("bin")
    if not os.path.exists(bin_folder):
        os.makedirs(bin_folder)
        os.symlink(RUNT, os.path.join(bin_folder, "runt"))
    return folder


def run_block(folder, lines):
    env = environment({"HF_HUB_OFFLINE": "1"})
    env["PATH"] = path("bin") + ":" + env.get("PATH", "/usr/bin:/bin")
    p = subprocess.run(["bash", "-e", "-u", "-x", "-o", "pipefail", "-c", "\n".join(lines)],
                       cwd=folder, env=env, stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300 * SLOW)
    said = p.stderr.decode("utf-8", "replace")
    assert p.returncode == 0, "status %d: %s" % (p.returncode, said[-2000:])
    assert "Sanitizer" not in said and "runtime error" not in said, said[-3000:]
    p.stdout.decode("utf-8")


def end_servers(folder):
    """Those that a page started and, because a block failed, did not end."""
    for name in glob.glob(os.path.join(folder, "*.pid")):
        with open(name) as f:
            try:
                os.kill(int(f.read()), signal.SIGKILL)
            except (ProcessLookupError, ValueError):
                pass


_help = {}


def listed_options(verb):
    if verb not in _help:
        r = runt(verb, "--help")
        _help[verb] = set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]*|-[a-zA-Z])\b", r.out))
    return _help[verb]


def check_names(lines):
    """Verbs and options of `runt` commands that are not run."""
    text = "\n".join(lines).replace("\\\n", " ")
    n = 0
    for command in re.split(r"""\n|\||&&|;(?=(?:[^"\n]*"[^"\n]*")*[^"\n]*$)""", text, flags=re.M):
        command = re.sub(r"^\s*(\w+=\S*\s+)*", "", command)
        if not re.match(r"(\S*/)?runt\b", command):  # also the inside of quotes
            continue
        words = shlex.split(command, comments=True)
        n += 1
        if len(words) == 1 or words[1] in ("--help", "--version", "help"):
            continue
        known = listed_options(words[1])
        for w in words[2:]:
            if re.match(r"--?[a-zA-Z]", w):
                assert w.split("=")[0] in known, "%s has no %s: %s" % (words[1], w, command)
    return n


@test
def commands_in_documents():
    if not os.path.exists(os.path.join(ROOT, "README.md")):
        raise Skip("no README.md")
    for document in DOCUMENTS:
        folder = scratch(document)
        for info, line, lines in shell_blocks(document):
            with case("%s, line %d%s" % (document, line,
                                         " (names only)" if "no-run" in info else "")):
                check_names(lines)
                if os.environ.get("RUNT_HTTP") == "0" and document.endswith("SERVER.md"):
                    raise Skip("runt was built without libmicrohttpd")
                if info == "sh small":
                    lines = [re.sub(r"--steps \d+", "--steps 2", x) for x in lines]
                if info in ("sh", "sh small"):
                    run_block(folder, lines)
        end_servers(folder)


@test
def links_in_documents_lead_somewhere():
    if not os.path.exists(os.path.join(ROOT, "README.md")):
        raise Skip("no README.md")
    for document in DOCUMENTS:
        text = re.sub(r"```.*?```", "", read(document), flags=re.S)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if not re.match(r"[a-z]+:", target):
                to = os.path.join(ROOT, os.path.dirname(document), target)
                assert os.path.exists(to), "%s: %s" % (document, target)


@test
def examples_in_help_use_listed_options():
    verbs = re.findall(r"^  ([a-z]+) {2,}\S", runt("--help").out, re.M)
    for verb in verbs:
        with case("examples of " + verb):
            text = runt(verb, "--help").out.split("\nexample:\n")[1]
            assert check_names(text.split("\n")) >= 1, text


if __name__ == "__main__":
    main()
