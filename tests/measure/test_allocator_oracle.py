"""The simulated allocator on random traces under random settings: its invariants, and a naive one beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measure.naive_allocator import Naive

from dbbench.measure.allocator import CachingAllocator, OutOfMemory
from dbbench.measure.allocator_blocks import Block
from dbbench.measure.allocator_settings import MIB, AllocatorSettings

#: Sizes at which a rule changes, and sizes between; a negative number frees one of what is live.
EDGES = [1, 511, 512, 513, MIB - 512, MIB, MIB + 1, 10 * MIB - 512, 10 * MIB, 12 * MIB + 1, 20 * MIB, 33 * MIB]
event = st.one_of(
    st.sampled_from(EDGES), st.integers(1, 2 * MIB), st.integers(MIB, 64 * MIB), *[st.integers(-50, -1)] * 2
)
#: As long as is drawn: hypothesis by itself prefers lists too short for a cache to matter.
events = st.integers(0, 150).flatmap(lambda length: st.lists(event, min_size=length, max_size=length))
#: One text a switch, and some together.
TEXTS = [
    "",
    "expandable_segments:True",
    "large_segment_size_mb:33",
    "max_split_size_mb:20",
    "max_split_size_mb:32,max_non_split_rounding_mb:48",
    "roundup_power2_divisions:4",
    "roundup_power2_divisions:[2:8,8:4,>:2]",
    "per_process_memory_fraction:0.7",
    "garbage_collection_threshold:0.3,per_process_memory_fraction:0.8",
    "garbage_collection_threshold:0.4,per_process_memory_fraction:0.9,max_split_size_mb:24",
    "expandable_segments:True,per_process_memory_fraction:0.7,max_split_size_mb:30",
    "expandable_segments:True,large_segment_size_mb:11,roundup_power2_divisions:2",
]
capacities = st.one_of(st.none(), st.integers(30, 400).map(lambda mebibytes: mebibytes * MIB + 4321))
configurations = st.builds(AllocatorSettings.parse, st.sampled_from(TEXTS), capacities)


def run(allocator: CachingAllocator, steps: list[int]) -> Iterator[dict[int, Block | None]]:
    """Apply ``steps`` and yield what is live after each, by order of birth; what does not fit lives as None."""
    live: dict[int, Block | None] = {}
    for born, step in enumerate(steps):
        if step > 0:
            try:
                live[born] = allocator.malloc(step)
            except OutOfMemory:
                live[born] = None
        elif live:
            allocator.free(live.pop(list(live)[step % len(live)]))
        yield live


def figures(allocator: CachingAllocator) -> tuple[int, int, int, int]:
    return allocator.allocated_bytes, allocator.reserved_bytes, allocator.requested_bytes, allocator.retries


def free_blocks(allocator: CachingAllocator) -> list[Block]:
    return [block for pool in (allocator.small, allocator.large) for _, _, block in pool.free]


@settings(max_examples=120)
@given(events, configurations)
def test_blocks_never_overlap_and_nothing_leaks(steps: list[int], configuration: AllocatorSettings) -> None:
    """A byte would be given out twice, or never come back."""
    allocator, live = CachingAllocator(configuration), {}
    for live in run(allocator, steps):
        held = sorted((b.address, b.size) for b in (*filter(None, live.values()), *free_blocks(allocator)))
        assert all(address + size <= after for (address, size), (after, _) in pairwise(held))
        allocated, reserved, requested, _ = figures(allocator)
        assert allocated == sum(block.size for block in live.values() if block)
        assert reserved == sum(size for _, size in held)
        assert reserved >= allocated >= requested >= 0
        # of an expandable segment torch maps a whole granule where the fraction leaves room for the request alone
        limit = None if configuration.expandable_segments else configuration.limit_bytes
        assert reserved <= (limit or configuration.capacity_bytes or reserved)
        for block in free_blocks(allocator):
            for neighbour in (block.before, block.after):
                assert neighbour is None or neighbour.in_use or not neighbour.mapped, "free memory is not joined"
    for block in live.values():
        allocator.free(block)
    assert (allocator.allocated_bytes, allocator.requested_bytes) == (0, 0)
    if not configuration.expandable_segments:
        assert all(block.whole for block in free_blocks(allocator))
        assert len(free_blocks(allocator)) == allocator.segments.current


@settings(max_examples=20)
@given(events, configurations)
def test_the_same_trace_gives_the_same_figures(steps: list[int], configuration: AllocatorSettings) -> None:
    """An estimate could not be compared with itself."""
    first, second = CachingAllocator(configuration), CachingAllocator(configuration)
    for _ in zip(run(first, steps), run(second, steps), strict=True):
        assert figures(first) == figures(second)


@pytest.mark.parametrize("text", TEXTS)
@settings(max_examples=20)
@given(steps=events, capacity=capacities)
def test_a_naive_allocator_agrees_at_every_event(text: str, steps: list[int], capacity: int | None) -> None:
    """The lists that make the simulator fast would give other blocks than the rules do."""
    configuration = AllocatorSettings.parse(text, capacity)
    allocator, naive, live = CachingAllocator(configuration), Naive(configuration), {}
    for born, (step, _) in enumerate(zip(steps, run(allocator, steps), strict=True)):
        if step > 0:
            live[born] = naive.malloc(step)
        elif live:
            handle = live.pop(list(live)[step % len(live)])
            if handle is not None:
                naive.free(handle)
        assert figures(allocator) == naive.figures


def lines_run(configuration: AllocatorSettings, steps: list[int]) -> int:
    """Return how many lines of Python the allocator runs, with those of what it calls: its work, whatever the clock."""
    count = 0

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return local

    allocator = CachingAllocator(configuration)
    before = sys.gettrace()
    live: list[Block | None] = []
    try:
        for step in steps:
            sys.settrace(lambda frame, event, argument: local)
            if step > 0:
                live.append(allocator.malloc(step))
            else:
                allocator.free(live[-step])
            sys.settrace(None)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("text", ["", "expandable_segments:True", "max_split_size_mb:20"])
def test_an_event_costs_no_more_in_a_long_trace(text: str) -> None:
    """A million events would take hours. Of n blocks every other is freed, and the holes are filled from the largest.

    Searches are bisections in C, so that the lines of Python an event grow a little at most: a tenth from 500 blocks
    to 4,000, where a scan would take eight times as many.
    """

    def work(blocks: int) -> float:
        sizes = [(place * 7919 % 977 + 1) * 4096 for place in range(blocks)]
        steps = [*sizes, *(-place for place in range(1, blocks, 2)), *sorted(sizes[1::2], reverse=True)]
        return lines_run(AllocatorSettings.parse(text), steps) / len(steps)

    assert work(4_000) < 1.1 * work(500)
