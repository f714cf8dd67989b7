"""What happens to a tenant's pictures that a safety checker finds unsafe."""

from __future__ import annotations

from enum import StrEnum


class SafetyPolicy(StrEnum):
    """An operator's choice for one tenant, which its next batch obeys."""

    OFF = "off"  # nobody looks
    FLAG = "flag"  # the verdict stands beside every picture
    BLOCK = "block"  # the same, and an unsafe picture is withheld
