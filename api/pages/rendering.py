"""How pages are written: templates, the addresses of static files, and how figures are told to people."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_HERE: Final = Path(__file__).parent
STATIC_FOLDER: Final = _HERE / "static"
_A_YEAR: Final = 365 * 24 * 3600


@cache
def static_url(name: str) -> str:
    """Where a static file is: its address changes with its bytes, so browsers may keep it for ever."""
    digest = hashlib.sha256((STATIC_FOLDER / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


class LastingFiles(StaticFiles):
    """Static files, kept by browsers where they are asked for by `static_url`."""

    async def get_response(self, path: str, scope: Scope) -> Any:
        """Answer with the file, or 404."""
        response = await super().get_response(path, scope)
        if scope["query_string"].startswith(b"v="):
            response.headers["Cache-Control"] = f"public, max-age={_A_YEAR}, immutable"
        return response


def span(value: timedelta | float | None) -> str:
    """Tell how long something takes: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if value is None:
        return "–"
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, smaller, smaller_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name}" + (f" {rest} {smaller_name}" if rest else "")
    return f"{whole} s"


def size(value: float | None) -> str:
    """Tell bytes: `512 B`, `31.0 kB`, `1.2 GB`."""
    if value is None:
        return "–"
    amount, units = float(value), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def percent(value: float | None) -> str:
    """Tell a share: `62 %`."""
    return "–" if value is None else f"{100 * value:.0f} %"


def moment(value: datetime | None) -> str:
    """Tell a time, in UTC."""
    return "–" if value is None else value.strftime("%Y-%m-%d %H:%M:%S")


_CHIPS: Final[Mapping[str, str]] = {
    "succeeded": "good",
    "delivered": "good",
    "idle": "good",
    "running": "busy",
    "busy": "busy",
    "queued": "",
    "pending": "",
    "canceled": "warn",
    "expired": "warn",
    "lost": "warn",
    "draining": "warn",
    "paused": "warn",
    "failed": "bad",
    "stopped": "bad",
    "quarantined": "bad",
}


def chip(state: str) -> str:
    """The class of the chip that shows a state."""
    return f"chip {_CHIPS.get(state, '')}".rstrip()


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["static"] = static_url
    made.filters |= {"span": span, "size": size, "percent": percent, "moment": moment, "chip": chip}
    return made


_TEMPLATES: Final = _environment()


def rendered(request: Request, template: str, **values: Any) -> str:
    """Render a template, or a part of a page."""
    return _TEMPLATES.get_template(template).render(request=request, **values)


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Answer with a page."""
    return HTMLResponse(rendered(request, template, **values), status_code=status)
