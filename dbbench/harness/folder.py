"""The run's folder as the harness sees it: who may use it, what its cells are called, and ``run.json``.

A folder belongs to one process at a time (``run.lock``). A cell is named by its configuration hash, so the same
command finds what is already there, and a changed suite leaves the old records alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from dbbench.errors import BadInput
from dbbench.harness.provenance import dbbench_version, device_class, git_commit
from dbbench.results.record import SCHEMA_VERSION, Record, Row, Status
from dbbench.results.store import RunFolder
from dbbench.suite.cell import Cell

LOCK_NAME = "run.lock"


@dataclass(frozen=True)
class Job:
    """A cell of this run with what names its results.

    ``grid_point`` tells a variant's cells of several depths apart; every other grid key is in the variant's name.
    """

    cell: Cell
    config_hash: str
    dataset_sha256: str
    grid_point: str = ""

    @property
    def label(self) -> str:
        """What a reader sees of it: ``backprop.depth-6 · seed 0``."""
        return f"{self.cell.variant}{self.grid_point} · seed {self.cell.seed}"


# ------------------------------------------------------------------------------------------------ the folder


#: What a folder like a run's may hold, with the words for it; ``run.json`` says which, a run's by saying nothing.
Kind = Literal["run", "estimate"]
_KINDS = {"run": "a trained run", "estimate": "an estimate"}


def check_folder(path: Path, kind: Kind = "run") -> None:
    """Raise `BadInput` where ``path`` cannot be a folder of this kind: a file, or one that holds something else."""
    if path.exists() and not path.is_dir():
        raise BadInput(f"{path}: --out is a file, not a folder; nothing was written")
    is_one = os.path.lexists(path / "run.json")
    if is_one:
        found: Kind = "estimate" if RunFolder(path).read_run().get("kind") == "estimate" else "run"
        if found != kind:
            raise BadInput(f"{path}: --out holds {_KINDS[found]}, whose records would be mixed up with these")
    if not path.is_dir() or is_one:
        return
    # A run stopped in its first instants leaves its lock, or run.json's unfinished copy; neither is anyone's data.
    strangers = sorted(e.name for e in path.iterdir() if e.name != LOCK_NAME and "run.json" not in e.name)
    if strangers:
        raise BadInput(
            f"{path}: --out is a folder with other things in it ('{strangers[0]}') and no run.json; "
            "nothing was written, give a new or an empty folder"
        )


@contextlib.contextmanager
def locked(path: Path, kind: Kind = "run") -> Iterator[None]:
    """Make ``path`` where needed and hold it for this process, or raise `BadInput` naming the one that has it.

    The kernel lets go of the lock when the process ends, however it ends, so a stale lock cannot exist.
    """
    check_folder(path, kind)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        why = f"{LOCK_NAME} is a link" if error.errno == errno.ELOOP else error.strerror
        raise BadInput(f"{path}: cannot write to --out: {why}") from error
    try:
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            raise BadInput(f"{path}: cannot write to --out: {LOCK_NAME} is not a regular file")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(lock, 64).decode(errors="replace").strip() or "unknown"
            raise BadInput(f"{path}: another run is using this folder (process {holder})") from error
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(lock)


# ------------------------------------------------------------------------------------------------ the cells


def identify(cells: list[Cell], where: str) -> list[Job]:
    """Name every cell by its hash, in order, equal ones once.

    This reads the data; where they cannot be read, the line of the `BadInput` opens with ``where``, the suite's file.
    """
    from dbbench.harness.resolve import dataset_sha256  # reads data: not wanted by those who only want the lock

    points = {(cell.variant, cell.network.depth) for cell in cells}
    several_depths = {variant for variant, times in Counter(v for v, _ in points).items() if times > 1}
    jobs: dict[str, Job] = {}
    for cell in cells:
        data = dataset_sha256(cell, where)
        name = cell.config_hash(data, version("torch"), SCHEMA_VERSION, device_class(cell.device))
        point = f".depth-{cell.network.depth}" if cell.variant in several_depths else ""
        jobs.setdefault(name, Job(cell, name, data, point))
    return list(jobs.values())


def first_seeds(jobs: list[Job]) -> list[Job]:
    """Return the first job of each variant and grid point, in order: those that differ from it by the seed go."""
    first: dict[str, Job] = {}
    for job in jobs:
        first.setdefault(job.cell.model_dump_json(exclude={"seed"}), job)
    return list(first.values())


def failed_record(job: Job, status: Status, error: str) -> Record:
    """Return the record of a cell that did not end well: what was asked, where it came from, and what went wrong."""
    from dbbench.harness.resolve import resolve_cell  # which imports torch, and whose rows import this module
    from dbbench.harness.rows import identity_row

    resolved = resolve_cell(job.cell, job.cell.suite)
    row = Row(**identity_row(resolved, job.config_hash, job.dataset_sha256, status), error=error)
    return Record(row=row, cell=job.cell.model_dump(mode="json"), environment={"log": log_name(job.config_hash)})


def log_name(name: str) -> str:
    """Return where, inside the run's folder, what a process prints is kept."""
    return f"logs/{name}.log"


def run_facts(jobs: list[Job], suite_name: str, suite_file: str, tuning: str | None = None) -> dict[str, Any]:
    """Return ``run.json``: what was asked and with what it was run. No path of the machine's own is in it."""
    file = Path(suite_file)
    return {
        "schema_version": SCHEMA_VERSION,
        "suite": suite_name,
        "suite_file": file.name if file.is_absolute() else suite_file,
        "tuning": tuning,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "variants": list(dict.fromkeys(job.cell.variant for job in jobs)),
        "cells": [
            {"config_hash": job.config_hash, "variant": job.cell.variant, "seed": job.cell.seed, "label": job.label}
            for job in jobs
        ],
        "devices": sorted({device_class(job.cell.device) for job in jobs}),
        "git_commit": git_commit(),
        "dbbench_version": dbbench_version(),
        "torch_version": version("torch"),
        "python_version": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def with_earlier(facts: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return ``facts`` with the variants and cells that an earlier command left in the folder, in a stable order.

    ``run --only`` fills a folder part by part; a part must not reorder or hide what the report shows of the others.
    """
    ours, theirs = facts["variants"], before.get("variants", [])
    order = theirs if set(ours) <= set(theirs) else [*ours, *(v for v in theirs if v not in ours)]
    hashes = {cell["config_hash"] for cell in facts["cells"]}
    others = [cell for cell in before.get("cells", []) if cell.get("config_hash") not in hashes]
    return facts | {"variants": order, "cells": facts["cells"] + others}
