"""``python -m clnn doctor``: what this machine offers to clnn, what is in use and why, and what is missing."""

import ctypes
import glob
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pyopencl as cl

from . import __version__
from .data.datasets import _CIFAR10, _FASHION_MNIST, _MNIST, _user_folder
from .data.download import cache_folder
from .data.text import _SMS_SPAM
from .device import Device, default_device, device, devices
from .errors import ClnnError, DataError
from .ops.vector_add import vector_add
from .runtimes import SYSTEM_VENDORS
from .tensor import tensor

WIDTH = 100  # columns of the report
MAKERS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}  # PCI numbers of those who make GPUs
NVIDIA_LIBRARY = "libnvidia-opencl.so.1"
GPU_PACKAGES = {"AMD": "mesa-opencl-icd (or AMD's ROCm)", "Intel": "intel-opencl-icd"}


def add_parser(subparsers) -> None:
    """Add ``doctor`` to the subcommands of ``clnn``."""
    parser = subparsers.add_parser(
        "doctor", help="explain this machine: drivers, devices, what is missing", description=__doc__
    )
    parser.add_argument("--json", action="store_true", help="the same facts as one JSON object")
    parser.set_defaults(func=run)


def run(args) -> int:
    """Print the report; 0 where a device is in use and adds correctly, else 1."""
    facts = examine()
    print(json.dumps(facts, indent=2) if args.json else report(facts))
    return 0 if facts["ok"] else 1


def examine() -> dict:
    """All facts of the report, as what JSON can hold. Looks and computes, but changes nothing."""
    facts = {
        "clnn": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pyopencl": cl.VERSION_TEXT,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "loader": loader_info(),
        "OCL_ICD_VENDORS": os.environ.get("OCL_ICD_VENDORS"),
        "icd_files": icd_files(),
        "platforms": _platforms(),
        "devices": [_describe(index, d) for index, d in enumerate(devices())],
        **_device_in_use(),
        "data": _data(),
        "packages_missing": _packages_missing(),
    }
    facts["ok"] = bool(facts["vector_add"] and facts["vector_add"]["correct"])
    facts["hints"] = _hints(facts)
    return facts


def loader_info() -> dict | None:
    """Name, maker and version of the OpenCL loader that pyopencl is linked with; None where it cannot be told."""
    try:
        library = ctypes.CDLL(cl._cl.__file__)  # a look-up in pyopencl reaches the libraries it depends on
        find = library.clGetExtensionFunctionAddress
    except (OSError, AttributeError):
        return None
    find.restype, find.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    if not (address := find(b"clGetICDLoaderInfoOCLICD")):
        return None
    ask = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_uint, ctypes.c_size_t, ctypes.c_char_p, ctypes.POINTER(ctypes.c_size_t)
    )(address)

    def answer(what: int) -> str:
        text = ctypes.create_string_buffer(256)
        return text.value.decode(errors="replace") if ask(what, len(text), text, None) == 0 else ""

    return {"name": answer(3), "vendor": answer(4), "version": answer(2), "opencl": answer(1)}


def icd_files() -> list[dict]:
    """The ``.icd`` files that tell the loader of implementations: where, which library, whether that loads."""
    setting = os.environ.get("OCL_ICD_VENDORS")
    brought = Path(cl.__file__).parent / ".libs"  # pip packages put theirs beside pyopencl's own loader
    found = []
    for origin, folder in (
        ("OCL_ICD_VENDORS" if setting else "system", Path(setting or SYSTEM_VENDORS)),
        ("pip", brought),
    ):
        for path in [folder] if folder.is_file() else sorted(folder.glob("*.icd")):
            library = path.read_text(errors="replace").strip()
            problem = _load_problem(library, path.parent)
            found.append({"file": str(path), "origin": origin, "library": library, "problem": problem})
    return found


def _load_problem(library: str, folder: Path | None = None) -> str | None:
    """Why a shared library does not load by its name or from ``folder``; None where it loads."""
    problem = None
    for name in [str(folder / library)] * bool(folder) + [library]:
        try:
            ctypes.CDLL(name)
            return None
        except OSError as error:
            problem = str(error)
    return problem


def _platforms() -> list[dict]:
    try:
        return [{"name": p.name.strip(), "version": " ".join(p.version.split())} for p in cl.get_platforms()]
    except cl.Error:  # the loader found none
        return []


def _describe(index: int, d: Device) -> dict:
    words = ("name", "platform", "kind", "cores", "clock", "memory", "max_alloc", "fp64", "driver", "version")
    return {"index": index} | {word: getattr(d, word) for word in words}


def _device_in_use() -> dict:
    """Which device clnn takes here and why, and how it does its first sum."""
    facts = {"device": None, "why": None, "told_processor": None, "vector_add": None, "problem": None}
    try:
        chosen = device()
        facts |= {"device": devices().index(chosen), "why": _why(chosen), "told_processor": chosen.cpu_name}
        facts["vector_add"] = try_vector_add(chosen)
    except (ClnnError, cl.Error) as error:
        facts["problem"] = str(error)
    return facts


