"""What is asked of pictures, and that scores stand beside what ignoring the prompt and drawing it right would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.engine.conftest import load
from workers.engine.errors import PromptTooLong
from workers.engine.storybook.drawing import Drawing, draw, draw_in_processes
from workers.engine.storybook.judge_pictures import draw_compositions
from workers.engine.storybook.judges import AttributeJudge
from workers.engine.storybook.scores import Prompted, attribute_accuracy, held_out, prompt_following
from workers.engine.storybook.sheet import PROMPTS, write_grid
from workers.engine.text import TextEncoder

MODELS = Path(__file__).parents[3] / "models"
HOW = Drawing(steps=2, guidance=3.0)


@pytest.fixture(scope="module")
def asked() -> list[Prompted]:
    return held_out(120, first=0)


@pytest.fixture(scope="module")
def judge() -> AttributeJudge:
    return AttributeJudge.load(MODELS / "storybook-judges")


def things(prompted: Prompted) -> list[str]:
    return [instance.identity.cls for instance in prompted.composition.instances]


def test_prompts_are_the_same_every_time_and_others_further_on(asked: list[Prompted]):
    assert held_out(20, first=100) == asked[100:]
    assert not {one.prompt for one in asked[:20]} & {other.prompt for other in held_out(20, first=120)}


def test_a_prompt_says_all_of_its_picture(asked: list[Prompted]):
    for prompted in asked:
        first = prompted.composition.instances[0]
        assert first.identity.cls in prompted.prompt
        assert first.identity.colour in prompted.prompt
        assert first.worn is None or first.worn.cls in prompted.prompt


def test_one_in_six_prompts_asks_for_a_pair(asked: list[Prompted]):
    assert sum(len(things(prompted)) == 2 for prompted in held_out(500, first=1 << 30)) >= 80


def test_every_prompt_fits_the_text_tower(storybook):
    text: TextEncoder = storybook.text
    for prompt in [*PROMPTS, *(prompted.prompt for prompted in held_out(300, first=0))]:
        text.row(text.tokens(prompt))


def test_pictures_that_show_what_was_asked_score_as_renders_do(judge: AttributeJudge, asked: list[Prompted]):
    scores = prompt_following(judge, draw_compositions([one.composition for one in asked]), asked)
    assert all(score.generated == score.rendered for score in scores.values())
    for name in ("class", "scene"):
        assert scores[name].shuffled < 0.4
        assert scores[name].generated > 0.9


def test_questions_are_put_to_the_pictures_that_can_answer(judge: AttributeJudge, asked: list[Prompted]):
    counts = {name: score.count for name, score in prompt_following(judge, noise(len(asked)), asked).items()}
    assert counts["scene"] == counts["style"] == counts["night"] == counts["count"] == len(asked)
    assert counts["class"] == sum(len(things(prompted)) <= 2 for prompted in asked)
    assert counts["both classes of a pair"] == sum(len(things(prompted)) == 2 for prompted in asked)
    assert counts["accessory"] + counts["no accessory"] == counts["class"]
    for attribute, relation in (("class", "in"), ("colour", "on")):
        parts = [count for name, count in counts.items() if name.startswith(attribute) and f"seen {relation}" in name]
        assert sum(parts) == counts[attribute]


def test_the_classes_of_a_pair_may_change_places(judge: AttributeJudge, asked: list[Prompted]):
    pairs = [prompted for prompted in asked if len(things(prompted)) == 2]
    mirrored = draw_compositions([one.composition for one in pairs])[:, :, ::-1]
    scores = prompt_following(judge, mirrored, pairs)
    assert scores["class"].generated < 0.3
    assert scores["both classes of a pair"].generated > 0.8


def test_a_judge_is_asked_for_each_attribute_where_it_shows(judge: AttributeJudge, asked: list[Prompted]):
    accuracies = attribute_accuracy(judge, [one.composition for one in asked])
    assert accuracies["scene"].count == len(asked)
    assert accuracies["right class"].count == sum(len(things(one)) == 2 for one in asked)
    assert accuracies["pattern"].count < accuracies["colour"].count < accuracies["class"].count


def test_a_picture_is_the_same_alone_in_a_batch_and_in_another_process(tiny_folder: Path):
    prompts = ["a red cat", "the dog", "a teddy bear"]
    together = draw(load(tiny_folder), prompts, HOW)
    alone = draw(load(tiny_folder), prompts[1:2], Drawing(2, 3.0, first_seed=1))
    assert np.abs(together[1].astype(int) - alone[0]).max() <= 1
    elsewhere = draw_in_processes(tiny_folder, prompts, HOW, processes=2)
    assert np.abs(together.astype(int) - elsewhere).max() <= 1


def test_a_prompt_that_cannot_be_drawn_is_an_error(tiny_folder: Path):
    with pytest.raises(PromptTooLong):
        draw(load(tiny_folder), ["a " * 400], HOW)


def test_a_grid_fills_its_last_row_with_black(tmp_path: Path):
    write_grid(noise(3), tmp_path / "new" / "grid.png", columns=2)
    with Image.open(tmp_path / "new" / "grid.png") as grid:
        assert grid.size == (256, 256)
        assert not np.asarray(grid)[128:, 128:].any()


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (count, 64, 64, 3)).astype(np.uint8)
