"""What is held at the peak, recomputed from a classified frame: the events of the traced steps, in time order.

    step, block, phase, total_bytes, held = held_at_peak(frame)
    held_at_own_peaks(frame)["activations"]     # a role's own peak can be at another instant
    peaks_of_blocks(frame)[0].held
    peaks_of_phases(frame)["optimizer"].temporaries

A frame is what a ledger's ``timeline()`` returns and ``traces/<hash>.parquet`` holds; its columns are those of
`dbbench.results.store.TRACE_SCHEMA`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from dbbench.errors import BadInput
from dbbench.results.record import Held

#: Columns that traces written before them lack.
LATER_COLUMNS = ("made_by", "holder")
#: The maker of what was live when a step of such a trace began: its op was not written down.
RESIDENT = "(resident)"
_KEY = ["role", "module", "made_by", "holder"]


class AtPeak(NamedTuple):
    """The instant of the peak and what was live then; ``phase`` is ``resident`` if the step's opening was the peak.

    ``held`` sums to ``total_bytes``, largest first. What was live when the step began is summed in the frame, so it
    counts as one storage a line.
    """

    step: int
    block: int
    phase: str
    total_bytes: int
    held: list[Held]


class InPhase(NamedTuple):
    """The most that is live while a phase runs, by role in ``split``, and what temporaries are at their own most there.

    ``split`` and ``held`` sum to ``total_bytes``. Temporaries die in the phase that made them, so that each phase has
    its own.
    """

    total_bytes: int
    split: dict[str, int]
    temporaries: list[Held]
    held: list[Held]


def training_steps(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows of each training step, in time order; a stretch that is all inference is none.

    A step opens where its number or block changes, or where resident rows follow an event.
    """
    if frame.empty:
        return []
    step, block = frame["step"].to_numpy(), frame["block"].to_numpy()
    resident = (frame["phase"] == "resident").to_numpy()
    inference = (frame["phase"] == "inference").to_numpy()
    opens = (step[1:] != step[:-1]) | (block[1:] != block[:-1]) | (resident[1:] & ~resident[:-1])
    starts = np.flatnonzero(np.concatenate([[True], opens]))
    ends = np.append(starts[1:], len(frame))
    found = []
    for start, end in zip(starts, ends, strict=True):
        only_inference = inference[start:end].any() and (inference | resident)[start:end].all()
        if not only_inference:
            found.append(frame.iloc[start:end])
    return found


def live_bytes(step: pd.DataFrame) -> np.ndarray:
    """Return the live bytes of one training step, int64 [events + 1]; entry 0 is what was live as it began."""
    sizes = step["bytes"].to_numpy(dtype=np.int64)
    resident = resident_rows(step)
    return np.concatenate([[0], sizes.cumsum()])[resident:]


def resident_rows(step: pd.DataFrame) -> int:
    """Return how many rows at the head of a step say what was live already."""
    return int((step["phase"] == "resident").sum())


def held_at_peak(frame: pd.DataFrame) -> AtPeak:
    """Replay ``frame`` and return its highest instant (the first on ties) with what was live then.

    Raises BadInput where the frame holds no training step.
    """
    return _highest(_steps(frame))


def peaks_of_blocks(frame: pd.DataFrame) -> dict[int, AtPeak]:
    """Return `held_at_peak` of the steps of each active block, by its number."""
    steps = _steps(frame)
    blocks = [int(step["block"].iloc[0]) for step in steps]
    numbers = sorted(set(blocks))
    return {
        number: _highest([s for s, block in zip(steps, blocks, strict=True) if block == number]) for number in numbers
    }


def held_at_own_peaks(frame: pd.DataFrame) -> dict[str, list[Held]]:
    """Return, for each role that is ever there, its own lines at the first instant at which they sum to the most.

    They sum to the role's own peak, the most that it reaches over all traced steps.
    """
    steps = _steps(frame)
    found: dict[str, list[Held]] = {}
    for role in sorted({str(role) for step in steps for role in step["role"].unique()}):
        parts = [step[step["role"] == role] for step in steps]
        totals = [live_bytes(part) for part in parts]
        place = max(range(len(parts)), key=lambda i: int(totals[i].max()))
        held = _held(parts[place].iloc[: resident_rows(parts[place]) + int(totals[place].argmax())])
        if held:
            found[role] = held
    return found


