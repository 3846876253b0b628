"""Recorded event lists, with what torch's own caching allocator made of them, for `tests` and `allocator_on_cuda`.

``tests/measure/allocator_recordings.json`` was made with the allocator of torch's CUDA build, the library
``libc10_cuda.so`` of the ordinary 2.13.0 wheel, started once a run with the run's ``PYTORCH_ALLOC_CONF``. Under it was
no GPU but a driver that only hands out rising addresses and counts to the run's capacity; its statistics were read
after every event. Three lists are a training's on fake tensors (the suite ``vision`` checkpointed; ViT-B/16 at batch 16
under backprop and checkpointed), from what set-up left on; three are random, in a capacity that is too small for them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dbbench.measure.allocator import CachingAllocator, OutOfMemory
from dbbench.measure.allocator_blocks import Block
from dbbench.measure.allocator_settings import AllocatorSettings

FILE = Path(__file__).parents[1] / "tests" / "measure" / "allocator_recordings.json"


class Figures(NamedTuple):
    """The allocator's statistics after an event: bytes, retries so far, and whether the event's request failed."""

    allocated: int
    reserved: int
    requested: int
    retries: int
    failed: int


@dataclass(frozen=True)
class Run:
    """One list of events under one configuration, and torch's figures.

    ``events``: a positive number asks for that many bytes, −1 − k frees what the k-th request got. ``samples`` are
    (allocated, reserved, requested) after every ``sample_every`` events, ``every_event`` the SHA-256 of all figures, a
    line an event. ``segments`` at its peak does not count expandable ones.
    """

    trace: str
    events: tuple[int, ...]
    settings: str
    capacity_bytes: int | None
    sample_every: int
    samples: list[list[int]]
    every_event: str
    peaks: dict[str, int]
    retries: int
    failed: int

    @property
    def label(self) -> str:
        """Name the run in a table or a test."""
        device = "no end" if self.capacity_bytes is None else f"{self.capacity_bytes} bytes"
        return f"{self.trace}, {self.settings or 'default'}, {device}"


def recorded_runs() -> list[Run]:
    """Return all runs of the file."""
    raw = json.loads(FILE.read_text())
    return [
        Run(events=tuple(raw["traces"][run["trace"]]), sample_every=raw["sample_every"], **run) for run in raw["runs"]
    ]


def simulate(events: Iterable[int], allocator: CachingAllocator) -> Iterator[Figures]:
    """Feed ``events`` to ``allocator``; yield its figures after each."""
    blocks: list[Block | None] = []
    for event in events:
        failed = 0
        if event > 0:
            try:
                blocks.append(allocator.malloc(event))
            except OutOfMemory:
                blocks.append(None)
                failed = 1
        else:
            allocator.free(blocks[-1 - event])
        yield Figures(
            allocator.allocated_bytes, allocator.reserved_bytes, allocator.requested_bytes, allocator.retries, failed
        )


def settings_of(run: Run) -> AllocatorSettings:
    """Return the settings of a run, its capacity included."""
    return AllocatorSettings.parse(run.settings, run.capacity_bytes)
