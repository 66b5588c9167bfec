"""What a profile gathers, and what its table and pictures show."""

import importlib
from collections import Counter

import matplotlib
import numpy as np
import pyopencl as cl
import pytest
from helpers import sides
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.text import Text

import clnn
from clnn import models, profiler, program
from clnn import modules as nn
from clnn.ceilings import Ceilings

matplotlib.use("Agg")
CEILINGS = Ceilings(gflops=200.0, gbps=20.0, cache_gbps=100.0)


@pytest.fixture(autouse=True)
def leave_nothing_behind():
    yield
    assert program.recorder is None
    plt.close("all")


@pytest.fixture
def enqueued(monkeypatch):
    """What pyopencl is asked to do, counted beside clnn's own book-keeping."""
    count = Counter()

    def counting(where, attribute, name):
        real = getattr(where, attribute)

        def counted(*arguments, **options):
            count[name(arguments)] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(where, attribute, counted)

    counting(cl.Kernel, "__call__", lambda arguments: arguments[0].function_name)
    counting(cl, "enqueue_fill_buffer", lambda arguments: "fill")
    counting(cl, "enqueue_copy", lambda arguments: "upload" if isinstance(arguments[2], np.ndarray) else "copy")
    return count


def training(device, count=6):
    """A function that trains LeNet by one step."""
    rng = np.random.default_rng(3)
    net, loss = models.lenet(), nn.CrossEntropyLoss()
    optimizer = clnn.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def step():
        x = clnn.tensor(rng.standard_normal((count, 1, 28, 28), dtype=np.float32))
        y = clnn.tensor(rng.integers(0, 10, count))
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()

    step()  # compiles
    device.synchronize()
    return step


def profiled(function):
    with clnn.profile() as p:
        function()
    return p


def some(device):
    """A profile of a few kernels of several families."""
    a, b = clnn.randn(70, 90), clnn.randn(90, 50)

    def run():
        y = (a @ b).tanh()
        (y + y.sum()).sum()
        y.clone()

    run()
    return profiled(run)


# --- gathering -------------------------------------------------------------------------------------------


def test_every_launch_of_a_training_step_is_recorded_once(device, enqueued):
    step = training(device)
    enqueued.clear()
    p = profiled(step)
    assert Counter(launch.kernel for launch in p.launches) == enqueued
    assert {"gemm_panels", "sgd", "cross_entropy", "tanh_backward", "upload"} <= set(enqueued)
    assert "fill" not in enqueued  # backward() begins with what the loss has ready
    families = {launch.kernel: launch.family for launch in p.launches}
    assert (families["sgd"], families["cross_entropy"], families["upload"]) == ("optim", "softmax", "memory")
    assert {launch.device for launch in p.launches} == {device}


def test_times_are_in_order_and_fit_the_wall_clock(device):
    p = profiled(training(device, 20))
    for launch in p.launches:
        assert launch.queued <= launch.submit <= launch.start <= launch.end, launch
    for former, later in zip(p.launches, p.launches[1:]):
        assert later.queued >= former.queued and later.start >= former.end  # the queue is in order
    assert 0 < sum(launch.seconds for launch in p.launches) <= p.wall


def test_nothing_waits_before_the_profile_closes(device, monkeypatch):
    step = training(device)
    waits = []
    for where, name in ((cl.CommandQueue, "finish"), (cl.Event, "wait"), (cl, "wait_for_events")):
        real = getattr(where, name)
        monkeypatch.setattr(where, name, lambda *a, name=name, real=real: waits.append(name) or real(*a))
    with clnn.profile() as p:
        step()
        assert not waits
    assert waits == ["finish"]
    assert p.launches


def test_nothing_is_recorded_outside(device):
    p = profiled(lambda: clnn.ones(3))
    (clnn.ones(5) + 1).numpy()
    assert [launch.kernel for launch in p.launches] == ["fill"]


