"""The sandbox against work that does what work should not do."""

import os
import signal
import sys
import time

import pytest

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


def talk_over(text):
    os.write(1, text.encode())
    return "heard"


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(seconds=20) as shared:
        yield shared


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
    with Sandbox(seconds=0.5) as sandbox:
        sandbox.call(f"{HERE}:double", x=1)  # starting takes longer
        began = time.perf_counter()
        outcome = sandbox.call(f"{HERE}:forever")
        assert time.perf_counter() - began < 5
        assert outcome.failure == "time" and outcome.step == "the loop"
        assert "0.5 seconds" in outcome.words
        assert sandbox.call(f"{HERE}:double", x=2).value == 4


def test_each_step_has_its_time():
    with Sandbox(seconds=1) as sandbox:
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
    with Sandbox(seconds=1) as sandbox:
        sandbox.call(f"{HERE}:double", x=1)
        child = int(sandbox.call(f"{HERE}:breed").step)
    for _ in range(50):
        try:
            os.kill(child, 0)
            with open(f"/proc/{child}/stat") as file:
                if file.read().split()[2] == "Z":
                    return
        except OSError:
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("a child of the work outlived the sandbox")


def test_an_interrupt_ends_the_work(sandbox, monkeypatch):
    before = sandbox.call("os:getpid").value

    def interrupt(request):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(sandbox, "_converse", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sandbox.call(f"{HERE}:double", x=1)
    assert sandbox.call("os:getpid").value != before
