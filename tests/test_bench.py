"""Benchmarks: that they check before they time, what they write, and the page made of it. Nothing about speed."""

import json
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_close, generator, numbers

import clnn
from clnn import bench
from clnn import modules as nn
from clnn.__main__ import main
from clnn.bench import agreement, peers, reference, report, suites, timing
from clnn.ceilings import Ceilings
from clnn.errors import BenchmarkError

QUICK = timing.Settings(rounds=2, sample=0, budget=0.1, pause=0)
KEYS = {
    "suite", "name", "unit", "series", "size", "flops", "nbytes", "images", "seconds", "quartiles", "ratio",
}  # fmt: skip


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(bench, "QUICK", QUICK)


@pytest.mark.parametrize("suite", ["vector_add", "gemm", "conv", "lenet", "cifar", "cifar_quick", "xor"])
def test_suites(device, quick, suite):
    """Each suite's small form: every row's result was right, or there would be a fault in its place."""
    found, faults = bench.benchmark([suite], ["numpy"], quick=True)
    assert faults == []
    assert [row["name"] for row in found["rows"]] == [case.name for case in suites.SUITES[suite](True)]
    for row in found["rows"]:
        assert row.keys() == KEYS
        with_numpy = {"numpy"} if suite in ("vector_add", "gemm", "xor") else set()
        assert row["seconds"].keys() == row["quartiles"].keys() == {"clnn"} | with_numpy
        assert row["ratio"].keys() == with_numpy
        for name, seconds in row["seconds"].items():
            low, high = row["quartiles"][name]
            assert 0 < low <= seconds <= high
    assert found["peers"]["clnn"] == clnn.__version__


def test_full_suites_hold_every_convolution_and_size():
    """Names of the long forms; the large net is only counted, not run."""
    gemm = [case for case in suites.gemm(quick=False)]
    assert [case.size for case in gemm if case.series] == [128, 256, 512, 1024, 2048]
    assert len([case for case in gemm if not case.series]) == 3 * (2 + 1 + 3)
    conv = list(suites.conv(quick=False))
    assert len(conv) == 3 * (2 + 3 + 5)
    work = {case.name: case.flops for case in conv}
    assert work["LeNet conv2 backward data, batch 100"] == 2 * 100 * 50 * 8 * 8 * 20 * 25
    assert work["AlexNet conv2 forward, batch 16"] == 2 * 16 * 256 * 27 * 27 * 48 * 25
    forward = sum(case.flops for case in conv if case.name.startswith("LeNet") and "forward" in case.name)
    assert suites.multiply_adds("lenet", "inference") == forward / 200 + 800 * 500 + 500 * 10
    first = 20 * 24 * 24 * 25
    assert suites.multiply_adds("lenet", "training") == 3 * suites.multiply_adds("lenet", "inference") - first


def every_layer() -> nn.Module:
    """A net for images (N, 2, 13, 9) with each layer that the reference knows."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.ReLU(), nn.LocalResponseNorm(4, alpha=0.7, k=2.0),
        nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm2d(4, alpha=0.7, beta=0.9), nn.Conv2d(4, 4, (2, 1)),
        nn.Tanh(), nn.AvgPool2d(2, 3, ceil_mode=True),
        nn.Flatten(), nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 3),
    )  # fmt: skip


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_reference_gradients(loss):
    """The reference's own gradients against central differences of its loss."""
    net, rng, function = every_layer(), generator(1), getattr(reference, loss)
    state = {name: numbers(rng, *p.shape) for name, p in net.named_parameters()}
    x = numbers(rng, 3, 2, 13, 9)
    target = np.array([2, 0, 1]) if loss == "cross_entropy" else numbers(rng, 3, 3)
    found = reference.step(net, state, x, target, function, lr=0.1, weight_decay=0.01)

    def value(state):
        return function(reference.forward(net, state, x)[0], target)[0]

    assert found["loss"] == value(state)
    for name, p in state.items():
        gradient = found[f"gradient of {name}"]
        np.testing.assert_allclose(found[f"{name} after a step"], p - 0.1 * (gradient + 0.01 * p))
        direction = numbers(rng, *p.shape)
        ends = [value({**state, name: p + h * direction}) for h in (1e-6, -1e-6)]
        np.testing.assert_allclose((gradient * direction).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-6, atol=1e-8)