def test_fills_copies_and_uploads(device):
    host = np.random.default_rng(1).random((7, 11), dtype=np.float32)

    def run():
        x = clnn.tensor(host)
        clnn.full((3, 5), 2.5).copy_(clnn.ones(3, 5))
        x.clone()

    found = [(launch.kernel, launch.bytes, launch.flops) for launch in profiled(run).launches]
    assert found == [
        ("upload", 4 * 77, None), ("fill", 4 * 15, None), ("fill", 4 * 15, None), ("copy", 8 * 15, None),
        ("copy", 8 * 77, None),
    ]  # fmt: skip


def test_sizes_are_those_of_the_launch(device):
    source = "__kernel void nothing(__global float *x, int n) { if (get_global_id(0) >= n) x[0] = 0; }"
    knl = program.build(device, source).all_kernels()[0]
    program.declare_scalars(knl)
    x = clnn.zeros(13).array
    with clnn.profile() as p:
        program.launch(device, knl, (33, 2), (16, 2), x, 100)
        program.launch(device, knl, (1, 1), (1, 1), x, 100, flops=77, nbytes=5)
    assert [(r.kernel, r.family, r.global_size, r.local_size, r.flops, r.bytes) for r in p.launches] == [
        ("nothing", "own", (48, 2), (16, 2), None, 52),
        ("nothing", "own", (1, 1), (1, 1), 77, 5),
    ]
    assert p.rows[0].flops is None and p.rows[0].bytes == 57  # what is not known of all is not known of their sum


def test_profiles_inside_each_other(device):
    with clnn.profile() as outer:
        clnn.ones(3)
        with clnn.profile() as inner:
            clnn.ones(3) + 1
        assert [launch.kernel for launch in inner.launches] == ["fill", "add_number"]
        clnn.ones(4)
    assert [launch.kernel for launch in outer.launches] == ["fill", "fill", "add_number", "fill"]
    assert inner.launches == outer.launches[1:3]
    assert inner.wall <= outer.wall


def test_profiles_that_close_in_another_order(device):
    first, second = clnn.profile(), clnn.profile()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    clnn.ones(3)
    second.__exit__(None, None, None)
    assert (len(first.launches), len(second.launches)) == (0, 1)


def test_a_profile_entered_again_starts_anew(device):
    p = profiled(lambda: clnn.ones(3) + 1)
    with p:
        clnn.ones(5)
    assert [launch.kernel for launch in p.launches] == ["fill"]


def test_an_open_profile_says_so(device):
    with clnn.profile() as p:
        clnn.ones(2)
        with pytest.raises(RuntimeError, match="this profile is open: make another one"):
            p.__enter__()
        for look in (lambda: p.launches, lambda: p.rows, p.table, p.plot, p.roofline):
            with pytest.raises(RuntimeError, match="after the with block"):
                look()
    assert len(p.launches) == 1


def test_an_exception_ends_the_profile(device):
    p = clnn.profile()
    with pytest.raises(ZeroDivisionError), p:
        clnn.ones(3)
        1 / 0  # noqa: B018
    assert program.recorder is None
    assert len(p.launches) == 1


# --- what the operations state ---------------------------------------------------------------------------


@given(batch=sides, m=sides, n=sides, k=sides)
def test_a_matrix_product_takes_2mnk(device, batch, m, n, k):
    a, b = clnn.ones(batch, m, k), clnn.ones(batch, k, n)
    rows = {row.kernel: row for row in profiled(lambda: a @ b).rows}
    packing = rows.pop("gemm_pack", None)
    [product] = rows.values()
    assert (packing is not None) == (product.kernel in ("gemm_panels", "gemm_groups"))
    assert packing is None or packing.flops is None
    assert product.flops == 2 * batch * m * n * k
    assert product.bytes >= 4 * batch * (m * k + k * n + m * n)


def test_a_large_matrix_product_packs_its_panels(device):
    a, b = clnn.ones(37, 50), clnn.ones(50, 41)
    assert {row.kernel: row.flops for row in profiled(lambda: a @ b).rows} == {
        "gemm_panels": 2 * 37 * 50 * 41, "gemm_pack": None,
    }  # fmt: skip


