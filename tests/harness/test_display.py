"""What a run shows: lines that a log file can keep, a table that a terminal can redraw."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from dbbench.harness.display import LiveDisplay, clock, show


def train(step: int, **more: object) -> dict[str, object]:
    return {"stage": "train", "step": step, "steps": 800, "fraction": step / 800, "loss": 0.5, "metric": None} | more


def test_plain_lines_are_start_every_tenth_and_end() -> None:
    """A log of every step would be unreadable; a silent one would look hung."""
    console = Console(file=io.StringIO(), width=40)
    with show(console, 1) as shown:
        shown.started("hash", "backprop · seed 0")
        shown.progressed("hash", {"stage": "trace", "step": 1, "steps": 2, "fraction": 0.5, "loss": 2.0})
        for step in range(801):
            shown.progressed("hash", train(step, metric=0.8 if step > 400 else None, metric_name="accuracy"))
        shown.ended("hash", "ok", None)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0] == "[0/1] backprop · seed 0: started"
    assert [int(re.findall(r"train (\d+) %", line)[0]) for line in lines[1:-1]] == list(range(10, 100, 10))
    assert "(80/800), loss 0.5000, 0 s gone" in lines[1]
    assert "accuracy 0.8000" in lines[-2]
    assert lines[-1].startswith("[1/1] backprop · seed 0: ok after 0 s")


def test_an_error_is_one_line_as_it_is() -> None:
    """A message with square brackets would otherwise lose them to markup, and a long one its line to wrapping."""
    console = Console(file=io.StringIO(), width=40)
    with show(console, 12) as shown:
        shown.started("hash", "a · seed 0")
        shown.ended("hash", "failed", "ValueError: [red]x[/red] " + "y" * 200)
    last = console.file.getvalue().splitlines()[-1]  # type: ignore[attr-defined]
    assert last.startswith("[ 1/12] a · seed 0: failed after 0 s: ValueError: [red]x[/red] yyy")
    assert last.endswith("y" * 200)


def test_the_live_table_names_every_process_and_where_it_is() -> None:
    """Two cells at once that share a row, or a remaining time that is not from the pace, mislead who waits."""
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    shown = LiveDisplay(console, total=4)
    shown.started("0", "backprop · seed 0")
    shown.started("1", "[b]greedy · seed 1")
    shown.progressed("0", train(0))
    shown.running["0"].started_at -= 40  # of which 30 s of training took it a quarter of the way
    shown.running["0"].stage_started_at -= 30
    shown.progressed("0", train(200, metric=0.75, metric_name="accuracy"))
    console.print(shown)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    row = next(line for line in text.splitlines() if line.startswith("backprop"))
    assert " ".join(row.split()) == "backprop · seed 0 train 200/800 0.5000 accuracy 0.7500 40 s 1:30"
    assert any(line.startswith("[b]greedy · seed 1") and "starting" in line for line in text.splitlines())
    assert "0/4 done" in text


def test_a_terminal_gets_the_table_and_keeps_the_finished_cells() -> None:
    """With the table gone at the end, the lines of finished cells must be all that is left."""
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    with show(console, 1) as shown:
        assert isinstance(shown, LiveDisplay)
        shown.started("0", "a · seed 0")
        shown.ended("0", "killed", "killed by SIGKILL")
    assert "[1/1] a · seed 0: killed after 0 s: killed by SIGKILL\n" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (185, "3:05"), (3723, "1:02:03"), (None, "?")],
)
def test_clock(seconds: float | None, text: str) -> None:
    """A wrong carry would show 0:60."""
    assert clock(seconds) == text
