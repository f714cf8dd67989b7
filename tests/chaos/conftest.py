"""A deployment of its own for each test that kills something."""

from __future__ import annotations

from tests.deployment import deployment, tiny_model

__all__ = ["deployment", "tiny_model"]