@given(n=st.integers(1, 100_000))
def test_a_sum_takes_one_addition_less_than_numbers(device, n):
    x = clnn.ones(n)
    p = profiled(x.sum)
    assert sum(launch.flops for launch in p.launches) == n - 1
    assert p.launches[0].bytes > 4 * n


def test_work_of_single_operations(device):
    x, y = clnn.randn(9, 13), clnn.randn(13)
    n, each = 9 * 13, 4 * 9 * 13
    rows = clnn.tensor(np.random.default_rng(0).integers(0, 9, 20))
    expected = [
        (lambda: x + x, "add", n, 3 * each),
        (lambda: x * 2, "mul_number", n, 2 * each),
        (lambda: x + y, "add_broadcast", n, 2 * each + 4 * 13),
        (lambda: -x, "neg", n, 2 * each),
        (lambda: x.relu(), "relu", n, 2 * each),
        (lambda: x.softmax(), "softmax", 5 * n, 2 * each),
        (lambda: x.argmax(), "argmax", n - 1, each + 4),
        (lambda: x[2:5], "gather_view", None, 2 * 4 * 3 * 13),
        (lambda: y.broadcast_to(7, 13), "gather_view", None, 4 * 13 * 8),
        (lambda: x.T, "gather_view", None, 2 * each),
        (lambda: x[rows], "take_rows", None, 4 * (20 * 13 * 2 + 20)),
        (lambda: clnn.ops.dropout(x, 0.3), "dropout", n, 2 * each),
    ]
    for function, kernel, flops, nbytes in expected:
        [row] = [row for row in profiled(function).rows if row.family != "memory"]
        assert (row.kernel, row.flops, row.bytes) == (kernel, flops, nbytes)


@pytest.mark.parametrize(
    ("settings", "flops", "passes"),
    [({}, 4, 3), ({"momentum": 0.9}, 7, 5), ({"momentum": 0.9, "nesterov": True}, 9, 5)],
)
def test_work_of_an_update(device, settings, flops, passes):
    w = nn.Parameter(np.ones((64, 32)))
    optimizer = clnn.optim.SGD([w], lr=0.1, **settings)
    (w * w).sum().backward()
    [row] = profiled(optimizer.step).rows
    assert (row.kernel, row.flops, row.bytes) == ("sgd", flops * 64 * 32, passes * 4 * 64 * 32)


# --- table -----------------------------------------------------------------------------------------------


def test_the_table_adds_up(device):
    p = profiled(training(device))
    rows = p.table().rows
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert sum(row.launches for row in rows) == len(p.launches)
    assert sum(row.seconds for row in rows) == pytest.approx(sum(launch.seconds for launch in p.launches))
    assert [row.seconds for row in rows] == sorted((row.seconds for row in rows), reverse=True)
    assert len({row.kernel for row in rows}) == len(rows)
    for row in rows:
        same = [launch for launch in p.launches if launch.kernel == row.kernel]
        assert row.mean_us == pytest.approx(np.mean([launch.end - launch.start for launch in same]) / 1e3)
        assert row.gbps == pytest.approx(sum(launch.bytes for launch in same) / row.seconds / 1e9)
    product = next(row for row in rows if row.kernel == "gemm_panels")
    assert product.gflops == pytest.approx(product.flops / product.seconds / 1e9)
    assert product.intensity == pytest.approx(product.flops / product.bytes)


def test_the_table_in_words(device):
    p = some(device)
    title, head, *lines = str(p.table()).splitlines()
    assert repr(p.table()) == str(p.table())
    assert title.startswith(f"{device.name}: busy ")
    assert head.split("  ")[0] == "kernel"
    for column in ("family", "launches", "total ms", "share", "mean us", "GFLOP/s", "GB/s"):
        assert column in head
    body, total = lines[1:-2], lines[-1]
    assert [line.split()[0] for line in body] == [row.kernel for row in p.rows]
    row, words = p.rows[0], body[0].split()
    assert words[1:3] == [row.family, str(row.launches)]
    assert float(words[3]) == pytest.approx(row.seconds * 1e3, abs=0.0006)
    assert words[4] == f"{row.share:.1%}"
    assert float(words[5].replace(",", "")) == pytest.approx(row.mean_us, abs=0.06)
    copy = next(line for line in body if line.startswith("copy"))
    assert len(copy.split()) == 7  # no operations, so no GFLOP/s
    assert total.split()[:2] == ["total", str(len(p.launches))]


