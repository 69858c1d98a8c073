"""An HTTP server on loopback that has pictures, in a thread of its own."""

from __future__ import annotations

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Self


class PictureServer:
    """Serves pictures by their names, as PNG whatever they are; 404 for other names."""

    def __init__(self, pictures: Mapping[str, bytes]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                picture = pictures.get(self.path.removeprefix("/"))
                self.send_response(200 if picture is not None else 404)
                self.send_header("content-type", "image/png")
                self.send_header("content-length", str(len(picture or b"")))
                self.end_headers()
                self.wfile.write(picture or b"")

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
