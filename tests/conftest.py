"""What all tests share: the devices to run on and how hypothesis searches."""

import os

import pytest
from hypothesis import HealthCheck, settings

import clnn

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
