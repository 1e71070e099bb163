#!/usr/bin/env python3
"""`runt serve` under abuse: slow, huge, broken and dishonest clients get the right status or
a closed connection, memory stays bounded, and an honest client beside them notices
nothing.  Prints TAP."""
import http.client
import json
import os
import random
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serve_fixture import SLOW, Server, ask_on, main, read_reply
from tap import SANITIZE, case, test

MB = 1 << 20
server = None


class Honest(threading.Thread):
    """Asks the same again and again; every answer has to come, the same and soon."""

    def __init__(self):
        super().__init__()
        self.slowest, self.n, self.failure, self.over = 0, 0, None, threading.Event()
        self.want = server.complete("Once upon a time", max_tokens=8)["choices"]

    def run(self):
        while not self.over.is_set():
            t0 = time.monotonic()
            try:
                got = server.complete("Once upon a time", max_tokens=8)["choices"]
                assert got == self.want, got
            except BaseException as e:
                self.failure = self.failure or e
            self.slowest = max(self.slowest, time.monotonic() - t0)
            self.n += 1
            time.sleep(0.02)


class abuse(case):
    """A case with an honest client beside it, and a bound on what memory it may take."""

    def __init__(self, name, memory=24 * MB, seconds=2):
        super().__init__(name)
        self.memory, self.seconds = memory, seconds

    def __enter__(self):
        server.complete("Once upon a time", max_tokens=8)
        self.before = server.memory()
        self.honest = Honest()
        self.honest.start()
        return super().__enter__()

    def __exit__(self, kind, value, trace):
        self.honest.over.set()
        self.honest.join()
        try:
            if kind is None:
                if self.honest.failure:
                    raise self.honest.failure
                assert self.honest.n, "the honest client did not get on"
                assert self.honest.slowest < self.seconds * SLOW, self.honest.slowest
                grown = server.memory() - self.before
                assert grown < self.memory or SANITIZE, "%d bytes more" % grown
                assert server.get("/health").status == 200
        except BaseException as e:
            return super().__exit__(type(e), e, e.__traceback__)
        return super().__exit__(kind, value, trace)


def raw(data, half_close=False, pause=0, timeout=30):
    """Status and bytes that come back; None for a connection that is closed without."""
    s = server.socket(timeout)
    try:
        for part in data if isinstance(data, list) else [data]:
            s.sendall(part)
            time.sleep(pause)
        if half_close:
            s.shutdown(socket.SHUT_WR)
        return read_reply(s)
    except (BrokenPipeError, ConnectionResetError):
        return read_reply(s)
    finally:
        s.close()


def post(body, target="/v1/completions", more="", length=None):
    return ("POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %s\r\n"
            "Connection: close\r\n\r\n" % (
                target, more, len(body) if length is None else length)).encode() + body


@test
def start():
    global server
    server = Server("--read-timeout", "2", "--idle-timeout", "3", "--max-connections", "400",
                    "--parallel", "8")
    for _ in range(2):  # every sequence's cache is in memory before any is counted
        server.complete([[i] * 240 for i in range(1, 9)], n=2, logprobs=5)


def busy():
    """Answers that are made, beside the honest client's."""
    return server.metric("requests_processing") + server.metric("requests_deferred") > 1


# ---- slow ----

@test
def slow_headers():
    with abuse("headers that come byte by byte"):
        def trickle(data):
            s = server.socket()
            t0 = time.monotonic()
            got = b""
            try:
                for byte in data:
                    s.sendall(bytes([byte]))
                    s.settimeout(0.1)
                    try:
                        got = s.recv(4096)
                        break
                    except TimeoutError:
                        pass
                s.settimeout(30)
                got = got or s.recv(4096)
            except (BrokenPipeError, ConnectionResetError):
                pass
            s.close()
            return time.monotonic() - t0, got

        for data in (b"GET /health HTTP/1.1\r\nX: " + b"a" * 1000, b"G" * 1000,
                     b"GET /" + b"a" * 1000):
            seconds, got = trickle(data)
            assert 1.5 < seconds < 4 * SLOW, (seconds, data[:10])
            assert got.startswith(b"HTTP/1.1 408 "), (got, data[:10])
            assert json.loads(got.split(b"\r\n\r\n")[1])["error"]["code"] == "timeout", got


@test
def slow_bodies():
    with abuse("bodies that come byte by byte"):
        head, body = post(b'{"prompt": "x"}' + b" " * 1000).split(b"\r\n\r\n")
        s = server.socket()
        s.sendall(head + b"\r\n\r\n")
        t0 = time.monotonic()
        try:
            for byte in body:
                s.sendall(bytes([byte]))
                time.sleep(0.1)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert 1.5 < time.monotonic() - t0 < 5 * SLOW
        s.close()
    with abuse("a body that stops"):
        status, data = raw(post(b'{"prompt"', length=100))
        assert status == 408 and b"x-request-id" in data, data


