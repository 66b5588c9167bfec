"""What all tests share: the devices to run on and how hypothesis searches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import clnn
from clnn.ops import gemm

settings.register_profile(
    "clnn",
    deadline=None,  # the first use of a kernel compiles it
    max_examples=25,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # `device` is the same for every example
)
settings.load_profile("clnn")

# Every device, so that one more runtime widens the tests; a simulator only by CLNN_DEVICE=oclgrind.
if os.environ.get("CLNN_DEVICE") or os.environ.get("PYOPENCL_CTX"):
    DEVICES = [clnn.device()]
else:
    DEVICES = [d for d in clnn.devices() if d.kind != "simulator"] or [clnn.device()]  # which says what is missing


@pytest.fixture(params=DEVICES, ids=lambda d: d.platform)
def device(request):
    """Each device in turn, in use for the time of the test."""
    with clnn.use_device(request.param) as chosen:
        yield chosen


@pytest.fixture(params=["CPU", "GPU"])
def form(request, device, monkeypatch):
    """The code for processors with vector registers, and that for all others, whatever this device is."""
    monkeypatch.setattr(device, "kind", request.param)
    return request.param


@pytest.fixture
def packed(monkeypatch):
    """Small and thin matrix products computed as others are, so that small tests reach that code."""
    for limit in ("SMALL", "DOT_ROWS", "STRIP_ROWS"):
        monkeypatch.setattr(gemm, limit, 0)


@pytest.fixture
def run_python(tmp_path):
    """Run Python in a process of its own: ``run_python("-c", code, CLNN_DEVICE="0")``; None unsets a variable."""
    devices = {"CLNN_DEVICE": None, "PYOPENCL_CTX": None, "PYTHONPATH": str(Path(clnn.__file__).parents[1])}

    def run(*arguments: str, **variables: str | None) -> subprocess.CompletedProcess:
        settings = {**os.environ, **devices, **variables}
        environment = {key: value for key, value in settings.items() if value is not None}
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    return run
