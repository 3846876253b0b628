"""The replay on traces small enough to do by hand, and on random ones against a naive count."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dbbench.measure.account import account, timeline
from dbbench.measure.self_test import self_test
from dbbench.results.roles import ROLES
from dbbench.results.trace import Trace, Window


def make_trace(events: list[tuple[int, int, str]], windows: list[tuple[int, int]]) -> Trace:
    """Return a trace of (storage, bytes, phase), one op an event."""
    trace = Trace("cpu")
    for storage, size, phase in events:
        if storage == len(trace.birth_op):
            trace.birth_op.append(len(trace.op_name))
        trace.event_storage.append(storage)
        trace.event_bytes.append(size)
        trace.event_op.append(len(trace.op_name))
        trace.op_name.append("op")
        trace.op_phase.append(phase)
        trace.op_module.append("module")
    trace.windows = [Window("step", i, i, start, end) for i, (start, end) in enumerate(windows)]
    return trace


def test_the_first_of_equal_peaks_wins() -> None:
    """The phase of the peak would depend on which tie is taken."""
    events = [(0, 10, "forward"), (0, -10, "forward"), (1, 10, "backward"), (1, -10, "backward")]
    result = account(make_trace(events, [(0, 4)]))
    assert (result.peak_bytes, result.peak_phase, result.peak_step) == (10, "forward", 0)


def test_what_is_alive_when_a_step_begins_counts_in_it() -> None:
    """A step that only frees would have a peak of zero."""
    result = account(make_trace([(0, 10, "setup"), (0, -10, "forward")], [(1, 2)]))
    assert result.peak_bytes == 10
    assert sum(result.split.values()) == 10


def test_outside_the_windows_nothing_peaks() -> None:
    """Set-up or a warm-up step would be reported as training."""
    events = [(0, 100, "setup"), (0, -100, "setup"), (1, 5, "forward"), (1, -5, "forward")]
    assert account(make_trace(events, [(2, 4)])).peak_bytes == 5


traces = st.lists(
    st.tuples(st.integers(0, 1 << 20), st.sampled_from(["forward", "backward", "optimizer"]), st.booleans()),
    min_size=1,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(traces, st.data())
def test_roles_always_sum_to_the_peak(rows: list[tuple[int, str, bool]], data: st.DataObject) -> None:
    """A byte would be in two roles or in none."""
    events: list[tuple[int, int, str]] = []
    alive: list[tuple[int, int]] = []
    for number, (size, phase, frees) in enumerate(rows):
        events.append((number, size, phase))
        alive.append((number, size))
        if frees:
            gone, old = alive.pop(data.draw(st.integers(0, len(alive) - 1)))
            events.append((gone, -old, phase))
    middle = data.draw(st.integers(0, len(events)))
    trace = make_trace(events, [(0, middle), (middle, len(events))])
    for number in range(len(rows)):
        kind = data.draw(st.sampled_from(["identity", "saved", "outlived", "none"]))
        if kind == "identity":
            trace.identity[number] = (data.draw(st.sampled_from(["parameters", "gradients", "other"])), "a.b")
        elif kind == "saved":
            trace.saved[number] = "input of gelu"
        elif kind == "outlived":
            trace.outlived[number] = None
    result = account(trace)
    live, highest = 0, 0
    for _, size, _ in events:
        live += size
        highest = max(highest, live)
    assert result.peak_bytes == highest
    assert sum(result.split.values()) == highest
    assert sum(held.bytes for held in result.held) == highest
    assert all(result.split[role] <= result.own_peaks[role] <= highest for role in ROLES)
    frame = timeline(trace)
    assert frame[frame["step"] == 1]["bytes"].sum() == live


def test_every_private_symbol_of_torch_works_here() -> None:
    """A release of torch changed what the ledger rests on."""
    assert [(symbol, works) for symbol, works, _ in self_test() if not works] == []
