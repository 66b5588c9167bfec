"""The command line: `doctor`, its JSON, and how errors end."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pyopencl as cl
import pytest

import clnn
from clnn import __main__ as command
from clnn import doctor

ROOT = Path(clnn.__file__).parents[1]


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """No setting of the caller, and an empty cache of data sets."""
    for variable in ("CLNN_DEVICE", "PYOPENCL_CTX", "CLNN_DATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys.modules["clnn.device"], "_current", None)


@pytest.fixture
def run(capsys):
    def run(*arguments):
        status = command.main(list(arguments))
        return status, capsys.readouterr().out

    return run


def row(text, label):
    """The words of one row of the report, its continuation lines joined."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(label))
    rows = [lines[start].removeprefix(label)]
    for line in lines[start + 1 :]:
        if not line.startswith(" " * 12):
            break
        rows.append(line)
    return " ".join(" ".join(rows).split())


# --- the report ------------------------------------------------------------------------------------------


def test_one_screen(run):
    status, text = run("doctor")
    assert status == 0
    assert len(text.splitlines()) <= 24
    assert max(map(len, text.splitlines())) <= 100
    assert row(text, "clnn").startswith(f"{clnn.__version__}, Python {sys.version_info.major}.")
    for version in (np.__version__, cl.VERSION_TEXT):
        assert version in row(text, "clnn")
    for index, d in enumerate(clnn.devices()[:3]):
        assert f"{index}: {d.name} ({d.kind}, {d.platform}), {d.cores} core" in row(text, "devices")
    assert row(text, "in use").startswith("device 0: the best ")
    assert row(text, "vector add").startswith("50,000 random floats: correct, norm of the difference to NumPy's sum 0,")


