"""One thread for every test, in CI the same random examples every time, and a mark to find a test's processes by.

Results then do not depend on the machine's load, two workers do not fight over cores, and a red build is red again; a
developer's machine goes on looking for new examples.
"""

from __future__ import annotations

import gc
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

MARK = "DBBENCH_TEST_MARK"

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

settings.register_profile("everywhere", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "everywhere")


@pytest.fixture(scope="session", autouse=True)
def _unsynced() -> Iterator[None]:
    """Files are written as ever but not waited for: no test cuts the power, and a thousand syncs take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def _what_others_left_at_rest() -> None:
    """Put what is there before a file of tests where Python's collector does not look.

    Thousands of tests leave millions of objects, and a ledger has the collector run in full.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[int]]]:
    """Mark every process started in this test; gives what finds those that are alive, and ends them at last."""
    mark = f"{MARK}={uuid.uuid4().hex}"
    monkeypatch.setenv(*mark.split("="))

    def alive() -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes().split(b"\0")
                zombie = (folder / "stat").read_text().rpartition(") ")[2].startswith("Z")
            except OSError:
                continue
            if mark.encode() in environment and not zombie and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        return found

    yield alive
    for process in alive():
        os.kill(process, signal.SIGKILL)
