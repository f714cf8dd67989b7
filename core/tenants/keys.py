"""The format of API keys: ``lk_live_`` + 40 random base62 characters + a CRC32 of them in base62.

A mistyped or truncated key is told from an unknown one without a look into the database; only a hash is stored.
"""

from __future__ import annotations

import hashlib
import secrets
import string
import zlib
from typing import Final

PREFIX: Final = "lk_live_"
SCOPES: Final = frozenset({"generate", "train", "distill", "read", "admin"})

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_LENGTH = 40  # 238 bits
_CHECK_LENGTH = 6  # 62**6 > 2**32
_HINT_LENGTH = len(PREFIX) + 4


def new_key() -> str:
    """A fresh key."""
    body = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    return PREFIX + body + _check(body)


def is_well_formed(key: str) -> bool:
    """Whether the prefix, the length and the check characters are right."""
    body, check = key[len(PREFIX) : -_CHECK_LENGTH], key[-_CHECK_LENGTH:]
    return key.startswith(PREFIX) and len(body) == _RANDOM_LENGTH and check == _check(body)


def digest(key: str) -> str:
    """What is stored of a key. A plain SHA-256 is enough: the key itself is random."""
    return hashlib.sha256(key.encode()).hexdigest()


def hint(key: str) -> str:
    """The part of a key that may be shown."""
    return key[:_HINT_LENGTH] + "…"


def _check(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = []
    for _ in range(_CHECK_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
