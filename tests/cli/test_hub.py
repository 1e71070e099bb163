#!/usr/bin/env python3
"""`runt pull`, `list` and `rm` against a hub on this machine; prints TAP.

RUNT_BIN names the program.  Every test has a hub and a home of its own.
"""
import csv
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import hub_server  # noqa: E402
from hub_server import COMMIT, File, Hub  # noqa: E402

RUNT = os.path.abspath(os.environ.get("RUNT_BIN", "runt"))
REPO = "some-org/Tiny.model_1"
FLAT = "models--some-org--Tiny.model_1"
WEIGHTS = bytes(i * 7919 >> 4 & 255 for i in range(300000))
SMALL = {"config.json": b'{"model_type": "gpt2"}', "vocab.json": b'{"a": 0}',
         "merges.txt": b"#version: 0.2\n", "generation_config.json": b"{}"}
TESTS = []


def test(name):
    def add(function):
        TESTS.append((name, function))
        return function
    return add


class Place:
    """A home folder, a hub with one model, and the program run in them."""

    def __init__(self):
        self.home = tempfile.mkdtemp(prefix="runt-hub-")
        self.cache = self.home + "/.cache/huggingface/hub"
        self.repo = self.cache + "/" + FLAT
        self.hub = Hub()
        self.model = {k: File(v) for k, v in SMALL.items()}
        self.model["model.safetensors"] = File(WEIGHTS, lfs=True)
        self.hub.models[REPO] = self.model
        self.big = self.model["model.safetensors"]
        self.part = "%s/blobs/%s.incomplete" % (self.repo, self.big.etag)

    def close(self):
        self.hub.close()
        shutil.rmtree(self.home)

    def env(self, **changes):
        env = {"PATH": os.environ.get("PATH", ""), "HOME": self.home,
               "HF_ENDPOINT": self.hub.ports["api"], "LC_ALL": "C"}
        for key in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "LD_LIBRARY_PATH"):
            if key in os.environ:
                env[key] = os.environ[key]
        env.update(changes)
        return {k: v for k, v in env.items() if v is not None}

    def start(self, *args, env=None, **more):
        return subprocess.Popen([RUNT, *args], env=env or self.env(), cwd=self.home,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, **more)

    def runt(self, *args, expect=0, **more):
        p = self.start(*args, **more)
        try:
            p.out, p.err = p.communicate(timeout=100)
        finally:
            p.kill()  # one that hangs must not outlive its test
        assert p.returncode == expect, "status %d, not %d: %s%s" % (
            p.returncode, expect, p.out, p.err)
        if expect:
            assert p.out == "" and p.err.count("\n") >= 1, (p.out, p.err)
        return p

    def pull(self, *args, **more):
        return self.runt("pull", REPO, *args, **more)

    def fails(self, *words, **more):
        """A pull that fails with one line that has all the words."""
        p = self.pull(expect=1, **more)
        assert p.err.count("\n") == 1, p.err
        for word in words:
            assert word in p.err, "no %r in: %s" % (word, p.err)
        return p.err

    def snapshot(self, commit=COMMIT):
        return "%s/snapshots/%s" % (self.repo, commit)

    def check_snapshot(self):
        for name, file in self.model.items():
            with open(self.snapshot() + "/" + name, "rb") as f:
                assert f.read() == file.content, name

    def no_part(self):
        left = [f for f in os.listdir(self.repo + "/blobs") if "incomplete" in f]
        assert not left, left


# ---- what a pull leaves ----

@test("plain pull prints the snapshot")
def _(t):
    p = t.pull()
    assert p.out == t.snapshot() + "\n", p.out
    assert p.err == "", p.err  # no bar: standard error is no terminal
    t.check_snapshot()


@test("cache layout: blobs, relative links, refs, locks")
def _(t):
    t.pull()
    etags = {f.etag for f in t.model.values()}
    assert set(os.listdir(t.cache)) == {FLAT, ".locks"}, os.listdir(t.cache)
    assert set(os.listdir(t.repo)) == {"blobs", "snapshots", "refs"}
    assert set(os.listdir(t.repo + "/blobs")) == etags
    assert set(os.listdir(t.cache + "/.locks/" + FLAT)) == {e + ".lock" for e in etags}
    assert os.listdir(t.repo + "/snapshots") == [COMMIT]
    assert set(os.listdir(t.snapshot())) == set(t.model)
    for name, file in t.model.items():
        assert os.readlink(t.snapshot() + "/" + name) == "../../blobs/" + file.etag
    assert os.listdir(t.repo + "/refs") == ["main"]
    with open(t.repo + "/refs/main") as f:
        assert f.read() == COMMIT


