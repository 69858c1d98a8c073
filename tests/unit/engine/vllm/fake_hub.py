"""A model hub on loopback, as far as ``huggingface_hub`` needs one to download a model."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "a" * 40
MODEL = "someone/small"


class FakeHub:
    """Serves one model.  ``files`` may be changed while it runs; ``fetched`` lists the files that were downloaded."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.fetched: list[str] = []
        self.gated = False
        self.told_sizes: dict[str, int | None] = {}  # of files whose size the API does not tell as it is
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = urlsplit(request.path).path
        if self.gated:
            return self._send(request, 403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        if path.startswith("/api/models/"):
            return self._answer_api(request, path.removeprefix("/api/models/"), body)
        revision, _, name = path.removeprefix(f"/{MODEL}/resolve/").partition("/")
        content = self.files.get(name)
        if revision not in ("main", COMMIT) or content is None:
            return self._send(request, 404, b"{}", {"X-Error-Code": "EntryNotFound"}, body)
        if body:
            self.fetched.append(name)
        headers = {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": COMMIT}
        return self._send(request, 200, content, headers, body)

    def _answer_api(self, request: BaseHTTPRequestHandler, path: str, body: bool) -> None:
        if not path.startswith(MODEL):
            return self._send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        kind, _, revision = path.removeprefix(MODEL).lstrip("/").partition("/")
        if revision.split("/")[0] not in ("", "main", COMMIT):
            return self._send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        answer: Any = {"id": MODEL, "sha": COMMIT, "siblings": [self._sibling(name) for name in self.files]}
        if kind == "tree":
            answer = [
                {"type": "file", "path": name, "oid": _digest(content), "size": len(content)}
                for name, content in self.files.items()
            ]
        return self._send(request, 200, json.dumps(answer).encode(), {}, body)

    def _sibling(self, name: str) -> dict[str, object]:
        content = self.files[name]
        return {"rfilename": name, "size": self.told_sizes.get(name, len(content)), "blobId": _digest(content)}

    @staticmethod
    def _send(
        request: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str], body: bool
    ) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            request.send_header(name, value)
        request.end_headers()
        if body:
            request.wfile.write(content)


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serving(hub: FakeHub, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the hub, and have the library talk to it instead of the real one."""
    patch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()
