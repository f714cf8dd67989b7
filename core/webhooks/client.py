"""Posting to addresses that strangers chose.

The host is resolved once, every answer must pass the policy, and the connection is made to an address that was
checked: a name that resolves differently a moment later gains nothing. TLS and the Host header keep the name. It
stands on httpcore, which follows no redirect, reads no proxy from the environment and decodes no body.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address

import httpcore
import httpx

from core.errors import WebhookTargetRefused
from core.webhooks.schedule import Answer
from core.webhooks.target_policy import TargetPolicy

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a host and port; raises OSError for a name without any."""

DEADLINE = timedelta(seconds=15)  # of all: resolving, connecting, sending and the answer
_LOOPBACK = "127.0.0.1"
_CONNECT_SECONDS = 5.0  # of one address
MOST_BODY = 64 * 1024  # read of an answer, for good manners; what it says is not used
_MOST_DIGITS = 9  # of a Retry-After; more would only say "never"
_RESOLVER_THREADS = 128  # a name server that never answers holds a thread for as long as the system waits

_HEADERS = {
    "content-type": "application/json",
    "user-agent": "Lockstep-Webhooks/1",
    "accept-encoding": "identity",
    "connection": "close",
}


class WebhookClient:
    """Sends one signed body at a time to each target; share one in a process, and close it."""

    def __init__(
        self,
        policy: TargetPolicy,
        *,
        resolve: Resolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
        deadline: timedelta = DEADLINE,
        own: Collection[str] = (),
    ) -> None:
        """``own`` are addresses on this machine where we listen ourselves, by now: the policy is not for them."""
        self._policy = policy
        self._own = own
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="resolve")
        self._resolve = resolve or self._resolve_by_system
        self._ssl_context = ssl_context or httpx.create_ssl_context()
        self._deadline = deadline

    def close(self) -> None:
        """Give the resolver's threads back."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send the body; whatever goes wrong on the way is the answer's error."""
        started = time.monotonic()
        exchange = _Exchange()
        try:
            async with asyncio.timeout(self._deadline.total_seconds()):
                addresses = [_LOOPBACK] if url in self._own else await self._checked_addresses(url)
                await self._exchange(exchange, httpx.URL(url), addresses, body, headers)
        except WebhookTargetRefused as refused:
            exchange.error = refused.detail
        except TimeoutError:
            exchange.error = f"No answer within {self._deadline.total_seconds():g} s."
        except OSError as error:
            exchange.error = f"The host name cannot be resolved: {error.strerror}."
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            exchange.error = f"The connection failed: {error or type(error).__name__}."
        return exchange.answer(timedelta(seconds=time.monotonic() - started))

    async def _checked_addresses(self, url: str) -> list[str]:
        """The target's addresses; all of them must pass, since any of them might be connected to."""
        target = self._policy.check_url(url)
        addresses = await self._resolve(target.host, target.port)
        for address in addresses:
            self._policy.check_address(target, ip_address(address.partition("%")[0]))
        return list(dict.fromkeys(addresses))

    async def _resolve_by_system(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(address[0]) for *_, address in found]

    async def _exchange(
        self, exchange: _Exchange, url: httpx.URL, addresses: Iterable[str], body: bytes, headers: Mapping[str, str]
    ) -> None:
        request_url = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        lines = [(name.encode(), value.encode()) for name, value in {**_HEADERS, **headers}.items()]
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=self._ssl_context,
                network_backend=_PinnedBackend(addresses),
                max_keepalive_connections=0,
            ) as pool,
            pool.stream("POST", request_url, headers=lines, content=body) as response,
        ):
            exchange.status = response.status
            exchange.headers = {name.lower(): value for name, value in response.headers}
            received = 0
            async for chunk in response.aiter_stream():
                received += len(chunk)
                if received >= MOST_BODY:
                    break


class _Exchange:
    """What is known of a request so far. Once a status has arrived it decides, however the body ends."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[bytes, bytes] = {}
        self.error: str | None = None

    def answer(self, duration: timedelta) -> Answer:
        """The request's outcome."""
        if self.status is None:
            return Answer(None, self.error, duration)
        return Answer(self.status, _error_of_status(self.status, self.headers), duration, _retry_after(self.headers))


class _PinnedBackend(httpcore.AnyIOBackend):
    """Connects to the given addresses, one after the other, whatever host it is asked for."""

    def __init__(self, addresses: Iterable[str]) -> None:
        self._addresses = tuple(addresses)

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - the name was resolved and checked already
        port: int,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 - the signature is httpcore's; the wait is our own
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception = httpcore.ConnectError("the host name has no address")
        for address in self._addresses:
            try:
                return await super().connect_tcp(address, port, _CONNECT_SECONDS, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


def _error_of_status(status: int, headers: Mapping[bytes, bytes]) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        location = headers.get(b"location", b"nowhere").decode("latin-1")[:200]
        return f"Answered {status}, a redirect to {location}; redirects are not followed."
    return f"Answered {status}."


def _retry_after(headers: Mapping[bytes, bytes]) -> timedelta | None:
    """The header's wait: seconds, or a date on the receiver's own clock if it told that, else on ours."""
    value = headers.get(b"retry-after", b"").decode("latin-1").strip()
    if value.isdecimal():
        return timedelta(seconds=int(value[:_MOST_DIGITS]))
    until = _http_date(value)
    if until is None:
        return None
    return until - (_http_date(headers.get(b"date", b"").decode("latin-1")) or datetime.now(UTC))


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # the latter for a year or an offset of many digits
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
