"""Reading a picture's metadata as anybody may: with Pillow and an XML parser, and nothing of ours."""

from __future__ import annotations

import io
import json
from typing import Any
from xml.etree import ElementTree

from PIL import Image

_DESCRIPTION = ".//{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
_GENERATION = "{urn:lockstep:generation:1}generation"
_SOURCE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def written_facts(picture: bytes) -> str | None:
    """The JSON document as it stands in the file; None where the facts were left out."""
    return _described(picture).findtext(_GENERATION)


def facts_of(picture: bytes) -> dict[str, Any]:
    """What the file says of its generation."""
    facts: dict[str, Any] = json.loads(written_facts(picture) or "null")
    return facts


def source_of(picture: bytes) -> str | None:
    """IPTC's word for where the picture comes from."""
    return _described(picture).findtext(_SOURCE)


def _described(picture: bytes) -> ElementTree.Element:
    with Image.open(io.BytesIO(picture)) as opened:
        packet = opened.info["xmp"]
    found = ElementTree.fromstring(packet).find(_DESCRIPTION)
    assert found is not None
    return found
