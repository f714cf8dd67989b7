"""`/docs`: the API's reference, made of its OpenAPI document on the server. It loads nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup, escape

from api.pages.rendering import page

router = APIRouter(include_in_schema=False)

_REF: Final = "#/components/schemas/"
_METHODS: Final = ("get", "post", "put", "patch", "delete")
_BOUNDS: Final[Mapping[str, str]] = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
    "maxLength": "at most {} characters",
}

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Field:
    """One thing to say, or to be told: a parameter, or a member of a body."""

    name: str
    kind: Markup
    required: bool
    told: Markup
    where: str = ""


@dataclass(frozen=True)
class Operation:
    """One route."""

    id: str
    method: str
    path: str
    title: str
    told: Markup
    parameters: Sequence[Field]
    body: Markup | None
    answers: Sequence[tuple[str, str, Markup | None]]


@dataclass(frozen=True)
class Group:
    """The routes of one tag."""

    name: str
    told: Markup
    operations: Sequence[Operation]


@dataclass(frozen=True)
class Shape:
    """A body, or a part of one, with its members."""

    name: str
    told: Markup
    kind: Markup | None  # where it has no members
    fields: Sequence[Field]


@router.get("/docs")
async def show_reference(request: Request) -> HTMLResponse:
    """Show every route and every body."""
    document = request.app.openapi()
    return page(
        request,
        "reference.html",
        title=document["info"]["title"],
        version=document["info"]["version"],
        told=[marked(part) for part in document["info"]["description"].split("\n\n")],
        groups=list(groups(document)),
        shapes=list(shapes(document)),
    )


def groups(document: Schema) -> Iterator[Group]:
    """The operations of each tag, in the document's order."""
    for tag in document["tags"]:
        found = [
            _operation(method, path, operations[method])
            for path, operations in document["paths"].items()
            for method in _METHODS
            if method in operations and tag["name"] in operations[method].get("tags", ())
        ]
        yield Group(tag["name"], marked(tag["description"]), found)


def shapes(document: Schema) -> Iterator[Shape]:
    """The schemas, by name."""
    for name, schema in sorted(document["components"]["schemas"].items()):
        members, required = schema.get("properties", {}), schema.get("required", ())
        fields = [_field(field, said, field in required) for field, said in members.items()]
        yield Shape(name, marked(schema.get("description", "")), None if members else kind_of(schema), fields)


def _operation(method: str, path: str, said: Schema) -> Operation:
    parameters = [
        Field(
            one["name"],
            kind_of(one["schema"]),
            one.get("required", False),
            marked(one.get("description") or one["schema"].get("description", "")),
            one["in"],
        )
        for one in said.get("parameters", ())
    ]
    body = _content(said.get("requestBody", {}))
    answers = [(status, one["description"], _content(one)) for status, one in sorted(said["responses"].items())]
    return Operation(
        said["operationId"],
        method.upper(),
        path,
        said["summary"],
        marked(said.get("description", "")),
        parameters,
        body,
        [answer for answer in answers if not answer[0].startswith(("4", "5"))],
    )


def _content(said: Schema) -> Markup | None:
    """The kind of a body, by its first media type that has one."""
    return next((kind_of(one["schema"]) for one in said.get("content", {}).values() if "schema" in one), None)


def _field(name: str, said: Schema, required: bool) -> Field:
    notes = [marked(said["description"].rstrip("."))] if "description" in said else []
    notes += [escape(words.format(f"{said[bound]:g}")) for bound, words in _BOUNDS.items() if bound in said]
    if "default" in said and said["default"] not in (None, [], {}):
        notes.append(Markup("by default <code>{}</code>").format(said["default"]))
    return Field(name, kind_of(said), required, Markup("; ").join(notes))


def kind_of(schema: Schema) -> Markup:
    """What a value is, in a few words, with links to the shapes it is made of."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        return Markup('<a href="#{0}">{0}</a>').format(name)
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return Markup(" or ").join(dict.fromkeys(kind_of(one) for one in schema[several]))
    if "const" in schema:
        return Markup("<code>{}</code>").format(schema["const"])
    if "enum" in schema:
        return Markup(", ").join(Markup("<code>{}</code>").format(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return Markup("list of {}").format(kind_of(schema.get("items", {})))
    return escape(schema.get("format") or schema.get("type", "any"))


def marked(text: str) -> Markup:
    """Text with what stands between backticks as code."""
    parts = re.split(r"`([^`]*)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )
