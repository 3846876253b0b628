"""Reports that draw one figure: all of them take seconds, and most tests ask for one or for none."""

from __future__ import annotations

import pytest

from dbbench.report.figures import FIGURES


@pytest.fixture
def only_timeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have reports draw the timeline, and on CUDA the waterfall, alone."""
    for name in FIGURES.keys() - {"timeline"}:
        monkeypatch.delitem(FIGURES, name)
