"""The drawn stand-in for CIFAR-10."""

import hashlib

import numpy as np

from clnn.data.drawn import SHAPES, drawn_shapes


def test_sizes_and_names():
    train, test = drawn_shapes()
    assert (train.images.shape, test.images.shape) == ((5000, 3, 32, 32), (1000, 3, 32, 32))
    assert train.classes == test.classes == tuple(SHAPES) and len(SHAPES) == 10
    assert "stand-in" in repr(train) and train.source == "drawn"
    assert np.bincount(np.concatenate([train.labels, test.labels])).tolist() == [600] * 10
    assert np.bincount(test.labels).min() > 60


def test_the_same_in_every_process(run_python):
    code = (
        "import hashlib, clnn.data.drawn as d; print([hashlib.sha256(s.images).hexdigest() for s in d.drawn_shapes()])"
    )
    digests = [hashlib.sha256(s.images).hexdigest() for s in drawn_shapes()]
    assert run_python("-c", code).stdout.strip() == str(digests)


def test_no_picture_is_empty_and_no_two_are_alike():
    train, test = drawn_shapes()
    images = np.concatenate([train.images, test.images])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    assert images.reshape(len(images), -1).std(1).min() > 10