def test_reference_against_clnn(device):
    """Value by value against the package's layers, which have tests of their own."""
    net, rng = every_layer().eval(), generator(2)
    x, state = numbers(rng, 3, 2, 13, 9), {name: 0.3 * numbers(rng, *p.shape) for name, p in net.named_parameters()}
    net.load_state_dict(state)
    want = reference.forward(net, state, x)[0]
    assert_close(net(clnn.tensor(x)).numpy(), want, 1e-5, "value")


class Double:
    """A peer that doubles: right, or off by ``error``; ``log`` tells whose turn it was."""

    slow = False

    def __init__(self, name, error=0.0, log=None):
        self.name, self.error, self.log = name, error, [] if log is None else log

    def double(self, x):
        def run():
            self.log.append(self.name)
            return 2 * x + self.error

        return timing.Contestant(run)


def doubling(**options):
    x = np.arange(1.0, 4.0)
    return timing.Case("sums", "doubling", "double", lambda: ((x,), lambda: 2 * x), "ms", **options)


def test_contestants_take_turns():
    log = []
    row, faults = timing.measure(doubling(), [Double(n, log=log) for n in ("clnn", "a", "b")], QUICK)
    assert faults == []
    assert row["seconds"].keys() == {"clnn", "a", "b"}
    assert log[:9] == ["clnn"] * 3 + ["a"] * 3 + ["b"] * 3  # checked and warmed up
    assert log[9:] == ["clnn", "a", "b"] * QUICK.rounds


def test_a_turn_begins_when_the_others_threads_sleep():
    """Such as those of OpenBLAS, which look for more work for a while: on a core that the next contestant needs."""
    until = time.perf_counter() + 0.15

    def look_for_work():
        while time.perf_counter() < until:
            pass

    thread = threading.Thread(target=look_for_work)
    thread.start()
    timing.rest(0.01)
    assert time.perf_counter() >= until
    thread.join()


def test_wrong_results_get_no_time():
    row, faults = timing.measure(doubling(), [Double("clnn"), Double("bad", 1e-3), Double("good", 1e-6)], QUICK)
    assert row["seconds"].keys() == {"clnn", "good"}
    assert len(faults) == 1
    assert faults[0].startswith("bad computes sums doubling wrong: the result is off by")
    row, faults = timing.measure(doubling(), [Double("clnn", np.nan), Double("good")], QUICK)
    assert row is None
    assert len(faults) == 1
    row, faults = timing.measure(doubling(tolerance=0.1), [Double("clnn", 1e-3)], QUICK)
    assert row and not faults

    class WrongLater(Double):
        def double(self, x):
            return timing.Contestant(lambda: 2 * x + 1e-3 * bool(self.log.append(1) or len(self.log) > 2))

    row, faults = timing.measure(doubling(), [Double("clnn"), WrongLater("late")], QUICK)
    assert row["seconds"].keys() == {"clnn"} and faults[0].startswith("late computes sums doubling wrong")


def test_wrong_shapes_and_gradients():
    case = doubling(tolerance=1e-3, gradient_tolerance=0.2)
    want = {"loss": np.ones(3), "gradient of x": np.ones(3)}
    timing.check("one", case, {"loss": np.ones(3), "gradient of x": np.full(3, 1.1)}, want)
    with pytest.raises(BenchmarkError, match="loss is off by 1"):
        timing.check("one", case, {"loss": np.full(3, 1.1), "gradient of x": np.ones(3)}, want)
    with pytest.raises(BenchmarkError, match=r"has shape \(2,\), not \(3,\)"):
        timing.check("one", case, np.ones(2), np.ones(3))


