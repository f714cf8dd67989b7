"""``python -m infra.demo --url URL``: teach a running Lockstep one creature, draw it, and measure the result.

The API key comes from LOCKSTEP_API_KEY, as for every use of the SDK.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from infra.demo import sheet, table
from infra.demo.acts import Drawing, Play, play
from infra.demo.judge import Lineup
from infra.demo.story import CONCEPT, INPUTS, SCENES, Creature, cast
from infra.demo.table import Verdicts
from lockstep import Lockstep, LockstepError
from workers.engine.storybook.portrait import portraits

_INPUT_SEED = 2
_SHOWN_TAKES = 2  # of each scene on the contact sheet


def main() -> int:
    """Run the demo; 0 when everything worked as promised."""
    options = _options()
    console = Console()
    try:
        with Lockstep(base_url=options.url) as lockstep:
            found = perform(lockstep, cast(options.creature), options.out, console)
    except LockstepError as error:
        found = [str(error)]
    for problem in found:
        console.print(f"[bold red]problem:[/] {problem}", highlight=False)
    return 1 if found else 0


def perform(lockstep: Lockstep, creature: Creature, out: Path, console: Console) -> list[str]:
    """Play the whole story and write the contact sheet and the concept file to ``out``; what went wrong."""
    out.mkdir(parents=True, exist_ok=True)
    inputs = [Image.fromarray(picture.pixels) for picture in portraits(creature.identity, INPUTS, seed=_INPUT_SEED)]
    words = f"The words for it are [bold]{creature.caption}[/]; which one it is, only pictures can say."
    console.print(words, soft_wrap=True)
    played = play(lockstep, creature, inputs, console)
    (out / f"{CONCEPT}.safetensors").write_bytes(played.concept_file)
    path = out / "contact-sheet.png"
    _contact_sheet(creature, inputs, played).save(path)
    lineup = Lineup(creature)
    verdicts = Verdicts(
        concept=lineup.judge(_judged(played.with_concept)),
        caption=lineup.judge(_judged(played.with_caption)),
        student=lineup.judge(_judged(played.by_student)) if played.by_student else None,
    )
    console.print(table.figures(played.timings, len(played.concept_file), played.webhooks, verdicts))
    console.print(f"Contact sheet: {path}\nNext: `make up` keeps it running; README.md has the same steps with curl.")
    return table.problems(played.webhooks, verdicts)


def _judged(drawings: Sequence[Drawing]) -> list[NDArray[np.uint8]]:
    return [np.asarray(picture) for drawing in drawings if drawing.scene.is_judged for picture in drawing.pictures]


def _contact_sheet(creature: Creature, inputs: Sequence[Image.Image], played: Play) -> Image.Image:
    called = {
        (f"<{CONCEPT}>",): played.with_concept,
        (f"<{CONCEPT}>", "in one step"): played.by_student,
        ("the words", "alone"): played.with_caption,
    }
    return sheet.compose(
        title=f"Learned from {len(inputs)} pictures of {creature.caption}",
        inputs=sheet.Row(("the pictures",), inputs),
        columns=[scene.label for scene in SCENES],
        rows=[
            sheet.Row(words, [drawing.pictures[take] for drawing in drawings])
            for words, drawings in called.items()
            if drawings
            for take in range(_SHOWN_TAKES)
        ],
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m infra.demo", description=__doc__)
    parser.add_argument("--url", required=True, help="where the API answers")
    parser.add_argument("--out", type=Path, default=Path(".lockstep/demo"), help="folder for the contact sheet")
    parser.add_argument("--creature", type=int, default=1, help="another number is another creature")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