def test_a_profile_of_nothing(device):
    p = profiled(lambda: None)
    assert p.rows == []
    assert "no device was used" in str(p.table())
    assert p.plot().get_xlabel() == "time (ms)"
    with pytest.raises(RuntimeError, match="these are of 0 devices"):
        p.roofline(ceilings=CEILINGS)
    with pytest.raises(RuntimeError, match=r"kernels .* that state their work"):
        profiled(lambda: clnn.ones(3)).roofline(ceilings=CEILINGS)


# --- pictures --------------------------------------------------------------------------------------------


def test_the_timeline(device):
    p = profiled(training(device))
    ax = p.plot()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (ms)", "family of kernels")
    lanes = [label.get_text() for label in ax.get_yticklabels()]
    assert sorted(lanes) == sorted({launch.family for launch in p.launches})
    spent = Counter()
    for launch in p.launches:
        spent[launch.family] += launch.seconds
    assert [spent[name] for name in lanes] == sorted(spent.values())  # the longest on top
    first = min(launch.queued for launch in p.launches)
    for y, (name, bars) in enumerate(zip(lanes, ax.collections, strict=True)):
        boxes = [path.get_extents() for path in bars.get_paths()]
        same = [launch for launch in p.launches if launch.family == name]
        assert np.allclose([b.x0 for b in boxes], [(r.start - first) / 1e6 for r in same])
        assert np.allclose([b.width for b in boxes], [r.seconds * 1e3 for r in same])
        assert all(b.y0 < y < b.y1 for b in boxes)
    assert ax.get_xlim()[0] == 0
    assert f"{len(p.launches)} launches" in ax.get_title()


def test_colours_are_those_for_all_eyes_and_the_same_in_both_pictures(device):
    p = some(device)
    timeline, roofline = p.plot(), p.roofline(ceilings=CEILINGS)
    lanes = [label.get_text() for label in timeline.get_yticklabels()]
    colours = {name: to_hex(bars.get_facecolor()[0]) for name, bars in zip(lanes, timeline.collections, strict=True)}
    assert set(colours.values()) <= {colour.lower() for colour in profiler.COLOURS}
    assert len(set(colours.values())) == len(colours)
    families = {row.kernel: row.family for row in p.rows}
    points = [row for row in p.rows if row.intensity]
    for row, drawn in zip(points, roofline.collections, strict=True):
        assert to_hex(drawn.get_facecolor()[0]) == colours[families[row.kernel]]


def test_the_roofline(device):
    p = some(device)
    ax = p.roofline(ceilings=CEILINGS)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("arithmetic operations a byte (FLOP/byte)", "GFLOP/s")
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words == ["memory: 20.0 GB/s", "caches: 100.0 GB/s", "arithmetic: 200 GFLOP/s"]
    memory, caches, level = ax.lines
    for line, rate in ((memory, 20), (caches, 100)):
        x, y = line.get_data()
        assert np.allclose(y, rate * np.asarray(x)) and y[-1] == pytest.approx(200)
    assert list(level.get_ydata()) == [200, 200]
    points = {text.get_text(): text.xy for text in ax.texts}
    expected = {row.kernel: (row.intensity, row.gflops) for row in p.rows if row.flops}
    assert points == expected
    assert {tuple(c.get_offsets()[0]) for c in ax.collections} == set(expected.values())
    for x, y in points.values():
        assert ax.get_xlim()[0] < x < ax.get_xlim()[1] and ax.get_ylim()[0] < y < ax.get_ylim()[1]


