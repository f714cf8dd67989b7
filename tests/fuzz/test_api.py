"""A short form of `python -m tests.fuzz.api`, and that it would notice."""

from __future__ import annotations

import json
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from tests.fuzz.api import Outcome, Role, asked, fuzz, tell
from tests.stack import TestServers

_LIST = {"application/json": {"schema": {"type": "array"}}}
_DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "One that lies", "version": "1"},
    "paths": {
        "/things": {
            "get": {
                "operationId": "things",
                "responses": {
                    "200": {"description": "x", "content": {"application/json": {"schema": {"type": "array"}}}}
                },
            }
        }
    },
}


def test_whatever_is_sent_is_answered_as_documented(servers: TestServers) -> None:
    with asked(servers.new_settings()) as (url, (operator, *_)):
        outcome = fuzz(url, [operator], examples=4, seed=11, phases="fuzzing,stateful")
    assert not outcome.wrong, "\n".join(outcome.wrong)
    assert outcome.requests > 300
    assert outcome.operations > 90


class _Liar(BaseHTTPRequestHandler):
    """Promises a list and answers with an object."""

    def do_GET(self) -> None:
        body = json.dumps(_DOCUMENT if self.path == "/openapi.json" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


def test_an_answer_that_breaks_its_schema_is_found() -> None:
    with HTTPServer(("127.0.0.1", 0), _Liar) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        outcome = fuzz(url, [Role("somebody", {}, 1)], examples=1, seed=1, phases="fuzzing")
        server.shutdown()
    assert "Response violates schema" in outcome.wrong[0]


def test_answers_are_counted_by_who_asked() -> None:
    outcome = Outcome(Counter({("a", "200"): 3, ("a", "500"): 1, ("b", "404"): 2}), operations=1)
    report = tell(outcome, wanted=6)
    assert report.figures == {
        "requests": 6,
        "operations": 1,
        "answers of the 500s": 1,
        "runs that found something": 0,
    }
