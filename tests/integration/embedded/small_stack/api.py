"""An HTTP server that says it is ready."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from core.config import Settings


class _Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()


def make_server(settings: Settings) -> ThreadingHTTPServer:
    """The server, listening; ``serve_forever`` answers."""
    return ThreadingHTTPServer((settings.host, settings.port), _Ready)


if __name__ == "__main__":
    make_server(Settings()).serve_forever()
