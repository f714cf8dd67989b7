"""Folders of models: on this machine, or brought here from the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from workers.engine.errors import ModelUnavailable, ModelUnreadable

# Of a model of CLIP's kind: weights, whole or sharded, tokenizer and image processor.
CLIP_FILES = ("*.json", "merges.txt", "model.safetensors", "model-*-of-*.safetensors")

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def beside(folder: Path, path_or_hub_id: str) -> str:
    """Return what a model in ``folder`` names: a path relative to the folder, or a hub id where nothing lies there."""
    path = folder / path_or_hub_id
    return str(path) if path.exists() else path_or_hub_id


def local_folder(path_or_hub_id: str, files: Sequence[str]) -> Path:
    """Return the folder, or a local copy of the hub's with those ``files`` (patterns) of it.

    Raises ModelUnreadable where there is none and ModelUnavailable for a hub that does not answer.
    """
    if path_or_hub_id and Path(path_or_hub_id).is_dir():
        return Path(path_or_hub_id)
    if not _HUB_ID.fullmatch(path_or_hub_id):
        raise ModelUnreadable(f"{path_or_hub_id!r} is neither a folder nor a hub id")
    try:
        return Path(snapshot_download(path_or_hub_id, allow_patterns=list(files)))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelUnreadable(f"the hub has no model {path_or_hub_id!r}") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelUnavailable(f"the hub did not give {path_or_hub_id!r}: {error}") from error
