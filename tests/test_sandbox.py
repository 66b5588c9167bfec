"""The sandbox against work that does what work should not do."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from clnn.lab import sandbox as sandbox_module
from clnn.lab.sandbox import PRINTED, Sandbox, step

HERE = __name__


# The work: called by the tests in another process


def double(x):
    return 2 * x


def slowly(steps, seconds):
    for k in range(steps):
        step(f"step {k}")
        time.sleep(seconds)
    return steps


def forever():
    step("the loop")
    while True:
        pass


def stop(how):
    {"exit": lambda: sys.exit(3), "hard": lambda: os._exit(3), "crash": os.abort, "raise": lambda: 1 / 0}[how]()


def fill_memory(megabytes):
    return len(bytearray(megabytes * 2**20))


def chatter(lines):
    for k in range(lines):
        print(f"line {k}")
    return "said"


def breed():
    """A child of its own that would outlive it."""
    child = os.fork()
    if child == 0:
        time.sleep(600)
    step(str(child))
    while True:
        pass


def breed_without_end(most):
    """How many children it may have, as a user who is not root."""
    if os.getuid() == 0:
        os.setuid(65534)
    children = []
    try:
        while len(children) < most:
            if (child := os.fork()) == 0:
                time.sleep(60)
                os._exit(0)
            children.append(child)
    except BlockingIOError:
        pass
    for child in children:
        os.kill(child, signal.SIGKILL)
    return len(children)


def count_tasks():
    return sandbox_module._tasks()


def talk_over(text):
    os.write(1, text.encode())
    return "heard"


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(seconds=20) as shared:
        yield shared


def ready(seconds):
    """A sandbox that has started and imported, which takes longer, with so many seconds for each step from now on."""
    sandbox = Sandbox(seconds=60)
    sandbox.call(f"{HERE}:double", x=1)
    sandbox.seconds = seconds
    return sandbox


def test_value(sandbox):
    outcome = sandbox.call(f"{HERE}:double", x=[1.5, "a"])
    assert outcome.value == [1.5, "a", 1.5, "a"]
    assert (outcome.failure, outcome.words, outcome.printed) == ("", "", "")


def test_the_process_stays(sandbox):
    first = sandbox.call("os:getpid").value
    assert first != os.getpid()
    assert sandbox.call("os:getpid").value == first


@pytest.mark.parametrize("target", [f"{HERE}:nothing", "no_such_module:f"])
def test_what_is_not_there(sandbox, target):
    outcome = sandbox.call(target)
    assert outcome.failure == "error" and ("no_such_module" in outcome.words or "nothing" in outcome.words)


@pytest.mark.parametrize("how, failure, words", [
    ("exit", "error", "SystemExit: 3"), ("raise", "error", "ZeroDivisionError"),
    ("hard", "crash", "exit status 3"), ("crash", "crash", "SIGABRT"),
])  # fmt: skip
def test_ends_of_all_kinds(sandbox, how, failure, words):
    outcome = sandbox.call(f"{HERE}:stop", how=how)
    assert outcome.failure == failure and words in outcome.words
    assert sandbox.call(f"{HERE}:double", x=2).value == 4  # a new process where the old one ended


def test_endless_loop():
    with ready(0.5) as sandbox:
        began = time.perf_counter()
        outcome = sandbox.call(f"{HERE}:forever")
        assert time.perf_counter() - began < 5
        assert outcome.failure == "time" and outcome.step == "the loop"
        assert "0.5 seconds" in outcome.words
        sandbox.seconds = 60
        assert sandbox.call(f"{HERE}:double", x=2).value == 4


def test_each_step_has_its_time():
    with ready(1) as sandbox:
        assert sandbox.call(f"{HERE}:slowly", steps=4, seconds=0.4).value == 4


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")
def test_memory():
    with Sandbox(seconds=20, megabytes=600) as sandbox:
        assert sandbox.call(f"{HERE}:fill_memory", megabytes=10).value == 10 * 2**20
        outcome = sandbox.call(f"{HERE}:fill_memory", megabytes=900)
        assert outcome.failure == "memory" and "600 MiB" in outcome.words


def test_much_is_printed(sandbox):
    outcome = sandbox.call(f"{HERE}:chatter", lines=100_000)
    assert outcome.value == "said"
    assert outcome.printed.startswith("line 0\nline 1\n") and len(outcome.printed) == PRINTED
    assert sandbox.call(f"{HERE}:chatter", lines=1).printed == "line 0\n"


def test_what_is_printed_is_no_reply(sandbox):
    forged = '{"value": "forged"}\n'
    outcome = sandbox.call(f"{HERE}:talk_over", text=forged)
    assert outcome.value == "heard" and outcome.printed == forged


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_children_end_with_it():
    with ready(1) as sandbox:
        child = int(sandbox.call(f"{HERE}:breed").step)
    end = time.monotonic() + (0 if sys.platform == "linux" else 5)  # there the sandbox waits until it is gone
    while lives(child) and time.monotonic() < end:
        time.sleep(0.1)
    assert not lives(child)


def lives(process):
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except ProcessLookupError:
        return False
    except OSError:
        return sys.platform != "linux"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are counted on Linux")
def test_processes_are_limited():
    """So that a homework that forks without end fills no table of processes."""
    with Sandbox(seconds=30, processes=20) as sandbox:
        tasks = sandbox.call(f"{HERE}:count_tasks").value
        forked = sandbox.call(f"{HERE}:breed_without_end", most=tasks + 500).value
    assert 0 < forked < tasks + 100


def test_an_interrupt_ends_the_work(sandbox, monkeypatch):
    before = sandbox.call("os:getpid").value

    def interrupt(request):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(sandbox, "_converse", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sandbox.call(f"{HERE}:double", x=1)
    assert sandbox.call("os:getpid").value != before
