"""Estimates one after another in this process: what a gate of deterministic figures takes, and starts nothing for."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from torch._subclasses.fake_tensor import FakeTensorMode

from dbbench.estimate.fake_cell import estimate_with_timeline
from dbbench.results.record import Record
from dbbench.suite.cell import Cell

if TYPE_CHECKING:
    import pandas as pd


def estimate_in_process(
    cells: Sequence[Cell], where: str
) -> Iterator[tuple[Cell, Record, Callable[[], pd.DataFrame] | None]]:
    """Yield each cell's record and how to get its events, None where it failed; ``where`` opens a BadInput."""
    gc.collect()
    gc.freeze()  # a pass has the collector walk over all that is alive, again and again: what stays is put out of sight
    try:
        for cell in cells:
            estimate, events = estimate_with_timeline(cell, where)
            yield cell, estimate.record, events
            FakeTensorMode.cache_clear()
    finally:
        gc.unfreeze()
