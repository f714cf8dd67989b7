"""Generations: pictures of a prompt, or of one prompt over the range of a concept's dial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from lockstep.models import Generation
from lockstep.resources import JobsOf


class Drawing(TypedDict, total=False):
    """How pictures are drawn, however many; what is left out, the server decides.

    ``concepts`` are only needed to rename a concept or to change how it takes part, as in
    ``{"name": "tom", "as": "him", "gate_bias": 0.6}``. ``format`` is ``"png"`` or ``"webp"``, and ``quality`` that of a
    WebP that may lose detail for a smaller file. ``metadata=False`` keeps what was asked for, such as the prompt, out
    of the pictures' files. ``webhook`` is told of this job alone, as in ``{"url": "https://...", "event_types":
    ["generation.succeeded"]}``. ``priority`` (``"low"``, ``"normal"``, ``"high"``) orders your own jobs. ``quote`` is
    the id of a quote for the request.
    """

    concepts: Sequence[Mapping[str, Any]]
    negative_prompt: str | None
    model: str | None
    steps: int | None
    guidance: float | None
    seed: int | None
    size: str | None
    format: str | None
    quality: int | None
    metadata: bool | None
    webhook: Mapping[str, Any] | None
    priority: str | None
    quote: str | None


class Generations(JobsOf[Generation]):
    """Jobs that draw pictures."""

    _path = "/v1/generations"
    _kind = Generation

    def create(
        self,
        *,
        prompt: str,
        n: int | None = None,
        idempotency_key: str | None = None,
        wait: int | None = None,
        cancel_after: int | str | None = None,
        **drawing: Unpack[Drawing],
    ) -> Generation:
        """Draw ``n`` pictures of a prompt in which ``<name>`` stands for the concept of that name.

        ``drawing`` is the rest of what can be said: ``concepts``, ``negative_prompt``, ``model``, ``steps``,
        ``guidance``, ``seed``, ``size``, ``format``, ``quality``, ``metadata``, ``webhook``, ``priority``, ``quote``.
        ``wait`` asks the server to hold its answer for up to that many seconds (55 at most), until the job has ended.
        ``cancel_after`` is how long the job is wanted: seconds, or a duration such as ``"5m"``.
        """
        body = _body(prompt, drawing) | {"n": n}
        answer = self._transport.post(
            self._path, body, idempotency_key=idempotency_key, wait=wait, cancel_after=cancel_after
        )
        return Generation.model_validate(answer.json())

    def sweep(
        self,
        *,
        prompt: str,
        concept: str,
        gate_bias: Sequence[float] | None = None,
        gate_temperature: Sequence[float] | None = None,
        idempotency_key: str | None = None,
        wait: int | None = None,
        **drawing: Unpack[Drawing],
    ) -> Generation:
        """Draw a prompt once at each value of a dial of ``concept``, the name that its placeholder has there.

        Give either ``gate_bias`` or ``gate_temperature``; each image has its value under the same name. All are drawn
        from one seed, so that only the dial differs. ``wait`` and ``drawing`` are those of ``create``.
        """
        values = {"gate_bias": gate_bias, "gate_temperature": gate_temperature}
        sweep = {"concept": concept, **{dial: list(given) for dial, given in values.items() if given is not None}}
        body = _body(prompt, drawing) | {"sweep": sweep}
        answer = self._transport.post(f"{self._path}/sweep", body, idempotency_key=idempotency_key, wait=wait)
        return Generation.model_validate(answer.json())

    def reproduce(self, job_id: str, *, idempotency_key: str | None = None, wait: int | None = None) -> Generation:
        """Draw the pictures of a generation again, from exactly what they were drawn from.

        That is the versions of its concepts, its seeds, its settings and its format.
        """
        path = f"{self._path}/{job_id}/reproduce"
        answer = self._transport.post(path, idempotency_key=idempotency_key, wait=wait)
        return Generation.model_validate(answer.json())

    def reproduce_picture(
        self, file_id: str, *, idempotency_key: str | None = None, wait: int | None = None
    ) -> Generation:
        """Draw one picture of a generation again, by the id of its file."""
        body = {"file": file_id}
        answer = self._transport.post(f"{self._path}/reproduce", body, idempotency_key=idempotency_key, wait=wait)
        return Generation.model_validate(answer.json())


def _body(prompt: str, drawing: Drawing) -> dict[str, Any]:
    concepts = [dict(concept) for concept in drawing.get("concepts", ())]
    return {**drawing, "prompt": prompt, "concepts": concepts or None}