def test_names_do_not_cover_each_other(device):
    # Twelve kernels within a factor of 1.2 of each other.
    rng = np.random.default_rng(4)
    launches = [
        profiler.Launch(f"kernel_{i}", "f", device, (1,), (1,), 0, 0, 0, int(t), 10_000, 5_000)
        for i, t in enumerate(rng.uniform(1000, 1200, 12))
    ]
    p = clnn.profile()
    p._launches = launches
    ax = p.roofline(ceilings=CEILINGS)
    ax.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # without the lines to their points
    assert len(boxes) == 12
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]


def test_pictures_go_where_they_are_told(device):
    p = some(device)
    figure, (left, right) = plt.subplots(1, 2)
    assert p.plot(left) is left and p.roofline(right, ceilings=CEILINGS) is right
    assert left.get_xlabel() and right.get_xlabel()
    assert plt.get_fignums() == [figure.number]


def test_the_roofline_measures_the_ceilings_of_its_device(device, monkeypatch):
    asked = []
    module = importlib.import_module("clnn.ceilings")  # clnn.ceilings itself is the function
    monkeypatch.setattr(module, "ceilings", lambda device: asked.append(device) or CEILINGS)
    some(device).roofline()
    assert asked == [device]


def test_lanes_of_two_devices_are_told_apart(device):
    other = clnn.Device(device.cl_device)
    other.name = "another"
    p = clnn.profile()
    p._launches = [
        profiler.Launch("k", "f", d, (1,), (1,), t, t, t + 10, t + 30, 5, 5) for d, t in ((device, 0), (other, 10**15))
    ]
    assert len(p.rows) == 2
    ax = p.plot()
    assert {label.get_text() for label in ax.get_yticklabels()} == {f"f on {device.name}", "f on another"}
    assert ax.get_xlim()[1] < 1  # each from its own first command
    with pytest.raises(RuntimeError, match="these are of 2 devices"):
        p.roofline(ceilings=CEILINGS)


def test_the_halves_of_a_device_have_lanes_of_their_own(device):
    """By kernels, fills, copies between them and optimisers' blocks; on one clock."""
    if device.kind != "CPU" or device.cores < 2:
        pytest.skip("this device cannot be split")
    halves = device.split(2)
    weights = [nn.Parameter(np.ones((5, 7)), device=half) for half in halves]
    optimizer = clnn.optim.SGD(weights, lr=0.1)
    with clnn.profile() as p:
        (weights[0] * 2).sum().backward()
        (weights[1].to(halves[0]) * weights[0]).sum().backward()
        optimizer.step()
    assert {launch.device for launch in p.launches} == set(halves)
    for half in halves:
        own = {launch.kernel for launch in p.launches if launch.device is half}
        assert {"sgd", "copy across"} <= own
    assert [launch.device for launch in p.launches if launch.kernel == "sgd"] == halves
    shares = [sum(row.launches for row in p.rows if row.device is half) for half in halves]
    assert sum(shares) == len(p.launches) and min(shares) > 0
    ax = p.plot()
    lanes = {label.get_text(): bars for label, bars in zip(ax.get_yticklabels(), ax.collections, strict=True)}
    names = [f"optim on {device.name} #{n}" for n in (1, 2)]
    assert set(names) < set(lanes) and f"{device.name} #1, {device.name} #2: busy" in str(p.table())
    first = min(launch.queued for launch in p.launches)
    for name, half in zip(names, halves):
        [update] = [one for one in p.launches if one.kernel == "sgd" and one.device is half]
        [path] = lanes[name].get_paths()
        assert path.get_extents().x0 == pytest.approx((update.start - first) / 1e6)


def test_without_matplotlib(run_python):
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import clnn\n"
        "with clnn.profile() as p: clnn.ones(3) + 1\n"
        "print(p.table())\n"
        "try: p.plot()\n"
        "except ImportError as error: print(error)\n"
    )
    result = run_python("-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "pictures need matplotlib: pip install matplotlib"
