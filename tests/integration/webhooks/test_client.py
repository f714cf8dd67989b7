from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import trustme

from core.webhooks.client import WebhookClient
from core.webhooks.schedule import Answer
from core.webhooks.target_policy import TargetPolicy
from tests.integration.webhooks.receiver import HANG, answer, receiving

LOOPBACK = TargetPolicy.parse(["127.0.0.0/8"])


class Names:
    """A resolver that gives the next of some answers, and counts how often it was asked."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def post(url: str, *, policy: TargetPolicy = LOOPBACK, **options) -> Answer:
    client = WebhookClient(policy, **options)
    try:
        return await client.post(url, b'{"a":1}', {"webhook-id": "evt_1"})
    finally:
        client.close()


async def test_the_body_arrives_with_its_headers_and_the_name_it_was_sent_to():
    async with receiving() as receiver:
        said = await post(receiver.url("/hook?x=1", host="hooks.example.com"), resolve=Names(["127.0.0.1"]))
        (request,) = receiver.requests
    assert (said.status, said.error) == (204, None)
    assert (request.path, request.body) == ("/hook?x=1", b'{"a":1}')
    assert request.headers["host"] == f"hooks.example.com:{receiver.port}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert request.id == "evt_1"


async def test_tls_is_verified_against_the_name_not_the_address():
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("hooks.example.com").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    names = Names(["127.0.0.1"])
    async with receiving(server_side) as receiver:
        named = await post(f"https://hooks.example.com:{receiver.port}/", resolve=names, ssl_context=client_side)
        other = await post(f"https://other.example.com:{receiver.port}/", resolve=names, ssl_context=client_side)
        unknown = await post(f"https://hooks.example.com:{receiver.port}/", resolve=names)
        assert len(receiver.requests) == 1
    assert named.status == 204
    assert "Hostname mismatch" in str(other.error)
    assert "certificate verify failed" in str(unknown.error)


@pytest.mark.parametrize(
    "addresses", [["169.254.169.254"], ["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["::ffff:10.0.0.1"], ["fe80::1%eth0"]]
)
async def test_one_private_answer_among_the_names_addresses_is_enough_to_refuse(addresses: list[str]):
    async with receiving() as receiver:
        said = await post(receiver.url(host="hooks.example.com"), resolve=Names(addresses))
        assert receiver.requests == []
    assert said.status is None
    assert said.error is not None


async def test_a_name_is_resolved_once_so_that_what_was_checked_is_what_is_reached():
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    async with receiving() as receiver:
        said = await post(receiver.url(host="rebinding.example.com"), resolve=names)
    assert (said.status, names.asked) == (204, 1)


async def test_the_machines_own_addresses_are_refused_unless_allowed():
    async with receiving() as receiver:
        for url in (receiver.url(), f"https://127.0.0.1:{receiver.port}/", receiver.url(host="localhost")):
            assert (await post(url, policy=TargetPolicy())).status is None
        assert receiver.requests == []


async def test_the_next_address_is_tried_when_one_does_not_answer():
    async with receiving() as receiver:
        said = await post(receiver.url(host="hooks.example.com"), resolve=Names(["127.0.0.2", "127.0.0.1"]))
    assert said.status == 204


async def test_a_redirect_is_not_followed_and_named():
    async with receiving() as receiver:
        receiver.will_answer(answer(302, f"location: http://127.0.0.1:{receiver.port}/next"))
        said = await post(receiver.url())
        assert len(receiver.requests) == 1
    assert said.status == 302
    assert (
        said.error == f"Answered 302, a redirect to http://127.0.0.1:{receiver.port}/next; redirects are not followed."
    )


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with receiving() as receiver:
        assert (await post(receiver.url())).status == 204


@pytest.mark.parametrize("status", [199, 300, 400, 404, 429, 500, 503])
async def test_only_2xx_is_an_acceptance(status: int):
    async with receiving() as receiver:
        receiver.will_answer(answer(status))
        said = await post(receiver.url(), deadline=timedelta(seconds=0.5))
    assert said.error is not None


async def test_the_deadline_counts_for_everything_together():
    async with receiving() as receiver:
        receiver.will_answer(HANG)
        said = await post(receiver.url(), deadline=timedelta(seconds=0.2))
    assert (said.status, said.error) == (None, "No answer within 0.2 s.")
    assert said.duration < timedelta(seconds=5)


async def test_a_resolver_that_never_answers_is_cut_off():
    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    said = await post("http://hooks.example.com/", resolve=never, deadline=timedelta(seconds=0.2))
    assert said.error == "No answer within 0.2 s."


async def test_an_endless_body_is_read_no_further_than_needed():
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    async with server:
        said = await post(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert said.status == 200
    assert sent < 20_000_000  # what fits into the sockets' buffers


async def test_an_acceptance_counts_however_its_body_ends():
    async with receiving() as receiver:
        receiver.will_answer(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nx")
        assert (await post(receiver.url(), deadline=timedelta(seconds=0.5))).error is None


@pytest.mark.parametrize(
    "garbage", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"\0", b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"]
)
async def test_what_is_not_http_is_a_failed_connection(garbage: bytes):
    async with receiving() as receiver:
        receiver.will_answer(garbage)
        said = await post(receiver.url())
    assert said.status is None
    assert str(said.error).startswith("The connection failed")


async def test_a_closed_port_and_an_unknown_name_are_told_apart():
    async with receiving() as receiver:
        port = receiver.port
    closed = await post(f"http://127.0.0.1:{port}/")
    unknown = await post("http://no-such-host.invalid/")
    assert str(closed.error).startswith("The connection failed")
    assert str(unknown.error).startswith("The host name cannot be resolved")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        ("9" * 5000, 999_999_999),
        ("soon", None),
        ("-1", None),
        ("Wed, 21 Oct 99999999999999 07:28:00 GMT", None),
    ],
)
async def test_retry_after_is_read_as_seconds(header: str, seconds: int | None):
    async with receiving() as receiver:
        receiver.will_answer(answer(503, f"retry-after: {header}"))
        said = await post(receiver.url())
    assert said.retry_after == (None if seconds is None else timedelta(seconds=seconds))


async def test_retry_after_is_read_as_a_date_on_the_receivers_clock():
    there = datetime(2031, 5, 1, 12, 0, tzinfo=UTC)
    until = there + timedelta(minutes=10)
    async with receiving() as receiver:
        receiver.will_answer(
            answer(
                429,
                f"date: {format_datetime(there, usegmt=True)}",
                f"retry-after: {format_datetime(until, usegmt=True)}",
            )
        )
        said = await post(receiver.url())
    assert said.retry_after == timedelta(minutes=10)
