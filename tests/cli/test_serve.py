#!/usr/bin/env python3
"""`runt serve`: each endpoint's answers and errors, in the shapes of the OpenAI API.
Prints TAP."""
import base64
import json
import math
import os
import re
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serve_fixture import Server, TINY, main, tiny
from tap import case, fails, misuse, path, runt, test, write

server = None


@test
def start():
    global server
    server = Server("--api-key", "secret", "--cors", "https://page.example",
                    env={"RUNT_API_KEY": "other"})
    server.key = {"Authorization": "Bearer secret"}
    ask = server.ask
    server.ask = lambda m, t, body=None, headers=None, **more: ask(
        m, t, body, dict(server.key, **(headers or {})), **more)
    stream = server.stream
    server.stream = lambda t, body: stream(t, body, server.key)


# ---- what needs no model ----

@test
def health():
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        r = server.get("/health", headers=headers)
        assert r.status == 200 and r.json == {"status": "ok"}, r
    r = server.ask("HEAD", "/health")
    assert r.status == 200 and r.raw == b"", r


@test
def models():
    r = server.get("/v1/models", headers={"Authorization": ""})
    assert r.status == 200, r
    assert set(r.json) == {"object", "data"} and r.json["object"] == "list", r
    m, = r.json["data"]
    assert list(m) == ["id", "object", "created", "owned_by", "runt"], m
    assert m["id"] == "tiny" and m["object"] == "model", m
    assert abs(m["created"] - time.time()) < 3600, m
    more = m["runt"]
    assert set(more) == {"file_bytes", "bits_per_weight", "n_weights", "n_ctx",
                         "template", "tokens_per_second", "sampler"}, more
    assert more["sampler"]["top_k"] == 40 and more["sampler"]["temperature"] == 0.8, more
    assert more["file_bytes"] == os.path.getsize(tiny()), more
    assert abs(more["bits_per_weight"] - 8 * more["file_bytes"] / more["n_weights"]) < 1e-2
    assert more["n_ctx"] == 256 and more["template"] == "turns", more
    one = server.get("/v1/models/tiny")
    assert one.status == 200 and one.json["id"] == "tiny", one
    r = server.get("/v1/models/absent")
    assert r.status == 404 and r.error["code"] == "model_not_found", r
    assert "absent" in r.error["message"], r


@test
def speed_is_told_after_an_answer():
    server.chat("hello", max_tokens=20)
    rate = server.get("/v1/models/tiny").json["runt"]["tokens_per_second"]
    assert rate > 0, rate


@test
def page():
    r = server.get("/", headers={"Authorization": ""})
    assert r.status == 200 and r.headers["content-type"] == "text/html; charset=utf-8", r
    policy = r.headers["content-security-policy"]
    for part in ("default-src 'none'", "style-src 'unsafe-inline'",
                 "script-src 'unsafe-inline'", "connect-src 'self'", "img-src data:"):
        assert part in policy, policy
    text = r.raw.decode("utf-8")
    assert "<html" in text and "</html>" in text, text[:200]
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", text), "it loads something"


@test
def unknown_paths_and_methods():
    for target in ("/x", "/v1", "/v1/chat", "/v1/models/", "/v2/models", "//", "/health/"):
        r = server.get(target)
        assert r.status == 404 and r.error["type"] == "invalid_request_error", (target, r)
    for method, target, allow in (("POST", "/health", "GET"), ("PUT", "/v1/models", "GET"),
                                  ("GET", "/v1/chat/completions", "POST"),
                                  ("DELETE", "/v1/models/tiny", "GET"),
                                  ("GET", "/v1/embeddings", "POST"), ("POST", "/", "GET")):
        r = server.ask(method, target)
        assert r.status == 405 and allow in r.headers["allow"], (method, target, r)
        assert method not in r.headers["allow"], r
        r.error


@test
def request_ids():
    r = server.get("/health")
    assert re.fullmatch(r"req_[0-9a-f]{24}", r.headers["x-request-id"]), r.headers
    assert server.get("/x").headers["x-request-id"] != r.headers["x-request-id"]
    r = server.get("/x", headers={"X-Request-Id": "proxy-17.a_B"})
    assert r.status == 404 and r.headers["x-request-id"] == "proxy-17.a_B", r
    for bad in ("a b", "x" * 65, "\"", "a;b", "é".encode("latin-1")):
        r = server.get("/health", headers={"X-Request-Id": bad})
        assert r.headers["x-request-id"].startswith("req_"), (bad, r)
    assert server.logged("proxy-17.a_B")["status"] == 404


# ---- keys ----

