"""What the tests of `runt serve` share: a server that is started and ended, requests by
http.client, and raw sockets."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tap
from tap import ROOT, RUNT, SANITIZE, SLOW, TMP, environment, path, runt

TINY = os.path.join(ROOT, "models", "tiny-gpt2")


def main():
    if os.environ.get("RUNT_HTTP") == "0":
        print("1..0 # SKIP runt was built without libmicrohttpd")
        return
    tap.main()


def tiny(kind="q4_0"):
    p = path("tiny-%s.gguf" % kind)
    if not os.path.exists(p):
        runt("import", TINY, "--type", kind, "-o", p, "-q")
    return p


def slow():
    """NAME=MODEL of one that takes a while: 250 tokens of it are some seconds."""
    p = path("slow.gguf")
    if not os.path.exists(p):
        layers, heads, embd = ("3", "4", "256") if SANITIZE else ("12", "6", "384")
        runt("init", "gpt2", "--layers", layers, "--heads", heads, "--embd", embd,
             "--vocab", "4096", "--context", "1024", "--seed", "1", "-o", p)
    return "tiny=" + p


class Reply:
    def __init__(self, status, headers, raw):
        self.status, self.raw = status, raw
        self.headers = {k.lower(): v for k, v in headers}

    @property
    def json(self):
        return json.loads(self.raw)

    @property
    def error(self):
        """The error, whose shape is checked."""
        e = self.json["error"]
        assert set(self.json) == {"error"}, self
        assert set(e) == {"message", "type", "param", "code"}, self
        assert e["message"] and e["type"], self
        assert self.headers["content-type"] == "application/json", self.headers
        return e

    def __repr__(self):
        return "status %s, %s, %r" % (self.status, self.headers, self.raw[:600])


class Server:
    """with Server("--queue", "4") as s: ..."""

    def __init__(self, *args, model=None, env=None, log=True, template="turns"):
        words = [RUNT, "serve", "--port", "0"]
        if model is not False:
            words += ["-m", model or "tiny=" + tiny()]
        if template:
            words += ["--template", template]
        self.p = subprocess.Popen(words + [str(a) for a in args], env=environment(env),
                                  cwd=TMP, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
        self.lines, self.said, self.port = [], [], None
        self._ready = threading.Event()
        self._threads = [threading.Thread(target=self._read_log),
                         threading.Thread(target=self._read_said)]
        for t in self._threads:
            t.start()
        if not self._ready.wait(30 * SLOW) or not self.port:
            self.p.kill()
            raise AssertionError("the server did not start: %s" % "".join(self.said))

    def _read_log(self):
        for line in self.p.stdout:
            self.lines.append(json.loads(line))

    def _read_said(self):
        for line in self.p.stderr:
            line = line.decode("utf-8", "replace")
            self.said.append(line)
            m = re.search(r"listening at http://(.*):(\d+)$", line)
            if m:
                self.port = int(m.group(2))
                self._ready.set()
        self._ready.set()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.stop()
        else:
            self.p.kill()
            self.p.wait()
            print("# the server said:", repr("".join(self.said)[-2000:]))

    def stop(self, sig=signal.SIGTERM, expect=0, timeout=20):
        """End it; it has to end by itself, and well."""
        if self.p.poll() is None:
            self.p.send_signal(sig)
        try:
            rc = self.p.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            self.p.kill()
            raise AssertionError("the server does not end") from None
        for t in self._threads:
            t.join()
        said = "".join(self.said)
        assert rc == expect, "status %s: %s" % (rc, said[-3000:])
        assert "Sanitizer" not in said and "runtime error" not in said, said[-5000:]

    # ---- requests ----

    def ask(self, method, target, body=None, headers=None, timeout=60):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout * SLOW)
        try:
            return ask_on(c, method, target, body, headers)
        finally:
            c.close()

    def get(self, target, **more):
        return self.ask("GET", target, **more)

    def post(self, target, body, **more):
        return self.ask("POST", target, body, **more)

    def chat(self, words, **members):
        r = self.post("/v1/chat/completions", dict(
            {"model": "tiny", "messages": [{"role": "user", "content": words}],
             "max_tokens": 12, "temperature": 0}, **members))
        assert r.status == 200, r
        return r.json

    def complete(self, prompt, **members):
        r = self.post("/v1/completions", dict(
            {"model": "tiny", "prompt": prompt, "max_tokens": 12, "temperature": 0},
            **members))
        assert r.status == 200, r
        return r.json

    def stream(self, target, body, headers=None):
        """The events of a stream, as they come."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60 * SLOW)
        try:
            c.request("POST", target, json.dumps(dict(body, stream=True)), headers or {})
            r = c.getresponse()
            assert r.status == 200, (r.status, r.read())
            assert r.headers["content-type"].startswith("text/event-stream"), r.headers
            yield from events_of(r)
        finally:
            c.close()

    def socket(self, timeout=30):
        s = socket.create_connection(("127.0.0.1", self.port), timeout * SLOW)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def metric(self, name):
        r = self.get("/metrics")
        assert r.status == 200, r
        return float(re.search(r"^runt_%s (\S+)$" % name, r.raw.decode(), re.M).group(1))

    def until(self, what, seconds=10):
        """Wait until what() is true."""
        end = time.monotonic() + seconds * SLOW
        while not what():
            assert time.monotonic() < end, "it does not come true"
            time.sleep(0.02)

    def idle(self):
        self.until(lambda: self.metric("requests_processing") == 0 and
                   self.metric("requests_deferred") == 0)

    def memory(self):
        """Bytes in memory."""
        with open("/proc/%d/statm" % self.p.pid) as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def logged(self, request_id):
        """The log's line of a request."""
        found = []
        self.until(lambda: found.extend(l for l in list(self.lines)
                                        if l.get("id") == request_id) or found)
        return found[0]


def ask_on(c, method, target, body=None, headers=None):
    """On a connection that is kept."""
    if body is not None and not isinstance(body, (bytes, str)):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    c.request(method, target, body, headers or {})
    r = c.getresponse()
    return Reply(r.status, r.getheaders(), r.read())


def events_of(response):
    """The data of server-sent events; [DONE] is None."""
    done = False
    for line in response:
        line = line.decode("utf-8").rstrip("\r\n")
        if not line or line.startswith(":"):
            continue
        assert line.startswith("data: "), line
        assert not done, "something after [DONE]: " + line
        done = line == "data: [DONE]"
        yield None if done else json.loads(line[6:])


def read_reply(s):
    """A response's status and bytes from a socket, until the server closes it."""
    data = b""
    try:
        while True:
            more = s.recv(65536)
            if not more:
                break
            data += more
    except ConnectionResetError:
        pass
    m = re.match(rb"HTTP/1\.[01] (\d+) ", data)
    return int(m.group(1)) if m else None, data