@test("the progress bar needs a terminal, and no -q")
def _(t):
    for args, bar in (((), True), (("-q",), False)):
        ours, theirs = os.openpty()
        p = subprocess.run([RUNT, "pull", REPO, *args], env=t.env(TERM="xterm"), cwd=t.home,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs,
                           timeout=60, check=True)
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 65536):
                seen += chunk
        except OSError:  # how a terminal says that nobody writes any more
            pass
        os.close(ours)
        assert (b"config.json" in seen) == bar, seen
        assert p.stdout.decode() == t.snapshot() + "\n"
        shutil.rmtree(t.repo)


@test("second pull downloads no body and asks once for what is there")
def _(t):
    t.pull()
    t.hub.log.clear()
    assert t.pull().out == t.snapshot() + "\n"
    assert not t.hub.requests(method="GET"), [r.path for r in t.hub.log]
    asked = [r.path.rsplit("/")[-1] for r in t.hub.log]
    assert "model.safetensors" not in asked, asked


@test("a new commit with the same weights only links them")
def _(t):
    t.pull()
    t.hub.revisions["main"] = new = "f" * 40
    t.model["config.json"] = File(b'{"changed": true}')
    t.hub.log.clear()
    assert t.pull().out == t.snapshot(new) + "\n"
    assert [r.path.rsplit("/")[-1] for r in t.hub.requests(method="GET")] == ["config.json"]
    with open(t.repo + "/refs/main") as f:
        assert f.read() == new
    assert len(os.listdir(t.repo + "/snapshots")) == 2


@test("later requests name the first answer's commit")
def _(t):
    t.pull()
    heads = t.hub.requests("api", "HEAD")
    assert "/resolve/main/" in heads[0].path
    assert all("/resolve/%s/" % COMMIT in r.path for r in heads[1:])
    assert all("/resolve/%s/" % COMMIT in r.path for r in t.hub.requests("api", "GET"))


@test("--revision: branch with a slash, and a commit that makes no ref")
def _(t):
    t.hub.revisions["refs/pr/7"] = COMMIT
    t.pull("--revision", "refs/pr/7")
    assert t.hub.log[0].path.startswith("/%s/resolve/refs%%2Fpr%%2F7/" % REPO)
    with open(t.repo + "/refs/refs/pr/7") as f:
        assert f.read() == COMMIT
    t.pull("--revision", COMMIT)
    assert os.listdir(t.repo + "/refs") == ["refs"]
    t.pull("--revision", "../../../x", expect=1)
    t.pull("--revision", "", expect=1)


@test("--file: only those, in folders and with odd characters too")
def _(t):
    t.model["sub/my model+1.gguf"] = file = File(b"GGUF", lfs=True)
    out = t.pull("--file", "config.json", "--file", "sub/my model+1.gguf").out
    assert out == t.snapshot() + "\n"
    assert set(os.listdir(t.snapshot())) == {"config.json", "sub"}
    link = t.snapshot() + "/sub/my model+1.gguf"
    assert os.readlink(link) == "../../../blobs/" + file.etag
    with open(link, "rb") as f:
        assert f.read() == b"GGUF"


@test("--file refuses names that leave the snapshot")
def _(t):
    for name in ("../x", "/etc/passwd", "a/../../b", "a//b", ".", "a\\b", "", "a\nb"):
        p = t.pull("--file", name, expect=1)
        assert "not a plain file name" in p.err, p.err
    assert not t.hub.log


@test("tokenizer.json when there is no vocab.json; none at all is an error")
def _(t):
    del t.model["merges.txt"]
    t.model["tokenizer.json"] = File(b"{}")
    t.pull()
    assert os.path.exists(t.snapshot() + "/tokenizer.json")
    t.hub.revisions["main"] = "e" * 40
    del t.model["tokenizer.json"]
    t.fails(REPO, "no tokenizer")


@test("sharded weights come by their index, each shard once")
def _(t):
    del t.model["model.safetensors"]
    names = ["model-%05d-of-00002.safetensors" % i for i in (1, 2)]
    index = {"weight_map": {"tensor.%d" % i: names[i % 2] for i in range(1500)}}
    t.model["model.safetensors.index.json"] = File(json.dumps(index).encode())
    for i, name in enumerate(names):
        t.model[name] = File(WEIGHTS[i:], lfs=True)
    t.pull()
    t.check_snapshot()
    assert len(t.hub.requests("cdn", "GET")) == 2
    t.pull(env=t.env(HF_HUB_OFFLINE="1"))
    os.unlink(t.snapshot() + "/" + names[1])
    t.fails(names[1], "not in the cache", env=t.env(HF_HUB_OFFLINE="1"))


