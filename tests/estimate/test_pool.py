"""Worker processes: what they answer, what they refuse, and that they end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from tiny_cells import make_cell

from dbbench.errors import BadInput, WorkerDied
from dbbench.estimate.fake_cell import estimate_cell
from dbbench.estimate.pool import Workers
from dbbench.estimate.worker import Worker
from dbbench.measure.allocator_settings import AllocatorSettings
from dbbench.suite.cell import TaskChoice

INTERVALS = AllocatorSettings(roundup_power2_divisions=((1, 4), (0, 2)), capacity_bytes=64 << 20)
BACKPROP = make_cell("backprop")
LOST = BACKPROP.model_copy(update={"task": TaskChoice(name="cifar10", folder="nowhere")})  # type: ignore[call-arg]
WRONG = BACKPROP.model_copy(update={"options": {"blocs": 2}})


def wait_until_gone(alive: Callable[[], list[int]]) -> None:
    deadline = time.monotonic() + 10
    while alive():
        assert time.monotonic() < deadline, "a worker has outlived its parent"
        time.sleep(0.05)


def test_workers_answer_as_this_process_does_and_end(marked: Callable[[], list[int]]) -> None:
    """Figures would depend on the processes that made them, settings be lost, or a process be left behind."""
    with Workers("suite.yaml", processes=1) as workers:
        first = dict(workers.estimates([(BACKPROP, [INTERVALS]), (LOST, [])]))
        early = workers.estimates([(BACKPROP, []), (BACKPROP, [])])
        next(early)
        assert len(marked()) == 1
        early.close()
        wait_until_gone(marked)  # a search that has its answer leaves nothing behind that goes on computing
        with pytest.raises(BadInput, match=r"suite\.yaml: methods\.backprop\.blocs"):
            list(workers.estimates([(WRONG, [])]))
    elsewhere = {"record": {"environment"}}
    here = estimate_cell(BACKPROP, "suite.yaml", [INTERVALS])
    assert first[0].model_dump(exclude=elsewhere) == here.model_dump(exclude=elsewhere)
    assert (first[1].record.row.status, first[1].allocators) == ("failed", [])
    wait_until_gone(marked)


def test_workers_die_with_a_parent_that_is_killed(marked: Callable[[], list[int]]) -> None:
    """A killed estimate would leave two processes behind."""
    start = "import dbbench.estimate.worker as w; worker = w.Worker('dbbench.estimate.pool', 'suite.yaml')"
    code = f"{start}; import time; time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code])
    while len(marked()) < 2:
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    wait_until_gone(marked)


def test_a_worker_that_dies_says_so_in_one_line() -> None:
    """The command line would wait for ever, or end with a traceback of pipes."""
    worker = Worker("dbbench.no_such_module", "suite.yaml")
    with pytest.raises(WorkerDied, match=r"^suite\.yaml: a worker process ended with status 1: .*no_such_module"):
        worker.read()
    worker.end()
