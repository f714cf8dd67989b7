"""The benchmark of the dial, in its short form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks.dial import QUICK, main, rank_correlation


def test_the_short_form_reports_every_bias_beside_the_caption(tmp_path: Path):
    main(["--quick", "--json", str(tmp_path / "dial.json"), "--strip", str(tmp_path / "dial.png")])
    document = json.loads((tmp_path / "dial.json").read_text())
    for bias in QUICK.biases:
        for name in ("CLIP-I", "identity", "CLIP-T"):
            assert f"{name} at {bias:g}" in document["figures"]
            assert f"{name} at {bias:g}" in document["baseline"]
    aimed_at = {target["figure"]: (target["op"], target["target"]) for target in document["targets"]}
    assert aimed_at == {"CLIP-I: follows the bias": (">=", 0.9), "CLIP-T: follows the bias": (">=", 0.9)}
    assert (tmp_path / "dial.png").exists()


@pytest.mark.parametrize(
    ("second", "expected"),
    [((10.0, 20.0, 21.0, 90.0), 1.0), ((4.0, 3.0, 2.0, 1.0), -1.0), ((1.0, 3.0, 2.0, 4.0), 0.8)],
)
def test_rank_correlation_sees_order_and_not_size(second: tuple[float, ...], expected: float):
    assert rank_correlation((1, 2, 3, 4), second) == pytest.approx(expected)
