#!/usr/bin/env python3
"""The C library as others use it: installed into an empty folder, found by pkg-config, static
and shared; the programs in examples/; what it exports; its documentation.  Prints TAP."""
import glob
import json
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import ROOT, RUNT, SANITIZE, Skip, TMP, case, main, path, read, runt, test, write

BUILD = os.path.dirname(RUNT)
EXAMPLES = sorted(glob.glob(os.path.join(ROOT, "examples", "*.c")))
WARNINGS = ["-std=gnu11", "-Wall", "-Wextra", "-Werror"]


def command(*args, expect=0, **more):
    p = subprocess.run(args, capture_output=True, text=True, **more)
    assert p.returncode == expect, "%s: status %d\n%s\n%s" % (" ".join(args), p.returncode,
                                                              p.stdout[-3000:], p.stderr[-3000:])
    return p.stdout


def install():
    """The folder that everything is installed in, once."""
    root = path("root")
    if os.path.isdir(root):
        return root
    for tool in ("meson", "pkg-config", "cc"):
        if not shutil.which(tool):
            raise Skip("no " + tool)
    if not os.path.exists(os.path.join(BUILD, "build.ninja")):
        raise Skip("%s is not in its build folder" % RUNT)
    if SANITIZE:
        raise Skip("programs of others have no sanitizers")
    command("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", root)
    return root


def prefix():
    root = install()
    options = json.loads(command("meson", "introspect", BUILD, "--buildoptions"))
    return root + next(o["value"] for o in options if o["name"] == "prefix")


def pkg_config(*args):
    top = prefix()
    pc = glob.glob(top + "/**/runt.pc", recursive=True)
    assert len(pc) == 1, pc
    env = dict(os.environ, PKG_CONFIG_PATH=os.path.dirname(pc[0]))
    return command("pkg-config", "--define-variable=prefix=" + top, *args, "runt", env=env).split()


def library(name):
    found = glob.glob(prefix() + "/**/" + name, recursive=True)
    assert len(found) == 1, found
    return found[0]


def build(source, name, static=False, compiler="cc", flags=()):
    out = path(name)
    line = [compiler, *flags, source, "-o", out, *pkg_config("--cflags")]
    if static:
        line += ["-l:librunt.a" if f == "-lrunt" else f for f in pkg_config("--static", "--libs")]
    else:
        line += pkg_config("--libs")
    command(*line)
    return out


def run(program, *args, static=False, expect=0, stdin=""):
    env = {"PATH": os.environ["PATH"], "HOME": TMP}
    if not static:
        env["LD_LIBRARY_PATH"] = os.path.dirname(library("librunt.so"))
    p = subprocess.run([program, *args], capture_output=True, text=True, env=env, input=stdin,
                       timeout=300)
    assert p.returncode == expect, (program, args, p)
    return p


def model():
    p = path("tiny.gguf")
    if not os.path.exists(p):
        runt("import", os.path.join(ROOT, "models", "tiny-gpt2"), "-o", p, "--type", "r4", "-q")
    return p


def header():
    return re.sub(r"/\*.*?\*/", "", read(os.path.join(ROOT, "include", "runt", "runt.h"), "r"),
                  flags=re.S)


def functions():
    """What the header declares."""
    code = re.sub(r"typedef[^;]*;", "", re.sub(r"(?m)^#.*(\\\n.*)*$", "", header()))
    found = set(re.findall(r"\b(runt_\w+)\s*\(", code))
    assert len(found) > 60 and "runt_generate" in found, found
    return found


def abi():
    return re.search(r"#define RUNT_ABI_VERSION (\d+)", header()).group(1)


# ---- what is installed ----

@test
def everything_is_installed():
    top = prefix()
    for name in ("bin/runt", "include/runt/runt.h", "include/runt/error.h"):
        assert os.path.isfile(os.path.join(top, name)), name
    assert sorted(os.listdir(os.path.join(top, "include"))) == ["runt"]
    for name in ("librunt.a", "librunt.so", "librunt.so." + abi(), "runt.pc"):
        library(name)
    verbs = re.findall(r"^  ([a-z]+) {2,}\S", runt("--help").out, re.M)
    pages = sorted(os.listdir(os.path.join(top, "share", "man", "man1")))
    assert pages == sorted(["runt.1"] + ["runt-%s.1" % v for v in verbs]), pages
    for name, args in (("man/man1/runt-chat.1", ("--man", "chat")),
                       ("bash-completion/completions/runt", ("--completion", "bash")),
                       ("zsh/site-functions/_runt", ("--completion", "zsh")),
                       ("fish/vendor_completions.d/runt.fish", ("--completion", "fish"))):
        assert read(os.path.join(top, "share", name), "r") == runt("help", *args).out, name
    assert pkg_config("--modversion") == [runt("--version").out.split()[1]]