@test("an index with hostile shard names is refused")
def _(t):
    del t.model["model.safetensors"]
    for i, bad in enumerate((
            '{"weight_map": {"a": "../../../x"}}', '{"weight_map": {"a": 3}}',
            '{"weight_map": {}}', '{"weight_map": 1}', "[]", "{",
            '{"weight_map": {"a": "x\\u0000y"}}', '{"weight_map": {"a": "x\\u009by"}}',
            json.dumps({"weight_map": {str(k): str(k) for k in range(1500)}}))):
        t.model["model.safetensors.index.json"] = File(bad.encode())
        t.hub.revisions["main"] = "%040x" % i
        t.fails("model.safetensors.index.json")
    assert not os.path.exists(t.home + "/x")


@test("only pickled weights: says so")
def _(t):
    del t.model["model.safetensors"]
    t.fails("no model.safetensors")
    t.model["pytorch_model.bin"] = File(b"PK", lfs=True)
    t.fails("only pytorch_model.bin", "safetensors")
    assert not t.hub.requests(method="GET", file="pytorch_model.bin")


@test("an empty file needs no download")
def _(t):
    t.model["merges.txt"] = File(b"")
    t.pull()
    t.check_snapshot()
    assert not t.hub.requests(method="GET", file="merges.txt")


# ---- the token ----

@test("token goes to the endpoint, never to the download host")
def _(t):
    t.hub.token = "hf_secret"
    t.pull(env=t.env(HF_TOKEN=" hf_secret\n"))
    t.check_snapshot()
    assert t.hub.requests("cdn", "GET")
    for r in t.hub.requests("cdn"):
        assert "Authorization" not in r.headers and "hf_secret" not in str(r.headers)
    for r in t.hub.requests("api"):
        assert r.headers["Authorization"] == "Bearer hf_secret"


@test("token from $HF_HOME/token and from the default home")
def _(t):
    t.hub.token = "hf_file"
    os.makedirs(t.home + "/hf")
    with open(t.home + "/hf/token", "w") as f:
        f.write("hf_file\n")
    t.pull("--file", "config.json", env=t.env(HF_HOME=t.home + "/hf"))
    os.makedirs(t.home + "/.cache/huggingface")
    shutil.copy(t.home + "/hf/token", t.home + "/.cache/huggingface/token")
    t.pull("--file", "config.json", env=t.env(HF_TOKEN=""))
    t.fails("refused the token of HF_TOKEN", "401", env=t.env(HF_TOKEN="other"))


@test("token with a line break is refused unsent")
def _(t):
    t.fails("HF_TOKEN", env=t.env(HF_TOKEN="a\r\nX-Evil: 1"))
    assert not t.hub.log


@test("401 and 403 say what to do, and are not retried")
def _(t):
    t.hub.token = "hf_x"
    t.fails("private or gated", "HF_TOKEN", "401")
    assert len(t.hub.log) == 1
    t.hub.token = None
    t.hub.fault("api", "HEAD", "config.json", hub_server.status(403))
    t.fails("private or gated", "HF_TOKEN", "403")
    t.hub.fault("api", "HEAD", "config.json", hub_server.status(403))
    t.fails("refused the token of HF_TOKEN", "403", env=t.env(HF_TOKEN="hf_x"))


# ---- what is not there ----

@test("404 names the model, the revision or the file")
def _(t):
    p = t.runt("pull", "nobody/nothing", expect=1)
    assert "nobody/nothing: no such model" in p.err, p.err
    p = t.pull("--revision", "v9", expect=1)
    assert "no revision 'v9'" in p.err, p.err
    p = t.pull("--file", "config.json", "--file", "absent.bin", expect=1)
    assert "no file 'absent.bin'" in p.err, p.err
    t.hub.fault("api", "HEAD", "config.json", hub_server.status(404))
    t.fails(REPO, "'main'", "'config.json'")


@test("names that are not ORG/NAME are misuse")
def _(t):
    for name in ("gpt2", "a/b/c", "../x", "a/..", "a--b/c", "/a", "a/", ".a/b", "a/b.",
                 "a/b c", "a/-b", "a-/b", "a\n/b", "a/" + "b" * 97, ""):
        for verb in ("pull", "rm"):
            p = t.runt(verb, name, expect=2)
            assert "ORG/NAME" in p.err, p.err
    assert not t.hub.log


# ---- transfers that break ----

@test("a dropped connection resumes where it broke")
def _(t):
    t.hub.fault("cdn", "GET", "model.safetensors", hub_server.drop_after(100000))
    t.pull()
    t.check_snapshot()
    gets = t.hub.requests("cdn", "GET")
    assert len(gets) == 2
    have = int(re.fullmatch(r"bytes=(\d+)-", gets[1].headers["Range"]).group(1))
    assert 0 < have <= 100000, have
    assert gets[1].sent == len(WEIGHTS) - have
    t.no_part()