def _why(chosen: Device) -> str:
    if chosen is not default_device():
        return "use_device chose it"
    for variable in ("CLNN_DEVICE", "PYOPENCL_CTX"):
        if os.environ.get(variable):
            return f"{variable}={os.environ[variable]} asks for it"
    return {"GPU": "the best GPU", "CPU": "the best CPU, as OpenCL shows no GPU"}.get(chosen.kind, "the only one")


def try_vector_add(chosen: Device, n: int = 50_000) -> dict:
    """Add two vectors of random float32 on a device and compare with NumPy's sum.

    Returns their length, the norm of the difference, the seconds of one launch (the best of three) and of
    the first, which compiles, and whether the sum is right.
    """
    rng = np.random.default_rng()
    a, b = rng.standard_normal((2, n), dtype=np.float32)
    x, y = tensor(a, device=chosen), tensor(b, device=chosen)
    seconds = []
    for _ in range(4):
        chosen.synchronize()
        start = time.perf_counter()
        c = vector_add(x, y)
        chosen.synchronize()
        seconds.append(time.perf_counter() - start)
    difference = float(np.linalg.norm(c.numpy() - (a + b)))
    return {
        "n": n,
        "norm_of_difference": difference,
        "seconds": min(seconds[1:]),
        "first_seconds": seconds[0],
        "correct": difference <= 1e-6 * float(np.linalg.norm(a + b)),
    }


def _data() -> dict:
    """Which data sets lie in CLNN_DATA or whole in the cache, told by the names of their files alone."""
    facts = {"CLNN_DATA": os.environ.get("CLNN_DATA"), "cache": str(cache_folder("")), "sets": {}, "problem": None}
    for what in (_MNIST, _FASHION_MNIST, _CIFAR10, _SMS_SPAM):
        folder = cache_folder(what.folders[0])
        place = "cache" if all((folder / name).is_file() for name in what.files) else None
        try:
            place = "CLNN_DATA" if _user_folder(what) else place
        except DataError as error:
            facts["problem"] = str(error)
        facts["sets"][what.name] = place
    return facts


def _packages_missing() -> dict | None:
    """The packages of the extras ``course`` and ``test`` that are not installed; None if clnn itself is not."""
    try:
        needs = importlib.metadata.requires("clnn") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    missing = {"course": [], "test": []}
    for need in needs:
        name, extra = re.match(r"[\w.-]+", need)[0], re.search(r"extra == ['\"](\w+)", need)
        if extra and extra[1] in missing and not _installed(name):
            missing[extra[1]].append(name)
    return missing


def _installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def gpu_makers() -> set[str]:
    """Makers of the GPUs that the operating system shows (Linux), whether or not OpenCL knows them."""
    makers = {"NVIDIA"} if glob.glob("/dev/nvidia[0-9]*") or shutil.which("nvidia-smi") else set()
    for node in glob.glob("/dev/dri/renderD*"):
        try:
            number = Path("/sys/class/drm", Path(node).name, "device/vendor").read_text().strip()
        except OSError:
            continue
        if number in MAKERS:
            makers.add(MAKERS[number])
    return makers


def _hints(facts: dict) -> list[str]:
    """What to do about each thing that is missing or broken, most useful first."""
    hints = []
    served = " ".join(f"{d['platform']} {d['name']}" for d in facts["devices"] if d["kind"] == "GPU").lower()
    for maker in sorted(gpu_makers()):
        if maker.lower() not in served:
            hints.append(_nvidia_cure(facts) if maker == "NVIDIA" else _gpu_cure(maker))
    for icd in facts["icd_files"]:
        if icd["problem"]:
            cure = " `pip install intel-cmplr-lib-rt`." if "intelocl" in icd["library"] else ""
            hints.append(f"{icd['file']} names a library that does not load ({icd['problem']}).{cure}")
    hidden = not any("intelocl" in icd["library"] for icd in facts["icd_files"])
    if (Path(sys.prefix) / "lib/libintelocl.so").exists() and hidden:
        setting = facts["OCL_ICD_VENDORS"]
        cure = "unset OCL_ICD_VENDORS" if setting else f"{cache_folder('')} cannot be written (XDG_CACHE_HOME moves it)"
        hints.append(f"Intel's CPU runtime is installed, but the loader is not told of it: {cure}.")
    return hints


def _gpu_cure(maker: str) -> str:
    return (
        f"{maker} GPU seen, but no OpenCL driver for it: `apt install {GPU_PACKAGES[maker]}`; "
        "your user may have to be in the group `render`."
    )


