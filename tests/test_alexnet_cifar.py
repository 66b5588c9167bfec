"""The checks of notebook 06: solutions are right, plausible mistakes are told apart; and what the notebook counts."""

import json
import runpy
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import nbformat
import numpy as np
import pytest
from helpers import real_cifar10
from nbclient import NotebookClient
from PIL import Image

import clnn
from clnn import lab, models, optim
from clnn.checkpoint import load_with_metadata
from clnn.data import DataNote
from clnn.lab.check import exercises_of

COURSE = Path(__file__).parents[1] / "course"
NOTEBOOK = COURSE / "06_alexnet_cifar.ipynb"
SOLUTIONS = runpy.run_path(str(COURSE / "solutions" / "06_alexnet_cifar.py"))


def lrn(a, c, window, size, alpha, beta, k):
    return a[c] / (k + alpha / size * np.sum(window**2)) ** beta


def lrn_loop(a, c, size, alpha, beta, k):
    """Right, one channel after the other."""
    total = 0.0
    for other in range(len(a)):
        if abs(other - c) <= (size - 1) / 2:
            total += a[other] * a[other]
    return a[c] * (k + alpha * total / size) ** -beta


def crops(images, rows, columns, mirrored, size, change=lambda part: part[:, :, ::-1]):
    parts = [i[:, r : r + size, c : c + size] for i, r, c in zip(images, rows, columns)]
    return np.stack([change(part) if m else part for part, m in zip(parts, mirrored)])


def crop_by_index(images, rows, columns, mirrored, size):
    """Right, all pictures at once."""
    along = np.arange(size)
    across = np.where(np.asarray(mirrored)[:, None], along[::-1], along)
    r, c = np.asarray(rows)[:, None] + along, np.asarray(columns)[:, None] + across
    return images[np.arange(len(images))[:, None, None], :, r[:, :, None], c[:, None, :]].transpose(0, 3, 1, 2)


def top_k_ranks(logits, labels, k):
    """Right: the rank of the label's logit."""
    own = logits[np.arange(len(labels)), labels]
    return float(((logits > own[:, None]).sum(axis=1) < k).mean())


def hits(logits, labels, k):
    return (np.argsort(logits)[:, ::-1][:, :k] == labels[:, None]).any(axis=1)


def update(w, v, g, lr, decay=0.0005, momentum=0.9, sign=-1):
    v = momentum * v - decay * lr * w + sign * lr * g
    return w + v, v


def torch_rule(w, v, g, lr):
    v = 0.9 * v + (g + 0.0005 * w)
    return w - lr * v, v


def update_in_place(w, v, g, lr):
    v *= 0.9
    v -= 0.0005 * lr * w + lr * g
    return w + v, v


