"""Prefixed, sortable ids: a kind, an underscore and a ULID in lower case, as in ``job_01k9...``."""

from __future__ import annotations

from typing import Literal

from ulid import ULID

IdKind = Literal[
    "ten",
    "usr",
    "ses",
    "inv",
    "key",
    "file",
    "upl",
    "mdl",
    "cpt",
    "job",
    "evt",
    "we",
    "dlv",
    "wrk",
    "req",
    "aud",
    "quo",
    "tst",
]  # fmt: skip


def new_id(kind: IdKind) -> str:
    """A fresh id; ids of one kind sort by the millisecond they were made in."""
    return f"{kind}_{str(ULID()).lower()}"
