"""The ladder of matrix products: each step against NumPy, its traffic against what a simulator counts."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import generator, numbers, seeds
from hypothesis import given
from hypothesis import strategies as st

import clnn
from clnn.errors import BenchmarkError, ShapeError
from clnn.lab import ladder, simulator

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
sides = st.sampled_from([1, 2, 3, 5, 6, 7, 13, 15, 16, 17, 31, 33, 63, 64, 65, 70])


@pytest.mark.parametrize("step", ladder.STEPS, ids=str)
@given(m=sides, n=sides, k=sides, seed=seeds)
def test_every_step_computes_the_product(form, step, m, n, k, seed):
    rng = generator(seed)
    a, b = numbers(rng, m, k), numbers(rng, k, n)
    got = step.multiply(a, b)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, a @ b, rtol=0, atol=1e-5 * max(1, np.abs(a).max() * np.abs(b).max() * k))


@pytest.mark.parametrize("step", ladder.STEPS, ids=str)
def test_every_element_is_written_and_nothing_else(form, step):
    on, (m, n, k) = clnn.device(), (19, 37, 11)
    a, b = generator(0).normal(size=(m, k)), generator(1).normal(size=(k, n))
    room = clnn.program.fill(clnn.program.empty(on, (m + 4, n)), 7)  # rows of C, then some that are not C's
    step.run(on, *(clnn.program.upload(on, x.astype(np.float32)) for x in (a, b)), room, m, n, k)
    np.testing.assert_allclose(room.get()[:m], a @ b, atol=1e-4)
    assert np.all(room.get()[m:] == 7)


@pytest.mark.parametrize("shapes", [((3, 4), (5, 6)), ((3,), (3, 4)), ((0, 4), (4, 2)), ((2, 2, 2), (2, 2))], ids=str)
def test_matrices_that_do_not_fit(shapes):
    with pytest.raises(ShapeError, match=re.escape(str(shapes[0]))):
        ladder.STEPS[0].multiply(*(np.ones(shape) for shape in shapes))


COUNT = """
import numpy as np
import clnn
from clnn.lab import ladder
from clnn.ops import gemm

gemm.SMALL = 0  # which the ladder's products are not
m, n, k = {shape}
for step in ladder.STEPS:
    print("=== step", step.number, *step.count(clnn.device(), m, n, k), flush=True)
    step.multiply(np.ones((m, k)), np.ones((k, n)))
"""


@pytest.mark.skipif(not simulator.is_installed(), reason="no Oclgrind: pip install 'clnn[oclgrind]'")
@pytest.mark.parametrize("shape", [(13, 17, 5), (70, 21, 9), (64, 64, 8)], ids=str)
def test_the_traffic_is_what_a_simulator_counts(run_python, shape):
    # Where the compiler makes vectors of four numbers, the bytes tell, not the number of instructions.
    done = run_python("-c", COUNT.format(shape=shape), CLNN_DEVICE="oclgrind", OCLGRIND_INST_COUNTS="1")
    assert done.returncode == 0, done.stderr
    parts = re.split(r"^=== step ", done.stdout, flags=re.MULTILINE)[1:]
    assert len(parts) == len(ladder.STEPS)
    for part in parts:
        number, read, written = map(int, part.splitlines()[0].split())
        counted = [
            sum(map(int, re.findall(rf"{what} (?:global|constant) \((\d+) bytes\)", part)))
            for what in ("load", "store")
        ]
        assert counted == [4 * read, 4 * written], f"step {number}"


def test_the_sources_can_be_read_alone():
    for step in ladder.STEPS:
        assert "__kernel void multiply(" in step.source.replace("\n", " ") or step.number in (3, 4, 7)
        assert step.source in repr(step) and step.change in repr(step)
        assert "<pre" in step._repr_html_()
    assert "gemm_groups" not in ladder.STEPS[6].source
    assert [step.number for step in ladder.STEPS] == [1, 2, 3, 4, 5, 6, 7]


def test_a_climb(device):
    m, n, k = 70, 45, 33
    steps = ladder.climb(m, n, k, seconds=1e-3)
    assert [(t.number, t.name) for t in steps] == [(s.number, s.name) for s in ladder.STEPS]
    for timed, step in zip(steps, ladder.STEPS, strict=True):
        assert 0 < timed.seconds < 10 and 2 <= timed.runs <= ladder.MOST_RUNS
        assert timed.flops == 2 * m * n * k
        assert timed.nbytes == step.traffic(device, m, n, k)
        assert timed.gflops == pytest.approx(2e-9 * m * n * k / timed.seconds)
        assert timed.intensity == pytest.approx(timed.flops / timed.nbytes)
    rows = ladder.table(steps).splitlines()[1:]
    assert "package" in rows[-1] and "x" not in rows[0]
    assert f"{steps[2].seconds / steps[3].seconds:.2f}x" in rows[3]


@pytest.mark.parametrize("fault", [lambda out: None, lambda out: clnn.program.fill(out, 0)], ids=["nothing", "zeros"])
def test_a_wrong_step_gets_no_time(device, monkeypatch, fault):
    good = ladder.STEPS[1]
    bad = ladder.Step(2, "bad", "wrong", good.file, lambda on, a, b, out, *sizes: fault(out), good.count)
    monkeypatch.setattr(ladder, "STEPS", (ladder.STEPS[0], bad))
    with pytest.raises(BenchmarkError, match="step 2 bad"):
        ladder.climb(20, 20, 20)


def test_a_climb_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ladder.reports, "raise_ceilings", lambda report, *_, **__: None)
    ladder.main(["--device", "cpu", "--shape", "40", "30", "20", "--json", str(tmp_path)])
    assert "clnn bench" in capsys.readouterr().out
    (record,) = ladder.load(tmp_path)
    assert record.shape == (40, 30, 20) and record.kind == "CPU" and record.bench > 0
    assert [step.number for step in record.steps] == [1, 2, 3, 4, 5, 6, 7]
    assert all(step.error < ladder.TOLERANCE for step in record.steps)


def test_a_file_that_holds_no_ladder(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"schema": 1, "rows": []}))
    with pytest.raises(BenchmarkError, match="no ladder"):
        ladder.load(tmp_path)


def test_the_kept_ladders_rise():
    """What the course says of them, held against the files that it shows."""
    records = ladder.load(RESULTS / "ladder")
    assert records
    rises = [all(a.seconds > b.seconds for a, b in zip(r.steps, r.steps[1:])) for r in records]
    assert any(rises)
    for record in records:
        assert 0.8 < record.steps[-1].gflops / record.bench < 1.25
        assert all(step.gflops < 1.05 * record.ceilings.gflops for step in record.steps)