@test("a server that ignores Range starts over")
def _(t):
    t.hub.ranges = False
    t.hub.fault("cdn", "GET", "model.safetensors", hub_server.drop_after(100000))
    t.pull()
    t.check_snapshot()
    gets = t.hub.requests("cdn", "GET")
    assert [g.status for g in gets] == [200, 200] and "Range" in gets[1].headers
    assert gets[1].sent == len(WEIGHTS)


@test("416 and a wrong Content-Range start over")
def _(t):
    for act in (hub_server.status(416), hub_server.wrong_range):
        t.hub.fault("cdn", "GET", "model.safetensors", hub_server.drop_after(100000))
        t.hub.fault("cdn", "GET", "model.safetensors", act)
        t.pull()
        t.check_snapshot()
        gets = t.hub.requests("cdn", "GET")
        assert len(gets) == 3 and "Range" not in gets[2].headers
        shutil.rmtree(t.repo)
        t.hub.log.clear()


@test("a line that keeps breaking fails, keeps the part, and the next pull goes on")
def _(t):
    t.hub.fault("cdn", "GET", "model.safetensors", hub_server.drop_after(1000), times=5)
    t.fails("5000 of 300000 bytes are kept", "5 tries")
    assert os.path.getsize(t.part) == 5000
    t.hub.log.clear()
    t.pull()
    t.check_snapshot()
    gets = t.hub.requests("cdn", "GET")
    assert len(gets) == 1 and gets[0].headers["Range"] == "bytes=5000-"
    assert gets[0].sent == len(WEIGHTS) - 5000


@test("a body shorter than announced, without end")
def _(t):
    short = hub_server.raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc")
    t.hub.fault("cdn", "GET", "model.safetensors", short, times=9)
    t.fails("model.safetensors", "3 of 300000")


@test("a body longer than announced is cut off and deleted")
def _(t):
    t.hub.fault("cdn", "GET", "model.safetensors", hub_server.other_content(WEIGHTS + b"x"))
    t.fails("more than the 300000 bytes")
    t.no_part()


@test("wrong SHA-256: refused and deleted, then pulled anew")
def _(t):
    bad = hub_server.other_content(b"y" + WEIGHTS[1:])
    t.hub.fault("cdn", "GET", "model.safetensors", bad)
    t.fails("checksum", "SHA-256", t.big.etag)
    t.no_part()
    assert not os.path.exists(t.snapshot() + "/model.safetensors")
    assert not os.path.exists(t.repo + "/refs/main")
    t.pull()
    t.check_snapshot()


@test("wrong git blob SHA-1: refused and deleted")
def _(t):
    bad = hub_server.other_content(b'{"b": 0}')
    t.hub.fault("api", "GET", "vocab.json", bad)
    t.fails("checksum", "SHA-1", t.model["vocab.json"].etag)
    t.no_part()


@test("a damaged part is found by its checksum, not continued for ever")
def _(t):
    os.makedirs(t.repo + "/blobs")
    with open(t.part, "wb") as f:
        f.write(b"z" * 5000)
    t.fails("checksum")
    t.pull()
    t.check_snapshot()


@test("a part that is whole needs no request, one that is too long starts over")
def _(t):
    os.makedirs(t.repo + "/blobs")
    with open(t.part, "wb") as f:
        f.write(WEIGHTS)
    t.pull()
    assert not t.hub.requests("cdn")
    shutil.rmtree(t.snapshot())
    os.unlink(t.part[:-len(".incomplete")])
    with open(t.part, "wb") as f:
        f.write(WEIGHTS * 2)
    t.pull()
    t.check_snapshot()
    assert "Range" not in t.hub.requests("cdn")[0].headers


@test("a blob of the wrong size is fetched again")
def _(t):
    t.pull()
    with open(t.repo + "/blobs/" + t.big.etag, "wb") as f:
        f.write(b"cut")
    os.unlink(t.snapshot() + "/model.safetensors")
    t.pull()
    t.check_snapshot()


@test("429 with Retry-After waits and goes on")
def _(t):
    t.hub.fault("api", "HEAD", "config.json", hub_server.status(429, Retry_After=1))
    start = time.monotonic()
    t.pull()
    assert time.monotonic() - start >= 1
    t.check_snapshot()


@test("a Retry-After of an hour fails at once and says so")
def _(t):
    t.hub.fault("api", "HEAD", "config.json", hub_server.status(429, Retry_After=3600))
    start = time.monotonic()
    t.fails("429", "3600 s")
    assert time.monotonic() - start < 10 and len(t.hub.log) == 1


@test("500 until the tries are used up; 503 that passes")
def _(t):
    t.hub.fault("api", "HEAD", "config.json", hub_server.status(500), times=9)
    t.fails("status 500", "5 tries")
    assert len(t.hub.log) == 5
    t.hub.faults.clear()
    t.hub.fault("cdn", "GET", "model.safetensors", hub_server.status(503), times=2)
    t.pull()
    t.check_snapshot()


