"""Where objects lie in the bucket.

What a job writes lies under its fencing token, so two attempts never share a key; rows in Postgres point at it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_OF_JOB = re.compile(r"jobs/(?P<job_id>[^/]+)/(?P<token>\d{1,18})/.+")
_UPLOAD = re.compile(r"tenants/[^/]+/(files/[^/]+|uploads/[^/]+/\d{1,9})")


@dataclass(frozen=True)
class Owner:
    """Whose an object is: an attempt's of a job, or else an upload's."""

    job_id: str | None = None
    token: int | None = None


def owner(key: str) -> Owner | None:
    """Whose object lies under the key; None if none of ours does."""
    if found := _OF_JOB.fullmatch(key):
        return Owner(found["job_id"], int(found["token"]))
    return Owner() if _UPLOAD.fullmatch(key) else None


def upload(tenant_id: str, file_id: str) -> str:
    """A file a customer uploaded."""
    return f"tenants/{tenant_id}/files/{file_id}"


def of_upload(tenant_id: str, upload_id: str) -> str:
    """What the keys of the parts of an upload begin with, before their numbers."""
    return f"tenants/{tenant_id}/uploads/{upload_id}/"


def of_tenant(tenant_id: str) -> str:
    """What the keys of a customer's uploads begin with."""
    return f"tenants/{tenant_id}/"


def of_job(job_id: str) -> str:
    """What the keys of all that a job's attempts wrote begin with."""
    return f"jobs/{job_id}/"


def output(job_id: str, token: int, name: str) -> str:
    """A file that one attempt of a job produced."""
    return f"jobs/{job_id}/{token}/{name}"


def checkpoint(job_id: str, token: int, step: int) -> str:
    """Where a training or distillation may go on after ``step``."""
    return f"jobs/{job_id}/{token}/checkpoint-{step:06d}.safetensors"
