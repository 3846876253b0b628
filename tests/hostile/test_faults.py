"""Every read and every write of a run and its report fails once: no traceback, and the next call completes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dbbench.results.store import RunFolder

HERE = Path(__file__).parent
#: By turns: each place gets one of them, and each of them some places.
WRITE_ERRORS = ("ENOSPC", "EROFS", "EIO", "EMFILE", "EACCES")
READ_ERRORS = ("EIO", "EACCES", "EMFILE")
#: More places than a run has; one that is not there is skipped as soon as a run gets by without a fault.
MOST = 40


def command(folder: Path, fault: str = "") -> subprocess.CompletedProcess[str]:
    """Train one tiny cell into ``folder`` and report it, in a process of its own."""
    paths = [str(HERE / "faulty"), str(HERE.parent / "harness"), str(HERE.parent), str(HERE.parents[1])]
    return subprocess.run(
        [sys.executable, str(HERE.parent / "harness" / "tiny_run.py"), str(folder), "backprop", "1", "tables"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "DBBENCH_FAULT": fault},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    done = command(folder)
    assert done.returncode == 0, done.stderr
    return folder


def faults(kind: str, errors: tuple[str, ...], folder: Path, start: Path | None) -> list[str]:
    """Run with one fault after another until none is left; return what went wrong."""
    wrong = []
    for number in range(MOST):
        shutil.rmtree(folder, ignore_errors=True)
        if start is not None:
            shutil.copytree(start, folder)
        counter = folder.parent / "counter"
        counter.unlink(missing_ok=True)
        name = errors[number % len(errors)]
        done = command(folder, f"{kind}:{number}:{name}:{counter}:{folder}")
        reached = counter.exists() and counter.stat().st_size > number
        said = done.stdout + done.stderr
        if "Traceback" in said:
            wrong.append(f"{kind} {number} {name}: {said[-600:]}")
        if reached and done.returncode == 0 and not any(word in said for word in (os.strerror(5), "left out", name)):
            intact = [record.row.status for record in RunFolder(folder).read_records()[0]]
            if intact != ["ok"]:
                wrong.append(f"{kind} {number} {name}: status 0, and the records are {intact}")
        again = command(folder)
        if again.returncode != 0:
            wrong.append(f"{kind} {number} {name}: the next call ends with {again.returncode}: {again.stderr[-400:]}")
        if not reached:
            assert number >= 2, f"a run has at least two {kind}s"
            return wrong
    raise AssertionError(f"more than {MOST} {kind}s")


@pytest.mark.slow
def test_every_write_fails_once(tmp_path: Path) -> None:
    """A full disk in the middle loses what was finished, or leaves a folder that no run can use."""
    assert faults("write", WRITE_ERRORS, tmp_path / "run", None) == []


@pytest.mark.slow
def test_every_read_fails_once(finished: Path, tmp_path: Path) -> None:
    """A file that cannot be read for once ends in a traceback, or its cell is forgotten for good."""
    assert faults("read", READ_ERRORS, tmp_path / "run", finished) == []
