"""The cookie of a signed-in user's session, and which pages may send it with requests that change something."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request, Response

from api.urls import Urls
from core.errors import Forbidden

SESSION_COOKIE = "lockstep_session"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def set_session(response: Response, urls: Urls, token: str, *, max_age: int) -> None:
    """Have the browser send the token along, unseen by scripts, for so many seconds."""
    response.set_cookie(
        SESSION_COOKIE, token, max_age=max_age, httponly=True, samesite="lax", secure=urls.base.startswith("https:")
    )


def clear_session(response: Response, urls: Urls) -> None:
    """Have the browser forget the token."""
    response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="lax", secure=urls.base.startswith("https:"))


def check_origin(request: Request, urls: Urls) -> None:
    """Raise Forbidden for a request that changes something and comes from a page that is not ours.

    Ours are those of the server's own host, and of the very host that the request names. Programs send no origin.
    """
    origin = request.headers.get("origin")
    if request.method in _SAFE or origin is None:
        return
    ours = {_host_of(urls.base), request.headers.get("host")} - {None}
    if _host_of(origin) not in ours:
        raise Forbidden("The request comes from another site's page.")


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).netloc or None
    except ValueError:
        return None
