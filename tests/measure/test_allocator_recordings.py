"""Torch's own allocator as the truth: its recorded figures, reproduced to the byte at every event.

How they were recorded is said in `benchmarks.allocator_recordings`.
"""

from __future__ import annotations

import hashlib

import pytest

from benchmarks.allocator_recordings import FILE, Run, recorded_runs, settings_of, simulate
from dbbench.measure.allocator import CachingAllocator

RUNS = recorded_runs()


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.label)
def test_the_simulator_is_torch_to_the_byte(run: Run) -> None:
    """Allocated or reserved would be estimated by rules that are not torch's."""
    allocator = CachingAllocator(settings_of(run))
    figures = list(simulate(run.events, allocator))
    every = run.sample_every
    assert [list(found[:3]) for found in figures[every - 1 :: every]] == run.samples  # says about where, if not equal
    lines = "\n".join(" ".join(map(str, found)) for found in figures)
    assert hashlib.sha256(lines.encode()).hexdigest() == run.every_event
    assert (allocator.retries, sum(found.failed for found in figures)) == (run.retries, run.failed)
    levels = {"allocated": allocator.allocated, "reserved": allocator.reserved, "requested": allocator.requested}
    if not allocator.settings.expandable_segments:
        levels["segments"] = allocator.segments
    assert {name: level.peak for name, level in levels.items()} == {name: run.peaks[name] for name in levels}


def test_the_recordings_reach_every_rule() -> None:
    """Runs in which nothing is scarce would prove the easy half: retries, failures and falls of reserved must occur."""
    assert FILE.stat().st_size < 150_000
    assert sum(run.retries for run in RUNS) > 100
    assert sum(run.failed for run in RUNS) > 100
    for switch in ("expandable", "max_split", "garbage", "fraction", "divisions", "large_segment", "non_split"):
        assert any(switch in run.settings for run in RUNS), switch
    default = {(run.trace, run.capacity_bytes): run.every_event for run in RUNS if not run.settings}
    for text in {run.settings for run in RUNS} - {""}:
        changed = [run for run in RUNS if run.settings == text and run.every_event != default.get((run.trace, None))]
        assert changed, f"{text} changes nothing in any of them"
