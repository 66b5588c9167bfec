"""The ceilings' kernels compute what they say, and what was measured is kept, checked and measured anew."""

import importlib
import json

import numpy as np
import pytest
from helpers import assert_close, generator
from hypothesis import given
from hypothesis import strategies as st

import clnn
from clnn.ops import ceiling
from clnn.program import upload

module = importlib.import_module("clnn.ceilings")  # clnn.ceilings itself is the function
REAL = (module._arithmetic, module._bandwidths)


@pytest.fixture(params=["this device's form", "3 groups of 8"])
def workers(request, monkeypatch, device):
    """Both forms on every device: work-items that take runs of memory, and neighbours side by side."""
    if request.param.startswith("3"):
        monkeypatch.setattr(ceiling, "workers", lambda device: (3, 8))
    return ceiling.workers(device)


@pytest.fixture
def cache(monkeypatch, tmp_path, device):
    """An empty cache, and measurements that take no time: each gives numbers of its own."""
    counts = iter(range(1, 1000))
    monkeypatch.setattr(module.pooch, "os_cache", lambda name: tmp_path / name)
    monkeypatch.setattr(module, "_arithmetic", lambda device: 100.0 + next(counts))
    monkeypatch.setattr(module, "_bandwidths", lambda device: (20.5, 0.1 + 0.2))
    return tmp_path / "clnn" / "ceilings.json"


@pytest.fixture
def fast(device):
    """For tests that measure."""
    if device.kind == "simulator":
        pytest.skip("a simulator would take hours, and its speed says nothing")


# --- kernels ---------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(0, 40))
def test_multiply_add_is_repeated(device, workers, seed, steps):
    groups, items = workers
    rng = generator(seed)
    x = rng.standard_normal((items, ceiling.CHAINS, ceiling.lanes(device))).astype(np.float32)
    factor, term = rng.uniform(-1, 1, 2).astype(np.float32)
    expected = x.astype(float)
    for _ in range(steps):
        expected = expected * float(factor) + float(term)
    got = ceiling.multiply_add(device, upload(device, x), float(factor), float(term), steps)
    assert_close(got.get(), np.broadcast_to(expected.sum(1), got.shape), 1e-5, "multiply_add", floor=1)
    assert got.shape == (groups, items, ceiling.lanes(device))


@given(seed=st.integers(0, 2**32 - 1), passes=st.integers(1, 14), each=st.integers(1, 5))
def test_triad_takes_turns(device, workers, seed, passes, each):
    groups, items = workers
    size = groups * items * ceiling.lanes(device) * each
    a, b, c = generator(seed).integers(-50, 50, (3, size)).astype(np.float32)  # so small that every sum is exact
    arrays = [upload(device, x) for x in (a, b, c)]
    ceiling.triad(device, *arrays, -1, passes)
    order = {"a": a, "b": b, "c": c}
    target, newer, older = "abc"
    for _ in range(passes):
        order[target] = order[newer] - order[older]
        target, newer, older = older, target, newer
    for got, name in zip(arrays, "abc"):
        assert np.array_equal(got.get(), order[name]), name


def test_wrong_sizes_are_told(device):
    groups, items = ceiling.workers(device)
    width = groups * items * ceiling.lanes(device)
    good, odd = (clnn.zeros(n).array for n in (width, width + 1))
    for arrays in ((good, good, odd), (odd, odd, odd)):
        with pytest.raises(clnn.ShapeError, match=f"a multiple of {width}"):
            ceiling.triad(device, *arrays, 1.0)
    with pytest.raises(clnn.ShapeError, match="x must have shape"):
        ceiling.multiply_add(device, good, 1.0, 1.0, 1)


def test_twice_the_steps_take_twice_the_time(device, fast):
    # A compiler that saw through the kernel would make them alike.
    _, items = ceiling.workers(device)
    x = clnn.rand(items, ceiling.CHAINS, ceiling.lanes(device)).array
    steps = 2**16 if device.kind == "CPU" else 2**12
    for _ in range(3):  # other programs use the device, too
        with clnn.profile() as p:
            for k in range(12):
                ceiling.multiply_add(device, x, 0.5, 0.5, steps * (1 + k % 2))
        short, long = (min(launch.seconds for launch in p.launches[k::2]) for k in (0, 1))
        if 1.6 < long / short < 2.5:
            return
    pytest.fail(f"{steps} steps took {short * 1e3:.3f} ms, twice as many {long * 1e3:.3f} ms")


# --- measuring -------------------------------------------------------------------------------------------


