"""How a concept, and the kind of thing it is, may be spelled."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

ConceptName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
Superclass = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=64, pattern=r"^[^\W_]+([ '-][^\W_]+)*$")
]

# As a tenant calls a concept that another one granted: the owner's id, a slash, the name.
UsableName = Annotated[str, StringConstraints(pattern=r"^(ten_[a-z0-9]+/)?[a-z0-9]+(-[a-z0-9]+)*$", max_length=96)]