def test_json_holds_the_facts(run_python):
    result = run_python("-m", "clnn", "doctor", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    facts = json.loads(result.stdout)
    assert facts["ok"] is True
    assert facts["clnn"] == clnn.__version__
    assert [d["name"] for d in facts["devices"]] == [d.name for d in clnn.devices()]
    assert all(d["memory"] >= d["max_alloc"] > 0 for d in facts["devices"])  # PoCL's memory varies with what is free
    assert [p["name"] for p in facts["platforms"]] == [p.name for p in cl.get_platforms()]
    assert facts["device"] == 0
    assert facts["told_processor"] == clnn.devices()[0].cpu_name
    assert facts["vector_add"]["n"] == 50_000
    assert facts["vector_add"]["norm_of_difference"] == 0
    assert 0 < facts["vector_add"]["seconds"] <= facts["vector_add"]["first_seconds"] * 10


@pytest.mark.skipif("sys.platform != 'linux'")
def test_loader_and_icd_files():
    loader = doctor.loader_info()
    assert loader["name"] and loader["version"][0].isdigit()
    files = doctor.icd_files()
    assert files
    for icd in files:
        assert Path(icd["file"]).read_text().strip() == icd["library"]
        assert icd["origin"] in ("system", "pip", "OCL_ICD_VENDORS")


def test_the_reason_for_the_choice(run, monkeypatch):
    last = len(clnn.devices()) - 1
    monkeypatch.setenv("CLNN_DEVICE", str(last))
    _, text = run("doctor")
    assert row(text, "in use").startswith(f"device {last}: CLNN_DEVICE={last} asks for it")


def test_the_reason_may_be_the_program_s_own(device, run):
    facts = doctor.examine()
    default = device is clnn.devices()[0]
    assert (facts["why"] == "use_device chose it") is not default
    assert clnn.devices()[facts["device"]] is device


def test_pyopencl_ctx_is_named_as_the_reason(run_python):
    result = run_python("-m", "clnn", "doctor", PYOPENCL_CTX="0:0")
    assert "PYOPENCL_CTX=0:0 asks for it" in row(result.stdout, "in use")


def test_each_device_adds(device):
    test = doctor.try_vector_add(device, n=12_345)
    assert test["correct"] and test["norm_of_difference"] == 0
    assert test["n"] == 12_345


def test_many_devices_stay_on_the_screen(run, monkeypatch):
    facts = doctor.examine()
    facts["devices"] *= 9
    text = doctor.report(facts)
    assert len(text.splitlines()) <= 24
    assert "and 6 more: see --json" in row(text, "devices") or len(clnn.devices()) > 1


# --- what goes wrong -------------------------------------------------------------------------------------


def test_a_device_that_adds_wrongly_fails(run, monkeypatch):
    monkeypatch.setattr(doctor, "vector_add", lambda a, b: a)
    status, text = run("doctor")
    assert status == 1
    assert "50,000 random floats: WRONG, norm of the difference to NumPy's sum " in row(text, "vector add")
    # |b| of 50,000 standard normal numbers is near sqrt(50,000)
    assert json.loads(run("doctor", "--json")[1])["vector_add"]["norm_of_difference"] == pytest.approx(224, rel=0.05)


def test_a_device_that_fails_is_still_named(run, monkeypatch):
    def fail(a, b):
        raise cl.RuntimeError("clEnqueueNDRangeKernel failed: OUT_OF_RESOURCES")

    monkeypatch.setattr(doctor, "vector_add", fail)
    status, text = run("doctor")
    assert status == 1
    assert row(text, "in use").startswith("device 0: ")
    assert "It fails: " in row(text, "in use") and "OUT_OF_RESOURCES" in row(text, "in use")


def test_unknown_device(run, monkeypatch):
    monkeypatch.setenv("CLNN_DEVICE", "voodoo")
    status, text = run("doctor")
    assert status == 1
    assert row(text, "in use").startswith("none: no device fits 'voodoo'")
    assert clnn.devices()[0].name in row(text, "devices")  # the rest is told all the same


NO_PLATFORM = """
import sys
import pyopencl as cl
def none():
    raise cl.LogicError("clGetPlatformIDs failed: PLATFORM_NOT_FOUND_KHR")
cl.get_platforms = none
from clnn.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_no_device_at_all(run_python):
    result = run_python("-c", NO_PLATFORM, "doctor")
    assert (result.returncode, result.stderr) == (1, "")
    assert (row(result.stdout, "platforms"), row(result.stdout, "devices")) == ("none", "none")
    for cure in ("no OpenCL device was found", "pip install pocl-binary-distribution", "apt install"):
        assert cure in row(result.stdout, "in use")
    assert len(result.stdout.splitlines()) <= 24

    result = run_python("-c", NO_PLATFORM, "doctor", "--json")
    assert result.returncode == 1
    facts = json.loads(result.stdout)
    assert (facts["ok"], facts["device"], facts["devices"], facts["vector_add"]) == (False, None, [], None)
    assert facts["problem"].startswith("no OpenCL device was found")


# --- hints -----------------------------------------------------------------------------------------------


@pytest.fixture
def nvidia(monkeypatch):
    """A machine where the system shows an NVIDIA GPU and OpenCL does not."""
    monkeypatch.setattr(doctor, "gpu_makers", lambda: {"NVIDIA"})
    monkeypatch.setattr(doctor, "devices", lambda: [d for d in clnn.devices() if d.kind == "CPU"])
    monkeypatch.setattr(doctor, "icd_files", lambda: [])
    monkeypatch.delenv("OCL_ICD_VENDORS", raising=False)
    monkeypatch.setattr(doctor.sys, "prefix", "/nowhere")


def test_nvidia_without_icd_file(nvidia, run, monkeypatch):
    monkeypatch.setattr(doctor, "_load_problem", lambda library, folder=None: None)
    hint = row(run("doctor")[1], "hint")
    assert "NVIDIA GPU seen, but no OpenCL platform" in hint
    assert "sudo mkdir -p /etc/OpenCL/vendors" in hint
    assert "echo libnvidia-opencl.so.1 | sudo tee /etc/OpenCL/vendors/nvidia.icd" in hint


def test_nvidia_without_its_library(nvidia, run, monkeypatch):
    monkeypatch.setattr(doctor, "_load_problem", lambda library, folder=None: "cannot open shared object file")
    hint = row(run("doctor")[1], "hint")
    assert "libnvidia-opencl.so.1 is missing" in hint
    assert "apt install nvidia-opencl-icd" in hint
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in hint


def test_nvidia_whose_driver_fails(nvidia, monkeypatch):
    icd = {"file": "nvidia.icd", "origin": "system", "library": "libnvidia-opencl.so.1", "problem": None}
    monkeypatch.setattr(doctor, "icd_files", lambda: [icd])
    assert "nvidia-smi" in doctor.examine()["hints"][0]


@pytest.mark.parametrize(("maker", "package"), [("AMD", "mesa-opencl-icd"), ("Intel", "intel-opencl-icd")])
def test_other_gpus_without_driver(nvidia, monkeypatch, maker, package):
    monkeypatch.setattr(doctor, "gpu_makers", lambda: {maker})
    (hint,) = doctor.examine()["hints"]
    assert hint.startswith(f"{maker} GPU seen") and f"apt install {package}" in hint


def test_no_hint_for_a_gpu_that_is_served():
    gpu = {"name": "NVIDIA H100", "platform": "NVIDIA CUDA", "kind": "GPU"}
    facts = {"devices": [gpu], "icd_files": [], "OCL_ICD_VENDORS": None, "platforms": []}
    original, doctor.gpu_makers = doctor.gpu_makers, lambda: {"NVIDIA"}
    try:
        assert not [hint for hint in doctor._hints(facts) if "NVIDIA" in hint]
    finally:
        doctor.gpu_makers = original


def test_gpu_makers_are_read_from_the_system(monkeypatch, tmp_path):
    nodes = {}
    for name, number in ("renderD128", "0x1002"), ("renderD129", "0x8086"), ("renderD130", "0x1af4"):
        path = tmp_path / name / "device" / "vendor"
        path.parent.mkdir(parents=True)
        path.write_text(f"{number}\n")
        nodes[f"/dev/dri/{name}"] = path
    found = {"/dev/dri/renderD*": list(nodes), "/dev/nvidia[0-9]*": []}
    monkeypatch.setattr(doctor.glob, "glob", found.__getitem__)
    monkeypatch.setattr(doctor.shutil, "which", lambda program: None)
    monkeypatch.setattr(doctor, "Path", lambda *parts: tmp_path.joinpath(*parts[1:]) if parts[1:] else Path(*parts))
    assert doctor.gpu_makers() == {"AMD", "Intel"}
    found["/dev/nvidia[0-9]*"] = ["/dev/nvidia0"]
    assert doctor.gpu_makers() == {"AMD", "Intel", "NVIDIA"}


@pytest.mark.skipif("sys.platform != 'linux'")
def test_an_icd_file_whose_library_does_not_load(run_python, tmp_path):
    (tmp_path / "broken.icd").write_text("libdoes-not-exist.so.7\n")
    result = run_python("-m", "clnn", "doctor", OCL_ICD_VENDORS=str(tmp_path))
    assert result.returncode == 0  # PoCL from pip still works
    assert "broken.icd (OCL_ICD_VENDORS)" in row(result.stdout, "icd files")
    assert "libdoes-not-exist.so.7" in row(result.stdout, "hint")


# --- packages and data -----------------------------------------------------------------------------------


def test_packages_that_are_missing(run, monkeypatch):
    needs = [
        "numpy>=2.0", "absent-one>=1; extra == 'course'", "matplotlib>=3.9; extra == \"course\"",
        "absent.two; python_version > '3' and extra == 'test'", "absent-three; extra == 'bench'",
    ]  # fmt: skip
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: needs)
    status, text = run("doctor")
    assert status == 0
    assert row(text, "packages") == (
        "for the course missing: absent-one; for the test missing: absent.two. `pip install absent-one absent.two`"
    )


def test_clnn_that_is_not_installed(run, monkeypatch):
    def missing(name):
        raise doctor.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.importlib.metadata, "requires", missing)
    assert "pip install -e '.[course]'" in row(run("doctor")[1], "packages")


def test_data_sets(run, monkeypatch, tmp_path):
    folder = tmp_path / "mine" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "test_batch.bin").touch()
    cached = tmp_path / "cache" / "clnn" / "mnist"
    cached.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3"):
        (cached / f"{name}-ubyte.gz").touch()
    monkeypatch.setenv("CLNN_DATA", str(tmp_path / "mine"))
    sets = doctor.examine()["data"]["sets"]
    # the cache lacks a file of mnist
    assert sets == {"mnist": None, "fashion_mnist": None, "cifar10": "CLNN_DATA", "sms_spam": None}

    (cached / "t10k-labels-idx1-ubyte.gz").touch()
    (tmp_path / "cache" / "clnn" / "sms-spam").mkdir()
    (tmp_path / "cache" / "clnn" / "sms-spam" / "SMSSpamCollection").touch()
    facts = doctor.examine()["data"]
    assert facts["sets"] == {"mnist": "cache", "fashion_mnist": None, "cifar10": "CLNN_DATA", "sms_spam": "cache"}
    text = row(run("doctor")[1], "data")
    assert text == (
        f"CLNN_DATA={tmp_path / 'mine'}; there: cifar10; in the cache: mnist, sms_spam; "
        "downloaded when first used: fashion_mnist"
    )


def test_data_folder_that_is_not_there(run, monkeypatch, tmp_path):
    assert row(run("doctor")[1], "data").startswith("CLNN_DATA not set; downloaded when first used: mnist,")
    monkeypatch.setenv("CLNN_DATA", str(tmp_path / "absent"))
    status, text = run("doctor")
    assert status == 0
    assert "is not a folder" in row(text, "data")


# --- the command -----------------------------------------------------------------------------------------


def test_version(run_python):
    result = run_python("-m", "clnn", "--version")
    assert result.stdout == f"clnn {clnn.__version__}\n"


def test_an_expected_error_is_one_line(monkeypatch, capsys):
    def fail(args):
        raise clnn.DataError("the file is damaged")

    monkeypatch.setattr(doctor, "run", fail)
    assert command.main(["doctor"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "clnn: the file is damaged\n")


def test_an_unexpected_error_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(doctor, "run", lambda args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command.main(["doctor"])


@pytest.mark.parametrize("arguments", [[], ["dance"], ["doctor", "--loud"]])
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2
    assert "usage: clnn" in capsys.readouterr().err


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert {"doctor", "train"} <= set(capsys.readouterr().out.split())


def test_a_parser_of_its_own():
    parser = argparse.ArgumentParser()
    doctor.add_parser(parser.add_subparsers())
    args = parser.parse_args(["doctor", "--json"])
    assert args.func is doctor.run and args.json
