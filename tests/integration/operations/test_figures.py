"""What operators are told equals what the jobs themselves say, at every moment: under load, and after restarts."""

from __future__ import annotations

from tests.integration.operations.ground import under_load

_SEED = 11


def test_figures_equal_the_jobs_themselves_at_every_moment_under_load_and_after_restarts(deployment, tmp_path):
    with under_load(deployment, tmp_path / "maintain.log", _SEED) as watch:
        watch.look(6, maintainer_restarts=(2, 4), api_restarts=(3,))
    assert deployment.scalar("SELECT count(*) FROM jobs") > 60
    assert deployment.scalar("SELECT count(*) FROM jobs WHERE state = 'canceled'") > 0
    outcomes = deployment.column("SELECT DISTINCT outcome FROM job_attempts WHERE outcome IS NOT NULL")
    assert set(outcomes) >= {"failed", "lost", "returned", "succeeded"}
    assert deployment.scalar("SELECT count(*) FROM attempt_tallies") > 0
    assert deployment.scalar("SELECT count(*) FROM webhook_deliveries WHERE attempt > 0") > 0
