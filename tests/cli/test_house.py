#!/usr/bin/env python3
"""The rules of the house (docs/DESIGN.md) that a machine can check, as TAP."""
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import Skip, main, test

TOP = os.environ.get("RUNT_SOURCE_ROOT") or os.path.abspath(
    os.path.join(os.path.dirname(__file__), "..", ".."))

# A room may include rooms of strictly lower levels, and itself.
LEVELS = {"base": 0, "comm": 1, "fmt": 1, "gguf": 2, "tok": 2, "kern": 2, "back": 3, "import": 3,
          "sample": 3, "model": 4, "talk": 5, "eval": 5, "train": 6,
          "quant": 7, "report": 8, "serve": 9,
          "cli": 10}


def sources(*tops):
    for top in tops:
        for folder, _, names in os.walk(os.path.join(TOP, top)):
            for name in sorted(names):
                if name.endswith((".c", ".h", ".cu")):
                    yield os.path.join(folder, name)


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


@test
def rooms_include_only_lower_rooms():
    wrong = []
    for path in sources("src"):
        room = os.path.relpath(path, os.path.join(TOP, "src")).split(os.sep)[0]
        for target in re.findall(r'^#include "([^"]+)"', read(path), re.M):
            other = target.split("/")[0]
            if other in ("runt", room):
                continue
            if other not in LEVELS or LEVELS[other] >= LEVELS[room]:
                wrong.append(f"{path}: {target}")
    assert not wrong, wrong


@test
def every_room_has_a_level_in_the_design():
    rooms = sorted(os.listdir(os.path.join(TOP, "src")))
    rooms = [r for r in rooms if os.path.isdir(os.path.join(TOP, "src", r))]
    assert rooms == sorted(LEVELS), rooms
    design = read(os.path.join(TOP, "docs", "DESIGN.md"))
    for room, level in LEVELS.items():
        assert re.search(rf"^\| {level} \|[^|]*`src/{room}`", design, re.M), room


@test
def file_names_are_unique():
    seen = {}
    for path in sources("src"):
        name = os.path.basename(path)
        assert name not in seen, (path, seen[name])
        seen[name] = path


@test
def files_are_at_most_700_lines():
    long = [p for p in sources("src", "tests", "include")
            if read(p).count("\n") > 700 and "unicode_tables" not in p]
    assert not long, long


@test
def only_the_command_line_prints_or_exits():
    bad = re.compile(r"\b(printf|puts|putchar|perror|exit|abort|_exit)\s*\(")
    wrong = []
    for path in sources("src"):
        if f"{os.sep}cli{os.sep}" in path:
            continue
        code = re.sub(r"/\*.*?\*/", "", read(path), flags=re.S)
        wrong += [f"{path}: {m.group(0)}" for m in bad.finditer(code)]
    assert not wrong, wrong


@test
def heap_use_goes_through_one_door():
    bad = re.compile(r"(?<![\w.>])(malloc|calloc|realloc|free|strdup|strndup)\s*\(")
    allowed = {"mem.c", "train_view.c", "cmd_import.c", "hub_cache.c",
               "hf_write.c"}  # of libraries: open_memstream, realpath, jansson
    wrong = []
    for path in sources("src"):
        if os.path.basename(path) in allowed:
            continue
        code = re.sub(r"/\*.*?\*/", "", read(path), flags=re.S)
        wrong += [f"{path}: {m.group(0)}" for m in bad.finditer(code)]
    assert not wrong, wrong


@test
def headers_compile_alone():
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise Skip("no C compiler")
    for path in sources("include", "src"):
        # those of one instruction set want its flags, or what their includer defines; those
        # of the CUDA backend's inside CUDA's headers
        if not path.endswith(".h") or re.search(r"/kern/(x86|arm)/|_body\.h$|"
                                                r"/back/cuda_\w+\.h$", path):
            continue
        with tempfile.NamedTemporaryFile("w", suffix=".c") as f:
            f.write(f'#include "{path}"\nint nothing;\n')
            f.flush()
            done = subprocess.run(
                [compiler, "-std=gnu11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror",
                 "-D_GNU_SOURCE", "-I", os.path.join(TOP, "include"), "-I",
                 os.path.join(TOP, "src"), f.name], capture_output=True, text=True)
        assert done.returncode == 0, (path, done.stderr)


@test
def clang_format_is_clean():
    tool = shutil.which("clang-format")
    if not tool:
        raise Skip("no clang-format")
    files = [p for p in sources("src", "tests", "include", "examples")
             if "unicode_tables" not in p]
    done = subprocess.run([tool, "--dry-run", "-Werror", *files], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[:2000]


@test
def no_file_is_too_large():
    total = 0
    listed = subprocess.run(["git", "-C", TOP, "ls-files", "-z"], capture_output=True)
    if listed.returncode:
        raise Skip("not a git checkout")
    for name in listed.stdout.decode().split("\0"):
        path = os.path.join(TOP, name)
        if name and os.path.isfile(path):
            size = os.path.getsize(path)
            assert size < 20_000_000, (name, size)
            total += size
    assert total < 24_000_000, total


if __name__ == "__main__":
    main()
