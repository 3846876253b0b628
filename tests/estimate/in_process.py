"""Estimates in the test's own process, in the place of the worker processes: they need seconds to start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

from dbbench.estimate.fake_cell import estimate_or_failure
from dbbench.estimate.pool import Job
from dbbench.results.estimate import Estimate


class InProcess:
    """What `dbbench.estimate.pool.Workers` is, without processes; ``asked`` counts the estimates."""

    asked = 0

    def __init__(self, where: str, processes: int | None = None) -> None:
        self._where = where

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: Any) -> None:
        return

    def estimates(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Estimate]]:
        # the last first, as processes may finish in any order
        for index, (cell, settings) in reversed(list(enumerate(jobs))):
            type(self).asked += 1
            yield index, estimate_or_failure(cell, self._where, settings)


def estimate_cells(jobs: Sequence[Job], where: str, processes: int | None = None) -> Iterator[tuple[int, Estimate]]:
    """What `dbbench.estimate.pool.estimate_cells` is, without processes."""
    return InProcess(where).estimates(jobs)
