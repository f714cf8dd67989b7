"""Keeps what the libraries say while they load out of a process's output."""

from __future__ import annotations

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


def silence_loading() -> None:
    """Switch off progress bars and remarks: they warn of attributes that they wrote into a folder themselves."""
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
