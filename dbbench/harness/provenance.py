"""Where a record comes from: the code's commit and version, and the device's class."""

from __future__ import annotations

import functools
import subprocess
from importlib.metadata import version
from pathlib import Path

import dbbench


@functools.cache
def git_commit() -> str | None:
    """Return the commit of the checkout dbbench runs from, ``-dirty`` where its code differs, ``None`` outside one."""
    package = Path(dbbench.__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # An installed copy can lie inside somebody else's repository, whose commit says nothing of this code.
        if git("ls-files", "__init__.py") != "__init__.py":
            return None
        changed = git("status", "--porcelain", "--", ".")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def dbbench_version() -> str:
    """Return the installed package's version, or ``unknown`` when run from a bare checkout."""
    try:
        return version("dbbench")
    except ModuleNotFoundError:
        return "unknown"


def device_class(device: str) -> str:
    """Return ``cpu``, or the name of the CUDA device that a cell will see."""
    if device == "cpu":
        return "cpu"
    import torch  # only a CUDA run pays for it in this process

    return torch.cuda.get_device_name()
