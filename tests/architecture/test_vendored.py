"""Vendored files are as they were published."""

from __future__ import annotations

import hashlib

from api.pages.rendering import STATIC_FOLDER

VENDOR = STATIC_FOLDER / "vendor"


def test_vendored_files_are_those_whose_hashes_are_kept():
    lines = [line.split() for line in (VENDOR / "SHA256SUMS").read_text().splitlines()]
    told = {name: digest for digest, name in lines}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.glob("*.*s*")}
    found.pop("SHA256SUMS", None)
    assert found == told


def test_every_vendored_file_is_told_of():
    told = (VENDOR / "README.md").read_text()
    names = [path.name for path in VENDOR.glob("*.js")]
    assert names
    assert all(name in told for name in names)
