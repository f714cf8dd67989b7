"""S3-compatible object storage through boto3; its errors stop here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import SecretStr

from core.config import Settings
from core.errors import StorageUnavailable

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

log = structlog.get_logger()

_CHUNK = 1024 * 1024
_AT_ONCE = 8 * _CHUNK  # one request, where boto3 would make threads to see whether more are due
_MOST_DELETED = 1000  # by one request, as S3 has it


@dataclass(frozen=True)
class StoredObject:
    """What was written."""

    key: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class ListedObject:
    """What lies there, and since when."""

    key: str
    modified_at: datetime


class ObjectMissing(Exception):
    """No object lies under that key."""


class ObjectStore:
    """One bucket. Safe to share between threads; every method blocks.

    Raises ObjectMissing for a key without an object, StorageUnavailable when the store does not answer.
    """

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    @classmethod
    def from_settings(cls, settings: Settings) -> ObjectStore:
        """The bucket that the settings name."""
        client = boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint,
            region_name=settings.s3_region,
            aws_access_key_id=_plain(settings.s3_access_key),
            aws_secret_access_key=_plain(settings.s3_secret_key),
            config=Config(
                signature_version="s3v4",
                connect_timeout=3,
                read_timeout=30,
                retries={"mode": "standard", "max_attempts": 3},
                s3={"addressing_style": "path"} if settings.s3_endpoint else {},
            ),
        )
        return cls(client, settings.s3_bucket)

    def ensure_bucket(self) -> None:
        """Make the bucket unless it is there."""
        with _translated(self._bucket):
            try:
                self._client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") != "404":
                    raise
                self._client.create_bucket(Bucket=self._bucket)

    def put(self, key: str, data: bytes, *, media_type: str) -> StoredObject:
        """Write ``data``; the store checks the SHA-256 that is sent along."""
        with _translated(key):
            self._client.put_object(
                Bucket=self._bucket, Key=key, Body=data, ContentType=media_type, ChecksumAlgorithm="SHA256"
            )
        return StoredObject(key, len(data), hashlib.sha256(data).hexdigest())

    def put_file(self, key: str, path: Path, *, media_type: str) -> StoredObject:
        """Write a file's bytes, in parts where it is large: a checkpoint may be larger than memory."""
        if path.stat().st_size <= _AT_ONCE:
            return self.put(key, path.read_bytes(), media_type=media_type)
        described = {"ContentType": media_type, "ChecksumAlgorithm": "SHA256"}
        with _translated(key), path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            file.seek(0)
            self._client.upload_fileobj(file, self._bucket, key, ExtraArgs=described)
        return StoredObject(key, size, sha256)

    def get(self, key: str) -> bytes:
        """The object's bytes."""
        with _translated(key):
            return self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()

    def get_file(self, key: str, path: Path) -> None:
        """Write the object's bytes to ``path``, in parts where it is large; after an error the file is none."""
        with _translated(key), path.open("wb") as file:
            self._client.download_fileobj(self._bucket, key, file)

    def address_to_put(self, key: str, *, size_bytes: int, lifetime: timedelta) -> str:
        """Where anybody may write the object, with exactly so many bytes, for a while. Asks nobody."""
        return self._client.generate_presigned_url(
            "put_object",
            Params={"Bucket": self._bucket, "Key": key, "ContentLength": size_bytes},
            ExpiresIn=max(1, int(lifetime.total_seconds())),
        )

    def read(self, key: str, *, first: int, last: int) -> Iterator[bytes]:
        """The bytes from ``first`` to ``last`` inclusive, in chunks; the request is made at the call."""
        with _translated(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=key, Range=f"bytes={first}-{last}")
        return answer["Body"].iter_chunks(_CHUNK)

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""
        with _translated(key):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove these objects, those that are there."""
        for start in range(0, len(keys), _MOST_DELETED):
            some = keys[start : start + _MOST_DELETED]
            with _translated(some[0]):
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in some], "Quiet": True}
                )
            if errors := answer.get("Errors"):
                raise _unavailable(some[0], RuntimeError(f"{len(errors)} objects were not removed"))

    def list_page(self, *, after: str, limit: int) -> list[ListedObject]:
        """Objects in the order of their keys, from the one after ``after``; at most a thousand."""
        with _translated(after):
            answer = self._client.list_objects_v2(Bucket=self._bucket, StartAfter=after, MaxKeys=limit)
        return [ListedObject(found["Key"], found["LastModified"]) for found in answer.get("Contents", ())]

    def keys_under(self, prefix: str) -> Iterator[str]:
        """All keys that begin so."""
        after = prefix
        while True:
            with _translated(prefix):
                answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, StartAfter=after)
            found = [listed["Key"] for listed in answer.get("Contents", ())]
            yield from found
            if not answer.get("IsTruncated") or not found:
                return
            after = found[-1]

    def is_reachable(self) -> bool:
        """Whether the store answers for this bucket."""
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except (BotoCoreError, ClientError):
            return False
        return True


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in {"NoSuchKey", "404"}:
            raise ObjectMissing(key) from error
        raise _unavailable(key, error) from error
    except BotoCoreError as error:
        raise _unavailable(key, error) from error


def _unavailable(key: str, error: Exception) -> StorageUnavailable:
    """What customers may know; addresses and keys are for the log."""
    log.warning("storage.failed", key=key, error=str(error))
    return StorageUnavailable("Object storage does not answer.")
