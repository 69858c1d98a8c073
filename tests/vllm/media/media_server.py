"""An HTTP server on loopback that has pictures or sounds, in a thread of its own."""

from __future__ import annotations

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Self


class MediaServer:
    """Serves contents by their names, all as one type; 404 for other names."""

    def __init__(self, contents: Mapping[str, bytes], mime_type: str = "image/png") -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = contents.get(self.path.removeprefix("/"))
                self.send_response(200 if found is not None else 404)
                self.send_header("content-type", mime_type)
                self.send_header("content-length", str(len(found or b"")))
                self.end_headers()
                self.wfile.write(found or b"")

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever)
        self.host = f"127.0.0.1:{self._server.server_port}"

    def url(self, name: str) -> str:
        return f"http://{self.host}/{name}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