@test("a status that cannot pass is not retried")
def _(t):
    t.hub.fault("api", "HEAD", "config.json", hub_server.status(418), times=2)
    t.fails("status 418")
    t.hub.faults.clear()
    t.hub.fault("cdn", "GET", "model.safetensors", hub_server.status(403), times=2)
    t.fails("localhost", "status 403")
    assert len(t.hub.requests("cdn")) == 1


@test("nobody listens")
def _(t):
    t.hub.servers[0].shutdown()
    t.hub.servers[0].server_close()
    t.fails("127.0.0.1", "5 tries")


# ---- hostile answers ----

@test("an etag that is a path is refused")
def _(t):
    for bad in ("../../../../evil", "a/b", "..", ".x", "a b", "x" * 129, "",
                "x.incomplete"):
        t.model["config.json"].headers = {"ETag": '"%s"' % bad}
        t.fails("etag")
    t.model["config.json"].headers = {"ETag": None}
    t.fails("etag")
    assert not os.path.exists(t.home + "/evil") and not os.path.exists(t.repo)


@test("a commit that is not 40 hexadecimal digits is refused")
def _(t):
    for bad in ("../../../evil", "abc", COMMIT + "0", "g" * 40, COMMIT[:39] + "/"):
        t.model["config.json"].headers = {"X-Repo-Commit": bad}
        t.fails("commit", "40 hexadecimal digits")
    t.model["config.json"].headers = {"X-Repo-Commit": "x" * 70}
    t.fails("X-Repo-Commit")
    t.model["config.json"].headers = {"X-Repo-Commit": None}
    t.fails("X-Repo-Commit")
    t.model["config.json"].headers = {}
    t.model["vocab.json"].headers = {"X-Repo-Commit": "d" * 40}
    t.fails("answers with " + "d" * 40)


@test("a size that is missing, odd or beyond the disk is refused")
def _(t):
    for bad in (None, "-1", "12x", "99999999999999999999999"):
        t.big.headers = {"X-Linked-Size": bad}
        t.fails("does not tell the size of model.safetensors")
    t.big.headers = {"X-Linked-Size": str(2 ** 55)}
    t.fails("model.safetensors needs %d more bytes" % 2 ** 55)
    assert not t.hub.requests("cdn")


@test("an etag that is no checksum still holds the size")
def _(t):
    t.big.headers = {"X-Linked-Etag": 'W/"abc-12"'}
    t.pull()
    t.check_snapshot()
    assert os.readlink(t.snapshot() + "/model.safetensors") == "../../blobs/abc-12"


@test("headers without end are cut off")
def _(t):
    lines = b"".join(b"X-%d: %s\r\n" % (i, b"y" * 1000) for i in range(200))
    endless = hub_server.raw(b"HTTP/1.1 200 OK\r\n" + lines)
    t.hub.fault("api", "HEAD", "config.json", endless)
    t.fails("headers")
    one = b"HTTP/1.1 302 Found\r\nLocation: /" + b"y" * 20000 + b"\r\n\r\n"
    t.hub.fault("api", "HEAD", "config.json", hub_server.raw(one))
    t.fails("Location")
    many = b"HTTP/1.1 100 Continue\r\n\r\n" * 20000
    t.hub.fault("api", "HEAD", "config.json", hub_server.raw(many))
    t.fails("headers")
    t.hub.fault("api", "HEAD", "config.json", hub_server.raw(b"\0\xff garbage\r\n\r\n"))
    t.fails("127.0.0.1")


@test("a redirect loop ends")
def _(t):
    loop = hub_server.status(302, Location="config.json")
    t.hub.fault("api", "HEAD", "config.json", loop, times=50)
    t.fails("10 redirects")
    assert len(t.hub.log) == 11


@test("a redirect to file: or to nonsense is refused")
def _(t):
    for bad in ("file:///etc/passwd", "gopher://localhost/", "http://", "ftp://x/y",
                "http://[::1", "javascript:alert(1)//x"):
        t.hub.fault("cdn", "GET", "model.safetensors", hub_server.status(302, Location=bad))
        err = t.fails("redirect")
        assert "refused" in err or "localhost" in err, err
        t.hub.fault("api", "HEAD", "config.json", hub_server.status(302, Location=bad))
        t.fails("redirect")
        shutil.rmtree(t.repo)
    t.hub.fault("api", "HEAD", "config.json", hub_server.status(302))
    t.fails("status 302")


@test("control bytes of a server do not reach the terminal")
def _(t):
    for bad in ("file:///\x1b[2J", "file:///\x9b2J", "file:///\xc2\x9b2J"):
        act = hub_server.status(302, Location=bad)
        t.hub.fault("api", "HEAD", "config.json", act)
        err = t.fails("Location")
        assert all(" " <= c <= "~" for c in err[:-1]), repr(err)


