"""The OpenAPI document: what FastAPI derives, with every error described as the problem it is."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.errors import MEDIA_TYPE, makes_job
from api.schemas.problems import Problem

TAGS = [
    {"name": "Files", "description": "Pictures and concept files that are uploaded, and what jobs produce."},
    {"name": "Concepts", "description": "What was learned of a thing; prompts name it as `<name>`."},
    {"name": "Models", "description": "Base models and students: their sizes, their words, their defaults."},
    {"name": "Trainings", "description": "Jobs that learn a concept from pictures."},
    {"name": "Distillations", "description": "Jobs that make a student, which draws in one step, of a base model."},
    {"name": "Generations", "description": "Jobs that draw pictures of a prompt."},
    {"name": "Jobs", "description": "Jobs of every kind, their attempts and their events."},
    {"name": "Events", "description": "Everything that happened, in order."},
    {"name": "Webhooks", "description": "Addresses that events are sent to."},
    {"name": "Tenancy", "description": "Who may do what in the name of the tenant."},
    {"name": "Money", "description": "Budgets, usage, quotes, and what else is limited."},
    {"name": "Operations", "description": "What operators see and do, across tenants."},
    {"name": "Health", "description": "Whether the server lives and is ready."},
]

DESCRIPTION = """\
Teach it once, render it in one step: upload pictures of a thing, train a concept of it, draw it wherever you like.

Send your API key as `Authorization: Bearer lk_live_...`. Errors are problem details (RFC 9457) with a stable `code`.
Requests that make a job take an `Idempotency-Key`, as uploads and imports do; `Prefer: wait=N` holds the answer until
the job has ended.
"""

_OPEN = frozenset({"/healthz", "/readyz"})  # for whoever asks
_REF = "#/components/schemas/{model}"
_COMMON = {
    "400": "The request cannot be read.",
    "401": "The API key or the session is missing or does not work.",
    "403": "The caller may not do this.",
    "429": "Too many requests in too short a time, or too many jobs.",
    "422": "The request can never succeed as it stands.",
    "503": "The server cannot answer now; try again.",
}


def install(app: FastAPI) -> None:
    """Serve the document under ``/openapi.json``; it is made at the first request."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            _describe_problems(made)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way to change the document


def _describe_problems(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for replaced in ("HTTPValidationError", "ValidationError"):
        schemas.pop(replaced, None)
    problem = Problem.model_json_schema(ref_template=_REF)
    schemas |= problem.pop("$defs")
    schemas["Problem"] = problem
    for path, operations in document["paths"].items():
        if path in _OPEN:
            continue
        for method, operation in operations.items():
            declared = operation["responses"].items()
            described = {status: told["description"] for status, told in declared if status >= "4"} | _COMMON
            if method != "get" or "{" in path or _has_cursor(operation):
                described["404"] = "No such thing belongs to the caller."
            if method != "get":
                described["409"] = "The request contradicts the present state."
            if "requestBody" in operation:
                described["413"] = "The body is too large."
            if makes_job(method.upper(), path):
                described["402"] = "The budget does not suffice."
            for status, description in described.items():
                operation["responses"][status] = {
                    "description": description,
                    "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}},
                }


def _has_cursor(operation: dict[str, Any]) -> bool:
    """Whether it goes on from a thing that may be gone."""
    return any(parameter["name"] in {"after", "before"} for parameter in operation.get("parameters", ()))
