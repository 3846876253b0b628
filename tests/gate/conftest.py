"""Copies of the researcher's project, imported from where the test puts them and from nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from researcher_project import Regression, copy_project, forget
from results.conftest import make_record

__all__ = ["make_record"]

Copy = Callable[[Regression | None], Path]


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Copy]:
    """Give what copies the project, seeds a regression, and has that copy imported; returns the suite's path."""
    count = 0

    def make(regression: Regression | None) -> Path:
        nonlocal count
        count += 1
        folder = tmp_path / f"copy{count}"
        folder.mkdir()
        monkeypatch.syspath_prepend(folder)
        return copy_project(folder, regression)

    yield make
    forget()
