#!/usr/bin/env python3
"""`runt serve` with many clients: equal answers in any company, the prefix cache, the
queue, clients that leave, time-outs, the end.  Prints TAP."""
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serve_fixture import SLOW, Server, ask_on, events_of, main, read_reply, slow
from tap import ROOT, case, test

LONG = {"prompt": [5, 6, 7], "max_tokens": 250, "temperature": 0, "ignore_eos": True}


def prompts():
    with open(os.path.join(ROOT, "models", "prompts.txt"), encoding="utf-8") as f:
        return [line.strip()[:120] for line in f if line.strip()]


def together(functions):
    """Run all at once; the first failure is raised."""
    failures = []

    def run(f):
        try:
            f()
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=run, args=(f,)) for f in functions]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failures:
        raise failures[0]


# ---- company ----

@test
def answers_are_the_same_in_any_company():
    bodies = [dict(prompt=p, max_tokens=20 + i % 30, temperature=0)
              for i, p in enumerate(prompts()[:24])]
    bodies += [dict(prompt=p, max_tokens=20, seed=i, temperature=1.2)
               for i, p in enumerate(prompts()[:8])]
    with Server() as s:
        alone = [s.complete(**b)["choices"][0] for b in bodies]
    with Server("--parallel", "7", "--queue", "200") as s:  # no cache of the first ones
        found = [None] * len(bodies)

        def ask(i):
            if i % 2:
                found[i] = s.complete(**bodies[i])["choices"][0]["text"]
            else:
                found[i] = "".join(e["choices"][0]["text"] for e in
                                   s.stream("/v1/completions", bodies[i]) if e)

        for _ in range(2):  # the second time from the cache
            together([lambda i=i: ask(i) for i in range(len(bodies))])
            for i, a in enumerate(alone):
                assert found[i] == a["text"], (bodies[i], found[i], a["text"])
        s.idle()


@test
def requests_join_running_ones():
    with Server(model=slow()) as s:
        running_one = s.stream("/v1/completions", dict(LONG, max_tokens=1000))
        next(running_one)
        t0 = time.monotonic()
        s.complete("Once", max_tokens=3)
        quick = time.monotonic() - t0
        assert s.metric("requests_processing") == 1, "the long one is over"
        running_one.close()
        s.idle()
        assert quick < 5 * SLOW, quick


@test
def a_long_prompt_does_not_stall_the_others():
    with Server(model=slow()) as s:
        gaps, stop = [], threading.Event()

        def stream():
            last = None
            for e in s.stream("/v1/completions", dict(LONG, max_tokens=900)):
                now = time.monotonic()
                if last:
                    gaps.append(now - last)
                last = now
                if stop.is_set():
                    return

        t = threading.Thread(target=stream)
        t.start()
        s.until(lambda: len(gaps) > 5)
        before = len(gaps)
        t0 = time.monotonic()
        s.complete([9] * 1000, max_tokens=1)
        whole = time.monotonic() - t0
        during = gaps[before:]
        stop.set()
        t.join()
        assert len(during) >= 5, (len(during), whole)
        assert max(during) < max(whole / 2, 0.5), (max(during), whole)


# ---- prefix cache ----

def cached(a):
    return a["usage"]["prompt_tokens_details"]["cached_tokens"]


@test
def prompts_begin_where_others_did():
    with Server() as s:
        base = list(range(100, 200))
        a = s.complete(base)
        assert cached(a) == 0, a["usage"]
        a = s.complete(base)
        assert cached(a) == 99, a["usage"]  # the last one's logits are wanted
        a = s.complete(base + [7, 8, 9])
        assert cached(a) == 100, a["usage"]
        a = s.complete(base[:50] + [1, 2, 3])
        assert cached(a) == 50, a["usage"]
        a = s.complete(base + [7, 8, 9])
        assert cached(a) == 102, "the shorter one took its place: %s" % a["usage"]
        fresh = s.complete([3] + base)
        assert cached(fresh) == 0, fresh["usage"]
        assert s.metric("prompt_cached_tokens_total") == 99 + 100 + 50 + 102


@test
def conversations_are_continued_from_the_cache():
    with Server() as s:
        messages = [{"role": "user", "content": "Hello there, how do you do today?"}]
        a = s.post("/v1/chat/completions", {"messages": messages, "max_tokens": 20,
                                            "temperature": 0}).json
        n = a["usage"]["total_tokens"]
        messages += [a["choices"][0]["message"], {"role": "user", "content": "And you?"}]
        b = s.post("/v1/chat/completions", {"messages": messages, "max_tokens": 4,
                                            "temperature": 0}).json
        assert cached(b) >= a["usage"]["prompt_tokens"], (a["usage"], b["usage"])
        assert cached(b) <= n, (a["usage"], b["usage"])


