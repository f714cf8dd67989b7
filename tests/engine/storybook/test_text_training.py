"""What captions state, the tokenizer, and a text tower that starts from both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from workers.engine.storybook.captions import caption
from workers.engine.storybook.identity import ACCESSORIES, COLOUR_NAMES, KINDS, PATTERNS, is_unseen
from workers.engine.storybook.networks import TOKENS
from workers.engine.storybook.questions import ANSWERS, ROUGH, Questions, stated
from workers.engine.storybook.sampling import Mixture, sample_composition
from workers.engine.storybook.text_training import (
    TextSettings,
    answers_right,
    sample_captions,
    tokenise,
    train_text_encoder,
    train_tokenizer,
)
from workers.engine.storybook.world import SCENES, STYLES

COUNT = 2000


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return train_tokenizer(sample_captions(COUNT))


def code(value: str, values: Sequence[str]) -> int:
    return values.index(value) + 1


def thing(kind: str, colour: str = "", pattern: str = "") -> list[int]:
    """Answers for a thing or for what it wears."""
    kinds = ACCESSORIES if kind in ACCESSORIES else KINDS
    return [
        code(kind, kinds),
        code(colour, COLOUR_NAMES) if colour else 0,
        code(pattern, PATTERNS[1:]) if pattern else 0,
    ]


NOTHING = [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "things", "where"),
    [
        ("a red cat", [thing("cat", "red")], {}),
        (
            "a striped orange dog wearing a spotted blue hat in the snowy mountains at night",
            [thing("dog", "orange", "striped"), thing("hat", "blue", "spotted")],
            {"place": "snow", "night": True},
        ),
        (
            "a fish next to a black boat wearing sunglasses on the moon",
            [thing("fish"), NOTHING, thing("boat", "black"), thing("sunglasses")],
            {"place": "space"},
        ),
        (
            "a white mug and a blue car and a green chair in the living room",
            [thing("mug", "white"), NOTHING, thing("car", "blue"), NOTHING, thing("chair", "green"), NOTHING],
            {"place": "room"},
        ),
        (
            "a pencil sketch of a car on a plain yellow background",
            [thing("car")],
            {"place": "plain", "background": "yellow", "style": "sketch"},
        ),
        ("a watercolor painting of a purple house", [thing("house", "purple")], {"style": "watercolor"}),
        ("noisy a hat", [[code("hat", KINDS), 0, 0]], {"rough": "noisy"}),
    ],
)
def test_what_a_caption_states_is_read_off_it(text: str, things: list[list[int]], where: dict[str, str]):
    answers = [answer for one in things for answer in one]
    assert stated(text) == [
        *answers,
        *[0] * (18 - len(answers)),
        code(where["place"], SCENES) if "place" in where else 0,
        code(where["background"], COLOUR_NAMES) if "background" in where else 0,
        int("night" in where),
        code(where["style"], STYLES) if "style" in where else 0,
        code(where["rough"], ROUGH) if "rough" in where else 0,
    ]


def test_a_full_caption_states_the_whole_composition():
    for seed in range(200):
        rng = Random(seed)
        c = sample_composition(rng, Mixture(plain=0.3, accessory=0.5, alone=0.2, pair=0.3, trio=0.3))
        said = stated(caption(rng, c.scene, c.instances, full=True))
        assert [said[6 * k] for k in range(3) if said[6 * k]] == [code(i.identity.cls, KINDS) for i in c.instances]
        assert [said[6 * k + 1] for k in range(len(c.instances))] == [
            code(i.identity.colour, COLOUR_NAMES) for i in c.instances
        ]
        assert said[18] == code(c.scene.place, SCENES)


def test_every_answer_has_its_place():
    for text in sample_captions(300):
        assert all(answer < count for answer, count in zip(stated(text), ANSWERS, strict=True))


def test_training_captions_never_tell_of_an_unseen_colour():
    def unseen(captions: list[str]) -> int:
        said = [stated(text) for text in captions]
        pairs = [(s[k], s[k + 1]) for s in said for k in (0, 6, 12) if s[k] and s[k + 1]]
        return sum(is_unseen(KINDS[kind - 1], COLOUR_NAMES[colour - 1]) for kind, colour in pairs)

    assert unseen(sample_captions(500)) == 0
    assert unseen(sample_captions(500, split="judge")) > 0


def test_words_of_the_world_are_single_tokens_and_others_still_encode(tokenizer: CLIPTokenizer):
    words = {word for text in sample_captions(500, first=COUNT) for word in text.split()}
    words |= {*KINDS, *COLOUR_NAMES, *PATTERNS, "photo", "drawing", "the", "sitting"}
    assert [word for word in words if tokenizer.tokenize(word) != [f"{word}</w>"]] == []
    assert tokenizer.unk_token_id not in tokenizer("zürich <tom>", add_special_tokens=False).input_ids
    assert len(set(tokenizer.get_vocab().values())) == len(tokenizer)


def test_the_same_captions_give_the_same_vocabulary(tokenizer: CLIPTokenizer):
    again = train_tokenizer(sample_captions(COUNT))
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_no_caption_is_longer_than_the_text_tower(tokenizer: CLIPTokenizer):
    most = Mixture(plain=0.5, accessory=1.0, pair=0.5, trio=0.5, night=1.0, sketch=0.4, watercolor=0.4)
    for seed in range(300):
        rng = Random(seed)
        c = sample_composition(rng, most)
        assert len(tokenizer(caption(rng, c.scene, c.instances, full=True)).input_ids) <= TOKENS


def test_a_filler_changes_the_tokens_and_not_the_answers(tokenizer: CLIPTokenizer):
    captions = ["a red cat on the beach"] * 50
    ids, truth = tokenise(tokenizer, captions, Random(0))
    assert len(ids.unique(dim=0)) > 5
    assert len(truth.unique(dim=0)) == 1


def test_a_question_has_no_more_answers_than_its_own():
    torch.manual_seed(0)
    scores = Questions(8)(torch.randn(2, 4, 8))
    assert scores.isfinite().sum(2).tolist() == [list(ANSWERS)] * 2


def test_questions_find_a_token_wherever_it_stands():
    torch.manual_seed(0)
    questions, encodings = Questions(8), torch.randn(2, 4, 8)
    shuffled = encodings[:, torch.tensor([2, 0, 3, 1])]
    torch.testing.assert_close(questions(encodings), questions(shuffled))


def test_the_loss_of_knowing_nothing_is_that_of_guessing_among_the_answers():
    questions = Questions(8)
    torch.nn.init.zeros_(questions.answers)
    loss = questions.loss(torch.randn(3, 4, 8), torch.zeros(3, len(ANSWERS), dtype=torch.long))
    assert loss.item() == pytest.approx(sum(map(math.log, ANSWERS)), rel=1e-5)


def test_a_short_start_already_reads_captions(tokenizer: CLIPTokenizer):
    encoder, questions = train_text_encoder(tokenizer, TextSettings(minutes=10, steps=60, batch=32, captions=1000))
    silence = np.mean([answer == 0 for text in sample_captions(1000) for answer in stated(text)])
    assert answers_right(encoder, questions, tokenizer, "train") > silence + 0.02
