"""The table of layers."""

import numpy as np
import pytest

import clnn
from clnn import modules as nn
from clnn.errors import ShapeError

pytestmark = pytest.mark.usefixtures("device")


def net():
    return nn.Sequential(
        nn.Conv2d(3, 6, (3, 2), stride=2, padding=1, groups=3), nn.ReLU(), nn.AvgPool2d(2),
        nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(6 * 2 * 2, 5, bias=False)),
    )  # fmt: skip


def test_rows():
    """Every number counted by hand: a product a tap (1 channel of 3 x 2) and element, 4 bytes a float32."""
    table = clnn.summary(net(), (7, 3, 8, 9))
    conv, pooled = (7, 6, 4, 5), (7, 6, 2, 2)
    expected = [
        ("0", "Conv2d", conv, 6 * 6 + 6, 7 * 6 * 4 * 5 * 6, 4 * (42 + 840)),
        ("1", "ReLU", conv, 0, 0, 4 * 840),
        ("2", "AvgPool2d", pooled, 0, 0, 4 * 168),
        ("3.0", "Flatten", (7, 24), 0, 0, 4 * 168),
        ("3.1", "Dropout", (7, 24), 0, 0, 4 * 168),
        ("3.2", "Linear", (7, 5), 120, 7 * 5 * 24, 4 * (120 + 35)),
    ]
    rows = [(r.name, r.kind, r.output_shape, r.parameters, r.multiply_adds, r.bytes) for r in table.layers]
    assert rows == expected
    assert table.parameters == 162 == sum(p.size for p in net().parameters())
    assert table.multiply_adds == 5040 + 840
    assert table.bytes == sum(r[5] for r in expected)
    assert table.input_shape == (7, 3, 8, 9)


def test_text():
    text = str(clnn.summary(net(), (7, 3, 8, 9)))
    lines = text.splitlines()
    assert lines[0] == "input (7, 3, 8, 9)"
    assert lines[1].split() == ["layer", "type", "output", "shape", "parameters", "multiply-adds", "bytes"]
    assert lines[3].split() == ["0", "Conv2d", "(7,", "6,", "4,", "5)", "42", "5,040", "3,528"]
    assert lines[-1].split() == ["total", "162", "5,880", f"{clnn.summary(net(), (7, 3, 8, 9)).bytes:,}"]
    assert len({len(line) for line in lines[1:]}) == 1
    assert repr(clnn.summary(net(), (7, 3, 8, 9))) == text


def test_the_model_stays_as_it_was():
    model = net()
    model[3].eval()
    modes = [m.training for m in model.modules()]
    before = model.state_dict()
    clnn.summary(model, [2, 3, 8, 9])
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(values, before[name])
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    model(clnn.zeros(2, 3, 8, 9))
    assert calls == [1]
    with pytest.raises(ShapeError, match="take 3 channels, the images have 1"):
        clnn.summary(model, (1, 1, 8, 9))
    assert [m.training for m in model.modules()] == modes
    assert not model[0].__dict__["_hooks"][1:]


def test_shared_and_own_parameters():
    shared = nn.Linear(3, 3)
    table = clnn.summary(nn.Sequential(shared, nn.Tanh(), shared), (2, 3))
    assert [(r.kind, r.parameters, r.multiply_adds) for r in table.layers] == [
        ("Linear", 12, 18), ("Tanh", 0, 0), ("Linear", 0, 18),
    ]  # fmt: skip

    class Scaled(nn.Module):
        def __init__(self):
            self.scale, self.inner = nn.Parameter([2.0, 3.0]), nn.Linear(3, 2)

        def forward(self, x):
            return self.inner(x) * self.scale

    table = clnn.summary(Scaled(), (4, 3))
    assert [(r.name, r.kind, r.parameters) for r in table.layers] == [("inner", "Linear", 8), ("model", "Scaled", 2)]
    assert table.parameters == 10


def test_a_single_layer():
    table = clnn.summary(nn.Linear(4, 2), (3, 5, 4))
    assert [(r.kind, r.output_shape, r.multiply_adds) for r in table.layers] == [("Linear", (3, 5, 2), 3 * 5 * 2 * 4)]