@test
def keys():
    body = {"prompt": "a", "max_tokens": 1}
    for key, status in (("Bearer secret", 200), ("bearer other", 200), ("Bearer  secret ", 200),
                        ("Bearer wrong", 401), ("Bearer secre", 401),
                        ("Bearer secrets", 401), ("Bearer secretsecret", 401),
                        ("Bearer ", 401), ("Bearer", 401), ("secret", 401), ("", 401),
                        ("Basic secret", 401), ("Bearer SECRET", 401),
                        ("Bearer secret other", 401), ("Bearer " + "x" * 5000, 401)):
        r = server.post("/v1/completions", body, headers={"Authorization": key})
        assert r.status == status, (key, r)
        if status == 401:
            assert r.error["code"] == "invalid_api_key", r
            assert r.headers["www-authenticate"] == "Bearer", r
            assert "secret" not in r.error["message"], r
    for target in ("/v1/chat/completions", "/v1/embeddings"):
        assert server.post(target, {}, headers={"Authorization": ""}).status == 401
    assert server.get("/metrics", headers={"Authorization": ""}).status == 401
    assert server.get("/metrics").status == 200


@test
def keys_from_a_file():
    keys = write(path("keys.txt"), "# ours\n\n  first \nsecond\r\n")
    with Server("--api-key-file", keys) as s:
        for key, status in (("first", 200), ("second", 200), ("# ours", 401), ("", 401)):
            r = s.post("/v1/completions", {"prompt": "a", "max_tokens": 1},
                       headers={"Authorization": "Bearer " + key})
            assert r.status == status, (key, r)
    empty = write(path("no-keys.txt"), "# nothing\n")
    fails("serve", "-m", tiny(), "--api-key-file", empty, words=["no API key"])
    fails("serve", "-m", tiny(), "--api-key-file", path("absent"), words=["absent"])
    misuse("serve", "-m", tiny(), "--api-key", "", words=["empty"])


# ---- pages of other origins ----

@test
def cors():
    page = {"Origin": "https://page.example"}
    r = server.get("/v1/models", headers=page)
    assert r.headers["access-control-allow-origin"] == "https://page.example", r.headers
    assert r.headers["vary"] == "Origin", r.headers
    assert "x-request-id" in r.headers["access-control-expose-headers"], r.headers
    r = server.ask("OPTIONS", "/v1/chat/completions", headers=dict(
        page, Authorization="", **{"Access-Control-Request-Method": "POST",
                                   "Access-Control-Request-Headers": "authorization,x-y"}))
    assert r.status == 204 and r.raw == b"", r
    assert r.headers["access-control-allow-headers"] == "authorization,x-y", r.headers
    assert "POST" in r.headers["access-control-allow-methods"], r.headers
    r = server.post("/v1/completions", {}, headers=dict(page, Authorization=""))
    assert r.status == 401 and "access-control-allow-origin" in r.headers, r
    for origin in ("https://evil.example", "https://page.example.evil.example", "null"):
        r = server.get("/v1/models", headers={"Origin": origin})
        assert r.status == 200 and "access-control-allow-origin" not in r.headers, r
        r = server.ask("OPTIONS", "/v1/models", headers={"Origin": origin})
        assert r.status == 403 and "access-control-allow-origin" not in r.headers, r
    r = server.ask("OPTIONS", "/v1/models")
    assert r.status == 204 and "GET" in r.headers["allow"], r
    with Server("--cors", "*") as s:
        r = s.get("/health", headers={"Origin": "https://any.example"})
        assert r.headers["access-control-allow-origin"] == "*", r.headers
    with Server() as s:
        r = s.get("/health", headers={"Origin": "https://any.example"})
        assert "access-control-allow-origin" not in r.headers, r.headers


# ---- chats ----

def check_usage(u, embedding=False):
    want = {"prompt_tokens", "total_tokens", "runt"}
    want |= set() if embedding else {"completion_tokens", "prompt_tokens_details"}
    assert set(u) == want, u
    assert u["total_tokens"] == u["prompt_tokens"] + u.get("completion_tokens", 0), u
    assert set(u["runt"]) == {"prompt_seconds", "completion_seconds"}, u
    assert all(x >= 0 for x in u["runt"].values()), u


@test
def chat():
    a = server.chat("Hello there")
    assert list(a) == ["id", "object", "created", "model", "system_fingerprint", "choices",
                       "usage"], a
    assert a["id"].startswith("chatcmpl-") and a["object"] == "chat.completion", a
    assert a["model"] == "tiny" and abs(a["created"] - time.time()) < 3600, a
    c, = a["choices"]
    assert set(c) == {"index", "message", "logprobs", "finish_reason"}, c
    assert set(c["message"]) == {"role", "content", "refusal"}, c
    assert c["message"]["role"] == "assistant" and c["message"]["content"], c
    assert c["message"]["refusal"] is None and c["logprobs"] is None, c
    assert c["finish_reason"] == "length", c
    check_usage(a["usage"])
    assert a["usage"]["completion_tokens"] == 12, a