def test_parameters_after_a_step_take_on_their_gradients_errors():
    case = doubling(tolerance=1e-5, gradient_tolerance=0.2, lr=0.1)
    gradient = {"gradient of b": np.ones(3)}
    for before, off, right in ((0, 0.01, True), (0, 0.03, False), (100, 0.01, True), (100, 1, False)):
        want = {"b after a step": np.full(3, before - 0.1), **gradient}
        got = {"b after a step": np.full(3, before - 0.1 - off), **gradient}
        if right:
            timing.check("one", case, got, want)
        else:
            with pytest.raises(BenchmarkError, match="b after a step is off"):
                timing.check("one", case, got, want)


def test_peers_that_fail_or_are_slow():
    class Broken(Double):
        def double(self, x):
            raise RuntimeError("no kernel")

    slow, notes = Double("slow"), []
    slow.slow = True
    row, faults = timing.measure(doubling(), [Double("clnn"), Broken("broken"), slow], QUICK, notes.append)
    assert (row["seconds"].keys(), faults) == ({"clnn"}, [])
    assert notes == ["broken cannot do sums doubling: RuntimeError: no kernel"]
    row, _ = timing.measure(doubling(for_slow_peers=True), [Double("clnn"), slow], QUICK)
    assert row["seconds"].keys() == {"clnn", "slow"}
    with pytest.raises(RuntimeError, match="no kernel"):
        timing.measure(doubling(), [Broken("clnn")], QUICK)


