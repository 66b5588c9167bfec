"""Work done in a process of its own, with limits of time and of memory, so that nothing it does harms this one.

A ``Sandbox`` is a second Python that waits for work. Requests and replies are lines of JSON. Where the work does not
end in time, or ends its process, the sandbox says so, and the next call starts a new process.
"""

import atexit
import contextlib
import ctypes
import importlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

SECONDS = 10  # for each step of the work
MEGABYTES = 4096
PRINTED = 10_000  # characters kept of what the work prints
START = 60  # seconds in which Python must have started and imported, on a busy machine too
LONGEST = 2**27  # bytes of a reply
MARK = "CLNN_SANDBOX"  # the variable by which what the work starts is found again
ADOPT = 36  # PR_SET_CHILD_SUBREAPER: whose parent has ended becomes a child of this process, so that it can be found
COMMAND = "from clnn.lab.sandbox import serve; serve()"


@dataclass(frozen=True)
class Outcome:
    """What came of a call: its ``value``, or why there is none.

    ``failure`` is "" where all went well, else "time", "memory", "crash" or "error"; ``words`` is one sentence about
    it (for an error its traceback), ``step`` what was being done, ``printed`` what was written to the standard output.
    """

    value: object = None
    failure: str = ""
    words: str = ""
    step: str = ""
    printed: str = ""


