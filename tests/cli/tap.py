"""A tiny TAP runner, and what the tests of the program share.

A test file imports `test` and `main` from here.  Functions marked with @test run in the
order of their definition; each is one case, unless it opens cases of its own with
`with case("name"):`, which are then counted instead.  Every file gets one fresh folder,
TMP, which is also the program's home and working folder, and which goes when it ends.

    RUNT_BIN          the program (default: the build's, or the first on PATH)
    RUNT_SOURCE_ROOT  the checkout (default: two folders up)
    RUNT_SANITIZE     1: a sanitizer build, which is slow and cannot run with RLIMIT_AS
"""
import atexit
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.environ.get("RUNT_SOURCE_ROOT") or os.path.join(HERE, "..", ".."))
SANITIZE = os.environ.get("RUNT_SANITIZE") == "1"
SLOW = 4 if SANITIZE else 1  # how much longer everything may take


def find_program():
    named = os.environ.get("RUNT_BIN")
    built = os.path.join(ROOT, "build", "runt")
    if named:
        return os.path.abspath(named)
    return built if os.path.exists(built) else shutil.which("runt") or built


RUNT = find_program()
TMP = os.path.realpath(tempfile.mkdtemp(prefix="runt-test-"))
atexit.register(shutil.rmtree, TMP, ignore_errors=True)

_tests = []
_n_cases = _n_failed = 0


class Skip(Exception):
    """Raised by a test that cannot run here; says why."""


def test(function):
    _tests.append(function)
    return function


def note(text):
    """A diagnostic line."""
    for line in str(text).splitlines() or [""]:
        print("#", line)
    sys.stdout.flush()


def _report(name, failure=None, skip=None):
    global _n_cases, _n_failed
    _n_cases += 1
    name = " ".join(name.replace("#", "no.").split())
    print("%s %d - %s%s" % ("not ok" if failure else "ok", _n_cases, name,
                            " # SKIP " + skip if skip else ""), flush=True)
    if failure:
        _n_failed += 1
        note(failure)


class case:
    """One case inside a test function; its failure does not end the function."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            _report(self.name)
        elif issubclass(kind, Skip):
            _report(self.name, skip=str(value))
        elif issubclass(kind, Exception):
            _report(self.name, "".join(traceback.format_exception(kind, value, trace)))
        else:
            return False
        return True


def main():
    if not os.access(RUNT, os.X_OK):
        print("Bail out! %s is no program; name it in RUNT_BIN" % RUNT)
        sys.exit(1)
    which = slice(None)
    if sys.argv[1:2] == ["--part"]:  # 2/3: of every three tests the second
        k, n = map(int, sys.argv[2].split("/"))
        which = slice(k - 1, None, n)
    for function in _tests[which]:
        before = _n_cases
        try:
            function()
        except Skip as e:
            _report(function.__name__.replace("_", " "), skip=str(e))
        except Exception:
            _report(function.__name__.replace("_", " "), traceback.format_exc())
        else:
            if _n_cases == before:
                _report(function.__name__.replace("_", " "))
    print("1..%d" % _n_cases, flush=True)
    sys.exit(1 if _n_failed else 0)


# ---- the program ----

def environment(changes=None):
    """What the program sees: nothing of ours but what a build or a loader needs."""
    keep = ("PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "LD_LIBRARY_PATH",
            "RUNT_CPU")
    env = {k: os.environ[k] for k in keep if k in os.environ}
    env.update(HOME=TMP, LC_ALL="C.UTF-8")
    env.update(changes or {})
    return {k: v for k, v in env.items() if v is not None}


def limits(address_space=None, file_size=None, cpu_seconds=None):
    """A preexec_fn.  Sanitizers reserve terabytes of addresses, so they get no limit."""
    def set_limits():
        if cpu_seconds:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds * SLOW, cpu_seconds * SLOW + 1))
        if address_space and not SANITIZE:
            resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
        if file_size:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    return set_limits


class Result:
    def __init__(self, args, rc, raw, err):
        self.args, self.rc, self.raw = args, rc, raw
        self.err = err.decode("utf-8", "backslashreplace")

    @property
    def out(self):
        return self.raw.decode("utf-8")  # strict: text output is valid UTF-8

    def __str__(self):
        return "runt %s: status %s\n%s\n%s" % (" ".join(map(str, self.args)), self.rc,
                                               self.raw[-1500:], self.err[-1500:])


def runt(*args, stdin=None, env=None, expect=0, cwd=None, timeout=120, preexec=None):
    """Run the program; `stdin` is text, bytes or None.  expect=None: any exit status but
    death by a signal."""
    if isinstance(stdin, str):
        stdin = stdin.encode()
    p = subprocess.Popen([RUNT, *map(os.fspath, args)], env=environment(env), cwd=cwd or TMP,
                         stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=preexec)
    try:
        out, err = p.communicate(stdin, timeout * SLOW)
    except subprocess.TimeoutExpired:
        p.kill()
        out, err = p.communicate()
        raise AssertionError("still running after %d s: %s" % (
            timeout * SLOW, Result(args, None, out, err))) from None
    r = Result(args, p.returncode, out, err)
    if r.rc < 0 or "Sanitizer" in r.err or "runtime error" in r.err:
        name = signal.Signals(-r.rc).name if r.rc < 0 else "a sanitizer's report"
        raise AssertionError("%s in %s" % (name, r))
    assert expect is None or r.rc == expect, "expected status %s: %s" % (expect, r)
    return r


def fails(*args, words=(), **more):
    """The program fails with status 1, nothing on stdout, and one line on stderr that has
    all the words."""
    r = runt(*args, expect=1, **more)
    assert r.raw == b"", r
    check_line(r, words)
    return r


def misuse(*args, words=(), **more):
    """The program refuses its arguments: status 2, nothing on stdout, help offered."""
    r = runt(*args, expect=2, **more)
    assert r.raw == b"" and r.err.startswith("runt"), r
    assert "--help'" in r.err, r
    for word in words:
        assert word in r.err, "no %r: %s" % (word, r)
    return r


def check_line(r, words=()):
    assert r.err.count("\n") == 1 and r.err.endswith("\n"), "not one line: %s" % r
    assert r.err.startswith("runt %s: " % r.args[0]), r
    assert all(c >= " " for c in r.err[:-1]), "control characters: %s" % r
    for word in words:
        assert str(word) in r.err, "no %r: %s" % (word, r)


def path(*parts):
    """A path in the temporary folder."""
    return os.path.join(TMP, *parts)


def read(name, mode="rb"):
    with open(name, mode) as f:
        return f.read()


def write(name, data):
    with open(name, "wb" if isinstance(data, bytes) else "w") as f:
        f.write(data)
    return name


def only(folder, *names):
    """The folder holds these entries and no others, hidden ones included."""
    found = sorted(os.listdir(folder))
    assert found == sorted(names), "%s holds %s, not %s" % (folder, found, sorted(names))
