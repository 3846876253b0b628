"""Processes: how one of ours starts another, and what Linux offers to keep them together.

Elsewhere than on Linux none dies with its parent by the kernel's hand, and of what a worker has started only the rest
of its process group is found.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_WAIT_SECONDS = 2.0
#: The import path goes as it is: in PYTHONPATH a folder with a colon in its name would be two.
_START = (
    "import json, runpy, sys; path, *sys.argv[:] = sys.argv[1:]; sys.path[:] = json.loads(path); "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs ``module`` in another Python, with this one's import path made absolute."""
    path = [os.path.abspath(entry) if os.path.exists(entry or ".") else entry for entry in sys.path]
    return [sys.executable, "-P", "-u", "-c", _START, json.dumps(path), module, *arguments]


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends, even by SIGKILL."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans(yes: bool = True) -> None:
    """Become, or cease to be, the parent of whatever outlives the processes below this one."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(yes))


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def children() -> dict[int, str]:
    """Return the names of this process's children by their ids, those left out that have ended."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it ended meanwhile
            name, _, rest = (folder / "stat").read_text(errors="replace").partition(" (")[2].rpartition(") ")
            state, parent = rest.split()[:2]
            if int(parent) == os.getpid() and state not in "ZX":
                found[int(folder.name)] = name
    return found


def end_orphans(known: Collection[int]) -> list[str]:
    """End every child that is not ``known``, and what these leave in turn; return each one's name and id."""
    ended: list[str] = []
    deadline = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < deadline:
        strays = {process: name for process, name in children().items() if process not in known}
        if not strays:
            break
        for process, name in strays.items():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)
            ended.append(f"{name} ({process})")
    return ended
