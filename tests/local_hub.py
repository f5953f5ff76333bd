"""A Hugging Face hub on this machine: what huggingface_hub asks of the real one, and its faults."""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 10_000  # bytes from which a file lies in the large storage, as `.gitattributes` decides


class Hub:
    """Repositories by id, each with the files of one commit, the branch main and a tag v1."""

    def __init__(self):
        self.folders = {}
        self.gated = set()  # ids whose files are for some people only
        self.private = set()
        self.breaks_after = None  # bytes, after which the connection ends
        self.damages = set()  # names of files that arrive with a byte changed
        self.requests = []  # (method, path, range)
        self.endpoint = ""

    def files(self, hub_id):
        folder = self.folders[hub_id]
        return {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}

    def asked(self, method=None):
        return [path for how, path, _ in self.requests if method in (None, how)]


def blob(content):
    """As the hub lists a file: git's hash, and beyond a size the SHA-256 of the large storage."""
    header = f"blob {len(content)}\0".encode()
    listed = {"size": len(content), "blobId": hashlib.sha1(header + content).hexdigest()}
    if len(content) >= LARGE:
        sha256 = hashlib.sha256(content).hexdigest()
        listed["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
    return listed


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def refuse(self, status, code=""):
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        listed = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?.*", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        hub_id = (listed or file)[1] if listed or file else None
        if hub_id not in self.hub.folders or hub_id in self.hub.private:
            return self.refuse(401, "RepoNotFound")
        revision = (listed[3] if listed else file[2]) or "main"
        if revision not in ("main", "v1", COMMIT):
            return self.refuse(404, "RevisionNotFound")
        if listed:
            return self.send_listing(hub_id, listed[2])
        if hub_id in self.hub.gated:
            return self.refuse(403, "GatedRepo")
        if file[3] not in self.hub.files(hub_id):
            return self.refuse(404, "EntryNotFound")
        return self.send_file(self.hub.files(hub_id)[file[3]])

    def send_listing(self, hub_id, kind):
        blobs = {name: blob(path.read_bytes()) for name, path in self.hub.files(hub_id).items()}
        if kind == "tree":
            body = [
                {
                    "type": "file",
                    "path": name,
                    "size": each["size"],
                    "oid": each["blobId"],
                    **(
                        {"lfs": {"oid": each["lfs"]["sha256"], **each["lfs"]}}
                        if "lfs" in each
                        else {}
                    ),
                }
                for name, each in blobs.items()
            ]
        else:
            siblings = [{"rfilename": name, **each} for name, each in blobs.items()]
            body = {"id": hub_id, "sha": COMMIT, "siblings": siblings, "tags": []}
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if self.command == "GET" else b"")

    def send_file(self, path):
        content = path.read_bytes()
        listed = blob(content)
        if path.name in self.hub.damages:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        first = int(start[1]) if start else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        etag = listed["lfs"]["sha256"] if "lfs" in listed else listed["blobId"]
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        if self.command == "GET":
            rest = content[first:]
            if self.hub.breaks_after is not None and len(rest) > self.hub.breaks_after:
                self.wfile.write(rest[: self.hub.breaks_after])
                self.wfile.flush()
                self.close_connection = True
                return
            self.wfile.write(rest)


@contextmanager
def local_hub():
    """A hub that runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
