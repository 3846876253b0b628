"""Estimates in worker processes, so that two cores are used and the process that asks imports no torch."""

from __future__ import annotations

import os
import selectors
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Self

from dbbench.estimate.worker import Worker, serve
from dbbench.measure.allocator_settings import AllocatorSettings
from dbbench.results.estimate import Estimate
from dbbench.suite.cell import Cell

Job = tuple[Cell, Sequence[AllocatorSettings]]
#: More would not fit the memory that an estimate is to take in all; a worker needs about a third of a GiB.
DEFAULT_PROCESSES = 2
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # nothing is computed


def estimate_cells(jobs: Sequence[Job], where: str, processes: int | None = None) -> Iterator[tuple[int, Estimate]]:
    """Estimate ``jobs`` and yield (index, estimate) as they finish; the seeds are the caller's to merge.

    A cell that cannot be estimated yields a record with status ``failed``. A mistake in the suite (``where`` opens its
    line) raises BadInput, a worker that is killed WorkerDied. An iterator that is closed early ends its workers.
    """
    with Workers(where, processes) as workers:
        yield from workers.estimates(jobs)


class Workers:
    """Worker processes that stay for several rounds of jobs; they start with the first ones and end with the context.

    ``processes`` is their largest number, by default two, or one where there is one core.
    """

    def __init__(self, where: str, processes: int | None = None) -> None:
        self._where = where
        self._most = processes or min(DEFAULT_PROCESSES, os.cpu_count() or 1)
        self._all: list[Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: Any) -> None:
        for worker in self._all:
            worker.end()
        self._all.clear()

    def estimates(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Estimate]]:
        """Yield (index, estimate) of ``jobs`` as they finish; see `estimate_cells`."""
        waiting, working = deque(enumerate(jobs)), dict[Worker, int]()
        try:
            with selectors.DefaultSelector() as selector:
                while waiting and len(working) < min(self._most, len(jobs)):
                    if len(working) == len(self._all):
                        self._all.append(Worker("dbbench.estimate.pool", self._where, _ONE_THREAD))
                    worker = self._all[len(working)]
                    selector.register(worker.answers, selectors.EVENT_READ, worker)
                    working[worker] = self._give(worker, waiting)
                while working:
                    for key, _ in selector.select():
                        worker = key.data
                        answer = worker.read()
                        if answer is None:
                            continue
                        done = working.pop(worker)
                        if waiting:
                            working[worker] = self._give(worker, waiting)
                        else:
                            selector.unregister(worker.answers)
                        yield done, Estimate.model_validate_json(answer)
        except BaseException:  # what is half done in a worker must not answer the next round
            self.__exit__()
            raise

    def _give(self, worker: Worker, waiting: deque[tuple[int, Job]]) -> int:
        index, (cell, settings) = waiting.popleft()
        order = {"cell": cell.model_dump(mode="json"), "where": self._where, "settings": [asdict(s) for s in settings]}
        worker.send(order)
        return index


# ------------------------------------------------------------------------------------------------ in the worker


def main(descriptor: int) -> None:
    """Answer jobs."""
    import gc

    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from dbbench.estimate.fake_cell import estimate_or_failure

    torch.set_num_threads(1)

    def answer(order: dict[str, Any]) -> bytes:
        # A pass has the collector walk over all that is alive, again and again: what stays is taken out of its sight.
        gc.collect()
        gc.freeze()
        settings = [_settings(raw) for raw in order["settings"]]
        estimate = estimate_or_failure(Cell.model_validate(order["cell"]), order["where"], settings)
        FakeTensorMode.cache_clear()
        return estimate.model_dump_json().encode()

    serve(descriptor, answer)


def _settings(raw: dict[str, Any]) -> AllocatorSettings:
    """Return settings that went through JSON, which has lists for tuples."""
    divisions = raw["roundup_power2_divisions"]
    if isinstance(divisions, list):
        raw = raw | {"roundup_power2_divisions": tuple((bound, steps) for bound, steps in divisions)}
    return AllocatorSettings(**raw)


if __name__ == "__main__":
    main(int(sys.argv[1]))