@test
def contents_may_come_in_parts():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    a = server.post("/v1/chat/completions", {
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": parts},
                     {"role": "assistant", "content": None},
                     {"role": "developer", "content": "D"},
                     {"role": "user", "content": "three"}],
        "temperature": 0, "max_tokens": 3})
    assert a.status == 200, a
    whole = server.chat("one\ntwo")["choices"]
    assert server.chat(parts)["choices"] == whole


@test
def messages_are_checked():
    user = {"role": "user", "content": "x"}
    for messages in (None, [], {}, "x", [1], [None], [{}], [{"role": "user"}],
                     [{"content": "x"}], [{"role": "robot", "content": "x"}],
                     [{"role": "tool", "content": "x"}], [{"role": 1, "content": "x"}],
                     [{"role": "user", "content": None}], [{"role": "user", "content": 3}],
                     [user, {"role": "user", "content": [{"type": "image_url"}]}],
                     [user, {"role": "user", "content": ["x"]}],
                     [user, {"role": "user", "content": [{"type": "text"}]}]):
        r = server.post("/v1/chat/completions", {"messages": messages})
        assert r.status == 400 and r.error["param"] == "messages", (messages, r)


def text_of(events, i=0):
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in events
                   if e and e["choices"] and e["choices"][0]["index"] == i)


@test
def chat_streamed():
    body = {"messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 12,
            "temperature": 0, "stream_options": {"include_usage": True}}
    events = list(server.stream("/v1/chat/completions", body))
    assert events[-1] is None, "no [DONE]"
    *pieces, usage, done = events
    for e in pieces + [usage]:
        assert list(e) == ["id", "object", "created", "model", "system_fingerprint",
                           "choices", "usage"], e
        assert e["object"] == "chat.completion.chunk" and e["id"] == pieces[0]["id"], e
    assert pieces[0]["choices"][0]["delta"]["role"] == "assistant", pieces[0]
    assert all("role" not in e["choices"][0]["delta"] for e in pieces[1:]), pieces
    assert all(e["usage"] is None for e in pieces)
    assert all(e["choices"][0]["finish_reason"] is None for e in pieces[:-1]), pieces
    last = pieces[-1]["choices"][0]
    assert last["delta"] == {} and last["finish_reason"] == "length", last
    assert usage["choices"] == [], usage
    check_usage(usage["usage"])
    assert text_of(events) == server.chat("Hello there")["choices"][0]["message"]["content"]
    del body["stream_options"]
    events = list(server.stream("/v1/chat/completions", body))
    assert events[-1] is None and all("usage" not in e for e in events[:-1]), events
    assert all(len(e["choices"]) == 1 for e in events[:-1]), events


@test
def several_choices():
    a = server.chat("Tell me", n=3, temperature=1.5, seed=7, max_tokens=10)
    texts = [c["message"]["content"] for c in a["choices"]]
    assert [c["index"] for c in a["choices"]] == [0, 1, 2], a
    assert len(set(texts)) == 3, texts
    assert a["usage"]["completion_tokens"] == 30, a["usage"]
    again = server.chat("Tell me", n=3, temperature=1.5, seed=7, max_tokens=10)
    assert [c["message"]["content"] for c in again["choices"]] == texts, again
    body = {"messages": [{"role": "user", "content": "Tell me"}], "n": 3, "seed": 7,
            "temperature": 1.5, "max_tokens": 10}
    events = list(server.stream("/v1/chat/completions", body))
    assert [text_of(events, i) for i in range(3)] == texts, events
    ends = [e["choices"][0]["index"] for e in events[:-1]
            if e["choices"][0]["finish_reason"]]
    assert sorted(ends) == [0, 1, 2], events


@test
def seeds():
    a = [server.complete("Once", temperature=1.5, seed=s)["choices"][0]["text"]
         for s in (1, 1, 2, -5, -5)]
    assert a[0] == a[1] and a[3] == a[4] and len(set(a)) == 3, a
    free = {server.complete("Once", temperature=1.5)["choices"][0]["text"]
            for _ in range(4)}
    assert len(free) > 1, free


@test
def an_answer_is_what_generate_draws():
    r = runt("generate", "-m", tiny(), "-p", "Once upon a time", "-n", "30", "--temp", "0",
             "--no-display-prompt", "-o", "json")
    a = server.complete("Once upon a time", max_tokens=30)
    assert a["choices"][0]["text"] == json.loads(r.out)["text"], (a, r.out)
    r = runt("generate", "-m", tiny(), "-p", "Once upon a time", "-n", "30", "-s", "5",
             "--no-display-prompt", "-o", "json")
    a = server.complete("Once upon a time", max_tokens=30, seed=5, temperature=None)
    assert a["choices"][0]["text"] == json.loads(r.out)["text"], (a, r.out)


