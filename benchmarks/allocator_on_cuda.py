"""The recorded event lists through the caching allocator of a real GPU, beside the simulator.

    python -m benchmarks.allocator_on_cuda [--out reports/h100/allocator.md]

Every list of ``tests/measure/allocator_recordings.json`` is asked of `torch.cuda.caching_allocator_alloc` and given
back by ``caching_allocator_delete``, in a process for each configuration (torch reads ``PYTORCH_ALLOC_CONF`` once), and
allocated, reserved and requested bytes, retries and failures are compared with the simulator after every event. A
capacity becomes a limit here, a share of this device that `torch.cuda.set_per_process_memory_fraction` sets, for the
simulator too. Takes about 4 GiB of the device and a minute or two; exits with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch

from benchmarks.allocator_recordings import Figures, Run, recorded_runs, settings_of, simulate
from dbbench.measure.allocator import CachingAllocator
from dbbench.report.text import markdown_table


@dataclass(frozen=True)
class Row:
    """A list under one configuration: ``difference`` is what the first event to differ gave on the device and here."""

    run: Run
    device: str
    peak_reserved_bytes: int
    difference: str | None


def _fraction(run: Run, device_bytes: int) -> float | None:
    """Return the share of the device that is the run's limit, None for none."""
    settings = settings_of(run)
    limit = settings.limit_bytes or settings.capacity_bytes
    return None if limit is None else limit / device_bytes


def _on_device(run: Run, fraction: float | None) -> list[Figures]:
    """Feed the run's events to the device's allocator, which is empty; return its figures after each."""
    torch.cuda.empty_cache()
    if fraction is not None:
        torch.cuda.set_per_process_memory_fraction(fraction)
    blocks: list[int | None] = []
    found, before = [], torch.cuda.memory_stats().get("num_alloc_retries", 0)
    for event in run.events:
        failed = 0
        if event > 0:
            try:
                blocks.append(torch.cuda.caching_allocator_alloc(event))
            except torch.OutOfMemoryError:
                blocks.append(None)
                failed = 1
        elif (block := blocks[-1 - event]) is not None:
            torch.cuda.caching_allocator_delete(block)
            blocks[-1 - event] = None
        stats = torch.cuda.memory_stats()
        found.append(
            Figures(
                *(stats.get(f"{kind}_bytes.all.current", 0) for kind in ("allocated", "reserved", "requested")),
                stats["num_alloc_retries"] - before,
                failed,
            )
        )
    for block in blocks:
        if block is not None:
            torch.cuda.caching_allocator_delete(block)
    return found


def _here(run: Run, fraction: float | None, device_bytes: int) -> list[Figures]:
    settings = settings_of(run)
    if fraction is not None:
        settings = replace(settings, capacity_bytes=device_bytes, per_process_memory_fraction=fraction)
    return list(simulate(run.events, CachingAllocator(settings)))


def _compare(runs: list[Run]) -> Iterator[Row]:
    """Compare runs of one configuration, all limited or none, in this process."""
    device = torch.cuda.get_device_properties(0)
    for run in runs:
        fraction = _fraction(run, device.total_memory)
        theirs, ours = _on_device(run, fraction), _here(run, fraction, device.total_memory)
        difference = None
        for event, (their, our) in enumerate(zip(theirs, ours, strict=True)):
            if their != our:
                difference = f"event {event}: the device {their}, simulated {our}"
                break
        yield Row(run, device.name, max(figures.reserved for figures in theirs), difference)


def _configuration(run: Run) -> tuple[str, bool]:
    return run.settings, run.capacity_bytes is not None


def compare_all() -> list[Row]:
    """Compare every recorded run, in a process of its own for each configuration. Raises where one of them fails."""
    rows = []
    for (settings, limited), group in groupby(sorted(recorded_runs(), key=_configuration), _configuration):
        runs = list(group)
        result = subprocess.run(
            [sys.executable, "-m", "benchmarks.allocator_on_cuda", "--one", json.dumps([settings, limited])],
            env={**os.environ, "PYTORCH_ALLOC_CONF": settings, "PYTORCH_CUDA_ALLOC_CONF": settings},
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        rows += [Row(run, **found) for run, found in zip(runs, json.loads(result.stdout), strict=True)]
    return rows


def report(rows: list[Row]) -> str:
    """Return the page."""
    same = sum(row.difference is None for row in rows)
    events = sum(len(row.run.events) for row in rows)
    lines = [
        "# The simulated allocator beside a device's own",
        f"Made by `python -m benchmarks.allocator_on_cuda` on {rows[0].device}, torch {torch.__version__}. Allocated, "
        "reserved and requested bytes, retries and failures after every event.",
        f"**{same} of {len(rows)} runs are equal at every one of their events** ({events:,} in all).",
        markdown_table(
            ["events of", "settings", "limit", "events", "peak reserved, bytes", "simulated"],
            [
                [
                    row.run.trace,
                    row.run.settings or "default",
                    "yes" if row.run.capacity_bytes else "no",
                    f"{len(row.run.events):,}",
                    f"{row.peak_reserved_bytes:,}",
                    row.difference or "equal",
                ]
                for row in rows
            ],
            left=3,
        ),
    ]
    return "\n\n".join(lines) + "\n"


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the page to this file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        wanted = tuple(json.loads(options.one))
        runs = [run for run in sorted(recorded_runs(), key=_configuration) if _configuration(run) == wanted]
        print(json.dumps([{k: v for k, v in vars(row).items() if k != "run"} for row in _compare(runs)]))
        return 0
    rows = compare_all()
    page = report(rows)
    print(page)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(page)
    return int(any(row.difference for row in rows))


if __name__ == "__main__":
    sys.exit(main())
