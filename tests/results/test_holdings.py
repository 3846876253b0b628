"""What is held at the peak, against a replay that walks the rows one by one."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbbench.errors import BadInput
from dbbench.results.holdings import (
    RESIDENT,
    held_at_own_peaks,
    held_at_peak,
    live_bytes,
    peaks_of_blocks,
    peaks_of_phases,
    training_steps,
    with_makers,
)

COLUMNS = ["step", "block", "phase", "role", "module", "op", "storage", "bytes", "made_by", "holder"]
ROLES = ("parameters", "activations", "temporaries", "retained")


@st.composite
def frames(draw: Any) -> pd.DataFrame:
    """One to three steps of storages that are made, resized, and freed in any order; some live on into the next."""
    rows: list[tuple[Any, ...]] = []
    live: dict[int, tuple[tuple[str, str, str, str], int]] = {}
    number = 0
    for step in range(draw(st.integers(1, 3))):
        resident: Counter[tuple[str, str, str, str]] = Counter()
        for key, size in live.values():
            resident[key] += size
        for (role, module, maker, holder), size in resident.items():
            rows.append((step, 0, "resident", role, module, RESIDENT, -1, size, maker, holder))
        for _ in range(draw(st.integers(1, 12))):
            what = draw(st.sampled_from(("make", "make", "resize", "free")))
            phase = draw(st.sampled_from(("forward", "backward", "optimizer")))
            if what == "make" or not live:
                key = tuple(
                    draw(st.sampled_from(names)) for names in (ROLES, ("", "a.0", "b"), ("mm", "add"), ("", "h"))
                )
                size = draw(st.integers(1, 2**40))
                live[number] = key, size
                rows.append((step, 0, phase, key[0], key[1], key[2], number, size, key[2], key[3]))
                number += 1
                continue
            chosen = draw(st.sampled_from(sorted(live)))
            key, size = live.pop(chosen)
            left = draw(st.integers(1, 2**40)) if what == "resize" else 0
            if left:
                live[chosen] = key, left
            op = "resize_" if left else "(free)"
            rows.append((step, 0, phase, key[0], key[1], op, chosen, left - size, key[2], key[3]))
    return pd.DataFrame(rows, columns=COLUMNS)


def walked(frame: pd.DataFrame) -> tuple[int, str, int, dict[tuple[str, ...], int]]:
    """Return step, phase, bytes and holdings of the first highest instant, row after row."""
    best: tuple[int, str, int, dict[tuple[str, ...], int]] = (-1, "", -1, {})
    for step, rows in frame.groupby("step", sort=True):
        held: defaultdict[tuple[str, ...], int] = defaultdict(int)
        phase, rows = "resident", list(rows.itertuples(index=False))
        for place, row in enumerate(rows):
            if row.phase != "resident" and (place == 0 or rows[place - 1].phase == "resident"):
                total = sum(held.values())  # as the step opens
                if total > best[2]:
                    best = int(step), "resident", total, dict(held)
            held[row.role, row.module, row.made_by, row.holder] += row.bytes
            phase = row.phase
            total = sum(held.values())
            if phase != "resident" and total > best[2]:
                best = int(step), phase, total, dict(held)
    return best


@settings(max_examples=150, deadline=None)
@given(frame=frames(), categories=st.booleans())
def test_the_peak_and_its_holdings_are_those_of_a_walk(frame: pd.DataFrame, categories: bool) -> None:
    """Broken if a line at the peak is lost, doubled or given to another maker, or a later equal peak is taken."""
    given_frame = frame.astype(dict.fromkeys(("phase", "role", "module", "op", "made_by", "holder"), "category"))
    peak = held_at_peak(given_frame if categories else frame)
    step, phase, total, held = walked(frame)
    assert (peak.step, peak.phase, peak.total_bytes) == (step, phase, total)
    found = {(row.role, row.module, row.op, row.holder or ""): row.bytes for row in peak.held}
    assert found == {key: size for key, size in held.items() if size}
    assert sum(row.bytes for row in peak.held) == total
    assert [row.bytes for row in peak.held] == sorted((row.bytes for row in peak.held), reverse=True)


def test_storages_are_counted_those_resident_as_one() -> None:
    """Broken if what was freed before the peak is still counted, or what is resident is not."""
    key = ("activations", "m", "mm", "h")
    rows = [(0, 0, "resident", key[0], key[1], RESIDENT, -1, 100, *key[2:])]
    rows += [(0, 0, "forward", key[0], key[1], "mm", n, 10, *key[2:]) for n in range(4)]
    rows += [(0, 0, "forward", key[0], key[1], "(free)", 0, -10, *key[2:])]
    rows += [(0, 0, "forward", key[0], key[1], "mm", 9, 30, *key[2:])]
    (row,) = held_at_peak(pd.DataFrame(rows, columns=COLUMNS)).held
    assert (row.bytes, row.storages) == (160, 3 + 1 + 1)


def test_an_inference_is_no_training_step_and_a_frame_of_nothing_else_is_refused() -> None:
    """Broken if a prediction's bytes become the peak of training."""
    train = [(0, 0, "resident", "parameters", "m", RESIDENT, -1, 5, "weight", "")]
    train += [(0, 0, "forward", "temporaries", "m", "mm", 1, 7, "mm", "")]
    infer = [(1, 0, "resident", "parameters", "m", RESIDENT, -1, 5, "weight", "")]
    infer += [(1, 0, "inference", "temporaries", "m", "mm", 2, 99, "mm", "")]
    assert held_at_peak(pd.DataFrame(train + infer, columns=COLUMNS)).total_bytes == 12
    with pytest.raises(BadInput, match="no training step"):
        held_at_peak(pd.DataFrame(infer, columns=COLUMNS))
    with pytest.raises(BadInput, match="no training step"):
        held_at_peak(pd.DataFrame(columns=COLUMNS))


