"""What a concept file says of itself: its metadata and the shapes of its tensors (``docs/concept-files.md``).

The numbers are not looked at: a worker checks them whenever it opens the file. Safetensors holds data and no code, and
its parser bounds every offset by the length of the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, Json, PositiveInt, StringConstraints, ValidationError
from safetensors import SafetensorError, deserialize

from core.catalog.facts import ConceptSpace
from core.concepts.names import Superclass
from core.errors import ConceptUnreadable, TooLarge
from core.jobs.params import GateBias, KeyLock

FORMAT = "lockstep-concept/1"
MEDIA_TYPE = "application/vnd.lockstep.concept+safetensors"
MAX_BYTES = 4 << 20  # as the engine's; an SDXL-shaped concept with trained keys stays below half of this

_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_ScoreName = Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,64}$")]


class _Metadata(BaseModel):
    """The metadata as it is written: text in every field, JSON in some."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    format: Literal["lockstep-concept/1"]
    base_model: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{1,200}$")]
    encoder: _Sha256
    covariance: _Sha256
    layer_widths: Json[Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=1000)]]
    superclass: Superclass
    key_lock: str
    gate_bias: GateBias | None = None
    steps: Annotated[int, Field(ge=0)]
    settings: Json[dict[str, Any]]
    scores: Json[Annotated[dict[_ScoreName, float], Field(max_length=100)]]


class ConceptHeader(BaseModel):
    """The facts that an import needs; kept with the uploaded file."""

    model_config = ConfigDict(frozen=True)

    base_model: str
    space: ConceptSpace
    superclass: str
    key_lock: KeyLock
    gate_bias: GateBias | None = None
    scores: dict[str, float]

    def misfit(self, space: ConceptSpace) -> str | None:
        """What keeps the concept from working in ``space``, or None if nothing does."""
        if self.space.encoder != space.encoder:
            return "that has another text encoder"
        if self.space.covariance != space.covariance:
            return "that has another covariance"
        if self.space.layer_widths != space.layer_widths:
            return "that has other cross-attention layers"
        return None


def read_header(data: bytes) -> ConceptHeader:
    """Check a concept file and return its facts; raises ConceptUnreadable and TooLarge."""
    if len(data) > MAX_BYTES:
        raise TooLarge(f"The file has {len(data)} bytes; a concept file has at most {MAX_BYTES}.", param="file")
    try:
        tensors = dict(deserialize(data))  # type: ignore[no-untyped-call]  # compiled, without stubs
    except SafetensorError as error:
        raise _unreadable("it is no safetensors file, or it is damaged") from error
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    if metadata.get("format") != FORMAT:
        raise _unreadable(f"its format is {metadata.get('format')!r:.100} and not {FORMAT!r}")
    try:
        said = _Metadata.model_validate(metadata)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise _unreadable(f"in its metadata, {wrong['loc'][0]}: {wrong['msg']}") from error
    if said.key_lock not in get_args(KeyLock):
        raise _unreadable(f"its key lock {said.key_lock!r:.100} is none of {', '.join(get_args(KeyLock))}")
    _check_tensors(tensors, total_width=sum(said.layer_widths), trained_keys=said.key_lock == "trained")
    space = ConceptSpace(encoder=said.encoder, covariance=said.covariance, layer_widths=said.layer_widths)
    return ConceptHeader.model_validate(
        {
            "base_model": said.base_model,
            "space": space,
            "superclass": said.superclass,
            "key_lock": said.key_lock,
            "gate_bias": said.gate_bias,
            "scores": said.scores,
        }
    )


def _check_tensors(tensors: Mapping[str, Mapping[str, Any]], *, total_width: int, trained_keys: bool) -> None:
    """Raise ConceptUnreadable unless the tensors are exactly those of the format, in half precision."""
    outputs = {"value_outputs", "key_outputs"} if trained_keys else {"value_outputs"}
    due = outputs | {"target_input", "embedding", "superclass_encoding"} | ({"embedding_2"} & tensors.keys())
    if tensors.keys() != due:
        raise _unreadable(f"it holds other tensors than {', '.join(sorted(due))}")
    encoder_width = (tensors["target_input"]["shape"] or [0])[0]
    second = (tensors["embedding_2"]["shape"] or [0])[0] if "embedding_2" in tensors else 0
    widths = dict.fromkeys(outputs, total_width) | {"embedding": encoder_width - second, "embedding_2": second}
    for name, tensor in tensors.items():
        shape = [widths.get(name, encoder_width)]
        if tensor["dtype"] != "F16" or tensor["shape"] != shape or shape == [0]:
            raise _unreadable(f"{name} is {tensor['dtype']} {tensor['shape']} where F16 {shape} is due")


def _unreadable(why: str) -> ConceptUnreadable:
    return ConceptUnreadable(f"The file is not a concept file: {why}.", param="file")
