"""Where objects lie in the bucket.

What a job writes lies under its fencing token, so two attempts never share a key; rows in Postgres point at it.
"""

from __future__ import annotations


def upload(tenant_id: str, file_id: str) -> str:
    """A file a customer uploaded."""
    return f"tenants/{tenant_id}/files/{file_id}"


def output(job_id: str, token: int, name: str) -> str:
    """A file that one attempt of a job produced."""
    return f"jobs/{job_id}/{token}/{name}"


def checkpoint(job_id: str, token: int, step: int) -> str:
    """Where a training or distillation may go on after ``step``."""
    return f"jobs/{job_id}/{token}/checkpoint-{step:06d}.safetensors"
