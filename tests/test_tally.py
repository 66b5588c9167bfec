"""The running sums of training, against NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clnn
from clnn.ops.tally import count_hits, tally


@given(
    rows=st.integers(1, 300), classes=st.integers(1, 12), places=st.sampled_from([(), (1,), (3, 2)]),
    ties=st.booleans(), seed=st.integers(0, 2**32 - 1), weight=st.floats(-100, 100, width=32),
)  # fmt: skip
def test_tally_adds_to_what_is_there(device, rows, classes, places, ties, seed, weight):
    rng = np.random.default_rng(seed)
    shape = (rows, classes, *places)
    logits = rng.integers(-2, 3, shape) if ties else rng.standard_normal(shape)
    logits, labels = logits.astype(np.float32), rng.integers(0, classes, (rows, *places), dtype=np.int32)
    loss, total, hits = np.float32(rng.standard_normal()), np.float32(rng.standard_normal()), int(rng.integers(1000))
    loss_sum, count = clnn.tensor(total), clnn.tensor(hits)
    tally(loss_sum, count, clnn.tensor(loss), weight, clnn.tensor(logits), clnn.tensor(labels))
    assert count.item() == hits + (logits.argmax(1) == labels).sum()  # the first of equals, as in NumPy
    assert loss_sum.item() == pytest.approx(
        float(total) + weight * float(loss), rel=1e-6, abs=1e-6 * abs(weight) + 1e-6
    )


def test_tally_in_double_precision(device):
    if not device.fp64:
        pytest.skip("the device has no float64")
    loss_sum, count = clnn.tensor(1.0, dtype=np.float64), clnn.tensor(0)
    logits = clnn.tensor(np.array([[0.0, 1e-12], [1e-12, 0.0]]), dtype=np.float64)
    tally(loss_sum, count, clnn.tensor(1e-12, dtype=np.float64), 3, logits, clnn.tensor([1, 1]))
    assert loss_sum.item() == 1.0 + 3e-12 and count.item() == 1


@given(
    rows=st.integers(1, 300), classes=st.integers(1, 12), k=st.integers(1, 14),
    places=st.sampled_from([(), (1,), (3, 2)]), ties=st.booleans(), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_count_hits(device, rows, classes, k, places, ties, seed):
    """Against a stable sort: of equal logits the first come first."""
    rng = np.random.default_rng(seed)
    shape = (rows, classes, *places)
    logits = (rng.integers(-2, 3, shape) if ties else rng.standard_normal(shape)).astype(np.float32)
    labels = rng.integers(0, classes, (rows, *places), dtype=np.int32)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    hits = clnn.tensor(7)
    count_hits(hits, clnn.tensor(logits), clnn.tensor(labels), k)
    assert hits.item() == 7 + (best == labels[:, None]).sum()


def test_nan_is_no_hit(device):
    """Neither where the label's own logit is NaN nor behind another's."""
    nan, hits = np.nan, clnn.tensor(0)
    logits = clnn.tensor([[nan, 1.0, 2.0], [3.0, nan, 0.0], [3.0, nan, 0.0], [nan, nan, nan]])
    labels = clnn.tensor([0, 0, 0, 2])
    count_hits(hits, logits, labels, 1)
    assert hits.item() == 0
    count_hits(hits, logits, labels, 2)
    assert hits.item() == 2  # the second and third: 3.0 comes after the NaN


def test_labels_that_are_none(device):
    """They are refused by the loss; here they count as misses and read nothing they should not."""
    hits = clnn.tensor(0)
    count_hits(hits, clnn.ones(3, 2), clnn.tensor([-1, 2, 1000000]), 2)
    assert hits.item() == 0
