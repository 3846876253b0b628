"""A worker process as its parent sees it: its order, its progress, its time limit, and how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from dbbench.harness.folder import Job, log_name
from dbbench.processes import python
from dbbench.results.record import Status

WORKER = "dbbench.harness.worker"
#: Between the polite signal and the one that cannot be refused; long enough to write down where it was.
GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class Work:
    """What one process does. ``name`` is its log's, ``target`` the folder of a profile."""

    kind: Literal["cell", "timing", "profile"]
    jobs: tuple[Job, ...]
    label: str
    name: str
    timeout_seconds: float
    target: Path | None = None

    def order(self, folder: Path, channel: int) -> bytes:
        """Return the line that tells `dbbench.harness.worker` what to do."""
        order = {
            "kind": self.kind,
            "cells": [job.cell.model_dump(mode="json") for job in self.jobs],
            "hashes": [job.config_hash for job in self.jobs],
            "folder": str(folder.absolute()),
            "target": str(self.target.absolute()) if self.target else None,
            "channel": channel,
            "parent": os.getpid(),
        }
        return json.dumps(order).encode() + b"\n"

    def environment(self) -> dict[str, str]:
        """Return the worker's environment: its threads, which must be set before torch is."""
        threads = str(self.jobs[0].cell.threads)
        return os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


@dataclass(frozen=True)
class Outcome:
    """How a process ended and, where that was not well, why in one line; ``left`` are the processes that it left."""

    status: Status
    error: str | None = None
    left: tuple[str, ...] = ()


class Child:
    """Starts a worker in a session of its own, so that what it starts itself can be ended with it."""

    def __init__(self, work: Work, folder: Path) -> None:
        self.work = work
        self._stopped: Outcome | None = None
        self._failed: Outcome | None = None
        self._kill_at = float("inf")
        self._unread = b""
        self._last = "before its first step"
        log = folder / log_name(work.name)
        log.parent.mkdir(exist_ok=True)
        self._channel, far_end = os.pipe()
        os.set_blocking(self._channel, False)
        try:
            with open(log, "wb") as output:
                self._process = subprocess.Popen(
                    python(WORKER),
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    pass_fds=[far_end],
                    env=work.environment(),
                    start_new_session=True,  # a terminal's Ctrl-C is for the parent, which ends its children in order
                )
        finally:
            os.close(far_end)
        self._deadline = time.monotonic() + work.timeout_seconds
        self._lifeline = cast(IO[bytes], self._process.stdin)
        with contextlib.suppress(BrokenPipeError):  # it died at once; its exit status will say so
            self._lifeline.write(work.order(folder, far_end))
            self._lifeline.flush()

    @property
    def process(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def read(self) -> list[dict[str, Any]]:
        """Return the progress sent since the last call."""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._channel, 65536):
                self._unread += piece
        *lines, self._unread = self._unread.split(b"\n")
        progress = []
        for message in map(json.loads, lines):
            if "failed" in message:
                self._failed = Outcome(message["failed"], message["error"])
            else:
                steps = f" of {message['steps']}" if message.get("steps") else ""  # a budget in seconds has no count
                self._last = f"in {message.get('stage')} step {message.get('step')}{steps}"
                progress.append(message)
        return progress

    def stop(self, status: Status, error: str) -> None:
        """Ask it to end, once, and note why."""
        if self._stopped is None:
            self._stopped = Outcome(status, error)
            self._kill_at = time.monotonic() + GRACE_SECONDS
            self._signal(signal.SIGTERM)

    def ended(self) -> Outcome | None:
        """Return how it ended, ``None`` while it works within its limits."""
        code = self._process.poll()
        if code is None:
            self._hold_to_limits()
            return None
        self.kill()
        self.read()
        os.close(self._channel)
        if code == 0:
            return Outcome("ok")
        if known := self._stopped or self._failed:
            return known
        if code > 0:
            return Outcome("failed", f"ended with exit status {code} {self._last}")
        hint = "; a system out of memory does this" if code == -signal.SIGKILL else ""
        return Outcome("killed", f"killed by {signal.Signals(-code).name} {self._last}{hint}")

    def kill(self) -> None:
        """End it and what it started, now, and wait for it."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):  # of an order that it did not live to read
            self._lifeline.close()

    def _hold_to_limits(self) -> None:
        now = time.monotonic()
        if now > self._deadline:
            self.stop("timeout", f"not finished after {self.work.timeout_seconds:g} s; stopped {self._last}")
        if now > self._kill_at:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
