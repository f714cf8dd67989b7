"""The bucket that holds every file: made at the first start."""

from __future__ import annotations

import http

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from core.config import Settings
from core.embedded.errors import EmbeddedError


def provide_bucket(settings: Settings) -> None:
    """Make the bucket that the settings name unless it is there.

    Raises:
        EmbeddedError: when the object store cannot be reached or does not let us.
    """
    keys = (settings.s3_access_key, settings.s3_secret_key)
    access_key, secret_key = (None if key is None else key.get_secret_value() for key in keys)
    client = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.s3_region,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
    )
    try:
        try:
            client.head_bucket(Bucket=settings.s3_bucket)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != http.HTTPStatus.NOT_FOUND:
                raise
            client.create_bucket(Bucket=settings.s3_bucket)
    except (BotoCoreError, ClientError) as error:
        raise EmbeddedError(f"bucket {settings.s3_bucket} cannot be used: {error}") from error
    finally:
        client.close()
