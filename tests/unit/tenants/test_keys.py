from __future__ import annotations

import pytest

from core.tenants import keys


def test_a_new_key_is_well_formed_and_unlike_the_last():
    first, second = keys.new_key(), keys.new_key()
    assert keys.is_well_formed(first)
    assert first != second


@pytest.mark.parametrize("place", range(len(keys.PREFIX), 54))
def test_one_wrong_character_is_told_offline(place):
    key = keys.new_key()
    wrong = "x" if key[place] != "x" else "y"
    assert not keys.is_well_formed(key[:place] + wrong + key[place + 1 :])


@pytest.mark.parametrize(
    "key",
    ["", "lk_live_", "sk_live_" + "0" * 46, keys.new_key()[:-1], keys.new_key() + "0"],
    ids=["empty", "bare prefix", "another prefix", "short", "long"],
)
def test_what_is_no_key_is_told_offline(key):
    assert not keys.is_well_formed(key)


def test_the_hint_does_not_give_the_key_away():
    key = keys.new_key()
    assert len(keys.hint(key)) < 15
    assert keys.digest(key) not in keys.hint(key)
