"""A hub over HTTP with one repository: what huggingface_hub asks of it, with commits, digests and ranges."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40
LARGE = (".safetensors", ".bin")


class FakeHub(ThreadingHTTPServer):
    """folder: what the repository `repo` holds;   asked: (method, path, Range) of each request for a file

    breaks: bytes after which each of the next answers with the content of a file breaks off
    spoils: files of which another content arrives, so many times
    """

    def __init__(self, repo: str, folder: Path, gated: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repo, self.folder, self.gated = repo, folder, gated
        self.asked: list[tuple[str, str, str | None]] = []
        self.breaks: dict[str, list[int]] = {}
        self.spoils: dict[str, int] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are no news."""


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/"):
            self._listed(path.removeprefix("/api/models/"))
            return
        repo, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        file = self.server.folder / name
        self.server.asked.append((self.command, name, self.headers.get("Range")))
        if self.server.gated:
            self._refuse(403, "GatedRepo")
        elif repo != self.server.repo or revision not in (COMMIT, "main") or not file.is_file():
            self._refuse(404, "EntryNotFound")
        else:
            self._file(file, name, body)

    def _listed(self, asked: str) -> None:
        if asked.partition("/revision/")[0] != self.server.repo:
            self._refuse(404, "RepoNotFound")
            return
        siblings = []
        for file in sorted(path for path in self.server.folder.rglob("*") if path.is_file()):
            content = file.read_bytes()
            name = file.relative_to(self.server.folder).as_posix()
            one: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": git_digest(content)}
            if name.endswith(LARGE):
                one["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            siblings.append(one)
        text = json.dumps({"id": self.server.repo, "sha": COMMIT, "siblings": siblings}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _file(self, file: Path, name: str, body: bool) -> None:
        content = file.read_bytes()
        etag = hashlib.sha256(content).hexdigest() if name.endswith(LARGE) else git_digest(content)
        if body and self.server.spoils.get(name):
            self.server.spoils[name] -= 1
            content = bytes(len(content))
        begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if begin else 200)
        for key, value in {
            "ETag": f'"{etag}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
            "Content-Length": str(len(content) - begin),
            "Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}",
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            breaks = self.server.breaks.get(name)
            end = begin + breaks.pop(0) if breaks else None
            self.wfile.write(content[begin:end])
            if end is not None:
                self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def git_digest(content: bytes) -> str:
    """What git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def fake_hub(repo: str, folder: Path, gated: bool = False) -> Iterator[FakeHub]:
    """The hub, until the block ends."""
    server = FakeHub(repo, folder, gated)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