@test
def choices_share_their_prompt():
    with Server(model=slow()) as s:
        before = s.metric("prompt_tokens_total")
        a = s.complete(list(range(600)), n=6, max_tokens=2, temperature=1, seed=3)
        assert len({c["text"] for c in a["choices"]}) > 1, a
        assert s.metric("prompt_tokens_total") - before < 700, "it was computed many times"
        # so do requests that come together
        before = s.metric("prompt_tokens_total")
        together([lambda: s.complete(list(range(1000, 1600)), max_tokens=2)] * 4)
        assert s.metric("prompt_tokens_total") - before < 700, "it was computed many times"


@test
def cached_and_fresh_answers_are_equal():
    with Server("--parallel", "2") as s, Server("--parallel", "1") as fresh:
        for i in range(12):
            p = list(range(40, 40 + 10 * (i % 5) + 3)) + [i % 3 + 1]
            a, b = s.complete(p), fresh.complete([4000 - i])
            b = fresh.complete(p)
            assert a["choices"] == b["choices"], (i, a, b)


# ---- the queue ----

@test
def a_full_queue_is_429():
    with Server("--parallel", "1", "--queue", "1", model=slow()) as s:
        streams = [s.stream("/v1/completions", dict(LONG, max_tokens=900))]
        next(streams[0])
        waiting = threading.Thread(target=lambda: s.complete("x", max_tokens=1))
        waiting.start()
        s.until(lambda: s.metric("requests_deferred") == 1)
        r = s.post("/v1/completions", {"prompt": "a", "max_tokens": 1})
        assert r.status == 429 and r.error["code"] == "queue_full", r
        assert 1 <= int(r.headers["retry-after"]) <= 60, r.headers
        assert s.metric("requests_refused_total") == 1
        r = s.post("/v1/completions", {"prompt": "a", "n": 3})
        assert r.status == 400 and r.error["param"] == "n", r  # that can never be
        assert s.get("/health").status == 200
        streams[0].close()
        waiting.join()
        assert s.post("/v1/completions", {"prompt": "a", "max_tokens": 1}).status == 200


@test
def order_is_kept_in_the_queue():
    with Server("--parallel", "1", "--queue", "20", model=slow()) as s:
        first = s.stream("/v1/completions", dict(LONG, max_tokens=400))
        next(first)
        order, threads = [], []
        for i in range(5):
            def ask(i=i):
                s.complete([i], max_tokens=2)
                order.append(i)
            threads.append(threading.Thread(target=ask))
            threads[-1].start()
            s.until(lambda: s.metric("requests_deferred") == i + 1)
        first.close()
        for t in threads:
            t.join()
        assert order == list(range(5)), order


# ---- clients that leave ----

def send_request(s, target, body, version="1.1", more=""):
    raw = json.dumps(body).encode()
    s.sendall(("POST %s HTTP/%s\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n" % (
        target, version, more, len(raw))).encode() + raw)


def running(s):
    return s.metric("requests_processing"), s.metric("requests_deferred")


@test
def who_leaves_is_not_answered():
    with Server("--parallel", "1", model=slow()) as s:
        for stream in (False, True):
            for how in ("close", "reset"):
                with case("%s of a %s" % (how, "stream" if stream else "whole answer")):
                    # one that runs, and one that waits
                    a, b = s.socket(), s.socket()
                    send_request(a, "/v1/completions", dict(LONG, stream=stream))
                    s.until(lambda: running(s) == (1, 0))
                    send_request(b, "/v1/completions", dict(LONG, stream=stream))
                    s.until(lambda: running(s) == (1, 1))
                    t0 = time.monotonic()
                    for c in (b, a):
                        if how == "reset":
                            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                         b"\1\0\0\0\0\0\0\0")
                        c.close()
                    s.until(lambda: running(s) == (0, 0))
                    assert time.monotonic() - t0 < 3 * SLOW
        gone = [l["status"] for l in s.lines if l.get("path") == "/v1/completions"]
        assert gone == [499] * 8, gone


@test
def half_closed_sockets_are_answered():
    with Server("--parallel", "1", model=slow()) as s:
        want = s.complete([5, 6, 7], max_tokens=60, ignore_eos=True)["choices"][0]["text"]
        for stream in (False, True):
            a = s.socket()
            send_request(a, "/v1/completions", dict(LONG, max_tokens=60, stream=stream),
                         more="Connection: close\r\n")
            a.shutdown(socket.SHUT_WR)
            c = http.client.HTTPResponse(a, method="POST")
            c.begin()
            assert c.status == 200, c.status
            if stream:
                text = "".join(e["choices"][0]["text"] for e in events_of(c) if e)
            else:
                text = json.loads(c.read())["choices"][0]["text"]
            a.close()
            assert text == want, (text, want)


@test
def streams_for_old_clients():
    with Server() as s:
        a = s.socket()
        send_request(a, "/v1/completions", dict(LONG, max_tokens=5, stream=True), "1.0")
        status, data = read_reply(a)
        assert status == 200 and data.endswith(b"data: [DONE]\n\n"), data
        assert b"chunked" not in data.lower(), data