# ---- stops and lengths ----

@test
def stops():
    whole = server.complete("Once upon a time", max_tokens=40)["choices"][0]["text"]
    for stop in (whole[10:14], [whole[10:14]], ["zzz", whole[20:22], whole[10:14]]):
        c = server.complete("Once upon a time", max_tokens=40, stop=stop)["choices"][0]
        first = min(whole.find(x) for x in ([stop] if isinstance(stop, str) else stop)
                    if x in whole)
        assert c["text"] == whole[:first] and c["finish_reason"] == "stop", (stop, c)
    c = server.complete("Once upon a time", max_tokens=40, stop=["zzz"])["choices"][0]
    assert c["text"] == whole and c["finish_reason"] == "length", c
    events = list(server.stream("/v1/completions", {
        "prompt": "Once upon a time", "max_tokens": 40, "temperature": 0,
        "stop": whole[10:14]}))
    text = "".join(e["choices"][0]["text"] for e in events[:-1])
    assert text == whole[:whole.find(whole[10:14])], events
    for bad in ("", [""], [1], ["a"] * 17, "x" * 1025, {"a": 1}, ["a\0b"]):
        r = server.post("/v1/completions", {"prompt": "a", "stop": bad})
        assert r.status == 400 and r.error["param"] == "stop", (bad, r)


@test
def lengths():
    assert server.complete("Once", max_tokens=None)["usage"]["completion_tokens"] <= 16
    assert server.complete("Once", max_tokens=1)["usage"]["completion_tokens"] == 1
    a = server.complete("Once", max_tokens=0, echo=True)
    assert a["choices"][0]["text"] == "Once" and a["usage"]["completion_tokens"] == 0, a
    a = server.chat("Hi", max_tokens=None, max_completion_tokens=3)
    assert a["usage"]["completion_tokens"] == 3, a
    assert server.chat("Hi", max_tokens=5, max_completion_tokens=3)["usage"][
        "completion_tokens"] == 3
    full = server.complete([5] * 250, max_tokens=1000, ignore_eos=True)
    assert full["usage"]["completion_tokens"] == 7, full["usage"]  # the 257th is not fed
    assert full["choices"][0]["finish_reason"] == "length", full
    assert server.complete([5] * 256, max_tokens=9)["usage"]["completion_tokens"] == 1
    for prompt in ([5] * 257, "word " * 300, "x" * 200000):
        for target, body in (("/v1/completions", {"prompt": prompt}),
                             ("/v1/embeddings", {"input": prompt})):
            r = server.post(target, body)
            assert r.status == 400 and r.error["code"] == "context_length_exceeded", r
    r = server.post("/v1/chat/completions", {"messages": [
        {"role": "user", "content": "word " * 300}]})
    assert r.status == 400 and r.error["code"] == "context_length_exceeded", r


# ---- completions ----

@test
def prompts():
    one = server.complete("Once upon")["choices"][0]["text"]
    ids = [int(i) for i in runt("tokenize", "-m", tiny(), "-p", "Once upon",
                                "--ids").out.split()]
    assert server.complete(ids)["choices"][0]["text"] == one
    a = server.complete(["Once upon", "The cat", ""], n=2)
    assert [c["index"] for c in a["choices"]] == list(range(6)), a
    texts = [c["text"] for c in a["choices"]]
    assert texts[0] == texts[1] == one and texts[2] == texts[3] != one, texts
    assert a["usage"]["prompt_tokens"] == len(ids) + 2 + 1, a["usage"]
    assert server.complete([ids, ids[:1]])["choices"][0]["text"] == one
    echo = server.complete("Once upon", echo=True)["choices"][0]["text"]
    assert echo == "Once upon" + one, echo
    echo = server.complete(ids, echo=True)["choices"][0]["text"]
    assert echo == "Once upon" + one, echo
    for bad in (None, [], [[]], [1, "a"], ["a", 1], [-1], [1.5], [4096], [[4096]],
                [10 ** 12], {}, 3, True, [True], ["a"] * 129, [None]):
        r = server.post("/v1/completions", {"prompt": bad})
        assert r.status == 400 and r.error["param"] in ("prompt", "n"), (bad, r)


