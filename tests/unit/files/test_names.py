from __future__ import annotations

import pytest

from core.files.library import plain_name


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("tom.png", "tom.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\pictures\\tom.png", "tom.png"),
        ("to\0m\r\n.png", "tom.png"),
        ("köter.png", "köter.png"),
        ("", "unnamed"),
        ("pictures/", "unnamed"),
        ("  ", "unnamed"),
        ("x" * 300, "x" * 255),
    ],
)
def test_a_name_is_the_last_part_of_a_path_that_can_be_printed(sent, kept):
    assert plain_name(sent) == kept
