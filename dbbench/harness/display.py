"""What a run shows while it works: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text


@dataclass
class Running:
    """What is known of one process at work. ``fraction`` is of its stage; times are of `time.monotonic`."""

    label: str
    started_at: float = field(default_factory=time.monotonic)
    stage: str = "starting"
    stage_started_at: float = field(default_factory=time.monotonic)
    step: int = 0
    steps: int = 0
    fraction: float = 0.0
    loss: float | None = None
    metric: float | None = None
    metric_name: str = ""
    announced_tenth: int = 0

    def update(self, progress: dict[str, Any]) -> None:
        """Take a progress dictionary. What a stage does not know (a trace has no metric) stays as it was."""
        stage = progress.get("stage", self.stage)
        if stage != self.stage:
            self.stage, self.stage_started_at, self.announced_tenth = stage, time.monotonic(), 0
        self.step, self.steps = progress.get("step", self.step), progress.get("steps", self.steps)
        self.fraction = min(1.0, max(0.0, progress.get("fraction", 0.0)))
        self.loss = progress.get("loss", self.loss)
        if progress.get("metric") is not None:
            self.metric, self.metric_name = progress["metric"], progress.get("metric_name", "")

    def seconds(self) -> float:
        """Return the seconds since it was started."""
        return time.monotonic() - self.started_at

    def seconds_left(self) -> float | None:
        """Return the seconds its stage still takes at the pace so far, ``None`` while there is no pace."""
        if self.fraction <= 0:
            return None
        return (time.monotonic() - self.stage_started_at) * (1 - self.fraction) / self.fraction


class Display:
    """Plain lines: the start, every tenth of the training, and the end of each cell. `LiveDisplay` draws instead."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.total = total
        self.done = 0
        self.started_at = time.monotonic()
        self.running: dict[str, Running] = {}

    def say(self, text: str, style: str | None = None) -> None:
        """Print a line as it is: nothing in it is markup, and it is not broken at the width of a terminal."""
        self.console.print(Text(text, style=style or ""), soft_wrap=True, highlight=False)

    def started(self, name: str, label: str) -> None:
        """The process ``name`` begins; ``label`` is what a reader sees of it."""
        self.running[name] = Running(label)
        self._announce_start(label)

    def progressed(self, name: str, progress: dict[str, Any]) -> None:
        """The process ``name`` says where it is."""
        self.running[name].update(progress)
        self._announce_progress(self.running[name])

    def ended(self, name: str, status: str, error: str | None) -> None:
        """The process ``name`` is gone; ``error`` is shown at once."""
        running = self.running.pop(name)
        self.done += 1
        text = f"{self._count()} {running.label}: {status} after {clock(running.seconds())}"
        if error:
            self.say(f"{text}: {error}", "red" if status != "interrupted" else "yellow")
        else:
            self.say(text + _figures(running))

    def _count(self) -> str:
        return f"[{self.done:>{len(str(self.total))}}/{self.total}]"

    def _announce_start(self, label: str) -> None:
        self.say(f"{self._count()} {label}: started")

    def _announce_progress(self, running: Running) -> None:
        tenth = int(running.fraction * 10 + 1e-9)
        if running.stage != "train" or tenth <= running.announced_tenth or tenth >= 10:
            return
        running.announced_tenth = tenth
        left = running.seconds_left()
        steps = f" ({running.step}/{running.steps})" if running.steps else ""
        self.say(
            f"{self._count()} {running.label}: train {tenth * 10} %{steps}{_figures(running)}, "
            f"{clock(running.seconds())} gone, {clock(left)} left"
        )


class LiveDisplay(Display):
    """A table of the processes at work with the whole run's progress under it; finished cells scroll by above."""

    def _announce_start(self, label: str) -> None:
        pass  # the table shows it

    def _announce_progress(self, running: Running) -> None:
        pass

    def __rich__(self) -> Group:
        table = Table(box=None, pad_edge=False, expand=False)
        table.add_column("cell", no_wrap=True, overflow="ellipsis")
        table.add_column("stage", no_wrap=True)
        for name in ("step", "loss", "metric", "elapsed", "left"):
            table.add_column(name, justify="right", no_wrap=True)
        for running in list(self.running.values()):
            table.add_row(
                Text(running.label),
                Text(running.stage),
                f"{running.step}/{running.steps}" if running.steps else "",
                "" if running.loss is None else f"{running.loss:.4f}",
                Text("" if running.metric is None else f"{running.metric_name} {running.metric:.4f}"),
                clock(running.seconds()),
                clock(running.seconds_left()),
            )
        return Group(table, self._overall())

    def _overall(self) -> Table:
        # a stage's fraction is not the cell's, so only what has ended counts
        line = Table.grid(padding=(0, 1))
        elapsed = time.monotonic() - self.started_at
        left = elapsed / self.done * (self.total - self.done) if self.done else None
        line.add_row(
            ProgressBar(total=max(self.total, 1), completed=self.done, width=30),
            f"{self.done}/{self.total} done",
            f"elapsed {clock(elapsed)}",
            f"left {clock(left)}",
        )
        return line


def _figures(running: Running) -> str:
    loss = "" if running.loss is None else f", loss {running.loss:.4f}"
    return loss + ("" if running.metric is None else f", {running.metric_name} {running.metric:.4f}")


def clock(seconds: float | None) -> str:
    """Return ``seconds`` as ``12 s``, ``3:05`` or ``1:02:03``; ``?`` where they are not known."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


@contextlib.contextmanager
def show(console: Console, total: int) -> Iterator[Display]:
    """Give the display that suits ``console`` for a run of ``total`` processes."""
    if not console.is_terminal:
        yield Display(console, total)
        return
    live = LiveDisplay(console, total)
    with Live(live, console=console, refresh_per_second=4, transient=True):
        yield live
