"""How devices fare: of GPUs by the bindings to NVIDIA's library, on a library that plays a GPU's part."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from workers.vitals import CpuGauge, VitalsReader

_READ = """
import dataclasses, json, pynvml
from workers.vitals import VitalsReader
try:
    print(json.dumps(dataclasses.asdict(VitalsReader(lambda: "{uuid}").read())))
except pynvml.NVMLError as error:
    print(json.dumps(type(error).__name__))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("management_library.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", source], check=True)
    return folder


def read(library: Path, uuid: str = "GPU-one", **environment: str) -> Any:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library), **environment}
    command = [sys.executable, "-c", _READ.format(uuid=uuid)]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)


def test_a_gpu_is_asked_for_its_load_memory_temperature_and_power(library):
    assert read(library, POWER="312500") == {
        "device_kind": "gpu",
        "utilization": 0.62,
        "memory_used_bytes": 2_000_000_000,
        "memory_total_bytes": 80_000_000_000,
        "temperature_c": 54,
        "power_w": 312.5,
    }


def test_what_a_gpu_does_not_tell_is_left_out(library):
    told = read(library)
    assert told["power_w"] is None
    assert told["utilization"] == 0.62


def test_another_gpu_is_not_taken_for_the_engines(library):
    assert read(library, uuid="GPU-two") == "NVMLError_NotFound"


def test_without_the_library_there_are_no_figures_and_no_harm(tmp_path):
    assert read(tmp_path) in ("NVMLError_LibraryNotFound", "NVMLError_NotFound")
    reader = VitalsReader(lambda: "GPU-one")
    reader.start()
    time.sleep(0.1)
    reader.close()
    assert reader.latest is None


def test_a_worker_without_a_gpu_is_told_by_what_it_and_its_children_take():
    gauge = CpuGauge()
    busy = [sys.executable, "-c", "held = bytearray(200_000_000)\nwhile True: pass"]
    with subprocess.Popen(busy) as child:
        try:
            before = gauge.read()
            time.sleep(0.7)
            told = gauge.read()
        finally:
            child.kill()
    after = gauge.read()
    assert told.device_kind == "cpu"
    assert told.utilization is not None
    assert 0 < told.utilization <= 1
    assert before.memory_total_bytes == told.memory_total_bytes
    assert told.memory_used_bytes is not None
    assert after.memory_used_bytes is not None
    assert told.memory_used_bytes > after.memory_used_bytes + 150_000_000
    assert (told.temperature_c, told.power_w) == (None, None)
