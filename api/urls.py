"""Absolute addresses of what the API serves."""

from __future__ import annotations

from dataclasses import dataclass

from core.jobs.models import Job


@dataclass(frozen=True)
class Urls:
    """Addresses under the URL by which clients reach the API, without a trailing slash."""

    base: str

    def file(self, file_id: str) -> str:
        """Where a file is described."""
        return f"{self.base}/v1/files/{file_id}"

    def upload(self, upload_id: str) -> str:
        """Where an upload is described."""
        return f"{self.base}/v1/uploads/{upload_id}"

    def upload_part(self, upload_id: str, part: int, signature: str) -> str:
        """Where a part's bytes are sent by whoever has the address."""
        return f"{self.upload(upload_id)}/content?part={part}&sig={signature}"

    def concept(self, concept_id: str) -> str:
        """Where a concept is."""
        return f"{self.base}/v1/concepts/{concept_id}"

    def webhook_endpoint(self, endpoint_id: str) -> str:
        """Where a webhook endpoint is."""
        return f"{self.base}/v1/webhook_endpoints/{endpoint_id}"

    def api_key(self, key_id: str) -> str:
        """Where an API key is described."""
        return f"{self.base}/v1/api_keys/{key_id}"

    def file_content(self, file_id: str) -> str:
        """Where a file's bytes are."""
        return f"{self.base}/v1/files/{file_id}/content"

    def signed_content(self, file_id: str, signature: str) -> str:
        """Where a file's bytes are for whoever has the address."""
        return f"{self.file_content(file_id)}?sig={signature}"

    def concept_content(self, concept_id: str, version: int) -> str:
        """Where the file of a concept's version is."""
        return f"{self.base}/v1/concepts/{concept_id}/content?version={version}"

    def job(self, job: Job) -> str:
        """Where a job is: under its kind, or among all jobs where it was made for another one."""
        collection = "jobs" if job.parent_id else f"{job.kind}s"
        return f"{self.base}/v1/{collection}/{job.id}"

    def job_events(self, job_id: str) -> str:
        """Where a job's events stream."""
        return f"{self.base}/v1/jobs/{job_id}/events"