def test_missing_peers(device, monkeypatch):
    for module in ("torch", "tinygrad"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delenv("CLNN_CLBLAST", raising=False)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    notes = []
    found = peers.find_peers(device, list(peers.PEERS), notes.append)
    assert [peer.name for peer in found] == ["clnn", "numpy"]
    assert [note.split(":")[0] for note in notes] == ["without torch", "without clblast", "without tinygrad"]


def test_alexnet_agrees_with_pytorch(device):
    """From the same weights, where both select the same in ReLUs and pooling. Runs where PyTorch is: .venv-bench."""
    pytest.importorskip("torch", reason="PyTorch is not here: `make bench` installs it in .venv-bench")
    found = agreement.compare("he", 1, batch=4)
    assert found["logits"] < 1e-4 and found["same: gradients"] < 1e-4 and found["same: step"] < 1e-4, found
    assert found["flips"] < 20
    if found["flips"] == 0:
        assert found["gradients"] < 1e-4 and found["step"] < 1e-4, found


def test_agreement_finds_selections_and_differences(device):
    """One step of AlexNet leaves ten selections, of the sizes of its maps; a fault in one tensor shows."""
    net = agreement.alexnet("he", 3)
    x = numbers(generator(4), 1, 3, 227, 227).astype(np.float32)
    results, chosen = agreement._clnn_step(net, x, np.array([5]))
    sizes = [(96, 55), (96, 27), (256, 27), (256, 13), (384, 13), (384, 13), (256, 13), (256, 6)]
    assert [c.shape for c in chosen] == [(1, maps, side, side) for maps, side in sizes] + [(1, 4096)] * 2
    assert [c.dtype.kind for c in chosen] == list("bibibbbibb")
    wrong = {**results, "gradient of 4.bias": 1.5 * results["gradient of 4.bias"]}
    assert agreement._apart(wrong, results, "gradient") == pytest.approx(0.5)
    assert agreement._apart(wrong, results, "logits") == 0
    assert agreement._flips(chosen, [~chosen[0], *chosen[1:]]) == chosen[0].size


def test_agreement_without_pytorch(run_python):
    code = "import sys; sys.modules['torch'] = None\nfrom clnn.bench.agreement import main\nmain()"
    result = run_python("-c", code)
    assert result.returncode == 2 and "`make bench` installs PyTorch in .venv-bench" in result.stderr


def test_medians_and_ratios():
    """The ratio is the median of the rounds' ratios: an hour's doubled load leaves it alone."""
    samples = {"clnn": [1.0, 2.0, 4.0, 1.0], "numpy": [3.0, 6.0, 12.0], "torch": [0.5, 1.0, 3.0, 0.5]}
    row = timing.row_of(doubling(), samples)
    assert row["seconds"] == {"clnn": 1.5, "numpy": 6.0, "torch": 0.75}
    assert row["ratio"] == {"numpy": 3.0, "torch": 0.5}
    assert row["quartiles"]["numpy"] == [4.5, 9.0]


def made_up() -> dict:
    """A report with a row of each unit, made by hand."""

    def row(suite, name, unit, seconds, series="", size=0, **work):
        work = {"flops": 0, "nbytes": 0, "images": 0, **work}
        own = seconds["clnn"]
        ratio = {who: s / own for who, s in seconds.items() if who != "clnn"}
        quartiles = {who: [s, s] for who, s in seconds.items()}
        return dict(
            suite=suite, name=name, unit=unit, series=series, size=size, seconds=seconds, quartiles=quartiles,
            ratio=ratio, **work,
        )  # fmt: skip

    return {
        "schema": 1, "date": "2026-01-02", "quick": False, "load": 0.25,
        "machine": {
            "processor": "Abacus 9", "cores": 4, "memory_gib": 16.0, "system": "Debian", "python": "3.12.1",
            "pyopencl": "2026.1",
        },
        "device": {
            "name": "Abacus(R) 9", "platform": "Portable Computing Language", "kind": "CPU", "driver": "7.0",
            "version": "OpenCL 3.0", "cores": 4, "cache_bytes": 1000, "vector_bits": 256,
        },
        "ceilings": {"gflops": 200.0, "gbps": 20.0, "cache_gbps": 100.0},
        "peers": {"clnn": "0.1.0", "numpy": "2.4", "torch": "2.13.0, 4 threads"},
        "rows": [
            row("vector_add", "50 numbers", "GB/s", {"clnn": 1e-5, "numpy": 2e-5}, "vector_add", 50, nbytes=600),
            row("vector_add", "9,000 numbers", "GB/s", {"clnn": 1e-5, "numpy": 5e-6}, "vector_add", 9000, nbytes=10800),
            row("gemm", "fc", "GFLOP/s", {"clnn": 0.02, "numpy": 0.03, "torch": 0.01}, flops=10**9, nbytes=800),
            row("lenet", "training", "images/s", {"clnn": 0.05, "torch": 0.2}, "lenet", 9, images=100, flops=2 * 10**9),
            row("xor", "step", "ms", {"clnn": 0.0004}, images=4),
        ],
    }  # fmt: skip


def test_of_ceiling():
    found = made_up()
    shares = [report.of_ceiling(row, found) for row in found["rows"]]
    np.testing.assert_allclose(shares[:4], [600 / 100e9 / 1e-5, 10800 / 20e9 / 1e-5, 0.25, 0.2])
    assert shares[4] is None


def test_ceilings_only_rise(device, monkeypatch):
    found = made_up()
    measured = Ceilings(gflops=150.0, gbps=25.0, cache_gbps=100.0)
    monkeypatch.setattr(report, "ceilings", lambda on, fresh: measured)
    report.raise_ceilings(found, device, fresh=True)
    assert found["ceilings"] == {"gflops": 200.0, "gbps": 25.0, "cache_gbps": 100.0}


def test_table():
    text = report.table(made_up())
    lines = {line.split("  ")[0]: " ".join(line.split()) for line in text.splitlines()}
    assert lines["fc"] == "fc 20.0 50 GFLOP/s 25% 1.50 x 0.50 x"
    assert lines["training"] == "training 50.0 2,000 images/s 20% 4.00 x"
    assert lines["9,000 numbers"] == "9,000 numbers 0.0100 1.08 GB/s 5% 0.50 x"
    assert lines["step"] == "step 0.400"
    assert "Abacus 9, 4 cores, 16.0 GiB" in text
    assert "load before the start: 0.25" in text


def test_page(tmp_path):
    """Two devices, their tables and their plots; a second time the same page."""
    other = made_up()
    other["device"] |= {"name": "Sliderule GPU", "platform": "NVIDIA CUDA", "kind": "GPU"}
    for one in (made_up(), other):
        report.save(one, tmp_path / "results")
    names = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert names == ["abacus-r-9-pocl-256-bit.json", "sliderule-gpu-nvidia-cuda.json"]
    assert json.loads((tmp_path / "results" / names[0]).read_text()) == made_up()
    assert main(["bench", "--report", str(tmp_path)]) == 0
    page = (tmp_path / "README.md").read_text()
    assert page.count("| fc | 20.0 | 50 GFLOP/s | 25% | 1.50 x | 0.50 x |") == 2
    assert page.count("### xor") == 2
    for line in page.splitlines():
        if line.startswith("!["):
            picture = tmp_path / line.split("](")[1].rstrip(")")
            assert picture.read_bytes().startswith(b"\x89PNG")
    report.write_page(tmp_path)
    assert (tmp_path / "README.md").read_text() == page
    assert not list(tmp_path.rglob("*.part"))


def test_plots():
    """What stands in the figures: each ratio at its row, each series' times by size."""
    found = made_up()
    (axes,) = report.plot_ratios(found).axes
    assert [label.get_text() for label in axes.get_yticklabels()][3] == "lenet: training"
    numpy, torch = (collection.get_offsets().tolist() for collection in axes.collections)
    assert numpy == [[2.0, 0], [0.5, 1], [1.5, 2]]
    assert torch == [[0.5, 2], [4.0, 3]]
    adding, lenet = report.plot_growth(found).axes
    assert [line.get_label() for line in adding.lines] == ["clnn", "numpy"]
    np.testing.assert_allclose(adding.lines[1].get_xydata(), [[50, 0.02], [9000, 0.005]])
    assert lenet.get_xlabel() == "batch"


def test_files_that_hold_no_results(tmp_path, capsys):
    assert main(["bench", "--report", str(tmp_path)]) == 1
    assert "measure first" in capsys.readouterr().err
    path = tmp_path / "results" / "a.json"
    path.parent.mkdir()
    for text, words in (("{", "is damaged"), ("[]", "holds no results"), ('{"schema": 0}', "holds no results")):
        path.write_text(text)
        with pytest.raises(BenchmarkError, match=words):
            report.write_page(tmp_path)
    assert not (tmp_path / "README.md").exists()


def test_command(device, quick, tmp_path, capsys, monkeypatch):
    path = tmp_path / "new" / "found.json"
    arguments = ["bench", "--quick", "--suite", "vector_add", "xor", "--peers", "numpy", "--json", str(path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "numpy takes" in printed
    found = report.load(path)
    assert found["quick"] and [row["suite"] for row in found["rows"]] == ["vector_add", "xor"]
    assert found["device"]["name"] == device.name
    text = path.read_text()
    assert socket.gethostname() not in text.replace(found["machine"]["system"], "")
    assert str(tmp_path) not in text and sys.prefix not in text

    monkeypatch.setattr(peers.Numpy, "vector_add", lambda self, a, b: timing.Contestant(lambda: a - b))
    assert main(["bench", "--quick", "--suite", "vector_add", "--peers", "numpy"]) == 1
    assert "numpy computes vector_add 1,000 numbers wrong" in capsys.readouterr().err


def test_the_page_in_the_repository_is_up_to_date():
    """benchmarks/README.md says what its files of results say."""
    folder = Path(clnn.__file__).parents[1] / "benchmarks"
    files = sorted((folder / "results").glob("*.json"))
    if not files:
        pytest.skip("no results in the repository")
    assert (folder / "README.md").read_text() == report.page([report.load(path) for path in files])
