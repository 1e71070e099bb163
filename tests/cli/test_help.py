#!/usr/bin/env python3
"""Manual pages and completions, made of the option tables: complete, clean to groff and mandoc,
and driven by the shells themselves.  Prints TAP."""
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import (ROOT, RUNT, SLOW, Skip, TMP, case, environment, main, misuse, path, read, runt,
                 test, write)

VERBS = re.findall(r"^  ([a-z]+) {2,}\S", runt("--help").out, re.M)


def options_of(verb):
    """Every spelling in --help."""
    lines = re.findall(r"^  ((?:-\w, |    )?-[\w-]+)", runt(verb, "--help").out, re.M)
    return {word for line in lines for word in line.replace(",", " ").split()}


def page(verb=None):
    return runt("help", "--man", *([verb] if verb else [])).out


# ---- help ----

@test
def help_of_a_verb_is_its_help():
    for verb in VERBS:
        assert runt("help", verb).out == runt(verb, "--help").out, verb
    assert runt("help").out == runt("--help").out
    misuse("help", "generat", words=["did you mean 'generate'"])
    misuse("help", "--man", "nothing", words=["'nothing'"])
    misuse("help", "a", "b", words=["'b'"])
    misuse("help", "--completion", "tcsh", words=["bash, zsh or fish", "'tcsh'"])
    misuse("help", "--completion", "bash", "chat", words=["--completion"])
    misuse("help", "--completion", "bash", "--man", words=["--completion"])
    misuse("chat", "--help=xml", words=["man, bash, zsh or fish", "'xml'"])


@test
def the_build_knows_every_verb():
    text = read(os.path.join(ROOT, "src", "cli", "meson.build"), "r")
    listed = re.findall(r"'(\w+)'", re.search(r"cli_verbs = \[(.*?)\]", text, re.S).group(1))
    assert listed == VERBS, (listed, VERBS)


# ---- names ----

# What else a verb wants; its files are not there, so that it fails when it is content.
REST = {"run": ["none.gguf"], "import": ["none", "-o", "x.gguf"],
        "init": ["gpt2", "-o", "plain/x"], "quantize": ["none.gguf", "x.gguf", "q4_0"],
        "prune": ["none.gguf", "x.gguf", "--sparsity", "0.5"],
        "train": ["--data", "none", "--init", "none.gguf", "--out", "x"],
        "export": ["none.gguf", "x"], "eval": ["-m", "none.gguf", "-f", "none"],
        "bench": ["-m", "none.gguf"], "generate": ["-m", "none.gguf"],
        "chat": ["-m", "none.gguf"], "serve": ["-m", "none.gguf"], "inspect": ["none.gguf"],
        "merge": ["none.gguf", "none", "-o", "x.gguf"],
        "compare": ["none.gguf", "other.gguf"], "list": []}


def names():
    """(verb, option, names) as the completion for bash has them."""
    found = []
    script = runt("help", "--completion", "bash").out
    for verb, values in re.findall(r"^    (\w+)\)\n.*\n        values='([^']*)'", script, re.M):
        for item in values.split():
            option, kind = item.split("=")
            if option.startswith("--") and kind not in ("any", "file", "folder", "model"):
                found.append((verb, option, kind.split(",")))
    return found


@test
def names_are_what_the_verbs_take():
    found = names()
    write(path("plain"), "")  # no folder: nothing can be written into it
    assert {"generate", "quantize", "eval", "train"} < {verb for verb, _, _ in found}, found
    for verb, option, values in found:
        if verb == "help":
            continue
        with case("%s %s" % (verb, option)):
            for value in values:
                r = runt(verb, *REST[verb], option, value, stdin="", expect=None)
                assert r.rc in ((0,) if verb == "list" else (1,)), (value, r)
            r = runt(verb, *REST[verb], option, "nonsense", stdin="", expect=2)
            known = [v for v in values if re.search(r"\b%s\b" % re.escape(v), r.err, re.I)]
            assert known == values or option == "--size", (known, values, r)


# ---- manual pages ----

@test
def pages_say_what_help_says():
    for verb in VERBS:
        with case("runt-%s(1)" % verb):
            text = page(verb)
            shown = set(re.findall(r"\\fB((?:\\-){1,2}\w[\w\\-]*)\\fR", text))
            assert options_of(verb) <= {s.replace("\\", "") for s in shown}, verb
            for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS",
                            "EXAMPLES", "SEE ALSO"):
                assert text.count("\n.SH %s\n" % section) == 1, section
            about = text.split(".SH DESCRIPTION\n")[1].split("\n.SH")[0]
            assert len(about) > 60, about
    text = page()
    for verb in VERBS:
        assert "runt\\-%s (1)\n" % verb in text and ".BR runt\\-%s (1)" % verb in text, verb


