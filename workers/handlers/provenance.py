"""The facts of a picture's generation, as its file tells them and ``docs/api.md`` lists them.

All of them are the customer's own words and choices, or public: nothing here names the tenant or a machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from core.jobs.params import ConceptUse, GenerationParams
from core.release import release


def facts(
    params: GenerationParams, picture: int, *, job_id: str, model_name: str, paths: Mapping[str, Path]
) -> dict[str, object]:
    """What one picture of a job, counted from 0, is drawn from; the engine adds the hash of its ``weights``.

    ``paths`` are the concept files as `workers.inputs` fetched them.
    """
    return {
        "lockstep": release(),
        "job": job_id,
        "model": model_name,
        "model_id": params.model_id,
        "prompt": params.prompt,
        "negative_prompt": params.negative_prompt,
        "concepts": [_concept(use, paths[use.file_id]) for use in params.concepts_of(picture)],
        "seed": params.seed_of(picture),
        "steps": params.steps,
        "guidance": params.guidance,
        "width": params.width,
        "height": params.height,
    }


def _concept(use: ConceptUse, path: Path) -> dict[str, object]:
    return {
        "id": use.concept_id,
        "as": use.name,
        "version": use.version,
        "sha256": path.name,  # a fetched file lies under its hash
        "key_lock": use.key_lock,
        "gate_bias": use.gate_bias,
        "gate_temperature": use.gate_temperature,
    }