@test
def connections_are_kept():
    with Server() as s:
        c = http.client.HTTPConnection("127.0.0.1", s.port)
        for i in range(5):
            r = ask_on(c, "POST", "/v1/completions", {"prompt": "a", "max_tokens": 2})
            assert r.status == 200 and c.sock, r
            r = ask_on(c, "POST", "/v1/completions", {"prompt": 7})
            assert r.status == 400, r
            r = ask_on(c, "GET", "/nothing")
            assert r.status == 404, r
        port = c.sock.getsockname()
        r = ask_on(c, "GET", "/health")
        assert c.sock.getsockname() == port, "another connection"
        c.close()
        # several requests in one packet
        a = s.socket()
        a.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 3 +
                  b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        status, data = read_reply(a)
        assert data.count(b"HTTP/1.1 200") == 3 and data.count(b"HTTP/1.1 404") == 1, data


# ---- time-outs ----

@test
def answers_that_take_too_long():
    with Server("--request-timeout", "1", "--parallel", "1", model=slow()) as s:
        t0 = time.monotonic()
        r = s.post("/v1/completions", dict(LONG, max_tokens=1000))
        assert r.status == 504 and r.error["code"] == "timeout", r
        assert r.headers["x-should-retry"] == "false", r.headers
        assert 0.9 < time.monotonic() - t0 < 5 * SLOW
        events = list(s.stream("/v1/completions", dict(LONG, max_tokens=1000)))
        assert events[-1]["error"]["code"] == "timeout", events[-1]
        assert events[0]["choices"][0]["text"] is not None, events[0]
        # while it waits
        running_one = s.stream("/v1/completions", dict(LONG, max_tokens=1000))
        next(running_one)
        time.sleep(0.5)
        r = s.post("/v1/completions", dict(LONG, max_tokens=1000))
        assert r.status == 504, r
        running_one.close()
        s.idle()


@test
def connections_without_requests_are_closed():
    with Server("--idle-timeout", "1", "--read-timeout", "2") as s:
        a = s.socket()
        a.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in a.recv(4096)
        t0 = time.monotonic()
        assert a.recv(4096) == b"", "more than an answer"
        assert 0.8 < time.monotonic() - t0 < 4 * SLOW
        # an answer that takes longer than that is not an idle connection
        a = s.complete([5], max_tokens=250)
        assert a["choices"], a


# ---- the end ----

@test
def what_runs_is_finished_at_the_end():
    s = Server("--parallel", "1", model=slow())
    with s:
        events = s.stream("/v1/completions", dict(LONG, max_tokens=60))
        next(events)
        whole = []
        waiting = threading.Thread(target=lambda: whole.append(s.complete("Once")))
        waiting.start()
        s.until(lambda: running(s) == (1, 1))
        kept = http.client.HTTPConnection("127.0.0.1", s.port)
        assert ask_on(kept, "GET", "/health").status == 200
        s.p.send_signal(signal.SIGTERM)
        s.until(lambda: any(l["event"] == "draining" for l in s.lines))
        try:
            s.socket().close()
            raise AssertionError("it takes new connections")
        except ConnectionRefusedError:
            pass
        rest = list(events)
        assert rest[-1] is None and rest[-2]["choices"][0]["finish_reason"], rest[-2:]
        waiting.join()
        assert whole[0]["choices"][0]["finish_reason"], whole
        assert s.p.wait(5 * SLOW) == 0


@test
def what_does_not_end_in_time_is_cut():
    with Server("--drain-timeout", "0.5", "--parallel", "1", model=slow()) as s:
        events = s.stream("/v1/completions", dict(LONG, max_tokens=1000))
        next(events)
        replies = []
        waiting = threading.Thread(
            target=lambda: replies.append(s.post("/v1/completions", LONG)))
        waiting.start()
        s.until(lambda: running(s) == (1, 1))
        t0 = time.monotonic()
        s.p.send_signal(signal.SIGTERM)
        rest = list(events)
        waiting.join()
        assert rest[-1]["error"]["code"] == "shutting_down", rest[-1]
        assert replies[0].status == 503 and replies[0].error["code"] == "shutting_down"
        s.p.wait()
        assert time.monotonic() - t0 < 5 * SLOW


@test
def a_second_signal_ends_at_once():
    with Server(model=slow()) as s:
        events = s.stream("/v1/completions", dict(LONG, max_tokens=1000))
        next(events)
        s.p.send_signal(signal.SIGINT)
        s.until(lambda: any(l["event"] == "draining" for l in s.lines))
        t0 = time.monotonic()
        s.stop(signal.SIGINT)
        assert time.monotonic() - t0 < 3 * SLOW
        try:
            list(events)
        except http.client.HTTPException:
            pass


if __name__ == "__main__":
    main()