@test
def many_slow_connections():
    with abuse("390 connections that say nothing, or half of a request"):
        socks = []
        for i in range(390):
            s = server.socket()
            s.sendall((b"", b"GET / HT", post(b"{", length=50))[i % 3])
            socks.append(s)
        time.sleep(1)
        assert server.get("/health").status == 200
        time.sleep(2.5)
        assert server.metric("connections") < 20, server.metric("connections")
        for s in socks:
            s.close()
    with abuse("more connections than there is room for"):
        # the oldest that are not asking for anything go, whoever comes is heard
        socks = []
        for i in range(1000):
            try:
                s = socket.create_connection(("127.0.0.1", server.port), 0.05)
                s.sendall(b"GET /health HTTP/1.1\r\nX: ")
                socks.append(s)
            except OSError:
                time.sleep(0.05)
        assert len(socks) > 390, len(socks)
        for s in socks:
            s.close()


@test
def clients_that_do_not_read():
    with abuse("answers that nobody reads", seconds=30):
        socks = []
        for i in range(30):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            s.connect(("127.0.0.1", server.port))
            body = json.dumps({"prompt": "a", "max_tokens": 250, "n": 2, "stream": True,
                               "logprobs": 20, "ignore_eos": True}).encode()
            s.sendall(post(body))
            socks.append(s)
        server.until(lambda: not busy(), 60)  # they do not hold up the engine
        server.until(lambda: server.metric("connections") < 5, 20)
        for s in socks:
            s.close()


# ---- huge ----

@test
def huge_bodies():
    chunk = b" " * MB
    with abuse("100 MB with their length"):
        c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60 * SLOW)
        c.putrequest("POST", "/v1/completions")
        c.putheader("Content-Length", str(100 * MB))
        c.endheaders()
        for _ in range(100):
            c.send(chunk)
        r = c.getresponse()
        assert r.status == 413, r.status
        assert json.loads(r.read())["error"]["message"], "no message"
        c.close()
    with abuse("100 MB in chunks"):
        c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60 * SLOW)
        c.request("POST", "/v1/completions", iter([chunk] * 100), encode_chunked=True,
                  headers={"Transfer-Encoding": "chunked"})
        r = c.getresponse()
        assert r.status == 413, r.status
        c.close()
    with abuse("whoever asks first is told at once"):
        s = server.socket()
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                  b"Content-Length: 104857600\r\n\r\n")
        got = s.recv(4096)
        assert got.startswith(b"HTTP/1.1 413 "), got
        s.close()
        s = server.socket()
        body = b'{"prompt": "x", "max_tokens": 1}'
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(body))
        got = s.recv(4096)
        assert got.startswith(b"HTTP/1.1 100 "), got
        s.sendall(body)
        assert s.recv(4096).startswith(b"HTTP/1.1 200 ")
        s.close()
    with abuse("a length of a terabyte"):
        for length in (1 << 40, (1 << 63) - 1):
            status, data = raw(post(b"", length=length))
            assert status == 413, data
    with abuse("many large bodies at once", memory=120 * MB):
        # 1 MB each is allowed; together they get no more than their share
        socks = []
        for i in range(150):
            s = server.socket()
            s.sendall(post(b" " * 999000, length=1000000))
            socks.append(s)
        server.until(lambda: server.metric("connections") > 100)
        seen = set()
        for s in socks:
            s.sendall(b" " * 1000)
            seen.add(read_reply(s)[0])
            s.close()
        assert seen <= {400, 503, 408} and 503 in seen, seen


@test
def huge_headers():
    with abuse("headers without end"):
        for head in (b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 300000,
                     b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 50000,
                     b"GET /" + b"a" * 300000):
            status, data = raw(head)
            assert status in (431, 414, 400, 413, None), data[:200]
            assert not data or b"200" not in data[:12], data[:200]


# ---- broken ----