@test
def numbers_are_checked():
    for key, bad in (("temperature", [-0.1, 2.1, "1", [], 1e300, True]),
                     ("top_p", [-1, 1.01, "x"]), ("n", [0, -1, 129, 1.5, "1", 2 ** 62]),
                     ("max_tokens", [-1, 0.5, "9", -2 ** 63]), ("seed", [0.5, "1", []]),
                     ("top_k", [-1, 2 ** 40]), ("min_p", [-1, 2]),
                     ("repeat_penalty", [0, -1, 101]), ("frequency_penalty", [-2.1, 2.1, "x"]),
                     ("presence_penalty", [-3, 3]), ("typical_p", [-1, 2]),
                     ("dry_multiplier", [-1]), ("dry_base", [0]), ("mirostat", [1, 3]),
                     ("dry_allowed_length", [0]), ("mirostat_tau", [-1]), ("logprobs", [-1, 21, "x"]),
                     ("stream", ["yes", 1]), ("echo", [1]), ("best_of", [2, 0]),
                     ("stream_options", [1, "x"]), ("model", [1, []]), ("suffix", ["x"])):
        for value in bad:
            r = server.post("/v1/completions", {"prompt": "a", key: value})
            assert r.status == 400 and r.error["param"] == key, (key, value, r)
    for raw in ('{"prompt":"a","n":1e999}', '{"prompt":"a","seed":99999999999999999999}',
                '{"prompt":"a","temperature":NaN}', '{"prompt":"a","temperature":-Infinity}',
                '{"prompt":"a","n":1e999999999}'):
        assert server.post("/v1/completions", raw).status == 400, raw
    ok = {"prompt": "a", "max_tokens": 1, "user": "me", "unknown": {"x": [1]}, "n": None,
          "stop": None, "logit_bias": None, "temperature": None, "best_of": 1,
          "stream_options": {"include_usage": True}, "metadata": {}, "suffix": ""}
    assert server.post("/v1/completions", ok).status == 200
    assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 2 ** 62}).status == 200


@test
def bodies_are_checked():
    for raw in (b"", b"{", b"[]", b"3", b"null", b"\"x\"", b"{}x", b"{'a':1}", b"\xff\xfe",
                b'{"prompt":"\xff"}', b'{"prompt":"\xc3"}', b'{"prompt":"\\ud800"}',
                b'{"prompt":"a","prompt":"b"}', b"\0" * 10,
                b'{"prompt":' + b"[" * 5000 + b"]" * 5000 + b"}",
                b'{"a":' * 100 + b"1" + b"}" * 100,
                b'{"prompt":[' + b"[]," * 30000 + b"[]]}"):
        r = server.post("/v1/completions", raw)
        assert r.status == 400 and r.error["message"], (raw[:60], r)
    for depth, word in ((64, "prompt"), (65, "deeper")):
        raw = '{"prompt":' + "[" * (depth - 1) + "]" * (depth - 1) + "}"
        assert word in server.post("/v1/completions", raw).error["message"], depth
    r = server.post("/v1/completions", '{"x":[' + "[]," * 20000 + '[]],"prompt":"a"}')
    assert "lists and objects" in r.error["message"], r
    r = server.post("/v1/completions", b'{"prompt":"a","max_tokens":1}',
                    headers={"Content-Type": "text/plain"})
    assert r.status == 200, r


@test
def a_model_that_is_not_there():
    for target, body in (("/v1/chat/completions", {"messages": [
            {"role": "user", "content": "x"}]}), ("/v1/completions", {"prompt": "x"}),
                         ("/v1/embeddings", {"input": "x"})):
        r = server.post(target, dict(body, model="gpt-4"))
        assert r.status == 404 and r.error["code"] == "model_not_found", r
        assert r.error["param"] == "model" and "gpt-4" in r.error["message"], r


# ---- how tokens are drawn ----

def ids_of(text):
    return [int(i) for i in runt("tokenize", "-m", tiny(), "-p", text, "--ids").out.split()]


@test
def biases():
    plain = server.complete("Once upon a time", logprobs=0)["choices"][0]
    first = ids_of(plain["logprobs"]["tokens"][0])
    assert len(first) == 1, first
    banned = server.complete("Once upon a time", logit_bias={str(first[0]): -100})
    assert not banned["choices"][0]["text"].startswith(plain["logprobs"]["tokens"][0])
    word = ids_of(" cat")
    assert len(word) == 1, word
    only = server.complete("Once upon a time", max_tokens=5,
                           logit_bias={str(word[0]): 100})
    assert only["choices"][0]["text"] == " cat" * 5, only
    for bad in ({"x": 1}, {"-1": 1}, {"1": 101}, {"1": "a"}, [1], {"99999": 1}, {"": 1},
                {" 1": 1}, {"1": None}, {"99999999999": 1}, 5,
                {str(i): 1 for i in range(1025)}):
        r = server.post("/v1/completions", {"prompt": "a", "logit_bias": bad})
        assert r.status == 400 and r.error["param"] == "logit_bias", (bad, r)


