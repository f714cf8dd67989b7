"""Registering the deployment's models again and again, whether the hub answers or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL
from sqlalchemy.orm import Session

from core.catalog import statements
from core.catalog.facts import ModelFacts
from core.catalog.registration import register
from core.catalog.selection import facts_of
from core.db.engine import sync_engine

XL = "org/tiny-xl"
FILES = {
    "model_index.json": {"_class_name": "StableDiffusionXLPipeline"},
    "unet/config.json": {"sample_size": 128, "block_out_channels": [320, 640, 1280]},
    "vae/config.json": {"block_out_channels": [128, 256, 512, 512]},
    "scheduler/scheduler_config.json": {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"},
}


@pytest.fixture
def session(new_database) -> Iterator[Session]:
    url: URL = new_database()
    engine = sync_engine(url)
    with Session(engine) as opened, opened.begin():
        yield opened
    engine.dispose()


@pytest.fixture
def fetched(tmp_path: Path) -> dict[str, Path]:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    return {XL: tmp_path}


def known(session: Session) -> ModelFacts:
    session.expire_all()
    model = session.scalar(statements.platform_model("tiny-xl"))
    assert model is not None
    assert model.location == XL
    return facts_of(model)


def test_a_hub_id_is_registered_with_what_its_files_say(session, fetched):
    assert register(session, pool="gpu", locations=[XL], fetched=fetched) == ["tiny-xl"]
    facts = known(session)
    assert (facts.family, facts.size, facts.max_size) == ("stable-diffusion-xl", 1024, 2048)


def test_what_is_known_of_a_hub_id_stays_while_the_hub_is_away(session, fetched):
    register(session, pool="gpu", locations=[XL], fetched=fetched)
    before = known(session)
    assert register(session, pool="gpu", locations=[XL]) == ["tiny-xl"]
    assert known(session) == before


def test_what_was_assumed_of_a_hub_id_is_mended_once_the_hub_answers(session, fetched):
    register(session, pool="gpu", locations=[XL])
    assert known(session) == ModelFacts(name="tiny-xl")
    register(session, pool="gpu", locations=[XL], fetched=fetched)
    assert known(session).size == 1024