def test_steps_that_share_a_number_are_two_steps() -> None:
    """Broken if a loop that numbers its steps by itself, or by block, sees two steps' bytes added up."""
    rows = []
    for block in (0, 1, 1):
        rows += [(0, block, "resident", "parameters", "m", RESIDENT, -1, 50, "weight", "")]
        rows += [(0, block, "forward", "temporaries", "m", "mm", 1, 8 + block, "mm", "")]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    steps = training_steps(frame)
    assert [live_bytes(step).tolist() for step in steps] == [[50, 58], [50, 59], [50, 59]]
    assert held_at_peak(frame)[:4] == (0, 1, "forward", 59)


@settings(max_examples=60, deadline=None)
@given(frame=frames())
def test_a_trace_without_makers_still_sums_and_names_the_makers_it_can(frame: pd.DataFrame) -> None:
    """Broken if an older trace cannot be read, loses bytes, or blames an op for what was there before."""
    old = frame.drop(columns=["made_by", "holder"])
    filled = with_makers(old)
    assert (filled["holder"].astype(str) == "").all()
    peak, truth = held_at_peak(old), held_at_peak(frame)
    assert (peak.step, peak.phase, peak.total_bytes) == (truth.step, truth.phase, truth.total_bytes)
    assert sum(row.bytes for row in peak.held) == truth.total_bytes
    for step, rows in frame.groupby("step"):
        born = {row.storage for row in rows.itertuples() if row.op in ("mm", "add")}
        told = filled.loc[rows.index, "made_by"].astype(str)
        for row, maker in zip(rows.itertuples(), told, strict=True):
            if row.storage in born:
                assert maker == row.made_by, step
            elif row.op == "(free)":
                assert maker == RESIDENT, step


def test_a_million_events_are_replayed_in_seconds() -> None:
    """Broken if the replay walks events in Python, so that a long step cannot be compared at all."""
    count = 500_000
    number = np.arange(count)
    half = {"storage": number, "bytes": (number % 97 + 1) * 512, "made_by": np.array(["mm", "add"])[number % 2]}
    frame = pd.concat([pd.DataFrame(half), pd.DataFrame(half | {"bytes": -half["bytes"]})], ignore_index=True)
    frame = frame.assign(step=0, block=0, phase="forward", role="activations", module="m", op="x", holder="")
    peak = held_at_peak(frame.astype(dict.fromkeys(("phase", "role", "module", "op", "made_by", "holder"), "category")))
    assert peak.total_bytes == half["bytes"].sum()
    assert sum(row.storages for row in peak.held) == count


def instants(frame: pd.DataFrame) -> list[tuple[int, str, dict[tuple[str, ...], int]]]:
    """Return (step, phase, holdings) of every instant, row after row; a step's opening has the phase resident."""
    found: list[tuple[int, str, dict[tuple[str, ...], int]]] = []
    for step, rows in frame.groupby("step", sort=True):
        held: Counter[tuple[str, ...]] = Counter()
        opened = False
        for row in rows.itertuples(index=False):
            if row.phase != "resident" and not opened:
                found.append((int(str(step)), "resident", dict(held)))
                opened = True
            held[row.role, row.module, row.made_by, row.holder] += row.bytes
            if opened:
                found.append((int(str(step)), row.phase, dict(held)))
    return found


def of_role(held: dict[tuple[str, ...], int], role: str) -> dict[tuple[str, ...], int]:
    return {key: size for key, size in held.items() if key[0] == role and size}


def lines(held: Any) -> dict[tuple[str, ...], int]:
    return {(row.role, row.module, row.op, row.holder or ""): row.bytes for row in held}


@settings(max_examples=100, deadline=None)
@given(frame=frames())
def test_own_peaks_are_those_of_a_walk_over_the_rows(frame: pd.DataFrame) -> None:
    """Broken if a role's own peak is taken at another role's instant, or misses what was there as a step began."""
    walk = instants(frame)
    found = held_at_own_peaks(frame)
    for role in ROLES:
        sizes = [sum(of_role(held, role).values()) for _, _, held in walk]
        most = of_role(walk[int(np.argmax(sizes))][2], role)
        assert lines(found.get(role, [])) == most


@settings(max_examples=100, deadline=None)
@given(frame=frames())
def test_phases_are_those_of_a_walk_over_the_rows(frame: pd.DataFrame) -> None:
    """Broken if a phase's peak counts an instant of another phase, or its roles do not sum to it."""
    walk = instants(frame)
    found = peaks_of_phases(frame)
    assert found.keys() == {phase for _, phase, _ in walk} - {"resident"}
    for phase, peak in found.items():
        inside = [held for _, where, held in walk if where == phase]
        sizes = [sum(held.values()) for held in inside]
        assert (peak.total_bytes, sum(peak.split.values())) == (max(sizes), max(sizes))
        first = inside[sizes.index(max(sizes))]
        assert peak.split == {r: sum(of_role(first, r).values()) for r in ROLES if of_role(first, r)}
        temporaries = [of_role(held, "temporaries") for held in inside]
        totals = [sum(held.values()) for held in temporaries]
        assert lines(peak.temporaries) == temporaries[totals.index(max(totals))]


@settings(max_examples=60, deadline=None)
@given(frame=frames())
def test_each_block_has_the_peak_of_its_own_steps(frame: pd.DataFrame) -> None:
    """Broken if the peak of one block is that of a step which trains another."""
    blocks = frame.assign(block=frame["step"] % 2)
    found = peaks_of_blocks(blocks)
    assert found.keys() == set(blocks["block"])
    for block, peak in found.items():
        assert peak == held_at_peak(blocks[blocks["block"] == block])
