"""Crops, mirrors, jitter and the mean image: what notebook 06 does to photos on their way to the device."""

import numpy as np
import pytest
from helpers import generator

from clnn import data
from clnn.errors import ShapeError


def pictures(seed, n=7, channels=3, height=11, width=13):
    return generator(seed).random((n, channels, height, width), np.float32)


def places(view, image, size):
    """Where in the image this window stands; mirrored or not."""
    height, width = image.shape[1] - size + 1, image.shape[2] - size + 1
    return [
        (i, j, mirrored)
        for mirrored, v in ((False, view), (True, view[..., ::-1]))
        for i in range(height)
        for j in range(width)
        if np.array_equal(image[:, i : i + size, j : j + size], v)
    ]


@pytest.mark.parametrize("size, padding", [(1, 0), (5, 0), (11, 0), (8, 2), (13, 4)])
def test_random_crop(size, padding):
    images = pictures(size, n=200)
    views = data.RandomCrop(size, padding)(images, generator(1))
    assert views.shape == (200, 3, size, size)
    wide = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    found = [places(view, image, size) for view, image in zip(views, wide)]
    assert all(any(not mirrored for *_, mirrored in f) for f in found)
    seen = {f[0][:2] for f in found}
    most = (wide.shape[2] - size + 1) * (wide.shape[3] - size + 1)
    assert len(seen) > 0.5 * min(most, 100)  # many places are taken, each image its own
    np.testing.assert_array_equal(views, data.RandomCrop(size, padding)(images, generator(1)))


def test_mirror():
    images = pictures(0, n=400)
    views = data.RandomHorizontalFlip()(images, generator(2))
    same, mirrored = ((views == v).all((1, 2, 3)) for v in (images, images[..., ::-1]))
    assert (same ^ mirrored).all()
    assert 150 < mirrored.sum() < 250  # 200 expected, deviation 10
    np.testing.assert_array_equal(data.RandomHorizontalFlip(1)(images, generator(2)), images[..., ::-1])
    np.testing.assert_array_equal(data.RandomHorizontalFlip(0)(images, generator(2)), images)


def test_ten_views():
    images, size = pictures(3, n=4), 6
    views = data.TenCrop(size)(images, generator(0))
    assert views.shape == (4, 10, 3, size, size)
    wanted = [(i, j, m) for m in (False, True) for i, j in ((0, 0), (0, 7), (5, 0), (5, 7), (2, 3))]
    for image, views_of in zip(images, views):
        assert [places(view, image, size) for view in views_of] == [[place] for place in wanted]
    np.testing.assert_array_equal(data.CenterCrop(size)(images, generator(0)), views[:, 4])


@pytest.mark.parametrize("crop", [data.RandomCrop(12), data.CenterCrop(12), data.TenCrop(14)])
def test_windows_that_do_not_fit(crop):
    with pytest.raises(ShapeError, match=r"a window of 1[24] x 1[24] does not fit images of 11 x 13"):
        crop(pictures(0), generator(0))


def test_mean_image_and_its_subtraction():
    pixels = generator(4).integers(0, 256, (9, 3, 4, 5)).astype(np.uint8)
    dataset = data.ImageDataset(pixels, np.zeros(9, int), ["one"])
    mean = data.mean_image(dataset)
    np.testing.assert_allclose(mean, pixels.astype(float).mean(0) / 255, rtol=1e-6)
    got = data.Normalize(mean, 1 / 255)(np.float32(pixels / 255), generator(0))
    np.testing.assert_allclose(got, pixels - pixels.mean(0), atol=1e-3)
    assert abs(got.mean(0)).max() < 1e-3
    with pytest.raises(ShapeError, match=r"a mean \(3, 4, 5\); the images have 3 channels of 4 x 6"):
        data.Normalize(mean, 1)(np.zeros((2, 3, 4, 6), np.float32), generator(0))


def test_colour_jitter_by_hand():
    """Each of the three alone, with the factor that the generator will draw."""
    images = pictures(5, n=50)
    grey = np.tensordot(images, [0.299, 0.587, 0.114], (1, 0))[:, None]
    centres = [0 * grey[:, :, :1, :1], grey.mean((2, 3), keepdims=True), grey]
    for which, name in enumerate(("brightness", "contrast", "saturation")):
        got = data.ColorJitter(**{name: 0.4})(images, generator(6))
        drawn = generator(6)
        factors = [drawn.uniform(1 - r, 1 + r, (50, 1, 1, 1)) for r in (0.4 * (which == k) for k in range(3))]
        want = np.clip(centres[which] + (images - centres[which]) * factors[which], 0, 1)
        np.testing.assert_allclose(got, want, atol=2e-6, err_msg=name)
    np.testing.assert_allclose(data.ColorJitter()(images, generator(6)), images, atol=1e-6)
    for bad in (-0.1, 1.5):
        with pytest.raises(ValueError, match="out of range"):
            data.ColorJitter(contrast=bad)
    with pytest.raises(ShapeError, match="three channels"):
        data.ColorJitter()(pictures(0, channels=1), generator(0))


@pytest.mark.parametrize("arguments", [(0,), (3, -1)])
def test_refused_settings(arguments):
    with pytest.raises(ValueError, match="expected at least"):
        data.RandomCrop(*arguments)
