"""Locks this process in: it reads what Python and the devices need, writes in one folder, and reaches no other process.

By Landlock (Salaün, "Landlock: unprivileged access control", Linux 5.13), which needs no rights and cannot be undone.
"""

import ctypes
import os
import site
import struct
import sys
from pathlib import Path

import numpy as np

CREATE, ADD, RESTRICT, INTERFACE = 444, 445, 446, 1  # system calls, the same on every processor; ask for the version
READ, WRITE, TRUNCATE = 1 << 2, 1 << 1, 1 << 14
CHANGE = 0b1_1111_1111 << 4 | 1 << 13  # what a folder holds: make, remove and move files of all kinds
SYSTEM = "/bin /dev /etc /lib /lib32 /lib64 /nix /opt /proc /run /sbin /snap /sys /usr /var/lib".split()
SIGNALS = 0b11  # to other processes, and their abstract sockets: from version 6 on (Linux 6.12)


def version() -> int:
    """Of Landlock on this machine: 0 where there is none, from 6 on it keeps signals in, too."""
    return max(_libc().syscall(CREATE, None, 0, INTERFACE), 0) if sys.platform == "linux" else 0


def confine(folder: str) -> bool:
    """Lock this process and all that it starts in, with ``folder`` to write to; whether that could be done."""
    if not (found := version()):
        return False
    from ..data.download import cache_folder

    libraries = [sys.prefix, sys.base_prefix, *site.getsitepackages(), site.getusersitepackages()]
    libraries += [Path(__file__).parents[1], Path(np.__file__).parents[1], cache_folder("")]
    libraries += filter(None, [os.environ.get("CLNN_DATA")])
    known = (1 << (13 if found < 2 else 14 if found < 3 else 15)) - 1
    everything = (READ | WRITE | TRUNCATE | CHANGE) & known
    attributes = struct.pack("=QQQ", everything, 0, SIGNALS) if found >= 6 else struct.pack("=Q", everything)
    libc = _libc()
    rules = libc.syscall(CREATE, attributes, len(attributes), 0)
    for path in {*SYSTEM, *map(str, libraries)}:
        _allow(rules, READ, path)
    for path in ("/dev", f"/proc/{os.getpid()}"):  # drivers write to both
        _allow(rules, (READ | WRITE | TRUNCATE) & known, path)
    _allow(rules, everything, folder)
    done = libc.prctl(38, 1, 0, 0, 0) == 0 and libc.syscall(RESTRICT, rules, 0) == 0  # 38: no new privileges
    os.close(rules)
    return done


def _libc():
    return ctypes.CDLL(None)


def _allow(rules: int, rights: int, path: str) -> None:
    """What lies under a path may be used so; what is not there needs no rule."""
    if os.path.isdir(path):
        place = os.open(path, os.O_PATH)
        _libc().syscall(ADD, rules, 1, struct.pack("=Qi", rights, place), 0)
        os.close(place)
