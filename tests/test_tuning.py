"""Tuned tile sizes: each gives the plain kernels' results and the default's bits; their table survives all mishaps."""

import json
import os
from dataclasses import astuple

import numpy as np
import pytest
from helpers import LIMIT32, assert_close, dtypes, generator, numbers

import clnn
from clnn import modules as nn
from clnn import tune, tuning
from clnn.__main__ import main
from clnn.errors import ClnnError
from clnn.ops import conv, conv_rows, gemm
from clnn.program import fill

FAMILY, KEY, ALLOWED = "gemm_panels", ("float", 3, 4, 5, 1, "NN"), [{"ROWS": 2}, {"ROWS": 3}]

pytestmark = pytest.mark.usefixtures("packed")


@pytest.fixture(autouse=True)
def table(device, tmp_path, monkeypatch):
    """An empty cache, and a process that has read nothing yet; the path of the device's table."""
    monkeypatch.setattr(tuning.pooch, "os_cache", lambda name: tmp_path / name)
    monkeypatch.delenv("CLNN_TUNING", raising=False)
    monkeypatch.setattr(tuning, "_tables", {})
    tuning._forget()
    yield tuning.file_of(device)
    tuning._forget()


def new_process():
    """Forget what was read, as a process that starts does."""
    tuning._tables.clear()
    tuning._forget()


def launched(run):
    """What ``run`` gives, and the global sizes of the kernels it launched."""
    with clnn.profile() as p:
        result = run()
    return result, {launch.kernel: launch.global_size for launch in p.launches}