def peaks_of_phases(frame: pd.DataFrame) -> dict[str, InPhase]:
    """Return what is live at the most in each phase that has an event, over all traced steps."""
    steps = _steps(frame)
    phases = [step["phase"].astype(str).to_numpy() for step in steps]
    temporary = [(step["role"] == "temporaries").to_numpy() for step in steps]
    sizes = [step["bytes"].to_numpy(dtype=np.int64) for step in steps]
    found: dict[str, InPhase] = {}
    for phase in sorted(set().union(*(set(names) for names in phases)) - {"resident"}):
        inside = [names == phase for names in phases]
        step, event = _most([size.cumsum() for size in sizes], inside)
        until = steps[step].iloc[: event + 1]
        split = until.groupby("role", observed=True)["bytes"].sum()
        roles = {str(role): int(size) for role, size in split.items() if size}
        own, last = _most([(size * part).cumsum() for size, part in zip(sizes, temporary, strict=True)], inside)
        temporaries = _held(steps[own].iloc[: last + 1][temporary[own][: last + 1]])
        found[phase] = InPhase(sum(roles.values()), roles, temporaries, _held(until))
    return found


def _most(running: list[np.ndarray], inside: list[np.ndarray]) -> tuple[int, int]:
    """Return (step, row) of the largest of ``running`` where it is ``inside``, the first on ties."""
    lowest = np.iinfo(np.int64).min
    masked = [np.where(where, totals, lowest) for totals, where in zip(running, inside, strict=True)]
    step = max(range(len(masked)), key=lambda place: int(masked[place].max()))
    return step, int(masked[step].argmax())


def _steps(frame: pd.DataFrame) -> list[pd.DataFrame]:
    steps = training_steps(with_makers(frame))
    if not steps:
        raise BadInput("the trace holds no training step")
    return steps


def _highest(steps: list[pd.DataFrame]) -> AtPeak:
    totals = [live_bytes(step) for step in steps]
    place = max(range(len(steps)), key=lambda i: int(totals[i].max()))
    step, event = steps[place], int(totals[place].argmax())
    until = step.iloc[: resident_rows(step) + event]
    phase = str(until["phase"].iloc[-1]) if event else "resident"
    first = step.iloc[0]
    return AtPeak(int(first["step"]), int(first["block"]), phase, int(totals[place][event]), _held(until))


def with_makers(frame: pd.DataFrame) -> pd.DataFrame:
    """Return ``frame`` with the columns ``made_by`` and ``holder``, filled where an older trace lacks them.

    There the maker of a storage is the op of its first event in the step, on its frees too, and ``(resident)`` for
    what was live already; holders are unknown, and '' as for none.
    """
    if all(name in frame for name in LATER_COLUMNS):
        return frame
    # by number and block alone: such a ledger gave every step a number of its own
    keys = [frame["step"].to_numpy(), frame["block"].to_numpy(), frame["storage"].to_numpy()]
    running = pd.Series(frame["bytes"].to_numpy()).groupby(keys, sort=False).cumsum()
    lowest = running.groupby(keys, sort=False).transform("min")
    first = pd.Series(frame["op"].astype(str).to_numpy()).groupby(keys, sort=False).transform("first")
    # what falls below zero frees bytes that no event of the step made
    made = (lowest >= 0).to_numpy() & (frame["phase"] != "resident").to_numpy()
    maker = pd.Categorical(first.where(made, RESIDENT))
    return frame.assign(made_by=maker, holder=pd.Categorical([""] * len(frame)))


def _held(rows: pd.DataFrame) -> list[Held]:
    """Sum ``rows``, the events up to an instant, by what they belong to; lines that came to nothing are left out."""
    line = rows.groupby(_KEY, observed=True, sort=False).ngroup().to_numpy()
    sizes = rows["bytes"].to_numpy(dtype=np.int64)
    resident = (rows["phase"] == "resident").to_numpy()
    _, first = np.unique(line, return_index=True)
    total, before, living = (np.zeros(len(first), dtype=np.int64) for _ in range(3))
    np.add.at(total, line, sizes)
    np.add.at(before, line[resident], sizes[resident])
    events = [line[~resident], rows["storage"].to_numpy()[~resident]]
    storages = pd.Series(sizes[~resident]).groupby(events, sort=False).sum()
    owner, left = storages.index.get_level_values(0).to_numpy(dtype=np.int64), storages.to_numpy()
    np.add.at(living, owner[left > 0], 1)
    np.add.at(before, owner[left < 0], left[left < 0])
    counts = living + (before > 0)
    names = rows[_KEY].iloc[first].astype(str).itertuples(index=False, name=None)
    found = [
        Held(role=role, module=module, op=op, holder=holder or None, bytes=size, storages=count)
        for (role, module, op, holder), size, count in zip(names, total.tolist(), counts.tolist(), strict=True)
        if size
    ]
    return sorted(found, key=lambda row: (-row.bytes, row.role, row.module, row.op, row.holder or ""))