@test
def pages_are_clean():
    checks = [["groff", "-ww", "-man", "-Tutf8"], ["mandoc", "-T", "lint", "-W", "warning"],
              ["man", "--warnings", "-l"]]
    for check in checks:
        if not shutil.which(check[0]):
            raise Skip("no " + check[0])
    for verb in [None] + VERBS:
        with case("page of %s" % (verb or "runt")):
            file = write(path("runt%s.1" % ("-" + verb if verb else "")), page(verb))
            for check in checks:
                p = subprocess.run(check + [file], capture_output=True, text=True,
                                   env=environment({"MANWIDTH": "80"}))
                said = p.stderr + (p.stdout if check[0] == "mandoc" else "")
                assert p.returncode == 0 and not said, (check, p)
            assert not re.search(r"\\[fe(]", p.stdout), p.stdout


# ---- bash ----

def bash(line, words=None):
    """What bash's own completion offers at the end of a line."""
    words = words or [w for w in re.split(r" +|(=)", line) if w]
    if line.endswith((" ",)):
        words.append("")
    script = "source %s\nprogram=%s\nCOMP_WORDS=(%s)\nCOMP_CWORD=%d\n_runt\n" % (
        path("runt.bash"), RUNT, " ".join("'%s'" % w for w in [RUNT] + words[1:]),
        len(words) - 1)
    script += "printf '%s\\n' \"${COMPREPLY[@]}\"\n"
    p = subprocess.run(["bash", "--norc", "-c", "compopt() { :; }\n" + script],
                       capture_output=True, text=True, cwd=path("files"), env=environment())
    assert p.returncode == 0 and not p.stderr, (line, p)
    return sorted(w for w in p.stdout.split("\n") if w)


def prepare():
    if os.path.isdir(path("files")):
        return
    os.makedirs(path("files", "folder"))
    for name in ("one.gguf", "two.gguf", "text.txt", "with blank.gguf"):
        write(path("files", name), "")
    snapshot = path(".cache", "huggingface", "hub", "models--org--pocket", "snapshots", "0" * 40)
    os.makedirs(snapshot)
    write(os.path.join(snapshot, "config.json"), "{}")
    os.makedirs(os.path.join(snapshot, "..", "..", "refs"))
    write(os.path.join(snapshot, "..", "..", "refs", "main"), "0" * 40)
    for shell, name in (("bash", "runt.bash"), ("zsh", "_runt"), ("fish", "runt.fish")):
        write(path(name), runt("help", "--completion", shell).out)


@test
def bash_completes():
    if not shutil.which("bash"):
        raise Skip("no bash")
    prepare()
    if shutil.which("shellcheck"):
        p = subprocess.run(["shellcheck", "-s", "bash", path("runt.bash")], capture_output=True,
                           text=True)
        assert p.returncode == 0, p.stdout
    assert "org/pocket" in runt("list").out
    for line, want in (
            ("runt q", ["quantize"]),
            ("runt ", sorted(VERBS + ["--help", "--version"])),
            ("runt help ch", ["chat"]),
            ("runt help chat ", []),
            ("runt help --completion ", ["bash", "fish", "zsh"]),
            ("runt generate --kv ", ["auto", "f16", "f32", "q8"]),
            ("runt generate --kv=", ["auto", "f16", "f32", "q8"]),
            ("runt generate --kv=f", ["f16", "f32"]),
            ("runt generate --no-d", ["--no-display-prompt"]),
            ("runt generate --temp ", []),
            ("runt generate ", []),
            ("runt generate -f te", ["text.txt"]),
            ("runt generate -m ", ["folder", "one.gguf", "org/pocket", "two.gguf",
                                   "with blank.gguf"]),
            ("runt generate --model=tw", ["two.gguf"]),
            ("runt rm org", ["org/pocket"]),
            ("runt import ", ["folder"]),
            ("runt import folder -o ", ["folder", "one.gguf", "text.txt", "two.gguf",
                                        "with blank.gguf"]),
            ("runt quantize one.gguf x.gguf q4", ["q4_0", "q4_1"]),
            ("runt quantize --untie one.gguf --calib text.txt x.gguf iq", ["iq4_nl"]),
            ("runt quantize one.gguf x.gguf q4_0 ", []),
            ("runt tokenizer ", ["train"]),
            ("runt tokenizer train ", []),
            ("runt plot text.txt t", ["text.txt", "two.gguf"]),
            ("runt export one.gguf ", ["folder"]),
            ("runt export one.gguf folder --type ", ["bf16", "f16", "f32"]),
            ("runt nothing ", [])):
        with case("bash: '%s'" % line):
            got = bash(line)
            assert got == want, (got, want)
    for verb in VERBS:
        with case("bash: every option of " + verb):
            assert set(bash("runt %s -" % verb)) == options_of(verb)


