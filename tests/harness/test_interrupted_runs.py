"""A run that is interrupted or killed: what is finished stays, and nobody is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from test_scheduler import records

from dbbench.harness.folder import locked
from dbbench.results.store import RunFolder


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupt_keeps_the_finished_ends_the_running_and_reports(
    tmp_path: Path, marked: Callable[[], list[int]], number: signal.Signals
) -> None:
    """Ctrl-C after two hours must not cost the cells of those hours, nor leave a process behind."""
    parent = start_tiny_run(tmp_path, "backprop,hangs,checkpointing")
    wait_for(lambda: any((tmp_path / "records").glob("*.json")) and len(marked()) >= 3, parent)
    parent.send_signal(number)
    shown, _ = parent.communicate(timeout=180)
    assert parent.returncode == 130, shown
    assert marked() == []
    statuses = {variant: record.row.status for (variant, _), record in records(tmp_path).items()}
    assert statuses["backprop"] == "ok"
    assert statuses["hangs"] == "interrupted"
    assert set(pd.read_parquet(tmp_path / "results.parquet")["status"]) == {"ok", "interrupted"}


def test_children_of_a_killed_run_end_and_the_folder_is_free(tmp_path: Path, marked: Callable[[], list[int]]) -> None:
    """Orphans would train on beside the rerun, and a lock left behind would refuse it."""
    parent = start_tiny_run(tmp_path, "hangs")
    wait_for(lambda: len(marked()) >= 2 and "hangs" in (tmp_path / "run.json").read_text(), parent)
    parent.kill()
    parent.communicate(timeout=180)
    deadline = time.monotonic() + 5
    while marked() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert marked() == []
    with locked(tmp_path):
        assert RunFolder(tmp_path).read_run()["variants"] == ["hangs"]


def start_tiny_run(out: Path, variants: str, seeds: int = 1, report: bool = False) -> subprocess.Popen[str]:
    """Start ``tiny_run.py`` as the parent of a run, its output in one pipe."""
    script = Path(__file__).with_name("tiny_run.py")
    return subprocess.Popen(
        [sys.executable, str(script), str(out), variants, str(seeds), "report" if report else "tables"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if condition():
                return
        except OSError:
            pass  # what it looks at is not there yet
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"it did not come so far:\n{process.communicate()[0]}")
