"""A toy package on the import path of every process that a test starts, and a mark to find them by."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MARK = "DBBENCH_TEST_MARK"


@pytest.fixture(autouse=True)
def _toy_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TESTS))


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
