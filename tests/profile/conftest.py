"""A page of one width, whatever terminal the tests run in, and the strangers' trainings on the path."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
