"""A cell's own process: ``python -m dbbench.harness.worker``, one order as a line of JSON on its standard input.

The order says what to do (``cell``, ``timing`` or ``profile``), for which cells, in which folder, and on which file
descriptor the parent listens; progress goes there as lines of JSON, so that a method that prints disturbs nothing.
Standard input then stays open as a lifeline: when it ends, the parent is gone and so is this process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from dbbench.errors import Diverged
from dbbench.foreign import guarded, in_words, place_of
from dbbench.processes import adopt_orphans, die_with_parent
from dbbench.results.record import Status
from dbbench.suite.cell import Cell

ERROR_LENGTH = 300
#: Progress more often than a screen can show would only cost the measured loop its time.
REPORT_EVERY_SECONDS = 0.1
#: Foreign code cannot call it while it is guarded; the lifeline can.
_end_process = os._exit
_OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


class Channel:
    """The way to the parent: one JSON object a line. Progress is dropped rather than waited for."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stage: str | None = None
        self._sent_at = float("-inf")
        os.set_inheritable(descriptor, False)  # what a method starts must not hold it open
        os.set_blocking(descriptor, False)

    def report(self, progress: dict[str, Any]) -> None:
        """Send a progress dictionary (`dbbench.harness.cell.run_cell`), at most ten a second within a stage."""
        now = time.monotonic()
        if progress.get("stage") == self._stage and now - self._sent_at < REPORT_EVERY_SECONDS:
            return
        self._stage, self._sent_at = progress.get("stage"), now
        with contextlib.suppress(BlockingIOError):  # the parent is busy; the next one will do
            os.write(self._descriptor, _line(progress))

    def fail(self, status: Status, error: str) -> None:
        """Send how it ended. This one waits until there is room."""
        os.set_blocking(self._descriptor, True)
        os.write(self._descriptor, _line({"failed": status, "error": error}))


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, default=float).encode() + b"\n"


def describe(error: BaseException) -> tuple[Status, str]:
    """Return the status and the one line that ``error`` leaves in the cell's row: what went wrong, and where.

    The line has at most 300 characters. The place is the last line of the user's own code.
    """
    if isinstance(error, Diverged):
        return "diverged", _shortened(str(error))
    line = in_words(error, ERROR_LENGTH - min(len(place_of(error)), ERROR_LENGTH // 2))
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if isinstance(error, RuntimeError) and any(text in line.lower() for text in _OUT_OF_MEMORY_TEXTS):
        out_of_memory = True  # the CPU allocator has no class of its own
    return ("out_of_memory" if out_of_memory else "failed"), _shortened(line)


def _shortened(line: str) -> str:
    return line if len(line) <= ERROR_LENGTH else line[: ERROR_LENGTH - 1] + "…"


def main() -> NoReturn:
    """Take the order, do it, and leave with 0, or with 1 once the parent has been told what went wrong."""
    order, lifeline = _receive()
    _die_with_parent(order["parent"], lifeline)
    # A cell stopped at its time limit leaves in its log where it was.
    faulthandler.register(signal.SIGTERM, all_threads=True, chain=True)
    code = carry_out(order, Channel(order["channel"]))
    sys.stdout.flush()
    sys.stderr.flush()
    # All is on disk. A thread that a method left running must not keep the process, nor a destructor change its end.
    _end_process(code)


def _receive() -> tuple[dict[str, Any], int]:
    """Read the order; keep the rest of standard input as the lifeline and leave an empty one in its place."""
    lifeline = os.dup(0)
    text = b""
    while not text.endswith(b"\n"):
        piece = os.read(lifeline, 65536)
        if not piece:
            _end_process(1)
        text += piece
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return json.loads(text), lifeline


def _die_with_parent(parent: int, lifeline: int) -> None:
    """End this process as soon as the parent is gone, even by SIGKILL, even while no Python code can run."""

    def watch() -> None:
        while os.read(lifeline, 4096):
            pass
        _end_process(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
    die_with_parent()
    adopt_orphans()  # they are the parent's when this process ends, which then ends them
    if os.getppid() != parent:  # it died before the kernel was asked to watch it
        _end_process(1)


def carry_out(order: dict[str, Any], channel: Channel) -> int:
    """Do what the order says and return 0, or 1 once ``channel`` has been told what went wrong."""
    try:
        with guarded():
            _do(order, channel)
    except BaseException as error:
        channel.fail(*describe(error))
        traceback.print_exc()
        return 1
    return 0


def _do(order: dict[str, Any], channel: Channel) -> None:
    import torch  # after the environment and the lifeline are in place

    cells = [Cell.model_validate(cell) for cell in order["cells"]]
    torch.set_num_threads(cells[0].threads)
    folder = Path(order["folder"])
    if order["kind"] == "cell":
        _run_cell(cells[0], order["hashes"][0], folder, channel)
    elif order["kind"] == "timing":
        _run_timing(list(zip(cells, order["hashes"], strict=True)), folder, channel)
    else:
        from dbbench.harness.profiling import profile_cell

        profile_cell(cells[0], Path(order["target"]))


def _run_cell(cell: Cell, config_hash: str, folder: Path, channel: Channel) -> None:
    from dbbench.harness.cell import run_cell
    from dbbench.results.store import RunFolder

    with guarded():  # what ends the process on a thread is told here, before a record says ok
        result = run_cell(cell, config_hash, channel.report)
    run = RunFolder(folder)
    run.write_trace(config_hash, result.trace)
    run.write_curves(config_hash, result.curves)
    if result.samples is not None:
        run.write_samples(result.samples)
    run.write_record(result.record)  # last: a record that says ok is the mark that all of it is there


def _run_timing(cells: list[tuple[Cell, str]], folder: Path, channel: Channel) -> None:
    from dbbench.harness.timing import run_timing
    from dbbench.results.store import RunFolder

    run = RunFolder(folder)
    with guarded():
        timings = run_timing(cells, channel.report)
    for timing in timings:
        run.write_timing(timing)


if __name__ == "__main__":
    main()
