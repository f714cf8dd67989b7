"""`/sign-in` and out again, and what people are told who may not see a page."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import quote

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from api.cookies import SESSION_COOKIE, clear_session
from api.dependencies import Acting, AnyCaller, Server, TenantSession
from api.errors import Trouble, trouble_of
from api.pages.rendering import page
from api.signing_in import sign_in
from core.errors import Forbidden, LockstepError, TenantNotChosen
from core.members import sessions

router = APIRouter(include_in_schema=False)

_HOME: Final = "/"
_PAGES: Final = ("/admin", "/studio")


@router.get("/")
async def home(caller: AnyCaller) -> RedirectResponse:
    """Go where the caller's pages begin: an operator's, or the studio."""
    operates = caller.is_operator and caller.may("admin")
    return RedirectResponse("/admin" if operates else "/studio", status_code=303)


@router.get("/sign-in")
async def show_sign_in(request: Request, to: str = _HOME) -> HTMLResponse:
    """Ask who it is."""
    return page(request, "sign_in.html", to=_ours(to), email="", problem=None, asks_tenant=False)


@router.post("/sign-in")
async def take_sign_in(
    request: Request,
    server: Server,
    *,
    email: Annotated[str, Form(max_length=320)],
    password: Annotated[str, Form(max_length=1000)],
    tenant: Annotated[str, Form(max_length=64)] = "",
    to: Annotated[str, Form()] = _HOME,
) -> Response:
    """Sign in and go on, or say what is wrong."""
    try:
        signed_in = await sign_in(request, server, email=email, password=password, tenant=tenant or None)
    except LockstepError as problem:
        asks = isinstance(problem, TenantNotChosen) or bool(tenant)
        said = {"to": _ours(to), "email": email, "problem": problem.detail, "asks_tenant": asks}
        return page(request, "sign_in.html", status=trouble_of(problem).status, **said)
    response = RedirectResponse(_ours(to), status_code=303)
    signed_in.keep(response, server)
    return response


@router.post("/sign-out")
async def take_sign_out(
    _: AnyCaller, request: Request, actor: Acting, session: TenantSession, server: Server
) -> Response:
    """Sign out."""
    await sessions.end(session, actor, request.cookies.get(SESSION_COOKIE, ""))
    response = RedirectResponse("/sign-in", status_code=303)
    clear_session(response, server.urls)
    return response


def _ours(address: str) -> str:
    """An address of ours to go on to; whatever else was asked for leads home."""
    is_ours = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if is_ours else _HOME


def told_to_people(request: Request, trouble: Trouble) -> Response | None:
    """How somebody at a browser is told of trouble with a page; None for everything that is no page."""
    if request.method != "GET" or not (request.url.path == _HOME or request.url.path.startswith(_PAGES)):
        return None
    if "text/html" not in request.headers.get("accept", "") or "hx-request" in request.headers:
        return None
    if trouble.status == 401:
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?to={quote(wanted)}", status_code=303)
    return page(
        request, "problem.html", status=trouble.status, trouble=trouble, may_switch=trouble.code == Forbidden.code
    )
