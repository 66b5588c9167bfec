"""Convolution in three forms."""

import numpy as np
import pytest
from helpers import generator
from scipy.signal import correlate

import clnn
from clnn.errors import ShapeError
from clnn.lab.experiments import convolutions


@pytest.mark.parametrize("shape", [(1, 1, 5, 5, 1, 3, 2), (3, 4, 12, 9, 7, 5, 5), (2, 3, 8, 17, 33, 1, 4)], ids=str)
def test_all_three_compute_the_convolution(device, shape):
    count, channels, height, width, filters, rows, columns = shape
    x = generator(0).normal(size=(count, channels, height, width)).astype(np.float32)
    w = generator(1).normal(size=(filters, channels, rows, columns)).astype(np.float32)
    want = np.stack([[correlate(image, f, "valid")[0] for f in w.astype(np.float64)] for image in x])
    found = convolutions(clnn.tensor(x), clnn.tensor(w))
    assert list(found) == ["direct", "im2col", "implicit"]
    for name, (result, launches) in found.items():
        np.testing.assert_allclose(result.numpy(), want, atol=1e-4, err_msg=name)
        assert launches and all(launch.seconds > 0 and launch.bytes > 0 for launch in launches)
    assert [launch.kernel for launch in found["direct"][1]] == ["conv_forward"]
    assert found["im2col"][1][0].kernel == "pack_windows"
    assert sum(launch.bytes for launch in found["im2col"][1]) > sum(launch.bytes for launch in found["direct"][1])


def test_shapes_that_do_not_fit(device):
    with pytest.raises(ShapeError):
        convolutions(clnn.randn(1, 2, 5, 5), clnn.randn(4, 3, 3, 3))