WRONG = [
    ("lrn_element", lambda a, c, n, al, be, k: lrn_loop(a, c, n, al * n, be, k), "mean of the squares"),
    ("lrn_element", lambda a, c, n, al, be, k: lrn(a, c, a[max(c - n // 2, 0) : c + 1], n, al, be, k), "before this"),
    ("lrn_element", lambda a, c, n, al, be, k: lrn(a, c, a[c : c + n // 2 + 1], n, al, be, k), "after this one only"),
    (
        "lrn_element",
        lambda a, c, n, al, be, k: lrn(a, c, a[max(c - n // 2, 0) : c + n // 2], n, al, be, k),
        "one channel too early",
    ),
    ("lrn_element", lambda a, c, n, al, be, k: lrn_loop(a, c, 2 * n + 1, al * (2 * n + 1) / n, be, k), "too wide"),
    ("lrn_element", lambda a, c, n, al, be, k: lrn(a, c, a[c - n // 2 : c + n // 2 + 1], n, al, be, k), "below 0"),
    ("lrn_element", lambda a, c, n, al, be, k: lrn_loop(a, c, n, al, 1, k), "exponent beta"),
    ("lrn_element", lambda a, c, n, al, be, k: lrn_loop(a, c, n, al, be, 0), "k is missing"),
    ("lrn_element", lambda a, c, n, al, be, k: lrn_loop(a, c, n, al, -be, k), "multiplies where"),
    ("crop_and_mirror", lambda *a: crops(*a, change=lambda p: p[:, ::-1]), "upside down"),
    ("crop_and_mirror", lambda *a: crops(*a, change=lambda p: p[::-1]), "exchanges the colours"),
    ("crop_and_mirror", lambda i, r, c, m, s: crops(i, r, c, [True] * len(i), s), "All pictures are mirrored"),
    ("crop_and_mirror", lambda i, r, c, m, s: crops(i, r, c, [False] * len(i), s), "No picture"),
    ("crop_and_mirror", lambda i, r, c, m, s: crops(i, [r[0]] * len(i), [c[0]] * len(i), m, s), "its own row"),
    (
        "crop_and_mirror",
        lambda i, r, c, m, s: crops(np.where(m[:, None, None, None], i[..., ::-1], i), r, c, [False] * len(i), s),
        "cut first",
    ),
    ("crop_and_mirror", lambda i, r, c, m, s: crops(i, r, c, m, s)[:, 0], "shape"),
    ("inverted_dropout", lambda x, u, p: x * (u >= p), "must grow"),
    ("inverted_dropout", lambda x, u, p: x * (u >= p) * (1 - p), "share that stays"),
    ("inverted_dropout", lambda x, u, p: x * (u >= p) / p, "wrong share"),
    ("inverted_dropout", lambda x, u, p: x * (u < p) / (1 - p), "wrong ones are dropped"),
    ("inverted_dropout", lambda x, u, p: x * (u < p) / p, "and the others grow"),
    ("inverted_dropout", lambda x, u, p: (u >= p) / (1 - p), "x times the mask"),
    ("top_k_share", lambda z, y, k: hits(-z, y, k).mean(), "k smallest"),
    ("top_k_share", lambda z, y, k: hits(z, y, k).sum(), "number of hits"),
    ("top_k_share", lambda z, y, k: 1 - hits(z, y, k).mean(), "That is the error"),
    ("top_k_share", lambda z, y, k: (z.argmax(1) == y).mean(), "top-1"),
    ("top_k_share", lambda z, y, k: hits(z, y, k + 1).mean(), "too many"),
    ("top_k_share", lambda z, y, k: hits(z, y, k), "share of hits"),
    ("top_k_share", lambda z, y, k: (np.argsort(-z)[:, :k] == y[:, None]).mean(), "divided by k"),
    ("conv_parameters", lambda i, o, k, g: o * i // g * k * k, "biases are missing"),
    ("conv_parameters", lambda i, o, k, g: o * i * k * k + o, "without groups"),
    ("conv_parameters", lambda i, o, k, g: o * i * k * k // g**2 + o // g, "one group only"),
    ("conv_parameters", lambda i, o, k, g: o * i * k * k // g**2 + o, "their number stays"),
    ("conv_parameters", lambda i, o, k, g: (o * i * k * k + o) // g, "biases do not become fewer"),
    ("conv_parameters", lambda i, o, k, g: o * i // g * k + o, "kernel_size rows"),
    ("alexnet_update", lambda *a: update(*a, sign=1), "goes downhill"),
    ("alexnet_update", lambda *a: update(*a, decay=-0.0005), "makes the weights smaller"),
    ("alexnet_update", lambda *a: update(*a, decay=0), "decay is missing"),
    ("alexnet_update", lambda w, v, g, lr: update(w, v, g, lr, decay=0.0005 / lr), "multiplied by lr, too"),
    ("alexnet_update", lambda w, v, g, lr: update(w, v, g, lr, sign=-1 / lr), "gradient is multiplied by lr"),
    ("alexnet_update", lambda *a: update(*a, momentum=0), "momentum is missing"),
    ("alexnet_update", lambda w, v, g, lr: (w + v, update(w, v, g, lr)[1]), "not the old one"),
    ("alexnet_update", torch_rule, "PyTorch's rule"),
    ("alexnet_update", lambda *a: update(*a)[::-1], "weights first"),
    ("alexnet_update", lambda *a: update(*a)[0], "one value; expected: 2 values"),
    ("alexnet_update", update_in_place, "changes its argument v"),
    ("scaling_efficiency", lambda n, t, m, s: t / s, "how many times faster"),
    ("scaling_efficiency", lambda n, t, m, s: m / n, "how many times more devices there are"),
    ("scaling_efficiency", lambda n, t, m, s: (m / n) / (t / s), "upside down"),
    ("scaling_efficiency", lambda n, t, m, s: t / s / m, "has several devices"),
    ("scaling_efficiency", lambda n, t, m, s: 100 * t * n / (s * m), "not in percent"),
]
RIGHT = [
    ("lrn_element", lrn_loop),
    ("crop_and_mirror", crop_by_index),
    ("inverted_dropout", lambda x, u, p: x * (1 - (u < p)) / (1 - p)),
    ("top_k_share", top_k_ranks),
    ("conv_parameters", lambda i, o, k, g: g * ((i // g) * (o // g) * k**2 + o // g)),
    ("alexnet_update", update),
    ("scaling_efficiency", lambda n, t, m, s: n * t / (m * s)),
]


@pytest.mark.parametrize("name", exercises_of("alexnet_cifar"))
def test_solution_is_right(name):
    assert lab.check(name, SOLUTIONS[name]).right


@pytest.mark.parametrize("name, answer", RIGHT, ids=[name for name, _ in RIGHT])
def test_other_right_answers(name, answer):
    result = lab.check(name, answer)
    assert result.right, result.message


@pytest.mark.parametrize("name, answer, words", WRONG, ids=[f"{name}: {words}" for name, _, words in WRONG])
def test_wrong_answers_are_told_what_is_wrong(name, answer, words):
    result = lab.check(name, answer)
    assert result.done and not result.right
    assert words in result.message


def test_each_exercise_has_wrong_answers():
    assert {name for name, *_ in WRONG} == set(exercises_of("alexnet_cifar"))
    assert min(sum(name == other for other, *_ in WRONG) for name in exercises_of("alexnet_cifar")) >= 5


# The solutions beside the package


def test_lrn_solution_is_the_layer(device):
    a = np.random.default_rng(3).normal(size=11).astype(np.float32)
    layer = clnn.modules.LocalResponseNorm(5, alpha=0.7, beta=0.6, k=1.3)
    want = layer(clnn.tensor(a[None, :, None, None])).numpy().ravel()
    got = [SOLUTIONS["lrn_element"](a, c, 5, 0.7, 0.6, 1.3) for c in range(len(a))]
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_top_k_solution_is_the_packages(device):
    rng = np.random.default_rng(4)
    logits, labels = rng.normal(size=(37, 9)).astype(np.float32), rng.integers(0, 9, 37)
    shares = clnn.top_k_accuracy(clnn.modules.Flatten(), [(logits, labels.astype(np.int32))], (1, 4))
    for k, share in shares.items():
        assert SOLUTIONS["top_k_share"](logits, labels, k) == pytest.approx(share)


def test_papers_rule_is_clnns_while_the_rate_stays(device):
    """The weights after five steps; and the velocity is -lr times clnn's."""
    rng = np.random.default_rng(5)
    w, v = rng.normal(size=13), np.zeros(13)
    parameter = clnn.modules.Parameter(w.astype(np.float32))
    optimizer = optim.SGD([parameter], lr=0.2, momentum=0.9, weight_decay=0.0005)
    for _ in range(5):
        g = rng.normal(size=13)
        w, v = SOLUTIONS["alexnet_update"](w, v, g, 0.2)
        optimizer.zero_grad()
        (parameter * clnn.tensor(g)).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(parameter.numpy(), w, rtol=1e-5, atol=1e-6)
    buffer = optimizer.state_dict()["state"][0]["momentum_buffer"]
    np.testing.assert_allclose(-0.2 * buffer, v, rtol=1e-5, atol=1e-6)


def test_parameter_solution_counts_alexnets_convolutions(device):
    for layer in models.alexnet(classes=10):
        if isinstance(layer, clnn.modules.Conv2d):
            want = sum(p.size for p in layer.parameters())
            settings = layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.groups
            assert SOLUTIONS["conv_parameters"](*settings) == want


def test_the_slides_multiply_adds_are_those_with_an_undivided_fourth_convolution():
    """832 million: each layer in whole millions, the fourth convolution without groups."""
    sizes = {  # results, products summed for each
        "conv1": (55 * 55 * 96, 11 * 11 * 3),
        "conv2": (27 * 27 * 256, 5 * 5 * 48),
        "conv3": (13 * 13 * 384, 3 * 3 * 256),
        "conv4": (13 * 13 * 384, 3 * 3 * 384),
        "conv5": (13 * 13 * 256, 3 * 3 * 192),
        "fc6": (4096, 9216),
        "fc7": (4096, 4096),
        "fc8": (1000, 4096),
    }
    assert sum(a * b // 10**6 for a, b in sizes.values()) == 832
    results, each = sizes["conv4"]
    assert sum(a * b for a, b in sizes.values()) - results * each // 2 == 724_406_816


# The data part


def test_stand_in_serves_what_the_notebook_needs(monkeypatch, tmp_path):
    """Without CIFAR-10 and with the network refused."""

    def refused(*args, **kwargs):
        raise OSError("the test refuses the network")

    monkeypatch.delenv("CLNN_DATA", raising=False)
    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr("clnn.data.datasets.cache_folder", lambda name: tmp_path / name)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        train, test = clnn.data.cifar10()
    assert [note.category for note in notes] == [DataNote] and "stand-in" in str(notes[0].message)
    assert "stand-in" in train.name
    assert train.images.shape[1:] == test.images.shape[1:] == (3, 32, 32)
    assert len(train) >= 5000 and len(test) >= 1000 and len(train.classes) == 10
    for part in (train.labels[:500], test.labels):
        assert set(part) == set(range(10))
    assert clnn.data.mean_image(train).shape == (3, 32, 32)


def test_shipped_pixels_are_those_of_all_training_photos():
    """course/nets/cifar18_pixels: on a sample of the photos their mean image lies near the mean of all."""
    pixels, about = load_with_metadata(COURSE / "nets" / "cifar18_pixels.safetensors")
    train, _ = real_cifar10()
    assert json.loads(about["classes"]) == list(train.classes) and about["net"] == "cifar18"
    assert float(pixels["std"]) == pytest.approx(1 / 255)
    far = np.abs(pixels["mean"] - clnn.data.mean_image(train)).max()
    assert far < (1e-6 if len(train) == 50_000 else 6 * 0.3 / len(train) ** 0.5)


# A photo of the student's, in a process that knows nothing of the notebook


def odd_photos(folder: Path) -> dict:
    """Photos as cameras and programs write them; for each the colours (32, 32, 3) that a net is to see, by Pillow."""
    y, x = np.mgrid[0:1:300j, 0:1:300j]
    square = np.stack([y, x, (x + y) / 2], -1) * 255
    plain = Image.fromarray(square.round().astype(np.uint8))
    wide, tall = (Image.new("RGB", size, "red") for size in ((437, 300), (300, 523)))
    wide.paste(plain, (68, 0))
    tall.paste(plain, (0, 111))
    turned, exif = plain.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: to be turned by 90 degrees to the right
    veil = plain.convert("RGBA")
    veil.putalpha(128)
    grey = plain.convert("L")
    kinds = {
        "wide.png": (wide, {}, plain),
        "tall.jpg": (tall, {}, plain),
        "turned.jpeg": (turned, {"exif": exif}, plain),
        "grey.png": (grey, {}, grey.convert("RGB")),
        "grey.JPG": (wide.convert("L"), {}, grey.convert("RGB")),
        "veil.png": (veil, {}, Image.blend(Image.new("RGB", plain.size, "white"), plain, 128 / 255)),
        "tiny.png": (plain.resize((9, 9)), {}, plain.resize((9, 9))),
    }
    seen = {}
    for name, (image, settings, what) in kinds.items():
        image.save(folder / name, **settings, **({} if name.endswith("png") else {"quality": 95}))
        seen[folder / name] = np.asarray(what.resize((32, 32), Image.Resampling.LANCZOS))
    return seen


def run_cells(folder: Path, *cells: str) -> list:
    """Run these cells of the page, or code, one after the other in a kernel; their outputs."""
    stored = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(stored.get(cell, cell)) for cell in cells])
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell.outputs for cell in notebook.cells]


def probabilities(image: np.ndarray, net, pixels: dict) -> np.ndarray:
    """What a net says to colours (32, 32, 3), the softmax by NumPy."""
    x = (image.transpose(2, 0, 1)[None] / 255 - pixels["mean"]) / pixels["std"]
    with clnn.no_grad():
        z = net.eval()(clnn.tensor(x.astype(np.float32))).numpy()[0].astype(float)
    return np.exp(z - z.max()) / np.exp(z - z.max()).sum()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("full", [False, True], ids=["quick form, the notebook alone", "long form, beside nets"])
def test_saved_nets_name_any_photo_in_a_fresh_process(tmp_path, monkeypatch, full):
    """The page's own cells save, start their program, and draw; then the program alone on photos of all kinds."""
    photos = odd_photos(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("CLNN_FULL", str(int(full)))
    monkeypatch.setenv("CLNN_PHOTO", str(tmp_path / "turned.jpeg"))
    fresh = "clnn.manual_seed(4); net, std, top = RECIPES['cifar_quick'].net() if FULL else small_net(), 0.25, {}"
    *_, said, drawn, _ = run_cells(
        tmp_path, "setup", "data", "mean = clnn.data.mean_image(train)", "small-net", fresh,
        *(["cifar18-history", "cifar18-test"] if full else ["shipped = None"]),
        "folder = Path('.')", "save", "program", "use", "use-picture",
        "import shutil; shutil.copytree(place, 'kept')",
    )  # fmt: skip
    assert said[0].text == "the fresh process says what this one says: True\n"
    assert sum("image/png" in output.get("data", {}) for output in drawn) == 2
    kept = tmp_path / "kept"
    assert {path.stem for path in kept.glob("*.safetensors")} == ({"your_net", "cifar18"} if full else {"your_net"})
    for file in kept.glob("*.safetensors"):
        command = [sys.executable, kept / "classify.py", file, *photos]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        weights, about = load_with_metadata(file)
        classes = json.loads(about["classes"])
        for answer in answers:
            assert list(answer) == classes and sum(answer.values()) == pytest.approx(1, abs=1e-5)
        if not full:
            continue  # the small net stands nowhere but on the page
        pixels = {name: weights.pop(name) for name in ("mean", "std")}
        net = getattr(models, about["net"])()
        net.load_state_dict(weights)
        for answer, (photo, seen) in zip(answers, photos.items(), strict=True):
            wanted = probabilities(seen, net, pixels)
            assert list(answer.values()) == pytest.approx(wanted, abs=0.03), photo
        if file.stem == "cifar18":  # an answer that does not look at the photo would not do
            assert max(abs(answers[0][name] - answers[3][name]) for name in classes) > 0.1
