"""Every read and every write of a run fails once: no traceback, nothing finished lost, and the next call completes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hostile.sampling import EVERY

from dbbench.results.store import RunFolder

HERE = Path(__file__).parent
#: By turns: each place gets one of them, and each of them some places.
WRITE_ERRORS = ("ENOSPC", "EROFS", "EIO", "EMFILE", "EACCES")
READ_ERRORS = ("EIO", "EACCES", "EMFILE")
#: More places than a run has.
MOST = 40
#: Each place takes two processes of five seconds: one in eight is tried, all of them with DBBENCH_EVERY_CASE set.
STRIDE = 1 if EVERY else 8
SUITE = """
suite: tiny
task: {name: digits}
network: {name: vit, size: tiny, depth: 2, patch: 4}
optimizer: {lr: 1e-3}
budget: {kind: samples, value: 64}
batch_size: 32
seeds: [0]
evaluations: 1
methods:
  backprop: {}
"""


def command(suite: Path, folder: Path, fault: str = "") -> subprocess.CompletedProcess[str]:
    """Train one tiny cell into ``folder``, in a process of its own."""
    return subprocess.run(
        [sys.executable, str(HERE / "faulty" / "one_run.py"), str(suite), str(folder)],
        env={**os.environ, "PYTHONPATH": str(HERE / "faulty"), "DBBENCH_FAULT": fault},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE)
    return path


def faults(kind: str, errors: tuple[str, ...], suite: Path, start: Path | None) -> list[str]:
    """Run with one fault after another until there is no further place; return what went wrong."""
    folder, counter, wrong = suite.parent / "run", suite.parent / "counter", []
    for number in range(0, MOST, STRIDE):
        shutil.rmtree(folder, ignore_errors=True)
        if start is not None:
            shutil.copytree(start, folder)
        counter.unlink(missing_ok=True)
        name = errors[number // STRIDE % len(errors)]
        done = command(suite, folder, f"{kind}:{number}:{name}:{counter}:{folder}")
        if not counter.exists() or counter.stat().st_size <= number:
            assert number >= STRIDE, f"a run has no {kind}"
            return wrong
        where = f"{kind} {number} {name}"
        if "Traceback" in done.stdout + done.stderr:
            wrong.append(f"{where}: {done.stderr[-600:]}")
        if done.returncode not in (0, 1, 2):
            wrong.append(f"{where}: ends with {done.returncode}")
        again = command(suite, folder)
        records = RunFolder(folder).read_records()[0]
        if again.returncode != 0 or [record.row.status for record in records] != ["ok"]:
            wrong.append(f"{where}: the next call ends with {again.returncode}: {again.stderr[-400:]}")
    raise AssertionError(f"more than {MOST} {kind}s")


@pytest.mark.slow
def test_every_write_fails_once(suite: Path) -> None:
    """A full disk in the middle loses what was finished, or leaves a folder that no run can use."""
    assert faults("write", WRITE_ERRORS, suite, None) == []


@pytest.mark.slow
def test_every_read_fails_once(suite: Path, tmp_path: Path) -> None:
    """A file that cannot be read for once ends in a traceback, or its cell is forgotten for good."""
    finished = tmp_path / "finished"
    assert command(suite, finished).returncode == 0
    assert faults("read", READ_ERRORS, suite, finished) == []