@test("a renamed model: relative redirects are followed, with the token")
def _(t):
    t.hub.renamed["old/name"] = REPO
    t.hub.token = "hf_t"
    t.runt("pull", "old/name", env=t.env(HF_TOKEN="hf_t"))
    assert os.path.exists(t.cache + "/models--old--name/refs/main")
    for r in t.hub.requests("cdn"):
        assert "Authorization" not in r.headers


@test("a relative redirect's own ETag is not the file's")
def _(t):
    own = hub_server.status(307, Location="/%s/resolve/main/config.json?again" % REPO,
                            X_Repo_Commit=COMMIT, ETag='"of-the-redirect"')
    t.hub.fault("api", "HEAD", "config.json", own)
    t.pull()
    link = os.readlink(t.snapshot() + "/config.json")
    assert link == "../../blobs/" + t.model["config.json"].etag, link


@test("large files from the endpoint itself, by a relative redirect")
def _(t):
    t.hub.relative_blobs = True
    t.pull()
    t.check_snapshot()
    assert not t.hub.requests("cdn")


@test("an endpoint that sends a model's name elsewhere keeps the token")
def _(t):
    other = Hub()
    other.models = t.hub.models
    away = "%s/%s/resolve/main/config.json" % (other.ports["api"], REPO)
    t.hub.fault("api", "HEAD", "config.json", hub_server.status(308, Location=away))
    t.pull(env=t.env(HF_TOKEN="hf_t"))
    other.close()
    assert other.log and all("Authorization" not in r.headers for r in other.log)


@test("HF_ENDPOINT: a path before the models, a final slash, not an address")
def _(t):
    t.pull(env=t.env(HF_ENDPOINT=t.hub.ports["api"] + "//"))
    for bad in ("ftp://x", "file:///tmp", "http://", "nonsense://"):
        t.fails("HF_ENDPOINT", env=t.env(HF_ENDPOINT=bad))


# ---- offline, places ----

@test("offline: the cache answers, or says what it lacks")
def _(t):
    for word in ("1", "true", "YES", "on"):
        t.fails("not in the cache", REPO, env=t.env(HF_HUB_OFFLINE=word))
    t.pull(env=t.env(HF_HUB_OFFLINE="0"))
    t.hub.log.clear()
    offline = t.env(HF_HUB_OFFLINE="1")
    assert t.pull(env=offline).out == t.snapshot() + "\n"
    assert t.pull("--revision", COMMIT, env=offline).out == t.snapshot() + "\n"
    p = t.pull("--file", "other.gguf", env=offline, expect=1)
    assert "other.gguf is not in the cache" in p.err
    os.unlink(t.repo + "/blobs/" + t.big.etag)
    t.fails("weights", "not in the cache", env=offline)
    assert not t.hub.log


@test("offline: a .gguf file is a model too")
def _(t):
    t.model["q.gguf"] = File(b"GGUF", lfs=True)
    t.pull("--file", "q.gguf")
    t.pull(env=t.env(HF_HUB_OFFLINE="1"))


@test("offline: a damaged ref")
def _(t):
    t.pull()
    for text in ("", "../../../etc", "x" * 1000):
        with open(t.repo + "/refs/main", "w") as f:
            f.write(text)
        t.fails("refs/main", env=t.env(HF_HUB_OFFLINE="1"))
    t.pull()
    with open(t.repo + "/refs/main") as f:
        assert f.read() == COMMIT


@test("HF_HUB_CACHE before HF_HOME before XDG_CACHE_HOME before HOME")
def _(t):
    places = [("HF_HUB_CACHE", "/a", "/a"), ("HF_HOME", "~/b", "/b/hub"),
              ("XDG_CACHE_HOME", "/c", "/c/huggingface/hub")]
    for i in range(len(places) + 1):
        names = {k: v if v[0] == "~" else t.home + v for k, v, _ in places[i:]}
        out = t.pull("--file", "config.json", env=t.env(**names)).out
        want = t.home + (places[i][2] if i < 3 else "/.cache/huggingface/hub")
        assert out == "%s/%s/snapshots/%s\n" % (want, FLAT, COMMIT), out
    t.fails("HOME", env=t.env(HOME=None))


@test("a cache that cannot be written")
def _(t):
    with open(t.home + "/file", "w") as f:
        f.write("x")
    t.fails(t.home + "/file", env=t.env(HF_HUB_CACHE=t.home + "/file/hub"))


@test("a full disk: a clear line, the part is kept")
def _(t):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    t.fails("cannot write", "100000 of 300000 bytes are kept", preexec_fn=limit,
            restore_signals=False)
    assert os.path.getsize(t.part) == 100000
    t.pull()
    t.check_snapshot()


