"""Runs the stages one after another within a time, whatever becomes of any of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.on_gpu.log import Log, note
from benchmarks.on_gpu.stage import Setting
from benchmarks.on_gpu.stages import NAMES, stage
from dbbench.processes import python

_LOOK_EVERY_SECONDS = 0.1
#: A process that ends in its first seconds, before any item, will do so again.
_LEAST_SECONDS = 5.0


@dataclass
class Run:
    """One call. ``say`` gets a line when a stage begins or ends, ``after`` is called after each."""

    setting: Setting
    seconds: float
    only: tuple[str, ...] = NAMES
    say: Callable[[str], None] = print
    after: Callable[[], None] = lambda: None

    def go(self) -> None:
        """Run every stage for its share, then what is left of them in the same order."""
        end = time.time() + self.seconds
        for round_ in range(2):
            for name in self.only:
                left = end - time.time()
                share = left if round_ else min(left, stage(name).share * self.seconds)
                if share > 0 and self._left(name):
                    self._stage(name, time.time() + share)
                    self.after()

    def _left(self, name: str) -> list[str]:
        return self._log(name).left(stage(name).items(self.setting))

    def _log(self, name: str) -> Log:
        return Log.read(self.setting.log(name))

    def _stage(self, name: str, until: float) -> None:
        self.say(f"{name}: {len(self._left(name))} left, {until - time.time():.0f} s")
        while self._left(name) and time.time() < until:
            before, began = len(self._left(name)), time.time()
            reason = self._process(name, until)
            if reason and len(self._left(name)) == before and time.time() - began < _LEAST_SECONDS:
                for item in self._left(name):  # it cannot even start
                    note(self._log(name).path, "end", item, error=f"not begun: the stage's process {reason}")
        done = len(stage(name).items(self.setting)) - len(self._left(name))
        self.say(f"{name}: {done} done, {len(self._left(name))} left")

    def _process(self, name: str, until: float) -> str | None:
        """Run one process of the stage until it ends or must be ended; return how it failed, if it did."""
        chosen, setting = stage(name), self.setting
        command = python("benchmarks.on_gpu.child", name, setting.device, str(setting.out), str(until))
        logged = setting.out / "stages" / f"{name}.txt"
        logged.parent.mkdir(parents=True, exist_ok=True)
        with logged.open("ab") as words:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=words, stderr=words,
                start_new_session=True,
            )  # fmt: skip
        try:
            began = time.time()
            while process.poll() is None:
                time.sleep(_LOOK_EVERY_SECONDS)
                log, now = self._log(name), time.time()
                busy = log.running if log.running is not None and log.began_at >= began else None
                if busy and now - log.began_at > chosen.item_seconds:
                    _kill(process)
                    note(log.path, "end", busy, error=f"hung: no end after {chosen.item_seconds:.0f} s")
                    return None
                if now > until:
                    _kill(process)
                    if busy and busy not in self._log(name).ended:
                        note(log.path, "cut", busy)
                    return None
        finally:
            _kill(process)
        if process.returncode == 0:
            return None
        how = f"was killed by signal {-process.returncode}" if process.returncode < 0 else "failed"
        log = self._log(name)
        if log.running is not None and log.began_at >= began:
            note(log.path, "end", log.running, error=f"its process {how}")
            return None
        return f"{how}: {_last_line(logged.read_text(errors='replace'))}"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1][:300]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End it with all that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