@test
def the_shared_library_exports_the_header_and_nothing_else():
    listed = command("nm", "-D", "--defined-only", library("librunt.so"))
    exported = {line.split()[2].split("@")[0] for line in listed.splitlines()}
    assert exported == functions(), exported ^ functions()
    dynamic = command("readelf", "-d", library("librunt.so"))
    assert "soname: [librunt.so.%s]" % abi() in dynamic, dynamic


@test
def it_knows_its_version():
    source = write(path("version.c"), '''#include <runt/runt.h>
#include <stdio.h>
int main(void) { return printf("%d %d %s\\n", RUNT_ABI_VERSION, runt_abi_version(),
                               runt_version()) < 0; }
''')
    out = run(build(source, "version", flags=WARNINGS)).stdout.split()
    assert out == [abi(), abi(), runt("--version").out.split()[1]], out


@test
def the_header_is_cxx_too():
    compiler = shutil.which("c++")
    if not compiler:
        raise Skip("no C++ compiler")
    source = write(path("face.cc"), '''#include <runt/runt.h>
int main() { return runt_abi_version() - RUNT_ABI_VERSION; }
''')
    run(build(source, "face", compiler=compiler, flags=["-Wall", "-Wextra", "-Werror"]))


# ---- examples ----

@test
def examples_are_short_and_use_the_door_alone():
    assert {os.path.basename(e) for e in EXAMPLES} == {"chat.c", "embed.c", "generate.c"}
    standard = {"stdio.h", "stdlib.h", "string.h", "err.h"}
    for example in EXAMPLES:
        text = read(example, "r")
        assert text.count("\n") <= 60, example
        assert all(len(line) <= 88 for line in text.splitlines()), example
        included = set(re.findall(r'#include [<"]([^">]+)', text))
        assert included <= standard | {"runt/runt.h"}, included


def check_generate(program, static):
    text = "Once upon a time"
    said = run(program, model(), text, static=static).stdout
    want = runt("generate", "-m", model(), "-p", text, "-n", "64", "-s", "1").out
    assert said.startswith(want), (said, want)
    last = said[len(want):]
    assert re.fullmatch(r"\(\d+ tokens, \d+ a second\)\n", last), last


def check_chat(program, static):
    lines = "Hello.\nWhat is your name?\n"
    said = run(program, model(), "turns", static=static, stdin=lines).stdout
    assert said.count("\n") >= 2 and len(said) > 20, said
    assert run(program, model(), "turns", static=static, stdin=lines).stdout == said
    p = run(program, model(), "no-such", static=static, expect=2)
    assert "usage" in p.stderr, p


def check_embed(program, static):
    texts = ["The dog ran to the park.", "A dog ran in the park.", "I like red apples very much!"]
    lines = run(program, model(), *texts, static=static).stdout.splitlines()
    table = [[float(x) for x in line.split()[:3]] for line in lines]
    assert [line.split("  ", 1)[1].strip() for line in lines] and len(table) == 3, lines
    for i in range(3):
        assert abs(table[i][i] - 1) < 0.0011, table
        assert lines[i].endswith(texts[i]), lines
        for k in range(3):
            assert table[i][k] == table[k][i] and -1.001 <= table[i][k] <= 1.001, table
    assert table[0][1] > table[0][2] and table[0][1] > table[1][2], table


@test
def examples_run_against_both_libraries():
    checks = {"generate": check_generate, "chat": check_chat, "embed": check_embed}
    for example in EXAMPLES:
        name = os.path.basename(example)[:-2]
        for static in (False, True):
            with case("%s, %s" % (name, "static" if static else "shared")):
                program = build(example, name + "-static" * static, static, flags=WARNINGS)
                needed = command("readelf", "-d", program)
                assert ("librunt.so" in needed) != static, needed
                checks[name](program, static)
                p = run(program, path("none.gguf"), "turns", static=static, expect=1)
                assert "none.gguf" in p.stderr and not p.stdout, p


# ---- documentation ----

@test
def the_api_document_names_every_function():
    text = read(os.path.join(ROOT, "docs", "API.md"), "r")
    named = set(re.findall(r"\brunt_\w+", text))
    missing = functions() - named
    assert not missing, missing
    types = set(re.findall(r"\bstruct (runt_\w+)|\benum (runt_\w+)|typedef[^;]*?\b(runt_\w+)\s*[;(]",
                           header()))
    known = functions() | {name for names in types for name in names if name}
    invented = {n for n in named if n not in known and not n.endswith("_")}
    assert not invented, invented


if __name__ == "__main__":
    main()