# ---- several processes, signals ----

@test("two pulls at once: one download, both succeed")
def _(t):
    t.hub.fault("cdn", "GET", "model.safetensors", hub_server.stall_after(1000))
    a = t.start("pull", REPO)
    assert t.hub.reached.wait(30)
    b = t.start("pull", REPO)
    time.sleep(0.5)
    assert b.poll() is None  # it waits for the lock
    t.hub.gate.set()
    for p in (a, b):
        out, err = p.communicate(timeout=60)
        assert p.returncode == 0 and out == t.snapshot() + "\n", (out, err)
    assert len(t.hub.requests("cdn", "GET")) == 1
    t.check_snapshot()


@test("many pulls at once")
def _(t):
    t.hub.fault("cdn", "GET", "model.safetensors", hub_server.drop_after(10000), times=3)
    pulls = [t.start("pull", REPO) for _ in range(6)]
    for p in pulls:
        out, err = p.communicate(timeout=60)
        assert p.returncode == 0 and out == t.snapshot() + "\n", (out, err)
    assert len(t.hub.requests("cdn", "GET")) == 4
    t.check_snapshot()
    t.no_part()


@test("kill -9 in the middle, then pull again")
def _(t):
    t.hub.fault("cdn", "GET", "model.safetensors", hub_server.stall_after(100000))
    p = t.start("pull", REPO)
    assert t.hub.reached.wait(30)
    wait_for(lambda: os.path.exists(t.part) and os.path.getsize(t.part) == 100000)
    p.kill()
    p.communicate(timeout=30)
    t.hub.log.clear()
    t.pull()
    t.check_snapshot()
    assert [r.headers["Range"] for r in t.hub.requests("cdn")] == ["bytes=100000-"]


@test("Ctrl-C: status 130, soon, the part is kept")
def _(t):
    for sig, size in ((signal.SIGINT, 50000), (signal.SIGTERM, 100000)):
        t.hub.reached.clear()
        t.hub.fault("cdn", "GET", "model.safetensors", hub_server.stall_after(50000))
        p = t.start("pull", REPO)
        assert t.hub.reached.wait(30)
        wait_for(lambda: os.path.exists(t.part) and os.path.getsize(t.part) == size)
        p.send_signal(sig)
        start = time.monotonic()
        out, err = p.communicate(timeout=30)
        assert time.monotonic() - start < 5
        assert p.returncode == 130 and out == "" and "interrupted" in err, (out, err)
        assert os.path.getsize(t.part) == size
    t.hub.gate.set()
    t.pull("-q")
    t.check_snapshot()


@test("Ctrl-C while waiting for a lock and while waiting to retry")
def _(t):
    t.hub.fault("cdn", "GET", "model.safetensors", hub_server.stall_after(1000))
    first = t.start("pull", REPO)
    assert t.hub.reached.wait(30)
    second = t.start("pull", REPO)
    time.sleep(0.5)
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=10)
    assert second.returncode == 130
    t.hub.gate.set()
    first.communicate(timeout=30)
    assert first.returncode == 0
    t.hub.fault("api", "HEAD", "config.json", hub_server.status(429, Retry_After=25))
    shutil.rmtree(t.snapshot())
    third = t.start("pull", REPO)
    wait_for(lambda: not t.hub.faults)
    time.sleep(0.3)
    third.send_signal(signal.SIGINT)
    third.communicate(timeout=10)
    assert third.returncode == 130


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


# ---- list and rm ----

def listing(t, **more):
    return json.loads(t.runt("list", "-o", "json", **more).out)


@test("list: text, json, csv and md")
def _(t):
    assert listing(t) == []
    t.pull()
    size = sum(len(f.content) for f in t.model.values()) + len(COMMIT)  # refs/main
    (e,) = listing(t)
    modified = e.pop("modified")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", modified), modified
    assert e == {"repo": REPO, "revision": "main", "commit": COMMIT, "size": size,
                 "path": t.snapshot(), "snapshots": 1, "files": 5, "converted": 0}, e
    text = t.runt("list").out.splitlines()
    assert len(text) == 2 and text[1].split()[:4] == [REPO, "main", COMMIT[:8], "5"], text
    (row,) = csv.DictReader(io.StringIO(t.runt("list", "-o", "csv").out))
    assert row["repo"] == REPO and row["size"] == str(size), row
    assert "| %s | main |" % REPO in t.runt("list", "-o", "md").out
    t.runt("list", "-o", "xml", expect=2)