def test_nothing_goes_faster_than_the_ceilings(device, fast, cache, monkeypatch):
    monkeypatch.setattr(module, "_arithmetic", REAL[0])
    monkeypatch.setattr(module, "_bandwidths", REAL[1])
    a, b = clnn.randn(512, 512), clnn.randn(512, 512)
    x, y = clnn.randn(300, 300), clnn.randn(300, 300)
    best = clnn.ceilings(fresh=True)
    for _ in range(3):  # the ceilings may have been measured while other programs held the device
        with clnn.profile() as p:
            for _ in range(10):
                a @ b, x + y, x.relu(), (x + y).sum()
        fastest = {}
        for launch in p.launches:
            done = fastest.setdefault(launch.kernel, [0, 0])
            done[0] = max(done[0], (launch.flops or 0) / launch.seconds / 1e9)
            done[1] = max(done[1], launch.bytes / launch.seconds / 1e9)
        # Half as much again for a processor that changes its clock, and for arrays within the first cache.
        if all(gflops < 1.5 * best.gflops and gbps < 1.5 * best.cache_gbps for gflops, gbps in fastest.values()):
            break
        found = clnn.ceilings(fresh=True)
        best = module.Ceilings(*(max(getattr(r, k) for r in (best, found)) for k in vars(best)))
    else:
        pytest.fail(f"{fastest} under {best}")
    assert 0 < best.gbps < 1.5 * best.cache_gbps
    assert fastest["gemm_panels"][0] > 0


def test_wrong_results_are_told(device, fast, cache, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.0)
    monkeypatch.setattr(module.ceiling, "triad", lambda *arguments: clnn.zeros(1))
    with pytest.raises(clnn.DeviceError, match=r"computed a wrong sum of arrays.*CLNN_DEVICE=cpu"):
        module._bandwidth(device, 1000, 1)
    real = ceiling.multiply_add
    monkeypatch.setattr(ceiling, "multiply_add", lambda d, x, factor, term, steps: real(d, x, factor, term, steps // 2))
    with pytest.raises(clnn.DeviceError, match="computed a wrong sum of products"):
        REAL[0](device)


def test_no_profile_is_left_open_by_a_failure(device, cache, monkeypatch):
    def fail(*arguments):
        raise clnn.DeviceMemoryError("too large")

    monkeypatch.setattr(module.ceiling, "triad", fail)
    with pytest.raises(clnn.DeviceMemoryError):
        module._bandwidth(device, 1000, 1)
    assert clnn.program.recorder is None


# --- keeping ---------------------------------------------------------------------------------------------


def test_measured_once_and_kept(cache, device):
    first = clnn.ceilings()
    assert first == module.Ceilings(101.0, 20.5, 0.1 + 0.2)
    assert clnn.ceilings() == clnn.ceilings(device) == first  # to the last bit
    assert clnn.ceilings(fresh=True).gflops == 102.0
    assert clnn.ceilings().gflops == 102.0
    assert list(json.loads(cache.read_text())) == [module._key(device)]
    assert [path.name for path in cache.parent.iterdir()] == ["ceilings.json"]  # no temporary file


def test_other_devices_and_drivers_keep_theirs(cache, device, monkeypatch):
    clnn.ceilings()
    monkeypatch.setattr(device, "driver", device.driver + " of another day")
    assert clnn.ceilings().gflops == 102.0
    monkeypatch.undo()
    assert len(json.loads(cache.read_text())) == 2


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[1, 2]",
        "null",
        b"\xff\xfe\x00",
        '{"KEY": 5}',
        '{"KEY": {"gflops": 1}}',
        '{"KEY": {"gflops": 1, "gbps": 2, "cache_gbps": 3, "more": 4}}',
        '{"KEY": {"gflops": "1", "gbps": 2, "cache_gbps": 3}}',
        '{"KEY": {"gflops": 0, "gbps": 2, "cache_gbps": 3}}',
        '{"KEY": {"gflops": NaN, "gbps": 2, "cache_gbps": 3}}',
        '{"KEY": {"gflops": -1, "gbps": 2, "cache_gbps": 3}}',
    ],
)
def test_a_damaged_file_is_measured_anew(cache, device, damage):
    cache.parent.mkdir()
    text = damage if isinstance(damage, bytes) else damage.replace("KEY", module._key(device)).encode()
    cache.write_bytes(text)
    assert clnn.ceilings().gflops == 101.0
    assert clnn.ceilings().gflops == 101.0  # mended


def test_what_was_kept_of_others_stays(cache, device):
    cache.parent.mkdir()
    other = {"another device": {"gflops": 1.0, "gbps": 2.0, "cache_gbps": 3.0}}
    cache.write_text(json.dumps(other))
    clnn.ceilings()
    kept = json.loads(cache.read_text())
    assert kept.pop(module._key(device))["gflops"] == 101.0
    assert kept == other


def test_a_cache_that_cannot_be_written(cache, device):
    cache.parent.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match=r"ceilings\.json cannot be written"):
        assert clnn.ceilings().gflops == 101.0


def test_training_measures_nothing(cache, device):
    with clnn.profile() as p:
        (clnn.rand(3, 3) @ clnn.rand(3, 3)).sum()
    p.table(), p.plot()
    assert not cache.exists()