class Sandbox:
    """A process that calls functions: ``Sandbox().call("module:function", x=1)``.

    ``seconds`` limits each step of the work (see ``step``), ``steps`` their number, ``megabytes`` the memory and
    ``processes`` how many processes and threads it may add to those of the user (Linux; root's are never too many);
    ``environment`` adds variables, ``folder`` is where the process starts. It starts at the first call, stays for the
    next one and ends with this one, and what it has started ends with it.
    """

    def __init__(
        self, seconds: float = SECONDS, megabytes: int = MEGABYTES, environment: dict | None = None,
        *, steps: int | None = None, processes: int | None = None, folder: Path | None = None,
    ):  # fmt: skip
        self.seconds, self.megabytes, self.environment = seconds, megabytes, environment or {}
        self.steps, self.processes, self.folder = steps, processes, folder
        self._process = self._printed = self._mark = None
        self._started: set[str] = set()  # by the process, as far as it was seen

    def start(self) -> None:
        """Start the process, if none is there, without waiting for it."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        path = os.pathsep.join(filter(None, sys.path))
        self._mark = f"{os.environ.get(MARK, '')}/{secrets.token_hex(16)}"  # of a sandbox in a sandbox: of both
        self._printed = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMAND],
            env=os.environ | {"PYTHONPATH": path} | self.environment | {MARK: self._mark},
            cwd=self.folder,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._printed,
            start_new_session=os.name == "posix",  # so that what it starts can be ended with it
        )  # fmt: skip
        atexit.register(self.close)

    def call(self, target: str, **arguments) -> Outcome:
        """The outcome of ``target``, "module:function", with these arguments; they and the value must fit JSON."""
        self.start()
        self._printed.seek(0)
        self._printed.truncate()
        request = {"target": target, "arguments": arguments, "seconds": self.seconds}
        request |= {"megabytes": self.megabytes, "processes": self.processes}
        try:
            reply, late, at = self._converse(json.dumps(request))
        except BaseException:  # the user's own interrupt among them: a reply that comes later belongs to nobody
            self.close()
            raise
        if reply is None:
            reply = self._lost(late)
        self._printed.seek(0)
        printed = self._printed.read(PRINTED).decode(errors="replace")
        return Outcome(**reply, step=at, printed=printed)

    def close(self) -> None:
        """End the process and all that it started."""
        atexit.unregister(self.close)
        if self._process is not None:
            self._kill()
            with contextlib.suppress(BrokenPipeError):  # a request that nobody read
                self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()
            _end_all(self._mark, self._process.pid, self._started)  # what has left the group, and what that starts
            self._process, self._started = None, set()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *exception):
        self.close()

    def _converse(self, request: str):
        """Send a request, read until its reply: the reply (None if none comes), whether it was late, the last step."""
        late, at = threading.Event(), ""

        def watch(seconds):
            timer = threading.Timer(seconds, lambda: (late.set(), self._kill()))
            timer.daemon = True
            timer.start()
            return timer

        timer = watch(START)
        try:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(request.encode() + b"\n")
                self._process.stdin.flush()
            count = 0
            while (news := _read(self._process.stdout)) is not None:
                timer.cancel()
                if "step" not in news:
                    return news, False, at
                at, count = news["step"], count + 1
                if self.steps and count > self.steps:  # the work itself may say that it does
                    break
                timer = watch(self.seconds)
            return None, late.is_set(), at
        finally:
            timer.cancel()

    def _kill(self):
        if self._process.poll() is None:  # else its number may be another's by now
            self._started |= _descendants(self._process.pid)
        with contextlib.suppress(ProcessLookupError):
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def _lost(self, late: bool) -> dict:
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            code = None
        self.close()
        if late:
            return {"failure": "time", "words": f"It did not end within {self.seconds:g} seconds and was stopped."}
        if code is None:  # it talks nonsense, or has shut its mouth, and goes on
            return {"failure": "crash", "words": "It disturbed the process that ran it and was stopped."}
        end = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return {"failure": "crash", "words": f"It ended the process that ran it ({end})."}


def _read(pipe) -> dict | None:
    """The next line, if it is a step or a reply; else, and at the end, None: the work can write there, too."""
    try:
        news = json.loads(pipe.readline(LONGEST))
    except (ValueError, RecursionError):
        return None
    if not isinstance(news, dict) or not (set(news) <= {"value", "failure", "words"} or set(news) == {"step"}):
        return None
    return news if all(isinstance(news[key], str) for key in set(news) - {"value"}) else None


def _end_all(mark: str, group: int, known: set[str], seconds: float = 5) -> None:
    """End known processes and all that carry a mark; return when they and a group that was ended are gone (Linux)."""
    ended, quiet, limit = set(known), 0, time.monotonic() + seconds
    while time.monotonic() < limit:
        there = list(Path("/proc").glob("[0-9]*"))
        ended |= {process.name for process in there if mark.encode() in _content(process / "environ")}
        # A process that ends loses its environment at once, and is there for a while yet. What it started while the
        # list was made is found by the next look.
        living = {process.name for process in there if _goes_on(process, ended, group)}
        for number in living & ended:
            with contextlib.suppress(OSError):  # it has just ended
                os.kill(int(number), signal.SIGKILL)
        quiet = 0 if living else quiet + 1
        if quiet == 2:
            return
        time.sleep(0.005)


def _goes_on(process: Path, ended: set[str], group: int) -> bool:
    """Whether a process of these is not at its end yet."""
    fields = _fields(process)
    return bool(fields) and fields[0] not in "ZX" and (process.name in ended or int(fields[2]) == group)


def _descendants(number: int) -> set[str]:
    """The processes that one has started, and theirs (Linux)."""
    parents = {process.name: fields[1] for process in Path("/proc").glob("[0-9]*") if (fields := _fields(process))}
    found, last = set(), {str(number)}
    while last:
        last = {name for name, parent in parents.items() if parent in last} - found
        found |= last
    return found


def _fields(process: Path) -> list[str]:
    """The state of a process, its parent, its group, ...; nothing where it has ended."""
    return _content(process / "stat").rpartition(b")")[2].decode().split()


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # it has just ended, or is of another user
        return b""


# The other side


def step(what: str) -> None:
    """Called by the work in a sandbox: what it does next. The time limit begins anew."""
    _tell({"step": what})
    if hasattr(signal, "alarm"):
        signal.alarm(_orphan_seconds)  # should the process that watches this one be gone, the work still ends


def serve() -> None:
    """Do what the lines of the standard input ask for until they end."""
    global _replies, _orphan_seconds, _served_by
    _replies, _served_by = os.fdopen(os.dup(1), "w"), os.getpid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(ADOPT, 1, 0, 0, 0)
    requests = os.fdopen(os.dup(0))  # of its own, too: the work may read or close what it likes
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what the work prints must not come between the replies
    for line in requests:
        request = json.loads(line)
        _limit(request["megabytes"], request["processes"])
        _orphan_seconds = int(request["seconds"]) + 5
        try:
            module, _, name = request["target"].partition(":")
            function = getattr(importlib.import_module(module), name)  # its time is the start's, not the work's
            step("")
            reply = {"value": function(**request["arguments"])}
        except MemoryError:
            reply = {"failure": "memory", "words": f"It needs more than {request['megabytes']} MiB of memory."}
        except BaseException:  # SystemExit too
            reply = {"failure": "error", "words": traceback.format_exc(limit=-3)}
        with contextlib.suppress(Exception):  # the work may have put anything in its place
            sys.stdout.flush()
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        _tell(reply)


def _tell(news: dict) -> None:
    if os.getpid() != _served_by:  # the work has forked: only one of the two answers
        os._exit(0)
    _replies.write(json.dumps(news) + "\n")
    _replies.flush()


def _limit(megabytes: int, processes: int | None) -> None:
    """Limit the memory that this process may write to, and how many more processes and threads the user may have.

    Reserved addresses do not count as memory: GPU drivers reserve many.
    """
    if sys.platform == "linux":
        import resource

        if processes:
            most, hard = _tasks() + processes, resource.getrlimit(resource.RLIMIT_NPROC)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)  # which nobody but root may raise
            resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
        resource.setrlimit(resource.RLIMIT_DATA, (megabytes * 2**20, megabytes * 2**20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**26, 2**26))  # an endless print must not fill the disk


def _tasks() -> int:
    """How many processes and threads this user has."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            count += len(os.listdir(process / "task")) if process.stat().st_uid == os.getuid() else 0
    return count
