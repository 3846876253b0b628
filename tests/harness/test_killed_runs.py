"""SIGKILL at random moments, then the same command: the folder ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from test_interrupted_runs import start_tiny_run
from test_scheduler import identities

from dbbench.results.store import RunFolder

#: Wall time and what follows from it, and the commit, which may be made while a test runs; every other column must be
#: the same to the last digit.
NOT_DETERMINISTIC = ["train_seconds", "samples_per_second", "energy_joules", "swap_share", "git_commit"]


@dataclass(frozen=True)
class Command:
    """A run to be killed, and about how long it takes: a kill may fall into anything from its imports to its report."""

    variants: str
    seeds: int
    seconds: float
    report: bool = False

    def start(self, folder: Path) -> subprocess.Popen[str]:
        return start_tiny_run(folder, self.variants, self.seeds, self.report)

    def finish(self, folder: Path) -> pd.DataFrame:
        """Run it to its end and return every deterministic column of its table."""
        process = self.start(folder)
        shown, _ = process.communicate(timeout=180)
        assert process.returncode == 0, shown
        table = pd.read_parquet(folder / "results.parquet").drop(columns=NOT_DETERMINISTIC)
        assert list(table["status"]) == ["ok"] * (len(self.variants.split(",")) * self.seeds)
        return table


def kill_at(command: Command, folder: Path, seconds: float, alive: Callable[[], list[int]]) -> bool:
    """Run the command and kill it after ``seconds``; return whether it still ran. Checks what the kill left."""
    before = identities(folder)
    process = command.start(folder)
    try:
        process.communicate(timeout=seconds)
        killed = False
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        killed = True
    for _ in range(100):
        if not alive():
            break
        time.sleep(0.05)
    assert alive() == [], "orphans"
    store = RunFolder(folder)
    records, torn = store.read_records()
    assert torn == []
    assert store.read_timings()[1] == []
    assert [record.row.error for record in records if record.row.status != "ok"] == [], "a kill became a cell's failure"
    after = identities(folder)
    assert {name: after.get(name) for name in before} == before, "a finished cell was lost, or repeated"
    return killed


def kill_and_compare(command: Command, kills: int, tmp_path: Path, alive: Callable[[], list[int]]) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"random moments of seed {seed}")
    moments = random.Random(seed)
    reference = command.finish(tmp_path / "uninterrupted")
    left, number = kills, 0
    while left:
        folder = tmp_path / str(number)
        # a run that came to its end has nothing more to lose: the next kill gets a folder of its own
        while left and kill_at(command, folder, moments.uniform(0.1, command.seconds), alive):
            left -= 1
        pd.testing.assert_frame_equal(command.finish(folder), reference, check_exact=True)
        number += 1


#: Each kill takes some sixteen seconds; all twenty are asked for with ``DBBENCH_EVERY_CASE=1``.
KILLS = 20 if os.environ.get("DBBENCH_EVERY_CASE") else 8


@pytest.mark.slow
def test_kills_at_any_moment_leave_the_same_table(tmp_path: Path, marked: Callable[[], list[int]]) -> None:
    """A torn record, a cell run twice or an orphan would make a resumed run another than an uninterrupted one.

    Cells wait for others, and a kill falls into anything: imports, traces, training, timing, report.
    """
    kill_and_compare(Command("backprop,checkpointing,greedy", 2, 20.0, report=True), KILLS, tmp_path, marked)