def _nvidia_cure(facts: dict) -> str:
    seen = "NVIDIA GPU seen, but no OpenCL platform for it: "
    if any(NVIDIA_LIBRARY.partition(".")[0] in icd["library"] for icd in facts["icd_files"]):
        return f"{seen}its .icd file is there, so the driver itself fails; see what `nvidia-smi` says."
    if _load_problem(NVIDIA_LIBRARY):
        return (
            f"{seen}{NVIDIA_LIBRARY} is missing. `apt install nvidia-opencl-icd` (Debian) or the driver's "
            "libnvidia-compute package (Ubuntu); a container: NVIDIA_DRIVER_CAPABILITIES=compute,utility."
        )
    folder = facts["OCL_ICD_VENDORS"] or str(SYSTEM_VENDORS)
    return (
        f"{seen}no .icd file names its library. `sudo mkdir -p {folder}; "
        f"echo {NVIDIA_LIBRARY} | sudo tee {folder}/nvidia.icd`, "
        "or as a user: the same file in a folder of yours, and OCL_ICD_VENDORS=FOLDER."
    )


def report(facts: dict) -> str:
    """The facts of ``examine`` in one screen."""
    rows = [
        ("clnn", "{clnn}, Python {python}, NumPy {numpy}, pyopencl {pyopencl}, {system}".format(**facts)),
        ("loader", _loader_text(facts)),
        ("icd files", ", ".join(f"{Path(i['file']).name} ({i['origin']})" for i in facts["icd_files"]) or "none"),
        *_listing("platforms", [f"{p['name']}: {p['version']}" for p in facts["platforms"]]),
        *_listing("devices", [_device_text(d) for d in facts["devices"]]),
        ("in use", _use_text(facts)),
        *([("vector add", _sum_text(facts["vector_add"]))] if facts["vector_add"] else []),
        ("packages", _packages_text(facts["packages_missing"])),
        ("data", _data_text(facts["data"])),
        *(("hint", hint) for hint in facts["hints"]),
    ]
    return "\n".join(
        textwrap.fill(
            text,
            WIDTH,
            initial_indent=f"{label:<12}",
            subsequent_indent=" " * 12,
            break_long_words=False,
            break_on_hyphens=False,
            max_lines=2 if label in ("platforms", "devices", "") else 6,
            placeholder=" ...",
        )
        for label, text in rows
    )


def _listing(label: str, entries: list[str], most: int = 4) -> list[tuple[str, str]]:
    """Rows of a list, the label before the first; a long list is cut, as ``--json`` has it all."""
    if len(entries) > most:
        entries = [*entries[: most - 1], f"and {len(entries) - most + 1} more: see --json"]
    return list(zip([label] + [""] * len(entries), entries or ["none"]))


def _loader_text(facts: dict) -> str:
    loader, setting = facts["loader"], facts["OCL_ICD_VENDORS"]
    name = "{name} {version} ({vendor}), {opencl}".format(**loader) if loader else "the system's"
    if not setting:
        return f"{name}; OCL_ICD_VENDORS not set"
    ours = " (by clnn, for Intel's runtime)" if Path(setting) == cache_folder("vendors") else ""
    return f"{name}; OCL_ICD_VENDORS={setting}{ours}"


def _device_text(d: dict) -> str:
    cores = f"{d['cores']} core{'s' if d['cores'] != 1 else ''}"
    return (
        f"{d['index']}: {d['name']} ({d['kind']}, {d['platform']}), {cores}, {d['memory'] / 2**30:.1f} GiB, "
        f"{'fp64' if d['fp64'] else 'no fp64'}, driver {d['driver']}"
    )


def _use_text(facts: dict) -> str:
    if facts["device"] is None:
        return f"none: {facts['problem']}"
    text = f"device {facts['device']}: {facts['why']}"
    if facts["told_processor"]:
        text += f"; its compiler does not know this processor and was told to take it for {facts['told_processor']}"
    return f"{text}. It fails: {facts['problem']}" if facts["problem"] else text


def _sum_text(test: dict) -> str:
    return (
        f"{test['n']:,} random floats: {'correct' if test['correct'] else 'WRONG'}, norm of the difference to "
        f"NumPy's sum {test['norm_of_difference']:g}, {test['seconds'] * 1e3:.2f} ms "
        f"(the first, with compiling, {test['first_seconds'] * 1e3:.0f} ms)"
    )


def _packages_text(missing: dict | None) -> str:
    if missing is None:
        return "unknown: clnn runs without being installed; in its folder: `pip install -e '.[course]'`"
    texts = [f"for the {extra} missing: {', '.join(names)}" for extra, names in missing.items() if names]
    if not texts:
        return "all there for the course and the tests"
    names = sorted(set(missing["course"] + missing["test"]))
    return f"{'; '.join(texts)}. `pip install {' '.join(names)}`"


def _data_text(data: dict) -> str:
    texts = [f"CLNN_DATA={data['CLNN_DATA']}" if data["CLNN_DATA"] else "CLNN_DATA not set"]
    for place, words in ("CLNN_DATA", "there"), ("cache", "in the cache"), (None, "downloaded when first used"):
        names = [name for name, where in data["sets"].items() if where == place]
        texts += [f"{words}: {', '.join(names)}"] if names else []
    return "; ".join(texts) + (f". {data['problem']}" if data["problem"] else "")
