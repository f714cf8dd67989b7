"""What a signature permits, and what it does not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from core.errors import Conflict, SignatureInvalid
from core.signatures import Permit, Signer

PERMIT = Permit("ten_1", datetime(2026, 11, 23, 12, tzinfo=UTC))
SIGNER = Signer("a secret of 32 characters, or more")


def test_what_was_signed_is_read_again():
    assert SIGNER.read("read file_1", SIGNER.sign("read file_1", PERMIT)) == PERMIT


def test_a_signature_goes_into_an_address_as_it_is():
    signature = SIGNER.sign("read file_1", PERMIT)
    assert set(signature) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


@pytest.mark.parametrize("act", ["read file_2", "write file_1", "read file_1 ", ""])
def test_a_signature_permits_nothing_else(act):
    with pytest.raises(SignatureInvalid):
        SIGNER.read(act, SIGNER.sign("read file_1", PERMIT))


def test_an_altered_signature_permits_nothing():
    signature = SIGNER.sign("read file_1", PERMIT)
    for place in range(len(signature) - 1):  # the last character has bits that stand for nothing
        other = "A" if signature[place] != "A" else "B"
        with pytest.raises(SignatureInvalid):
            SIGNER.read("read file_1", signature[:place] + other + signature[place + 1 :])


@pytest.mark.parametrize("nonsense", ["", ".", "..", "x", "x.y", "é", "\0", "a" * 500])
def test_nonsense_permits_nothing(nonsense):
    with pytest.raises(SignatureInvalid):
        SIGNER.read("read file_1", nonsense)


def test_another_secret_permits_nothing():
    with pytest.raises(SignatureInvalid):
        Signer("another secret of 32 characters, or more").read("read file_1", SIGNER.sign("read file_1", PERMIT))


def test_without_a_secret_nothing_is_signed_or_permitted():
    with pytest.raises(Conflict, match="LOCKSTEP_URL_SECRET"):
        Signer(None).sign("read file_1", PERMIT)
    with pytest.raises(SignatureInvalid):
        Signer(None).read("read file_1", SIGNER.sign("read file_1", PERMIT))
