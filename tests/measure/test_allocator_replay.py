"""From a trace to what it would have taken of a CUDA device."""

from __future__ import annotations

from dbbench.measure.allocator import replay
from dbbench.measure.allocator_settings import MIB, AllocatorSettings
from dbbench.results.trace import Trace, Window


def make_trace(events: list[tuple[int, int]], windows: list[Window], built: int = 0) -> Trace:
    """Return a trace of (storage, bytes)."""
    trace = Trace("fake", built=built)
    trace.event_storage, trace.event_bytes = [number for number, _ in events], [size for _, size in events]
    trace.windows = windows
    return trace


def test_a_replay_begins_with_what_set_up_left() -> None:
    """An initialisation's scratch on the host would be reserved on the device.

    Before ``built``: 50 MiB of scratch come and go, 12 stay. In the step 4 more: 12 + 20 MiB reserved, not 50.
    """
    events = [(0, 50 * MIB), (1, 12 * MIB), (0, -50 * MIB), (2, 4 * MIB)]
    peaks = replay(make_trace(events, [Window("step", 0, 0, 3, 4)], built=3))
    assert (peaks.requested_bytes, peaks.allocated_bytes, peaks.reserved_bytes) == (16 * MIB, 16 * MIB, 32 * MIB)
    assert (peaks.segments, peaks.retries, peaks.out_of_memory_at) == (2, 0, None)


def test_what_set_up_left_is_allocated_in_order_of_birth() -> None:
    """Another order cuts other blocks: 5 MiB take a segment of 20, which then has room for 12; first 12 would not."""
    events = [(0, 5 * MIB), (1, 12 * MIB), (2, 512)]
    assert replay(make_trace(events, [Window("step", 0, 0, 2, 3)], built=2)).reserved_bytes == (20 + 2) * MIB


def test_what_was_there_before_is_allocated_too() -> None:
    """A stranger's model, made before the ledger opened, would take no memory."""
    trace = make_trace([(1, 2 * MIB), (0, -30 * MIB)], [Window("step", 0, 0, 0, 2)])
    trace.before = {0: 30 * MIB}
    assert replay(trace).requested_bytes == 32 * MIB


def test_peaks_are_those_of_steps() -> None:
    """A prediction, or what runs between steps, would set the peak of training.

    Between the steps 40 MiB come and go, a prediction takes 60; the steps have 12, then 1 MiB more in a segment of 2.
    """
    events = [(0, 12 * MIB), (1, 40 * MIB), (1, -40 * MIB), (2, MIB), (2, -MIB), (3, 60 * MIB)]
    windows = [Window("step", 0, 0, 0, 1), Window("step", 1, 0, 3, 5), Window("inference", -1, 0, 5, 6)]
    peaks = replay(make_trace(events, windows))
    assert (peaks.requested_bytes, peaks.reserved_bytes) == (13 * MIB, (12 + 40 + 2) * MIB)


def test_a_prediction_that_gives_the_cache_back_is_no_retry_of_training() -> None:
    """A training with room to spare would be called one that fits only by giving back the cache."""
    events = [(0, 60 * MIB), (0, -60 * MIB), (1, 80 * MIB)]
    windows = [Window("step", 0, 0, 0, 2), Window("inference", -1, 0, 2, 3)]
    peaks = replay(make_trace(events, windows), AllocatorSettings(capacity_bytes=100 * MIB))
    assert (peaks.retries, peaks.out_of_memory_at, peaks.reserved_bytes) == (0, None, 60 * MIB)


def test_what_is_live_as_a_step_opens_counts_in_it() -> None:
    """A step that only frees would have a peak of zero."""
    assert replay(make_trace([(0, 12 * MIB), (0, -12 * MIB)], [Window("step", 0, 0, 1, 2)])).allocated_bytes == 12 * MIB


def test_a_resize_takes_the_new_bytes_before_it_lets_the_old_go() -> None:
    """A growing storage would cost only its last size: 12 → 14 MiB are 26 for a moment, then 14 until it is freed."""
    events = [(0, 12 * MIB), (0, 14 * MIB), (0, -12 * MIB), (1, 0), (1, 0), (0, -14 * MIB), (2, 512)]
    peaks = replay(make_trace(events, [Window("step", 0, 0, 0, 6), Window("step", 1, 0, 6, 7)]))
    assert peaks.requested_bytes == 26 * MIB
    assert replay(make_trace(events, [Window("step", 0, 0, 3, 5)])).requested_bytes == 14 * MIB
    assert replay(make_trace(events, [Window("step", 1, 0, 6, 7)])).requested_bytes == 512


def test_a_run_that_does_not_fit_names_the_event() -> None:
    """Nobody could see where it fails: 60 + 60 of 100 MiB, at the third event; the peaks are those until then."""
    events = [(0, MIB), (1, 60 * MIB), (2, 60 * MIB), (2, -60 * MIB)]
    peaks = replay(make_trace(events, [Window("step", 0, 0, 0, 4)]), AllocatorSettings(capacity_bytes=100 * MIB))
    assert (peaks.out_of_memory_at, peaks.failed_bytes, peaks.retries) == (2, 60 * MIB, 1)
    assert (peaks.requested_bytes, peaks.reserved_bytes) == (61 * MIB, 62 * MIB)