@pytest.mark.parametrize("m, n, k, batch", [(29, 71, 33, 2), (131, 17, 9, 3)])
@pytest.mark.parametrize("ta, tb", [(False, False), (True, True)])
def test_every_height_of_a_product(form, device, m, n, k, batch, ta, tb):
    rng = generator(m + ta)
    family = "gemm_panels" if form == "CPU" else "gemm_groups"
    for dtype in dtypes():
        a, b, bias = [clnn.tensor(numbers(rng, *s), dtype).array for s in ((batch, m, k), (batch, k, n), (n,))]
        plain = gemm.gemm_plain(device, a, b, m, n, k, ta=ta, tb=tb, batch=batch).get() + bias.get()

        def run(a=a, b=b, bias=bias):
            return gemm.gemm(device, a, b, m, n, k, ta=ta, tb=tb, batch=batch, bias=bias).get()

        with tuning.asked() as asked:
            default = run()
        ((name, key),) = asked
        assert name == family
        assert_close(default, plain, 2 * LIMIT32 if dtype == np.float32 else 1e-12, "default")
        rows = key[1]  # n where C^T was computed
        for choice in gemm.row_candidates(device):
            tuning.record(device, family, key, choice)
            got, sizes = launched(run)
            stacks = sizes[family][2] // batch if form == "CPU" else 1
            tiles = sizes[family][0] * stacks if form == "CPU" else sizes[family][1] // 16
            assert 0 <= tiles - -(-rows // choice["ROWS"]) < stacks, "the table was not asked"
            np.testing.assert_array_equal(got, default, err_msg=str(choice))


# window's size, stride, padding, dilation; pooling; filters; image
CASES = [
    ((3, 1, 1, 1), 1, 37, (7, 31)),
    (((2, 3), (2, 1), (0, 2), 1), 2, 50, (13, 17)),
    ((2, 1, 1, (1, 2)), 3, 21, (10, 29)),
]


@pytest.mark.parametrize("window, pool, filters, image", CASES)
def test_every_tile_of_a_convolution(device, monkeypatch, window, pool, filters, image):
    monkeypatch.setattr(device, "kind", "CPU")
    if not conv.tile_candidates(device, pool):
        pytest.skip(f"two windows of {pool} x {pool} do not fit the registers here: pooling is a launch of its own")
    rng, dtype, float32 = generator(pool), np.dtype(np.float32), np.float32
    x, w, bias = (
        numbers(rng, 2, 4, *image),
        numbers(rng, 2 * filters, 2, *conv.pair(window[0], "")),
        numbers(rng, 2 * filters),
    )
    geo = conv.geometry(x.shape, w.shape, *window[1:], groups=2)
    x, w, bias = [clnn.tensor(v, float32).array for v in (x, w, bias)]
    y = conv.empty(device, (2, geo.F, geo.OH // pool, geo.OW // pool), dtype)
    winner = conv.empty(device, y.shape, np.dtype(np.int32)) if pool > 1 else None

    def run():
        for array in (y, winner):
            if array is not None:
                fill(array, -1)
        conv.forward_tiles(device, x, w, bias, geo, y, pool, winner)
        return y.get(), None if winner is None else winner.get()

    with tuning.asked() as asked:
        default = run()
    ((family, key),) = asked
    plain = conv.forward_plain(device, x, w, bias, geo).get()[..., : y.shape[2] * pool, : y.shape[3] * pool]
    plain = plain.reshape(*y.shape[:3], pool, y.shape[3], pool).max((3, 5))
    assert_close(default[0], plain, 2 * LIMIT32, "default")
    allowed, v = conv.candidates(device, key), gemm.vector_width(device, dtype)
    assert {"FORM": "conv_rows", "VECTORS": 1, "TILE": 1} in allowed or pool == 3
    for choice in allowed:
        tuning.record(device, family, key, choice)
        by_rows = "FORM" in choice
        for at_once in (False, True) if by_rows else (False,):  # all tiles of filters in one work-item
            monkeypatch.setattr(conv_rows, "PLACES", 0 if at_once else 10**9)
            got, sizes = launched(run)
            positions, together = choice["TILE"], v * choice["VECTORS"]
            if by_rows:
                positions, together = together, positions
            tiles, blocks = -(-y.shape[3] * pool // positions), 1 if at_once else -(-filters // together)
            form = choice.get("FORM", "conv_tiles")
            assert sizes[form] == (y.shape[2] * tiles, blocks, 4), "the table was not asked"
            for one, other in zip(got, default):
                np.testing.assert_array_equal(one, other, err_msg=str(choice))


def test_candidates_fit_the_registers(device, monkeypatch):
    monkeypatch.setattr(device, "kind", "CPU")
    for vector_bytes, registers in ((16, 16), (32, 16), (64, 32)):
        monkeypatch.setattr(device, "vector_bytes", vector_bytes)
        rows = [c["ROWS"] for c in gemm.row_candidates(device)]
        assert len(set(rows)) == len(rows) > 3 and min(rows) > 1 and 2 * max(rows) < registers
        for pool in (1, 2, 3):
            tiles = [(c["VECTORS"], c["TILE"]) for c in conv.tile_candidates(device, pool)]
            assert len(set(tiles)) == len(tiles)
            assert tiles or 2 * pool**2 > conv.sums(device)  # two windows do not fit
            for vectors, tile in tiles:
                assert tile % pool == 0 < tile and vectors * tile * pool < registers
            key = ("float", *astuple(conv.geometry((1, 3, 40, 50), (7, 3, 5, 5))), pool)
            for choice in conv.candidates(device, key):
                assert choice["VECTORS"] * choice["TILE"] * pool < registers
        assert not conv.tile_candidates(device, 6)


def net_and_images(seed=3):
    clnn.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(5, 3, 3), nn.Conv2d(3, 4, 1),
        nn.Flatten(), nn.Linear(4 * 3 * 4, 7), nn.ReLU(), nn.Linear(7, 3),
    )  # fmt: skip
    return net, clnn.tensor(numbers(generator(seed), 9, 2, 11, 13), np.float32)


def step(net, x):
    net.zero_grad()
    loss = (net(x) * net(x)).sum()
    loss.backward()
    return [loss.numpy(), *[p.grad.numpy() for p in net.parameters()]]


def test_a_table_changes_no_bit_of_a_training_step(form, device):
    net, x = net_and_images()
    with tuning.asked() as asked:
        want = step(net, x)
    assert len(asked) > 6
    for pick in (0, -1):
        for family, key in asked:
            allowed = conv.candidates(device, key) if family == "conv_tiles" else gemm.row_candidates(device)
            tuning.record(device, family, key, allowed[pick])
        for got, expected in zip(step(net, x), want):
            np.testing.assert_array_equal(got, expected)


def test_round_trip(device, table):
    assert tuning.lookup(device, FAMILY, KEY, ALLOWED) is None
    tuning.record(device, FAMILY, KEY, {"ROWS": 3})
    tuning.record(device, FAMILY, (*KEY, "other"), {"ROWS": 2})
    tuning.record(device, FAMILY, (*KEY, "other"), None)
    assert not table.exists()
    assert tuning.save(device) == table
    new_process()
    assert tuning.lookup(device, FAMILY, KEY, ALLOWED) == {"ROWS": 3}
    assert tuning.lookup(device, FAMILY, (*KEY, "other"), ALLOWED) is None
    assert tuning.lookup(device, FAMILY, KEY, ALLOWED[:1]) is None  # no longer one of the candidates
    assert os.listdir(table.parent) == [table.name]


def test_clnn_tuning_0(device, table, monkeypatch, capsys):
    tuning.record(device, FAMILY, KEY, {"ROWS": 3})
    tuning.save(device)
    new_process()
    monkeypatch.setenv("CLNN_TUNING", "0")
    assert tuning.lookup(device, FAMILY, KEY, ALLOWED) is None
    with pytest.raises(SystemExit):
        main(["tune", "--quick"])
    assert "CLNN_TUNING=0" in capsys.readouterr().err


@pytest.mark.parametrize("text", [
    "", "{", "[]", "null", "7", '"x"', "{}", '{"choices": {}}', "[" * 100_000, "\udcff",
    '{"device": DEVICE, "choices": []}', '{"device": DEVICE, "choices": {"gemm_panels": 5}}',
    '{"device": "another device", "choices": {"gemm_panels": {"float 3 4 5 1 NN": {"ROWS": 3}}}}',
])  # fmt: skip
def test_damaged_and_foreign_files_are_told_of_once(device, table, text):
    table.parent.mkdir(parents=True)
    text = text.replace("DEVICE", json.dumps(tuning._identity(device)))
    table.write_text(text, encoding="utf-8", errors="surrogateescape")
    a = clnn.tensor(numbers(generator(1), 3, 5), np.float32)
    with pytest.warns(UserWarning, match="no table of tuned sizes for this device") as told:
        for n in (4, 5, 6):  # training goes on
            assert (a @ clnn.ones(5, n)).shape == (3, n)
    assert len(told) == 1
    tuning.record(device, FAMILY, KEY, {"ROWS": 3})
    tuning.save(device)  # mended
    new_process()
    assert tuning.lookup(device, FAMILY, KEY, ALLOWED) == {"ROWS": 3}


@pytest.mark.parametrize("entry", [5, None, [], {"ROWS": "3"}, {"ROWS": 3, "X": 1}, {"ROWS": 0}, {"ROWS": 10**9}])
def test_entries_that_are_no_candidates(device, table, entry):
    tuning.record(device, FAMILY, KEY, {"ROWS": 3})
    tuning.save(device)
    found = json.loads(table.read_text())
    found["choices"][FAMILY]["float 3 4 5 1 NN"] = entry
    table.write_text(json.dumps(found))
    new_process()
    assert tuning.lookup(device, FAMILY, KEY, ALLOWED) is None


@pytest.mark.parametrize("attribute", ["driver", "name", "cpu_name"])
def test_another_driver_s_table(device, table, attribute, monkeypatch):
    """Has a file of its own, and is not taken for this one's even under this one's name."""
    tuning.record(device, FAMILY, KEY, {"ROWS": 3})
    tuning.save(device)
    monkeypatch.setattr(device, attribute, "another")
    new_process()
    other = tuning.file_of(device)
    assert other != table
    assert tuning.lookup(device, FAMILY, KEY, ALLOWED) is None
    table.rename(other)
    new_process()
    with pytest.warns(UserWarning, match="it belongs to"):
        assert tuning.lookup(device, FAMILY, KEY, ALLOWED) is None


def test_a_cache_that_cannot_be_written(device, table):
    table.parent.parent.write_text("a file where the folder should be")
    with pytest.raises(ClnnError, match="cannot be written"):
        tuning.save(device)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(tune, "NETS", {"lenet": (lambda: net_and_images()[0], (9, 2, 11, 13))})
    monkeypatch.setattr(tune, "FLOPS", 1e5)


def test_tune_quick(form, device, table, tiny, capsys):
    assert main(["tune", "--net", "lenet", "--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["what", "default", "best", "gain"] and lines[-1].endswith(str(table))
    kept = json.loads(table.read_text())
    assert kept["device"] == tuning._identity(device)
    assert main(["tune", "--net", "lenet", "--quick", "--json", "--batch-size", "4"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["device"] == device.name and report["file"] == str(table)
    assert len(report["rows"]) == len(lines) - 3
    choices = json.loads(table.read_text())["choices"]
    for row in report["rows"]:
        assert min(row["default_seconds"], row["best_seconds"]) > 0
        assert row["kept"] == (row["gain"] >= tune.GAIN)
        assert choices[row["family"]].get(tuning._text(row["key"])) == (row["best"] if row["kept"] else None)


def test_what_one_process_finds_the_next_one_uses(run_python, tmp_path):
    there = {"XDG_CACHE_HOME": str(tmp_path), "CLNN_DEVICE": str(clnn.devices().index(clnn.device()))}
    tuned = run_python(
        "-c",
        "import sys\n"
        "from clnn import modules as nn, tune\n"
        "from clnn.__main__ import main\n"
        "tune.NETS = {'lenet': (lambda: nn.Linear(50, 40), (30, 50))}\n"
        "tune.GAIN = -1  # whatever is found is kept\n"
        "sys.exit(main(['tune', '--quick', '--json']))",
        **there,
    )
    assert tuned.returncode == 0, tuned.stderr
    (row, *_) = [row for row in json.loads(tuned.stdout)["rows"] if row["kept"]]
    used = run_python(
        "-c",
        "import clnn\n"
        "from clnn.ops import gemm\n"
        f"print(gemm.tile_rows(clnn.device(), {row['family']!r}, *{row['key']!r}))",
        **there,
    )
    assert used.stdout.split() == [str(row["best"]["ROWS"])], used.stderr


def slow_default(monkeypatch, faster):
    """Races that take no time: a choice that is not the first takes 1 / faster of the first one's time."""

    def race(on, family, key, problem, choices, rounds):
        return np.array([[1.0 if c == problem.default else 1 / faster for c in choices]] * rounds)

    monkeypatch.setattr(tune, "_race", race)


def a_product(device):
    key = ("float", 37, 40, 5, 2, "TT")
    family = "gemm_panels" if device.kind == "CPU" else "gemm_groups"
    return family, key


@pytest.mark.parametrize("faster, kept", [(1.02, False), (1.04, True), (0.5, False)])
def test_only_what_is_clearly_faster_is_kept(form, device, monkeypatch, faster, kept):
    slow_default(monkeypatch, faster)
    family, key = a_product(device)
    tuning.record(device, family, key, gemm.row_candidates(device)[-1])  # of an earlier search
    found = tune.search(device, family, key)
    assert found.kept == kept
    assert tune._lookup(device, family, key) == (found.best if kept else None)
    assert (found.best == found.default) == (faster < 1)


def test_a_wrong_result_takes_no_part(form, device, monkeypatch):
    slow_default(monkeypatch, 2)
    family, key = a_product(device)
    real = gemm.multiply_panels

    def wrong(device, a, panels, out, *args, **options):
        real(device, a, panels, out, *args, **options)
        if tune._lookup(device, family, key) not in (None, good):
            fill(out, 7)

    default = tune._product(device, family, key).default
    good = next(c for c in reversed(gemm.row_candidates(device)) if c != default)
    monkeypatch.setattr(gemm, "multiply_panels", wrong)
    assert tune.search(device, family, key).best == good


def test_ctrl_c_keeps_what_is_finished(device, table, tiny, monkeypatch, capsys):
    slow_default(monkeypatch, 2)
    searched = []

    def search(on, family, key, *rest):
        if len(searched) == 2:
            raise KeyboardInterrupt
        searched.append((family, key))
        return tune_search(on, family, key, *rest)

    tune_search = tune.search
    monkeypatch.setattr(tune, "search", search)
    assert main(["tune", "--quick"]) == 130
    captured = capsys.readouterr()
    assert "interrupted" in captured.err and "2 kept in" in captured.out
    new_process()
    assert all(tune._lookup(device, *work) for work in searched)


def test_ctrl_c_within_a_search_keeps_the_former_choice(form, device, monkeypatch):
    family, key = a_product(device)
    former = gemm.row_candidates(device)[1]
    tuning.record(device, family, key, former)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "_race", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tune.search(device, family, key)
    assert tune._lookup(device, family, key) == former


def test_what_the_command_refuses(capsys):
    with pytest.raises(SystemExit):
        main(["tune", "--batch-size", "0"])
    assert "at least 1, got 0" in capsys.readouterr().err
