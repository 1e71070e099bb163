#!/usr/bin/env python3
"""The configurations in docs/DEPLOY.md, run as they stand there (ports and paths apart):
nginx and HAProxy with TLS in front of two replicas, and systemd's opinion of the unit.
nginx and HAProxy are the machine's, or Debian's in build/proxies (tools/proxies.sh).  With
RUNT_LONG=1 also how throughput grows with replicas.  Prints TAP."""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serve_fixture import Server, ask_on, events_of, main, slow
from tap import ROOT, SLOW, TMP, Skip, case, note, path, test, write

EXTRA = os.path.join(ROOT, "build", "proxies")
LONG = os.environ.get("RUNT_LONG") == "1"
CLIENTS = 16


def block(language):
    with open(os.path.join(ROOT, "docs", "DEPLOY.md"), encoding="utf-8") as f:
        return re.search(r"^```%s\n(.*?)^```$" % language, f.read(), re.M | re.S).group(1)


def program(name):
    """The program and its environment."""
    env = dict(os.environ)
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found:
        return found, env
    found = os.path.join(EXTRA, "usr", "sbin", name)
    if not os.path.exists(found):
        raise Skip("no %s; tools/proxies.sh build/proxies gets it" % name)
    env["LD_LIBRARY_PATH"] = os.path.join(EXTRA, "usr", "lib", "x86_64-linux-gnu")
    return found, env


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def certificate():
    """One for 127.0.0.1 and chat.example.org: key, certificate, both in a file."""
    key, cert, both = path("key.pem"), path("cert.pem"), path("both.pem")
    if not os.path.exists(both):
        if not shutil.which("openssl"):
            raise Skip("no openssl")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days",
                        "2", "-keyout", key, "-out", cert, "-subj", "/CN=chat.example.org",
                        "-addext", "subjectAltName=DNS:chat.example.org,IP:127.0.0.1"],
                       check=True, capture_output=True)
        write(both, open(cert).read() + open(key).read())
    return key, cert, both


class Proxy:
    """A proxy of a configuration's text; `command` runs it in the foreground."""

    def __init__(self, name, text, command):
        found, env = program(name)
        self.log = open(path(name + ".log"), "ab")
        self.p = subprocess.Popen([found] + command(write(path(name + ".conf"), text)),
                                  env=env, cwd=TMP, stdout=self.log, stderr=self.log)

    def ready(self, port):
        end = time.monotonic() + 10 * SLOW
        while time.monotonic() < end and self.p.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return self
            except OSError:
                time.sleep(0.05)
        raise AssertionError(open(self.log.name).read()[-2000:])

    def stop(self):
        self.p.terminate()
        try:
            self.p.wait(10 * SLOW)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
        self.log.close()