@test("list: several models by name, conversions, strange folders")
def _(t):
    t.hub.models["a/z"] = t.model
    t.pull()
    t.runt("pull", "a/z", "--file", "config.json", "--revision", COMMIT)
    for name in ("models--gpt2", "models--a--b--c", "models--..--x", "datasets--a--b",
                 "models--a--..", "x"):
        os.makedirs(t.cache + "/" + name)
    os.makedirs(t.home + "/.cache/runt/models/only--converted")
    os.makedirs(t.home + "/.cache/runt/models/a--z")
    for name, n in (("only--converted", 77), ("a--z", 5)):
        with open(t.home + "/.cache/runt/models/%s/runt-q4_0.gguf" % name, "wb") as f:
            f.write(bytes(n))
    found = listing(t)
    assert [e["repo"] for e in found] == ["a/z", "only/converted", REPO], found
    assert [e["converted"] for e in found] == [5, 77, 0]
    assert [e["files"] for e in found] == [1, 0, 5]
    assert [e["commit"] for e in found] == [COMMIT, "", COMMIT]
    assert [e["revision"] for e in found] == ["", "", "main"]


@test("list and rm without a home, the cache being elsewhere")
def _(t):
    env = t.env(HOME=None, HF_HUB_CACHE=t.cache)
    t.pull(env=env)
    assert [e["repo"] for e in listing(t, env=env)] == [REPO]
    t.runt("rm", REPO, env=env)
    assert not os.path.exists(t.repo)


@test("rm: everything of the model and nothing else")
def _(t):
    t.hub.models["a/z"] = t.model
    t.pull()
    t.runt("pull", "a/z")
    converted = t.home + "/.cache/runt/models/some-org--Tiny.model_1"
    os.makedirs(converted)
    with open(converted + "/runt-q4_0.gguf", "wb") as f:
        f.write(bytes(1000))
    size = 1000 + len(COMMIT) + sum(len(f.content) for f in t.model.values())
    out = t.runt("rm", REPO).out
    assert "%s: %d bytes" % (REPO, size) in out, out
    assert not os.path.exists(t.repo) and not os.path.exists(converted)
    assert os.listdir(t.cache + "/.locks") == ["models--a--z"]
    assert [e["repo"] for e in listing(t)] == ["a/z"]
    p = t.runt("rm", REPO, expect=1)
    assert REPO + " is not in the cache" in p.err, p.err
    t.runt("rm", "a/z")
    t.pull()
    t.check_snapshot()


@test("rm: links are removed, not followed")
def _(t):
    t.pull()
    keep = t.home + "/keep"
    os.makedirs(keep + "/dir")
    with open(keep + "/dir/file", "w") as f:
        f.write("mine")
    os.symlink(keep, t.repo + "/snapshots/link")
    os.symlink(keep + "/dir/file", t.repo + "/blobs/link")
    t.runt("rm", REPO)
    assert not os.path.lexists(t.repo)
    with open(keep + "/dir/file") as f:
        assert f.read() == "mine"
    os.symlink(keep, t.repo)
    t.runt("rm", REPO)
    assert not os.path.lexists(t.repo) and os.path.exists(keep + "/dir/file")


@test("rm during a download is refused")
def _(t):
    t.hub.fault("cdn", "GET", "model.safetensors", hub_server.stall_after(1000))
    pull = t.start("pull", REPO)
    assert t.hub.reached.wait(30)
    p = t.runt("rm", REPO, expect=1)
    assert "being downloaded" in p.err, p.err
    t.hub.gate.set()
    pull.communicate(timeout=30)
    assert pull.returncode == 0
    t.check_snapshot()


@test("help shows examples; misuse is status 2")
def _(t):
    for verb in ("pull", "list", "rm"):
        assert "example:" in t.runt(verb, "--help").out
    t.runt("pull", expect=2)
    t.runt("pull", REPO, "x/y", expect=2)
    t.runt("pull", REPO, "--revison", "x", expect=2)
    t.runt("rm", expect=2)
    t.runt("list", "x", expect=2)


def without_hub():
    env = {"HOME": "/nonexistent", "HF_ENDPOINT": "http://127.0.0.1:1"}
    p = subprocess.run([RUNT, "pull", "a/b", "--file", "x"], env=env, timeout=60,
                       capture_output=True, text=True)
    return "without hub support" in p.stderr


def main():
    chosen = [x for x in TESTS if all(w in x[0] for w in sys.argv[1:])]
    if without_hub():
        print("1..0 # SKIP this runt was built without hub support")
        return 0
    print("1..%d" % len(chosen))
    failed = 0
    for i, (name, function) in enumerate(chosen, 1):
        place = Place()
        try:
            function(place)
            print("ok %d - %s" % (i, name), flush=True)
        except Exception:
            failed += 1
            print("not ok %d - %s" % (i, name))
            for line in traceback.format_exc().splitlines():
                print("# " + line, flush=True)
        finally:
            place.close()
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