@test
def penalties_are_those_of_generate():
    listed = runt("generate", "--help").out
    for member, option, value in (("frequency_penalty", "--frequency-penalty", 1.5),
                                  ("presence_penalty", "--presence-penalty", 1.5),
                                  ("repeat_penalty", "--repeat-penalty", 1.5),
                                  ("dry_multiplier", "--dry-multiplier", 2)):
        a = server.complete("The cat and the cat and", max_tokens=30, **{member: value})
        plain = server.complete("The cat and the cat and", max_tokens=30)
        assert a["choices"][0]["text"] != plain["choices"][0]["text"], member
        if option not in listed:
            continue
        r = runt("generate", "-m", tiny(), "-p", "The cat and the cat and", "-n", "30",
                 "--temp", "0", option, str(value), "--no-display-prompt", "-o", "json")
        assert a["choices"][0]["text"] == json.loads(r.out)["text"], (member, a, r.out)


@test
def formats():
    schema = {"type": "object", "additionalProperties": False, "required": ["name", "legs"],
              "properties": {"name": {"enum": ["cat", "bird"]},
                             "legs": {"type": "integer", "minimum": 0, "maximum": 9}}}
    for n, extra in ((1, {}), (3, {"temperature": 1.5, "seed": 1})):
        a = server.chat("A cat", max_tokens=60, n=n, response_format={
            "type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, **extra)
        for c in a["choices"]:
            v = json.loads(c["message"]["content"])
            assert set(v) == {"name", "legs"} and v["name"] in ("cat", "bird"), v
            assert 0 <= v["legs"] <= 9 and c["finish_reason"] == "stop", c
    a = server.chat("A cat", max_tokens=200, ignore_eos=True,
                    response_format={"type": "json_object"})
    text = a["choices"][0]["message"]["content"]
    assert text.lstrip().startswith("{"), text
    if a["choices"][0]["finish_reason"] == "stop":
        json.loads(text)
    a = server.complete("x", grammar='root ::= "yes" | "no"', max_tokens=9)
    assert a["choices"][0]["text"] in ("yes", "no"), a
    assert server.chat("A cat", response_format={"type": "text"}) ["choices"]
    events = list(server.stream("/v1/chat/completions", {
        "messages": [{"role": "user", "content": "A cat"}], "max_tokens": 60,
        "response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}))
    assert set(json.loads(text_of(events))) == {"name", "legs"}, events


@test
def formats_that_are_not_supported():
    def ask(f, **more):
        return server.post("/v1/chat/completions", dict(
            {"messages": [{"role": "user", "content": "x"}], "response_format": f}, **more))

    r = ask({"type": "json_schema", "json_schema": {"name": "x", "schema": {
        "type": "object", "patternProperties": {"^a": {"type": "string"}}}}})
    assert r.status == 400 and "patternProperties" in r.error["message"], r
    assert r.error["param"] == "response_format", r
    for bad in ("json", 1, {}, {"type": "xml"}, {"type": "json_schema"},
                {"type": "json_schema", "json_schema": {"schema": 1}},
                {"type": "json_schema", "json_schema": {"name": "x"}},
                {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}):
        r = ask(bad)
        assert r.status == 400 and r.error["param"] == "response_format", (bad, r)
    r = server.post("/v1/completions", {"prompt": "a", "grammar": "root ::= ("})
    assert r.status == 400 and r.error["param"] == "grammar", r
    assert server.post("/v1/completions", {"prompt": "a", "grammar": 5}).status == 400
    r = server.post("/v1/completions", {"prompt": "a", "grammar": 'root ::= "\\x01\\x02"',
                                        "logit_bias": {}})
    assert r.status in (200, 400), r


# ---- probabilities ----

@test
def probabilities_of_a_chat():
    a = server.chat("Hi", logprobs=True, top_logprobs=3, max_tokens=8)
    c = a["choices"][0]
    assert set(c["logprobs"]) == {"content", "refusal"}, c
    tokens = c["logprobs"]["content"]
    assert len(tokens) == 8, tokens
    for t in tokens:
        assert set(t) == {"token", "logprob", "bytes", "top_logprobs"}, t
        assert bytes(t["bytes"]).decode() == t["token"] and t["logprob"] <= 0, t
        top = t["top_logprobs"]
        assert len(top) == 3 and top[0]["token"] == t["token"], t  # greedy
        assert top[0]["logprob"] == t["logprob"], t
        assert top[0]["logprob"] >= top[1]["logprob"] >= top[2]["logprob"], t
        assert sum(math.exp(x["logprob"]) for x in top) <= 1 + 1e-4, t
    text = b"".join(bytes(t["bytes"]) for t in tokens).decode()
    assert text.removeprefix(" ") == c["message"]["content"], (text, c)
    a = server.chat("Hi", logprobs=True, max_tokens=2)
    assert all(t["top_logprobs"] == [] for t in a["choices"][0]["logprobs"]["content"]), a
    for bad in ({"logprobs": 1}, {"logprobs": True, "top_logprobs": 21},
                {"top_logprobs": 2}, {"logprobs": True, "top_logprobs": -1}):
        body = dict({"messages": [{"role": "user", "content": "x"}]}, **bad)
        assert server.post("/v1/chat/completions", body).status == 400, bad
    body = {"messages": [{"role": "user", "content": "Hi"}], "logprobs": True,
            "top_logprobs": 3, "max_tokens": 8, "temperature": 0}
    events = list(server.stream("/v1/chat/completions", body))
    streamed = [t for e in events[:-1] if e["choices"][0]["logprobs"]
                for t in e["choices"][0]["logprobs"]["content"]]
    assert streamed == tokens, (streamed, tokens)


@test
def probabilities_of_a_completion():
    a = server.complete("Once upon", echo=True, logprobs=2, max_tokens=4)
    p = a["choices"][0]["logprobs"]
    text = a["choices"][0]["text"]
    assert set(p) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}, p
    n = a["usage"]["prompt_tokens"] + 4
    assert all(len(v) == n for v in p.values()), p
    assert p["token_logprobs"][0] is None and p["top_logprobs"][0] is None, p
    assert all(x <= 0 for x in p["token_logprobs"][1:]), p
    assert "".join(p["tokens"]) == text, (p, text)
    for token, at in zip(p["tokens"], p["text_offset"]):
        assert text[at:at + len(token)] == token, (token, at)
    assert all(len(t) == 2 for t in p["top_logprobs"][1:]), p
    # the same numbers however the text is cut
    again = server.complete(text, echo=True, logprobs=2, max_tokens=0)
    assert again["choices"][0]["logprobs"]["tokens"] == p["tokens"], again
    assert again["choices"][0]["logprobs"]["token_logprobs"] == p["token_logprobs"], again
    events = list(server.stream("/v1/completions", {
        "prompt": "Once upon", "echo": True, "logprobs": 2, "max_tokens": 4,
        "temperature": 0}))
    joined = {k: [] for k in p}
    for e in events[:-1]:
        for k, v in (e["choices"][0]["logprobs"] or {}).items():
            joined[k] += v
    assert joined == p, (joined, p)
    a = server.complete("Once upon", logprobs=0, max_tokens=3)
    p = a["choices"][0]["logprobs"]
    assert len(p["tokens"]) == 3 and p["top_logprobs"] is None, p
    assert p["text_offset"][0] == 0, p


@test
def probabilities_end_where_the_text_does():
    whole = server.complete("Once upon a time", max_tokens=20)["choices"][0]["text"]
    stop = whole[12:27]  # several tokens
    c = server.complete("Once upon a time", max_tokens=20, stop=stop, logprobs=1)[
        "choices"][0]
    said = "".join(c["logprobs"]["tokens"])
    assert c["text"] == whole[:12] and said.startswith(c["text"]), (c, whole)
    assert max(c["logprobs"]["text_offset"]) < 12, c  # a token may go beyond


# ---- embeddings ----

@test
def embeddings():
    r = server.post("/v1/embeddings", {"model": "tiny", "input": "the cat sat"})
    assert r.status == 200, r
    assert list(r.json) == ["object", "data", "model", "usage"], r
    check_usage(r.json["usage"], embedding=True)
    e, = r.json["data"]
    assert e["object"] == "embedding" and e["index"] == 0, e
    v = e["embedding"]
    assert len(v) == 256 and abs(sum(x * x for x in v) - 1) < 1e-5, len(v)
    r = server.post("/v1/embeddings", {"input": "the cat sat", "encoding_format": "base64"})
    raw = base64.b64decode(r.json["data"][0]["embedding"], validate=True)
    assert list(struct.unpack("<256f", raw)) == [
        struct.unpack("<f", struct.pack("<f", x))[0] for x in v], "base64 differs"
    r = server.post("/v1/embeddings", {"input": [[i % 4000] for i in range(600)]})
    assert r.status == 200 and len(r.json["data"]) == 600, r.status
    ids = [5, 6, 7]
    many = server.post("/v1/embeddings", {"input": ["the cat sat", "a dog", "the cat sat"]})
    data = many.json["data"]
    assert [d["index"] for d in data] == [0, 1, 2], many
    assert data[0]["embedding"] == data[2]["embedding"] == v != data[1]["embedding"]
    one = server.post("/v1/embeddings", {"input": ids}).json["data"]
    assert len(one) == 1, one
    assert server.post("/v1/embeddings", {"input": [ids]}).json["data"] == one
    assert server.post("/v1/embeddings", {"input": "x", "dimensions": 256}).status == 200
    for bad in ({}, {"input": ""}, {"input": []}, {"input": [""]}, {"input": None},
                {"input": "x", "encoding_format": "int8"}, {"input": ["x"] * 2049},
                {"input": "x", "dimensions": 100}, {"input": "x", "dimensions": 0}):
        r = server.post("/v1/embeddings", bad)
        assert r.status == 400 and r.error["param"], (bad, r)


# ---- several models, base models ----

@test
def several_models():
    with Server("-m", "small=" + tiny(), "-m", "large=" + tiny("q8_0"), "-m", tiny("q8_0"),
                model=False) as s:
        names = [m["id"] for m in s.get("/v1/models").json["data"]]
        assert names == ["small", "large", "tiny-q8_0"], names
        body = {"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0}
        a = {n: s.post("/v1/completions", dict(body, model=n)).json for n in names}
        assert all(a[n]["model"] == n for n in names), a
        assert a["large"]["choices"] == a["tiny-q8_0"]["choices"], a
        assert s.post("/v1/completions", body).json["model"] == "small"
    misuse("serve", "-m", tiny(), "-m", tiny(), words=["two models are named"])


@test
def a_base_model_is_given_no_template():
    with Server(template=None) as s:
        assert any("no chat template" in line for line in s.said), s.said
        assert s.get("/v1/models/tiny").json["runt"]["template"] is None
        a = s.chat("Once upon a time", max_tokens=10)
        plain = s.complete("Once upon a time", max_tokens=10)
        assert a["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"], (a, plain)


@test
def misuse_is_refused():
    misuse("serve", words=["-m"])
    misuse("serve", "-m", tiny(), "--template", "nonsense", words=["nonsense"])
    misuse("serve", "-m", tiny(), "--max-body", "5 apples", words=["--max-body"])
    misuse("serve", "-m", tiny(), "--port", "70000", words=["65535"])
    fails("serve", "-m", path("absent.gguf"), words=["absent.gguf"])
    fails("serve", "-m", tiny(), "--host", "no.such.host.invalid", words=["no.such.host"])
    fails("serve", "-m", tiny(), "--port", str(server.port), "--log", "none",
          "--template", "turns", words=["cannot listen", str(server.port)])


@test
def the_log_has_no_texts():
    words = "zebra-quagga-okapi"
    r = server.post("/v1/chat/completions", {
        "messages": [{"role": "user", "content": words}], "max_tokens": 5})
    line = server.logged(r.headers["x-request-id"])
    for key in ("time", "remote", "method", "path", "status", "seconds", "bytes", "model",
                "stream", "prompt_tokens", "cached_tokens", "completion_tokens", "finish",
                "queue_seconds", "first_token_seconds"):
        assert key in line, (key, line)
    assert line["status"] == 200 and line["path"] == "/v1/chat/completions", line
    server.get("/health?text=" + words)
    server.post("/v1/completions", '{"prompt": ' + words)
    assert words not in json.dumps(server.lines), "a text is in the log"
    with Server("--log-bodies") as s:
        r = s.post("/v1/completions", {"prompt": words, "max_tokens": 1})
        assert words in s.logged(r.headers["x-request-id"])["body"]
    r = server.get("/health", headers={"X-Forwarded-For": "192.0.2.7, \"x"})
    assert server.logged(r.headers["x-request-id"])["forwarded"] == "192.0.2.7, \"x"
    with Server("--log", path("access.log")) as s:
        s.get("/health")
    events = [json.loads(line)["event"] for line in open(path("access.log"))]
    assert events == ["started", "request", "draining", "stopped"], events


@test
def metrics():
    with Server() as s:
        s.complete("Once upon a time there was", max_tokens=5)
        s.complete("Once upon a time there was", max_tokens=5)
        text = s.get("/metrics").raw.decode()
        for name in ("prompt_tokens_total", "prompt_seconds_total", "tokens_predicted_total",
                     "tokens_predicted_seconds_total", "requests_processing",
                     "requests_deferred"):
            assert re.search(r"^# TYPE runt_%s (counter|gauge)$" % name, text, re.M), name
            assert re.search(r"^runt_%s \S+$" % name, text, re.M), name
        assert re.search(r'^runt_build_info\{version="[0-9.]+".*\} 1$', text, re.M), text
        assert s.metric("tokens_predicted_total") == 10
        n = s.metric("prompt_tokens_total") + s.metric("prompt_cached_tokens_total")
        assert n == 2 * s.complete("Once upon a time there was", max_tokens=1)[
            "usage"]["prompt_tokens"], text
        for line in text.splitlines():
            assert re.fullmatch(r'#.*|[a-z_]+(\{.*\})? [0-9.e+-]+', line), line


@test
def stop():
    server.stop()


if __name__ == "__main__":
    main()
