"""A worker that hears no doorbell leaves; one that has nothing to do, or cannot hear any, stays."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from core.config import Settings
from tests.deployment import Deployment
from tests.integration.workers.scripted import ScriptedChild
from workers.celery_app import create_app
from workers.run import broker_answers
from workers.watchdog import Watchdog


class Scene:
    """A worker that waits, and what its watchdog sees."""

    def __init__(self, deployment: Deployment) -> None:
        self.supervisor = deployment.supervisor(child=ScriptedChild(lambda _asked: []))
        self.supervisor.start()
        self.broker, self.left, self.now = True, 0, 0.0
        self.watchdog = Watchdog(
            deployment.sessions,
            self.supervisor.worker_id,
            broker_answers=lambda: self.broker,
            leave=self._leave,
            clock=lambda: self.now,
        )

    def _leave(self) -> None:
        self.left += 1

    def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds // 10):
            self.now += 10
            self.watchdog.look_once()


@pytest.fixture
def scene(deployment: Deployment):
    made = Scene(deployment)
    yield made
    made.supervisor.close()


async def test_one_that_waits_beside_work_for_a_minute_leaves(deployment: Deployment, scene: Scene):
    await deployment.generate()
    scene.pass_seconds(60)
    assert scene.left == 0
    scene.pass_seconds(10)
    assert scene.left == 1


async def test_one_without_work_stays(scene: Scene):
    scene.pass_seconds(300)
    assert scene.left == 0


async def test_one_that_no_doorbell_can_reach_stays_and_has_a_minute_once_one_can(deployment: Deployment, scene: Scene):
    await deployment.generate()
    scene.broker = False
    scene.pass_seconds(300)
    scene.broker = True
    scene.pass_seconds(60)
    assert scene.left == 0
    scene.pass_seconds(10)
    assert scene.left == 1


def test_an_outage_of_postgres_is_not_deafness(scene: Scene):
    nowhere = sessionmaker(create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none"))
    dog = Watchdog(nowhere, "wrk_1", broker_answers=lambda: True, leave=scene._leave, clock=lambda: scene.now)
    for scene.now in (0.0, 100.0, 200.0):
        dog.look_once()
    assert scene.left == 0


def test_the_broker_is_asked_whether_it_answers(broker_url: str):
    for url, answers in ((broker_url, True), ("redis://127.0.0.1:1/0", False)):
        app = create_app(Settings(broker_url=url))
        try:
            assert broker_answers(app) is answers
        finally:
            app.close()