def nginx(port, backends):
    key, cert, _ = certificate()
    text = block("nginx")
    servers = "".join("    server 127.0.0.1:%d max_fails=1 fail_timeout=2s;\n" % b
                      for b in backends)
    text, n = re.subn(r"(    server 127\.0\.0\.1:\d+ [^\n]*\n)+", servers, text)
    assert n == 1, "no replicas in the configuration"
    text = text.replace("listen 443 ssl", "listen 127.0.0.1:%d ssl" % port)
    text = text.replace("/etc/ssl/runt/fullchain.pem", cert)
    text = text.replace("/etc/ssl/runt/key.pem", key)
    folder = path("nginx")
    os.makedirs(folder, exist_ok=True)
    temps = "".join("%s_temp_path %s/%s;\n" % (k, folder, k) for k in (
        "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;\n" if os.getuid() == 0 else ""
    whole = ("%sdaemon off;\nworker_processes 1;\npid %s/pid;\nerror_log %s/error.log;\n"
             "events { worker_connections 1024; }\nhttp {\naccess_log off;\n%s%s}\n" % (
                 user, folder, folder, temps, text))
    return Proxy("nginx", whole, lambda conf: [
        "-p", folder, "-c", conf, "-e", folder + "/error.log"]).ready(port)


def haproxy(port, backends):
    _, _, both = certificate()
    text = block("haproxy").replace("bind :443", "bind 127.0.0.1:%d" % port)
    text = text.replace("/etc/haproxy/runt.pem", both)
    for default, b in zip((8081, 8082), backends):
        assert str(default) in text, default
        text = text.replace("127.0.0.1:%d" % default, "127.0.0.1:%d" % b)
    return Proxy("haproxy", text, lambda conf: ["-db", "-f", conf]).ready(port)


class Front:
    """HTTPS to the proxy, whose certificate is checked."""

    def __init__(self, port):
        self.port = port
        self.context = ssl.create_default_context(cafile=certificate()[1])

    def connect(self):
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60 * SLOW,
                                           context=self.context)

    def ask(self, method, target, body=None, headers=None):
        c = self.connect()
        try:
            return ask_on(c, method, target, body, headers)
        finally:
            c.close()


LONG_ONE = {"prompt": [5, 6, 7], "max_tokens": 200, "temperature": 0, "ignore_eos": True}


def check_answers(front, a, b):
    """Everything comes through, spread over both replicas."""
    body = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
    want = a.complete("Once upon a time", max_tokens=8)["choices"]
    ids = set()
    for _ in range(10):
        r = front.ask("POST", "/v1/completions", body)
        assert r.status == 200 and r.json["choices"] == want, r
        ids.add(r.headers["x-request-id"])
    assert len(ids) == 10, ids
    for i in ids:
        line = next((l for l in a.lines + b.lines if l.get("id") == i), None)
        assert line and line["forwarded"] == "127.0.0.1", (i, line)
    for s in (a, b):
        n = sum(l.get("id") in ids for l in s.lines)
        assert n >= 2, "a replica got %d of 10" % n
    r = front.ask("GET", "/v1/models")
    assert r.status == 200, r
    assert front.ask("GET", "/metrics").status == 403
    r = front.ask("POST", "/v1/completions", {"prompt": "x", "model": "absent"})
    assert r.status == 404 and r.error["code"] == "model_not_found", r


def check_streams(front):
    """Tokens come one by one, not all at the end."""
    c = front.connect()
    c.request("POST", "/v1/completions", json.dumps(dict(LONG_ONE, stream=True)))
    r = c.getresponse()
    assert r.status == 200, r.status
    times = [time.monotonic() for e in events_of(r) if e]
    c.close()
    assert times[-1] - times[0] > 0.3, "it came at once"
    assert times[len(times) // 2] - times[0] > 0.1, "its first half came at once"


def check_leaving(front, a, b):
    c = front.connect()
    c.request("POST", "/v1/completions", json.dumps(dict(LONG_ONE, max_tokens=1000)))
    s = next(iter(running(a, b)))
    c.sock.close()
    c.close()
    s.idle()


def running(a, b):
    found = []
    a.until(lambda: found.extend(s for s in (a, b)
                                 if s.metric("requests_processing") == 1) or found)
    return found


def check_restart(front, a, b):
    """A replica ends and the other takes over: no request is lost."""
    replies, over = [], threading.Event()

    def ask():
        while not over.is_set():
            replies.append(front.ask("POST", "/v1/completions",
                                     {"prompt": "a", "max_tokens": 20}))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    b.until(lambda: len(replies) >= 4, 60)
    a.p.send_signal(signal.SIGTERM)
    a.p.wait(60 * SLOW)
    n = len(replies)
    b.until(lambda: len(replies) >= n + 8, 60)
    over.set()
    for t in threads:
        t.join()
    bad = [r for r in replies if r.status != 200]
    assert not bad, "%d of %d: %s" % (len(bad), len(replies), bad[:3])
    assert b.p.poll() is None


def check_proxy(name, make):
    program(name)
    with Server(model=slow()) as a, Server(model=slow()) as b:
        port = free_port()
        proxy = make(port, (a.port, b.port))
        front = Front(port)
        try:
            with case(name + ": answers from both replicas, over TLS"):
                check_answers(front, a, b)
            with case(name + ": streams as they come"):
                check_streams(front)
            with case(name + ": a client that leaves"):
                check_leaving(front, a, b)
            with case(name + ": a replica that ends"):
                check_restart(front, a, b)
        finally:
            proxy.stop()


@test
def behind_nginx():
    check_proxy("nginx", nginx)


@test
def behind_haproxy():
    found, env = program("haproxy")
    check_proxy("haproxy", haproxy)


def throughput(n_replicas, seconds=10):
    """Tokens per second of CLIENTS clients, through nginx."""
    servers = [Server("--threads", "1", "--log", "none") for _ in range(n_replicas)]
    port = free_port()
    proxy = nginx(port, [s.port for s in servers])
    front = Front(port)
    tokens, end = [], time.monotonic() + seconds

    def ask():
        c = front.connect()
        while time.monotonic() < end:
            r = ask_on(c, "POST", "/v1/completions", dict(LONG_ONE))
            assert r.status == 200, r
            tokens.append(r.json["usage"]["completion_tokens"])
        c.close()

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    t0 = time.monotonic()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    t1 = time.monotonic()
    proxy.stop()
    for s in servers:
        s.stop()
    return sum(tokens) / (t1 - t0)


@test
def throughput_grows_with_replicas():
    program("nginx")
    if not LONG:
        raise Skip("only with RUNT_LONG=1")
    rates = {1: [], 2: []}
    for _ in range(3):  # in turns, because the machine drifts
        for n in rates:
            rates[n].append(throughput(n))
    one, two = (sorted(rates[n])[1] for n in (1, 2))
    note("one replica of one thread %.0f tokens/s, two %.0f: %.2f times as many" % (
        one, two, two / one))
    if os.cpu_count() < 2:
        raise Skip("one core")
    assert two > 1.3 * one, rates


@test
def the_unit_is_one():
    if not shutil.which("systemd-analyze"):
        raise Skip("no systemd-analyze")
    unit = block("ini").replace("/usr/local/bin/runt", "/bin/true")
    name = write(path("runt@.service"), unit)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", name],
                          capture_output=True, text=True)
    said = "\n".join(l for l in (done.stdout + done.stderr).splitlines() if "runt@" in l)
    assert done.returncode == 0 and not said, done.stdout + done.stderr
    done = subprocess.run(["systemd-analyze", "security", "--offline=true",
                           "--threshold=20", name], capture_output=True, text=True)
    note(re.search(r"Overall exposure level.*", done.stdout).group(0)
         if "Overall" in done.stdout else done.stderr)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr


if __name__ == "__main__":
    main()
