"""Runs a suite's cells, a process each, so that one cell's peak, crash or hang is nobody else's.

The order of a run: name every cell, take the folder, work off what has no ``ok`` record yet, time the variants
against each other with the machine to themselves, then write the report from the folder.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.text import Text

from dbbench import processes
from dbbench.errors import BadInput
from dbbench.harness.child import Child, Outcome, Work
from dbbench.harness.display import Display, show
from dbbench.harness.folder import (
    Job,
    check_folder,
    failed_record,
    first_seeds,
    identify,
    locked,
    log_name,
    run_facts,
    with_earlier,
)
from dbbench.harness.resolve import resolve
from dbbench.results.store import RunFolder
from dbbench.suite.cell import Cell

TICK_SECONDS = 0.05
SAME_SIGNAL_SECONDS = 0.5


def run_suite(
    cells: list[Cell],
    *,
    suite_name: str,
    suite_file: str,
    out: Path,
    jobs: int | None,
    fresh: bool,
    trace: bool,
    console: Console,
    tuning: str | None = None,
    timing: bool = True,
) -> int:
    """Run what is missing of ``cells`` in folder ``out`` and report on all of them.

    ``jobs`` is the number of processes at once (``None``: as many as the cores allow on CPU, one on CUDA);
    ``tuning`` is where the trials behind the suite's numbers are, for the report; ``timing`` whether the variants are
    timed against each other, which trials have no use for. Returns the exit status: 0 fine, 1 a cell did not end well,
    130 interrupted. Raises `BadInput` before anything is written where the cells cannot be run or the folder cannot be
    used.
    """
    out = out.absolute()  # before any foreign code runs: a thread that it leaves may change the working folder
    check_folder(out)
    resolve(cells, suite_file)
    named = identify(cells, suite_file)
    with locked(out), Interrupt() as interrupt, _orphans_adopted():
        try:
            run = _Run(named, out, _at_once(cells, jobs), console, interrupt)
            run.begin(run_facts(named, suite_name, suite_file, tuning), fresh)
            run.work_off_cells()
            if timing:
                run.time_variants()
            if trace:
                run.profile_variants()
            run.report()
        except KeyboardInterrupt:
            return 130
        if interrupt.asked:
            return 130
        return 0 if len(run.finished()) == len(named) else 1


@contextmanager
def _orphans_adopted() -> Iterator[None]:
    """Become the parent of what a worker leaves behind in a session of its own, so that it can be ended."""
    processes.adopt_orphans()
    try:
        yield
    finally:
        processes.adopt_orphans(False)


def _at_once(cells: list[Cell], jobs: int | None) -> int:
    if jobs is not None:
        return jobs
    if any(cell.device == "cuda" for cell in cells):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(cell.threads for cell in cells))


class Interrupt:
    """While entered, the first Ctrl-C or SIGTERM sets ``asked``; the second one is a KeyboardInterrupt.

    A signal to the whole process group comes here twice, passed on by the process that waits: that is one.
    """

    def __init__(self) -> None:
        self.asked = False
        self._asked_at = 0.0

    def __enter__(self) -> Interrupt:
        # Only the main thread may set handlers; elsewhere whoever runs that thread decides.
        ours = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        self._before = [(number, signal.signal(number, self._take)) for number in ours]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            self.asked, self._asked_at = True, time.monotonic()
        elif time.monotonic() - self._asked_at > SAME_SIGNAL_SECONDS:
            raise KeyboardInterrupt


def work_off(
    works: list[Work], folder: Path, at_once: int, display: Display, interrupt: Interrupt
) -> Iterator[tuple[Work, Outcome]]:
    """Run ``works`` in order, ``at_once`` at a time, giving each with its outcome as it ends.

    After an interrupt nothing new starts and what runs ends as ``interrupted``. No child outlives this generator.
    """
    waiting = deque(works)
    children: list[Child] = []
    others = set(processes.children())
    try:
        while children or (waiting and not interrupt.asked):
            while waiting and len(children) < at_once and not interrupt.asked:
                children.append(Child(waiting.popleft(), folder))
                display.started(children[-1].work.name, children[-1].work.label)
            time.sleep(TICK_SECONDS)
            for child in list(children):
                for progress in child.read():
                    display.progressed(child.work.name, progress)
                if interrupt.asked:
                    child.stop("interrupted", "interrupted before it was finished")
                if outcome := child.ended():
                    children.remove(child)
                    left = processes.end_orphans(others | {other.process for other in children})
                    yield child.work, replace(outcome, left=tuple(left))
    finally:
        for child in children:
            child.kill()
        processes.end_orphans(others)


def shown(folder: Path) -> str:
    """Return a folder as a reader would type it: from where they are, if it lies below."""
    path = os.path.relpath(folder)
    return str(folder) if path.startswith("..") else path


class _Run:
    """One command's work on one folder, pass by pass."""

    def __init__(self, jobs: list[Job], out: Path, at_once: int, console: Console, interrupt: Interrupt) -> None:
        self._jobs, self._out, self._at_once, self._console, self._interrupt = jobs, out, at_once, console, interrupt
        self._store = RunFolder(out)
        self._any_new = False

    def finished(self) -> list[Job]:
        """Return the jobs whose record is there and says ``ok``."""
        done = self._store.finished()
        return [job for job in self._jobs if job.config_hash in done]

    def begin(self, facts: dict[str, Any], fresh: bool) -> None:
        """Clear what a kill or ``fresh`` makes void, warn of a mix, and write ``run.json``."""
        for torn in self._out.glob("**/.*.dbbench.*.tmp"):
            torn.unlink()
        before = self._store.read_run()
        names = {job.config_hash for job in self._jobs}
        if fresh:
            for name in names:
                for room in ("records", "timing"):
                    (self._out / room / f"{name}.json").unlink(missing_ok=True)
        rows = [record.row for record in self._store.read_records()[0] if record.row.config_hash in names]
        others = {row.git_commit or "unknown" for row in rows if row.status == "ok"} - {
            facts["git_commit"] or "unknown"
        }
        if others:
            self._warn(
                f"{self._out} holds finished cells of commit {', '.join(sorted(others))}; this is "
                f"{facts['git_commit'] or 'unknown'}. They are kept; --fresh redoes them"
            )
        self._store.write_run(with_earlier(facts, before))

    def work_off_cells(self) -> None:
        """Run every cell that has no ``ok`` record; one that does not end well leaves a record that says how."""
        done = {job.config_hash for job in self.finished()}
        works = [
            Work("cell", (job,), job.label, job.config_hash, job.cell.timeout_seconds)
            for job in self._jobs
            if job.config_hash not in done
        ]
        if done:
            self._console.print(f"{len(done)} of {len(self._jobs)} cells are finished already", highlight=False)
        with show(self._console, len(works)) as display:
            for work, outcome in work_off(works, self._out, self._at_once, display, self._interrupt):
                outcome = self._settled(work.jobs[0], outcome)
                display.ended(work.name, outcome.status, outcome.error)
                self._tell_left(work, outcome)
                if outcome.status not in ("ok", "interrupted"):
                    self._console.print(Text(f"  its log: {shown(self._out)}/{log_name(work.name)}"), soft_wrap=True)
                self._any_new |= outcome.status == "ok"

    def _settled(self, job: Job, outcome: Outcome) -> Outcome:
        """Let the folder decide: a cell is done when its record is there, whatever became of its process after."""
        if job.config_hash in self._store.finished():
            return Outcome("ok", left=outcome.left)
        if outcome.status == "ok":
            lost = f"ended without a record; see {log_name(job.config_hash)}"
            outcome = replace(outcome, status="failed", error=lost)
        self._store.write_record(failed_record(job, outcome.status, outcome.error or ""))
        return outcome

    def time_variants(self) -> None:
        """Time the variants against each other, alone on the machine, unless nothing is new since the last time."""
        jobs = first_seeds(self.finished())
        timed = {timing.config_hash for timing in self._store.read_timings()[0]}
        if not jobs or not (self._any_new or {job.config_hash for job in jobs} - timed):
            return
        limit = sum(job.cell.timeout_seconds for job in jobs)
        self._extra([Work("timing", tuple(jobs), "timing pass", "timing", limit)])

    def profile_variants(self) -> None:
        """Leave a profiler's trace of each variant, from a process of its own so that no measured cell is traced."""
        works = []
        for job in first_seeds(self.finished()):
            # a variant's label is fit for a file's name; only a grid of depths repeats it
            target = self._out / "profiler" / f"{job.cell.variant}{job.grid_point}"
            label = f"profile of {job.label}"
            works.append(Work("profile", (job,), label, f"profile-{job.config_hash}", job.cell.timeout_seconds, target))
        self._extra(works)

    def _extra(self, works: list[Work]) -> None:
        """Run what adds to a run but cannot fail it: one at a time, a failure is a warning."""
        with show(self._console, len(works)) as display:
            for work, outcome in work_off(works, self._out, 1, display, self._interrupt):
                display.ended(work.name, outcome.status, outcome.error)
                if outcome.error and not self._interrupt.asked:
                    self._warn(f"the {work.label} is missing; see {log_name(work.name)}")

    def _tell_left(self, work: Work, outcome: Outcome) -> None:
        if outcome.left:
            self._warn(f"{work.label} left processes running, which were ended: {', '.join(outcome.left)}")

    def report(self) -> None:
        """Write the report from the folder and print its table."""
        from dbbench.report.summary import write_report  # matplotlib: only now is it needed

        try:
            write_report(self._out, self._console)  # the problems that it returns are in the summary
            self._tell_where()
        except BadInput as error:  # interrupted before the first cell ended: there is nothing to report on
            self._warn(str(error))

    def _tell_where(self) -> None:
        """Say where the report is, and what comes next: to go on, to mend, or to compare."""
        out, left = shown(self._out), len(self._jobs) - len(self.finished())
        lines = [f"The report: {out}/report.html (tables: {out}/summary.md)"]
        if self._interrupt.asked:
            lines.append(
                f"Interrupted with {left} of {len(self._jobs)} cells to do: the same command goes on from here."
            )
        elif left:
            lines.append(f"{left} of {len(self._jobs)} cells did not end well: the same command tries them again.")
        else:
            lines.append(
                f"Next: dbbench check {out} --baseline FILE --update guards it; dbbench figure pareto {out} draws."
            )
        for line in lines:
            self._console.print(Text(line), soft_wrap=True)

    def _warn(self, text: str) -> None:
        self._console.print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)