# ---- shells at a terminal ----

class Terminal:
    """A shell on a pseudo-terminal; what it shows is read until it has what is awaited."""

    def __init__(self, *command):
        pid, self.fd = pty.fork()
        if not pid:
            os.chdir(path("files"))
            os.execvpe(command[0], command, environment(
                {"TERM": "dumb", "PS1": "> ", "PATH": os.path.dirname(RUNT) + ":" +
                 os.environ["PATH"]}))
        self.pid, self.seen = pid, ""

    def send(self, text):
        os.write(self.fd, text.encode())

    def wait(self, pattern, seconds=20):
        end = time.time() + seconds * SLOW
        while not re.search(pattern, self.seen):
            ready = select.select([self.fd], [], [], max(0, end - time.time()))[0]
            assert ready, "no %r in %r" % (pattern, self.seen)
            try:
                self.seen += os.read(self.fd, 4096).decode(errors="replace")
            except OSError:
                raise AssertionError("it ended: %r" % self.seen) from None
        found = re.search(pattern, self.seen)
        self.seen = self.seen[found.end():]
        return found

    def close(self):
        os.close(self.fd)
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(self.pid, 0)


TYPED = (("runt quan\t", r"runt quantize "), ("runt generate --prompt-c\t", r"--prompt-cache[ =]"),
         ("runt generate --kv q\t", r"--kv q8 "), ("runt generate -m on\t", r"-m one\.gguf "),
         ("runt help --completion z\t", r"--completion zsh "),
         ("runt tokenizer tr\t", r"tokenizer train "))


def type_into(shell, *start):
    for keys, want in TYPED:
        with case("%s: %s" % (shell, keys.strip())):
            t = Terminal(*start)
            try:
                for line in begin[shell]:
                    t.wait("> ")
                    t.send(line + "\n")
                t.wait("ready-to-type")
                t.wait("ready-to-type")  # echoed, then printed
                t.wait("> ")
                t.send(keys)
                t.wait(want)
            finally:
                t.close()


begin = {"bash": ["source ../runt.bash", "echo ready-to-type"],
         "zsh": ["fpath=(%s $fpath); autoload -Uz compinit; compinit -u -d ../zcompdump" % TMP,
                 "echo ready-to-type"]}


@test
def bash_at_a_terminal():
    if not shutil.which("bash"):
        raise Skip("no bash")
    prepare()
    type_into("bash", "bash", "--norc", "--noprofile", "-i")


@test
def zsh_at_a_terminal():
    if not shutil.which("zsh"):
        raise Skip("no zsh")
    prepare()
    p = subprocess.run(["zsh", "-n", path("_runt")], capture_output=True, text=True)
    assert p.returncode == 0 and not p.stderr, p
    type_into("zsh", "zsh", "-f", "-i")


@test
def fish_completes():
    if not shutil.which("fish"):
        raise Skip("no fish")
    prepare()
    p = subprocess.run(["fish", "-n", path("runt.fish")], capture_output=True, text=True)
    assert p.returncode == 0 and not p.stderr, p

    def fish(line):
        p = subprocess.run(["fish", "--no-config", "-c", "source %s; complete -C '%s'" % (
            path("runt.fish"), line)], capture_output=True, text=True, cwd=path("files"),
            env=environment({"PATH": os.path.dirname(RUNT) + ":" + os.environ["PATH"]}))
        assert p.returncode == 0 and not p.stderr, (line, p)
        return sorted(out.split("\t")[0] for out in p.stdout.split("\n") if out)

    for line, want in (
            ("runt quan", ["quantize"]),
            ("runt ", sorted(VERBS)),
            ("runt help cha", ["chat"]),
            ("runt generate --kv ", ["auto", "f16", "f32", "q8"]),
            ("runt generate --no-d", ["--no-display-prompt"]),
            ("runt generate --temp ", []),
            ("runt generate -f te", ["text.txt"]),
            ("runt rm org", ["org/pocket"]),
            ("runt quantize one.gguf x.gguf q4_", ["q4_0", "q4_1"]),
            ("runt tokenizer ", ["train"]),
            ("runt export one.gguf folder --type ", ["bf16", "f16", "f32"])):
        with case("fish: '%s'" % line):
            got = fish(line)
            assert got == want, (got, want)
    with case("fish: models"):
        assert {"one.gguf", "two.gguf", "org/pocket"} <= set(fish("runt generate -m "))
    for verb in VERBS:
        with case("fish: every option of " + verb):
            long = {o for o in options_of(verb) if o.startswith("--")}
            assert set(fish("runt %s --" % verb)) == long


if __name__ == "__main__":
    main()
