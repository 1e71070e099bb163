"""A model hub on two loopback ports, for tests: an endpoint and a download host.

The endpoint answers /ORG/NAME/resolve/REVISION/FILE as the real hub does: metadata in
headers, small files in place, large ones by a redirect to the download host.  The hosts
differ by name (127.0.0.1 and localhost).  Everything that can go wrong is switched on by
a test through Hub's members; every request is logged.
"""
import hashlib
import http.server
import re
import socket
import threading
import time
import urllib.parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class File:
    def __init__(self, content, lfs=False):
        self.content = content
        self.lfs = lfs
        git = b"blob %d\0" % len(content) + content
        self.etag = (hashlib.sha256(content) if lfs else hashlib.sha1(git)).hexdigest()
        self.headers = {}  # replaced in answers of the endpoint; None removes one


class Request:
    """One logged request."""

    def __init__(self, host, handler):
        self.host = host
        self.method = handler.command
        self.path = handler.path
        self.headers = handler.headers
        self.status = 0
        self.sent = 0  # bytes of body


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # clients that are killed or cut us off are what the tests are about


class Hub:
    def __init__(self):
        self.models = {}  # "org/name": {file name: File}
        self.revisions = {"main": COMMIT}
        self.renamed = {}  # old name: new name
        self.token = None  # demanded when set
        self.ranges = True
        self.relative_blobs = False  # large files from the endpoint, by a relative redirect
        self.faults = []  # (host, method, file, function(handler, File)), used up in order
        self.log = []
        self.gate = threading.Event()  # opens what `stall` holds back
        self.reached = threading.Event()  # set when `stall` waits
        self.servers = []
        self.ports = {}
        for host, name in (("api", "127.0.0.1"), ("cdn", "localhost")):
            server = Server(("127.0.0.1", 0), Handler)
            server.hub, server.role = self, host
            self.ports[host] = "http://%s:%d" % (name, server.server_address[1])
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            self.servers.append(server)

    def close(self):
        self.gate.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def fault(self, host, method, file, function, times=1):
        self.faults += [(host, method, file, function)] * times

    def requests(self, host=None, method=None, file=None):
        return [r for r in self.log
                if host in (None, r.host) and method in (None, r.method)
                and (file is None or r.path.split("?")[0].endswith("/" + file))]

    def sent(self):
        return sum(r.sent for r in self.log)


# What a fault may do instead of the right answer.

def status(code, **headers):
    def act(handler, _):
        handler.reply(code, {k.replace("_", "-"): v for k, v in headers.items()})
    return act


def drop_after(n):
    """Send the first n bytes of the body, then close the connection."""
    def act(handler, file):
        handler.content(file.content, stop=n)
    return act


def stall_after(n):
    """Send n bytes and wait for the gate before the rest."""
    def act(handler, file):
        handler.content(file.content, pause=n)
    return act


def raw(data):
    """Bytes straight to the socket."""
    def act(handler, _):
        handler.wfile.write(data)
        handler.close_connection = True
    return act


def other_content(content):
    def act(handler, _):
        handler.content(content)
    return act


def wrong_range(handler, file):
    handler.reply(206, {"Content-Length": len(file.content),
                        "Content-Range": "bytes 0-%d/%d" % (len(file.content) - 1,
                                                            len(file.content))},
                  file.content)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, code, headers=None, body=b""):
        self.entry.status = code
        self.send_response(code)
        headers = {"Content-Length": len(body), **(headers or {})}
        for key, value in headers.items():
            if value is not None:
                self.send_header(key, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            self.wfile.write(body)
            self.entry.sent += len(body)
        except OSError:
            self.close_connection = True

    def content(self, content, headers=None, stop=None, pause=None):
        """200 or 206 with `content`; may stop or pause after some bytes."""
        code, first = 200, 0
        headers = dict(headers or {})
        m = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if m and self.server.hub.ranges:
            first = int(m.group(1))
            if first >= len(content):
                return self.reply(416, {"Content-Range": "bytes */%d" % len(content)})
            code = 206
            headers["Content-Range"] = "bytes %d-%d/%d" % (first, len(content) - 1,
                                                           len(content))
        body = content[first:]
        headers.setdefault("Content-Length", len(body))
        cut = stop if stop is not None else pause
        self.reply(code, headers, body[:cut])
        if self.command == "HEAD" or cut is None:
            return None
        self.wfile.flush()
        if stop is not None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        self.server.hub.reached.set()
        self.server.hub.gate.wait(30)
        try:
            self.wfile.write(body[cut:])
            self.entry.sent += len(body) - cut
        except OSError:
            self.close_connection = True
        return None

    def fault(self, file_name, file):
        hub = self.server.hub
        for i, (host, method, name, act) in enumerate(hub.faults):
            if (host, method, name) == (self.server.role, self.command, file_name):
                del hub.faults[i]
                act(self, file)
                return True
        return False

    def endpoint(self):
        hub = self.server.hub
        if self.path.startswith("/large/"):
            return self.download()
        m = re.fullmatch(r"/+([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path.split("?")[0])
        if not m:
            return self.reply(404)
        repo, revision, name = map(urllib.parse.unquote, m.groups())
        file = hub.models.get(repo, {}).get(name)
        if self.fault(name, file):
            return None
        if repo in hub.renamed:
            return self.reply(307, {"Location": "/%s/resolve/%s/%s" % (
                hub.renamed[repo], revision, name)})
        if hub.token and self.headers.get("Authorization") != "Bearer " + hub.token:
            return self.reply(401, {"X-Error-Code": "GatedRepo"})
        commit = hub.revisions.get(revision)
        if revision in hub.revisions.values():
            commit = revision
        if repo not in hub.models:
            return self.reply(404, {"X-Error-Code": "RepoNotFound"})
        if not commit:
            return self.reply(404, {"X-Error-Code": "RevisionNotFound"})
        if not file:
            return self.reply(404, {"X-Error-Code": "EntryNotFound",
                                    "X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "ETag": '"%s"' % file.etag}
        if not file.lfs:
            headers.update(file.headers)
            return self.content(file.content, headers)
        base = "" if hub.relative_blobs else hub.ports["cdn"]
        headers.update({"ETag": 'W/"a-redirect"', "X-Linked-Etag": '"%s"' % file.etag,
                        "X-Linked-Size": len(file.content),
                        "Location": "%s/large/%s/%s?signed=yes" % (
                            base, repo, urllib.parse.quote(name))})
        headers.update(file.headers)
        return self.reply(302, headers, b"Found")

    def download(self):
        path = urllib.parse.unquote(self.path.split("?")[0])
        m = re.fullmatch(r"/large/([^/]+/[^/]+)/(.+)", path)
        file = m and self.server.hub.models.get(m.group(1), {}).get(m.group(2))
        if not file:
            return self.reply(404)
        if self.fault(m.group(2), file):
            return None
        return self.content(file.content)

    def answer(self):
        self.entry = Request(self.server.role, self)
        self.server.hub.log.append(self.entry)
        try:
            (self.endpoint if self.server.role == "api" else self.download)()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_HEAD = answer


def main():
    """Serve one tiny model until interrupted, to try `runt pull` by hand."""
    hub = Hub()
    hub.models["test/tiny"] = {"config.json": File(b"{}"), "vocab.json": File(b"{}"),
                               "merges.txt": File(b""),
                               "model.safetensors": File(bytes(10 ** 6), lfs=True)}
    print("HF_ENDPOINT=%s runt pull test/tiny" % hub.ports["api"])
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        hub.close()


if __name__ == "__main__":
    main()
