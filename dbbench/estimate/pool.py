"""Estimates in worker processes, so that two cores are used and the process that asks imports no torch.

A worker is ``python -m dbbench.estimate.pool``: jobs come as lines of JSON on its standard input, estimates leave as
lines on a pipe, so that a method that prints disturbs nothing. Its input is a lifeline as well: when that ends, the
parent is done or gone, and so is the worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import selectors
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Self

from dbbench.errors import BadInput, WorkerDied
from dbbench.measure.allocator_settings import AllocatorSettings
from dbbench.results.estimate import Estimate
from dbbench.suite.cell import Cell

Job = tuple[Cell, Sequence[AllocatorSettings]]
#: More would not fit the memory that an estimate is to take in all; a worker needs about 0.4 GiB.
DEFAULT_PROCESSES = 2


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
        self._all: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: Any) -> None:
        for worker in self._all:
            worker.end()
        self._all.clear()

    def estimates(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Estimate]]:
        """Yield (index, estimate) of ``jobs`` as they finish; see `estimate_cells`."""
        waiting = deque(enumerate(jobs))
        try:
            with selectors.DefaultSelector() as selector:
                while waiting and len(self._all) < min(self._most, len(jobs)):
                    self._all.append(_Worker(self._where))
                for worker in self._all[: len(jobs)]:
                    selector.register(worker.results, selectors.EVENT_READ, worker)
                    worker.give(*waiting.popleft())
                while selector.get_map():
                    for key, _ in selector.select():
                        worker = key.data
                        answer = worker.read()
                        if answer is None:
                            continue
                        if waiting:
                            worker.give(*waiting.popleft())
                        else:
                            selector.unregister(worker.results)
                        yield answer
        except BaseException:  # what is half done in a worker must not answer the next round
            self.__exit__()
            raise


class _Worker:
    """One worker process as its parent sees it."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._index = -1
        self._unread = b""
        self.results, far_end = os.pipe()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (it is closed with the worker)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # nothing is computed
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dbbench.estimate.pool", str(far_end)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[far_end],
                env=os.environ | threads | {"PYTHONPATH": path},
                start_new_session=True,  # a terminal's Ctrl-C is for the parent, which ends its workers in order
            )
        finally:
            os.close(far_end)

    def give(self, index: int, job: Job) -> None:
        """Hand the worker its next job."""
        cell, settings = job
        order = {"cell": cell.model_dump(mode="json"), "where": self._where, "settings": [asdict(s) for s in settings]}
        self._index = index
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; reading will say how
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def read(self) -> tuple[int, Estimate] | None:
        """Read what has come; return the answer when it is whole. Raises BadInput where the worker did."""
        piece = os.read(self.results, 1 << 20)
        self._unread += piece
        if not piece:
            raise WorkerDied(f"{self._where}: {self._last_words()}")
        if not self._unread.endswith(b"\n"):
            return None
        message, self._unread = self._unread, b""
        if message.startswith(b"!"):
            raise BadInput(json.loads(message[1:]))
        return self._index, Estimate.model_validate_json(message)

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return f"the process that estimates {how}{': ' + lines[-1][:300] if lines else ''}"

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._errors.close()
        os.close(self.results)


# ------------------------------------------------------------------------------------------------ in the worker


def main(channel: int) -> None:
    """Answer jobs until the lifeline ends."""
    import gc

    os.set_inheritable(channel, False)
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, jobs), daemon=True).start()

    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from dbbench.estimate.fake_cell import estimate_or_failure

    torch.set_num_threads(1)
    while True:
        # A pass has the collector walk over all that is alive, again and again: what stays is taken out of its sight.
        gc.collect()
        gc.freeze()
        order = json.loads(jobs.get())
        settings = [_settings(raw) for raw in order["settings"]]
        try:
            cell = Cell.model_validate(order["cell"])
            answer = estimate_or_failure(cell, order["where"], settings).model_dump_json().encode()
        except BadInput as error:
            answer = b"!" + json.dumps(str(error)).encode()
        FakeTensorMode.cache_clear()
        _write(channel, answer + b"\n")


def _settings(raw: dict[str, Any]) -> AllocatorSettings:
    """Return settings that went through JSON, which has lists for tuples."""
    divisions = raw["roundup_power2_divisions"]
    if isinstance(divisions, list):
        raw = raw | {"roundup_power2_divisions": tuple(tuple(pair) for pair in divisions)}
    return AllocatorSettings(**raw)


def _listen(lifeline: Any, jobs: queue.SimpleQueue[bytes]) -> None:
    for line in lifeline:
        jobs.put(line)
    os._exit(0)


def _write(channel: int, body: bytes) -> None:
    while body:
        body = body[os.write(channel, body) :]


if __name__ == "__main__":
    main(int(sys.argv[1]))
