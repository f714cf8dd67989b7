"""What a training has learned so far, to be looked at: always the same prompts, drawn from the same noise."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from workers.engine.errors import Interrupted
from workers.engine.perfusion.concept import Concept
from workers.engine.perfusion.config import PerfusionConfig
from workers.engine.perfusion.drawing import PreviewFacts
from workers.engine.perfusion.painter import Painter
from workers.engine.pictures import save_sheet

_log = logging.getLogger(__name__)
_MOST = 8  # pictures


class Preview:
    """One training's: a sheet every so many steps, and of the last one."""

    def __init__(
        self,
        painter: Painter,
        facts: PreviewFacts,
        config: PerfusionConfig,
        *,
        seed: int,
        should_stop: Callable[[], bool],
        folder: Path,
        on_preview: Callable[[int, Path], None],
    ) -> None:
        self._painter = painter
        self._every = facts.every
        self._prompts = (facts.prompts or config.validation_prompts)[:_MOST]
        self._config = config
        self._seed = seed
        self._should_stop = should_stop
        self._folder = folder
        self._on_preview = on_preview

    def follow(self, concept: Concept, step: int) -> None:
        """Show the concept after a step, if it is time; one that cannot be drawn fails no training."""
        if step % self._every and step != self._config.steps:
            return
        path = self._folder / f"preview-{step:06d}.webp"
        try:
            self._save(concept, path)
        except Interrupted:  # the training is to stop, which is for it to see
            return
        except Exception as error:  # whatever it is, it is not what the customer waits for
            _log.warning("not shown: %r", error)
            return
        self._on_preview(step, path)

    def _save(self, concept: Concept, path: Path) -> None:
        prompts = self._painter.prompts(concept, self._config.key_lock, self._prompts)
        pictures = self._painter.draw(
            prompts, seed=self._seed, batch_size=self._config.batch_size, should_stop=self._should_stop
        )
        save_sheet(pictures, path)
