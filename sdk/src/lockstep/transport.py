"""The one way to the server: every call is sent here, retried here, and its errors are named here."""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx

from lockstep.errors import ConnectionFailed, LockstepError, error_from
from lockstep.retry import RetryPolicy

Params = Mapping[str, str | int | Sequence[str] | None]
File = tuple[str, bytes]  # name and content


class Transport:
    """An ``httpx.Client`` with retries; ``sleep`` and ``random`` are replaced in tests."""

    def __init__(
        self,
        http: httpx.Client,
        retry: RetryPolicy,
        *,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._http = http
        self._retry = retry
        self._sleep = sleep
        self._random = random

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, params: Params | None = None) -> httpx.Response:
        """Read something."""
        return self._call("GET", path, params=_given(params))

    def put(self, path: str, json: Mapping[str, Any]) -> httpx.Response:
        """Set something; whoever repeats it sets the same."""
        return self._call("PUT", path, json=dict(json))

    def put_content(self, url: str, content: bytes) -> httpx.Response:
        """Send bytes to a signed address, without the API key: object stores refuse to be sent both."""

        def send() -> httpx.Response:
            request = self._http.build_request("PUT", url, content=content)
            del request.headers["Authorization"]
            return self._http.send(request)

        return self._repeated(send)

    def delete(self, path: str) -> httpx.Response:
        """Remove something."""
        return self._call("DELETE", path)

    def post(
        self,
        path: str,
        json: Mapping[str, Any] | None = None,
        *,
        file: File | None = None,
        idempotency_key: str | None = None,
        wait: int | None = None,
        cancel_after: int | str | None = None,
        repeat: bool = True,
    ) -> httpx.Response:
        """Make something; with a ``file``, by a form. Every try carries the same idempotency key.

        ``repeat=False`` allows one try only.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        if wait is not None:
            headers["Prefer"] = f"wait={wait}"
        if cancel_after is not None:
            headers["Cancel-After"] = str(cancel_after)
        body = {"data": _given(json), "files": {"file": file}} if file is not None else {"json": _given(json)}
        return self._call("POST", path, repeat=repeat, headers=headers, **body)

    @contextlib.contextmanager
    def stream(self, path: str, headers: Mapping[str, str], *, read_timeout: float) -> Iterator[httpx.Response]:
        """Open a response to be read while it arrives. One try: whoever reads knows where to resume.

        Raises ``httpx.TransportError`` as it is, and ``LockstepAPIError``.
        """
        usual = self._http.timeout
        timeout = httpx.Timeout(connect=usual.connect, write=usual.write, pool=usual.pool, read=read_timeout)
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if not response.is_success:
                response.read()
                response.raise_for_status()
            yield response

    def pause_after(self, failures: int, error: httpx.TransportError | httpx.HTTPStatusError) -> None:
        """Sleep before the next try, or raise what the failure means when there is to be none."""
        response = error.response if isinstance(error, httpx.HTTPStatusError) else None
        pause = self._retry.pause(failures, response, random=self._random)
        if pause is None:
            raise self._meaning_of(error) from error
        self._sleep(pause)

    def _call(self, method: str, path: str, *, repeat: bool = True, **request: Any) -> httpx.Response:
        return self._repeated(lambda: self._http.request(method, path, **request), repeat=repeat)

    def _repeated(self, send: Callable[[], httpx.Response], *, repeat: bool = True) -> httpx.Response:
        failures = 0
        while True:
            try:
                return send().raise_for_status()
            except (httpx.TransportError, httpx.HTTPStatusError) as error:
                if not repeat:
                    raise self._meaning_of(error) from error
                failures += 1
                self.pause_after(failures, error)

    def _meaning_of(self, error: httpx.TransportError | httpx.HTTPStatusError) -> LockstepError:
        if isinstance(error, httpx.HTTPStatusError):
            return error_from(error.response)
        return ConnectionFailed(f"{self._http.base_url}: {str(error) or type(error).__name__}")


def _given(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Leave out what the caller left to the server."""
    return {name: value for name, value in (values or {}).items() if value is not None}