@test
def broken_requests():
    with abuse("what is not HTTP"):
        for data in (b"\0" * 100, b"\xff" * 100, b"hello\r\n\r\n", b"\r\n\r\n\r\n\r\n",
                     b"GET\r\n\r\n", b"GET /health\r\n\r\n", b"GET /health HTTP/9.9\r\n\r\n",
                     b"GET /health HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03",
                     b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
                     b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
                     b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: "
                     b"99999999999999999999999\r\n\r\n",
                     b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
                     b"chunked\r\n\r\nzz\r\nxx\r\n",
                     b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
                     b"chunked\r\n\r\nffffffffffffffffff\r\nxx\r\n",
                     b"GET /%00%ff%fe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                     b"GET /health HTTP/1.1\r\nHost: x\r\n: no name\r\nConnection: close"
                     b"\r\n\r\n"):
            status, seen = raw(data, half_close=True)
            assert status is None or 400 <= status < 600 or b"no name" in data, (data, seen)
    with abuse("requests that break off"):
        whole = post(b'{"prompt": "a", "max_tokens": 1}')
        for n in range(0, len(whole), 7):
            status, seen = raw(whole[:n], half_close=True)
            assert status in (None, 408, 400), (n, seen)


@test
def broken_bodies():
    depth = 100000
    with abuse("JSON that is none"):
        for body in (b"", b"{", b"nul", b'{"prompt": "a"', b'{"prompt": "\xff\xfe"}',
                     b'{"prompt": "\xed\xa0\x80"}', b'{"prompt": "\\ud800"}',
                     b'{"prompt": "\xf4\x90\x80\x80"}', b"[" * depth, b'{"a":' * depth,
                     b"[" * depth + b"]" * depth, b'{"prompt":' + b"[[" * 30 + b"]]" * 30,
                     b'{"prompt": "a", "max_tokens": -1}',
                     b'{"prompt": "a", "max_tokens": 1e400}',
                     b'{"prompt": "a", "temperature": -1e308}',
                     b'{"prompt": "a", "n": 123456789012345678901234567890}',
                     b'{"prompt": [1e10]}', b'{"prompt": [-9223372036854775808]}',
                     b'{"prompt": ' + b"9" * 100000 + b"}", b"\xef\xbb\xbf{}",
                     b'{"prompt": "' + b"\\u0000" * 60000 + b'"}',
                     b'{"prompt": "' + b"a" * 900000 + b'"}',
                     b'{"stop": [' + b'"a",' * 200000 + b'"a"], "prompt": "x"}',
                     b'{"prompt": [' + b"1," * 400000 + b"1]}",
                     b'{"prompt": [' + b'"",' * 300000 + b'""]}'):
            status, data = raw(post(body))
            assert status == 400, (body[:40], data[:300])
            error = json.loads(data.split(b"\r\n\r\n", 1)[1])["error"]
            assert error["message"] and "type" in error, data


@test
def texts_that_are_odd():
    with abuse("texts that are odd, but texts"):
        for text in ("\0", "a\0b", "\u2028", "\U0001f600" * 20, "\x7f\x1b[31m", "\ufffd",
                     "<|endoftext|>", "User: x\nBot: y", "e\u0301" * 30, "\\", "\"\n\t\r"):
            for target, body in (("/v1/completions", {"prompt": text, "echo": True}),
                                 ("/v1/chat/completions", {"messages": [
                                     {"role": "user", "content": text}]})):
                r = server.post(target, dict(body, max_tokens=3))
                assert r.status == 200, (text, r)
                if "echo" in body:
                    assert r.json["choices"][0]["text"].startswith(text), (text, r)


@test
def random_bytes():
    rng = random.Random(5)
    seed = post(b'{"model": "tiny", "prompt": "Once", "max_tokens": 2, "stream": true, '
                b'"stop": ["a"], "logprobs": 2, "n": 2, "temperature": 0.5}')
    with abuse("a request with bytes changed"):
        for i in range(150):
            data = bytearray(seed)
            for _ in range(rng.randrange(1, 6)):
                at = rng.randrange(len(data))
                data[at:at + rng.randrange(3)] = bytes(
                    rng.randrange(256) for _ in range(rng.randrange(3)))
            s = server.socket()
            s.sendall(bytes(data))
            s.shutdown(socket.SHUT_WR)
            read_reply(s)
            s.close()
        server.until(lambda: not busy(), 30)


@test
def wrong_keys():
    with Server("--api-key", "right-key", "--read-timeout", "2") as s:
        for key in ("wrong", "right-ke", "right-key2", "\xff" * 50, "x" * 10000):
            r = s.post("/v1/completions", b" " * (3 * MB),
                       headers={"Authorization": b"Bearer " + key.encode("latin-1")})
            assert r.status == 401, r
        assert s.memory() < 200 * MB or SANITIZE


@test
def clients_that_come_and_go():
    with abuse("600 connections that are closed at once or after a request"):
        for i in range(600):
            s = server.socket()
            if i % 3:
                s.sendall(post(b'{"prompt": "a", "max_tokens": 50}'))
            if i % 2:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
        server.until(lambda: not busy(), 30)


@test
def stop():
    server.stop()


if __name__ == "__main__":
    main()
