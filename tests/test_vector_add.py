"""The first kernel of the course."""

import numpy as np
import pytest
from helpers import generator

import clnn
from clnn.errors import DeviceError, DTypeError, ShapeError

pytestmark = pytest.mark.usefixtures("device")


@pytest.mark.parametrize("shape", [(), (1,), (255,), (256,), (257,), (17, 31, 3), (100_003,)])
def test_vector_add(shape):
    a, b = generator(1).standard_normal((2, *shape)).astype(np.float32)
    c = clnn.ops.vector_add(clnn.tensor(a), clnn.tensor(b))
    assert c.shape == shape and c.dtype == np.float32 and not c.requires_grad
    np.testing.assert_array_equal(c.numpy(), a + b)


def test_what_does_not_fit(device):
    a = clnn.zeros(3)
    with pytest.raises(ShapeError, match=r"\(3,\) and \(1,\)"):
        clnn.ops.vector_add(a, clnn.zeros(1))
    with pytest.raises(DTypeError, match="float32 and int32"):
        clnn.ops.vector_add(a, clnn.zeros(3, dtype=np.int32))
    with pytest.raises(DTypeError, match=r"ndarray.*clnn\.tensor"):
        clnn.ops.vector_add(a, np.zeros(3, np.float32))
    with pytest.raises(DeviceError, match="different devices"):
        clnn.ops.vector_add(a, clnn.zeros(3, device=clnn.Device(device.cl_device)))
