"""An HTTP server that says it is ready."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from core.config import Settings


class _Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()


if __name__ == "__main__":
    settings = Settings()
    ThreadingHTTPServer((settings.host, settings.port), _Ready).serve_forever()
