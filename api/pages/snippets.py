"""A picture's request as code to be copied: it draws that very picture again. Pure."""

from __future__ import annotations

import json
from typing import Any

from core.jobs.params import ConceptUse, GenerationParams


def request_body(params: GenerationParams, model: str) -> dict[str, Any]:
    """The body of `POST /v1/generations` that asks for exactly these parameters, which are one picture's."""
    body: dict[str, Any] = {
        "prompt": params.prompt,
        "concepts": [_concept(use) for use in params.concepts],
        "model": model,
        "steps": params.steps,
        "guidance": params.guidance,
        "seed": params.seed,
        "size": f"{params.width}x{params.height}",
    }
    if params.negative_prompt:
        body["negative_prompt"] = params.negative_prompt
    kept = params.file.model_dump(exclude_defaults=True)
    return body | kept


def _concept(use: ConceptUse) -> dict[str, Any]:
    return {
        "id": use.concept_id,
        "as": use.name,
        "version": use.version,
        "key_lock": use.key_lock,
        "gate_bias": use.gate_bias,
        "gate_temperature": use.gate_temperature,
    }


def as_curl(body: dict[str, Any], base_url: str) -> str:
    """A shell command; the key is in the environment."""
    told = json.dumps(body, indent=2, ensure_ascii=False)
    return (
        f'curl -sS {base_url}/v1/generations -H "Authorization: Bearer $LOCKSTEP_API_KEY" \\\n'
        f"  -H 'Content-Type: application/json' -H 'Prefer: wait=55' -d @- <<'JSON'\n{told}\nJSON\n"
    )


def as_python(body: dict[str, Any], base_url: str) -> str:
    """A program that uses the SDK; the key is in the environment."""
    asked = "".join(f"        {name}={value!r},\n" for name, value in body.items())
    return (
        "from lockstep import Lockstep\n\n"
        f"with Lockstep(base_url={base_url!r}) as lockstep:\n"
        f"    generation = lockstep.generations.create(\n{asked}    )\n"
        "    for image in lockstep.generations.wait(generation.id).result.images:\n"
        '        with open(f"{image.file_id}.png", "wb") as file:\n'
        "            file.write(lockstep.files.content(image.file_id))\n"
    )
