"""The API's image holds no torch: what it runs must import without it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.architecture.source import ROOT

# Installed first in a fresh interpreter, it turns every import of the worker's packages into an error.
IMPORT_EVERYTHING = """
import importlib, pkgutil, sys

BLOCKED = {"torch", "diffusers", "transformers", "celery", "kombu", "skia", "numpy"}

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is not for this part", name=name)

sys.meta_path.insert(0, Wall())
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


@pytest.mark.parametrize("package", ["core", "api"])
def test_it_imports_without_the_workers_packages(package: str):
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING, package], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
