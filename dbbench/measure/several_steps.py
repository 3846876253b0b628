"""Several optimizer steps in a body that marks none: where one training step ends and the next begins.

A step ends with its optimizer's, or where several optimizers take turns (a generator's, a discriminator's) when each
has had one. The next begins with the first forward behind it that allocates. Where what autograd keeps across such a
place is used by a later backward, as in a loop that is differentiated as a whole, the body is one step after all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dbbench.results.trace import Trace


@dataclass(frozen=True)
class Update:
    """An optimizer's step has ended: at which event, whose it was, and the FLOPs so far, by phase and masked."""

    event: int
    optimizer: int
    flops: Counter[str]
    masked: int


@dataclass(frozen=True)
class Cut:
    """Where a training step begins: its first event, and the last update of the step before."""

    event: int
    update: Update


def take_apart(trace: Trace, updates: Sequence[Update]) -> tuple[list[Cut], str]:
    """Return where the second training step begins and every one after it, and a sentence for the reader.

    Without a place to cut the sentence says why there is none; it is '' where there was one step.
    """
    turns = _turns(trace, updates)
    groups: list[list[tuple[int, set[int], Update]]] = []
    seen: set[int] = set()
    for turn in turns:
        if not groups or turn[1] & seen:
            groups.append([])
            seen = set()
        groups[-1].append(turn)
        seen |= turn[1]
    if len(groups) < 2:
        return [], ""
    who = [set().union(*(ids for _, ids, _ in group)) for group in groups]
    unmarked = f"the body holds {len(groups)} optimizer steps and marks none"
    advice = "what is alive between them counts as activations; ledger.step() marks them"
    if any(ids != who[0] for ids in who):
        return [], f"{unmarked}, and its optimizers take no turns: {advice}"
    cuts = [Cut(group[-1][0], group[-1][2]) for group in groups[:-1]]
    if _used_across(trace, [cut.event for cut in cuts]):
        return [], f"{unmarked}, and a backward reaches over several: {advice}"
    return cuts, f"{unmarked}: each counts as a training step of its own"


def _turns(trace: Trace, updates: Sequence[Update]) -> list[tuple[int, set[int], Update]]:
    """Return (first event of the forward behind it, who stepped, the last update) of updates without one between."""
    forwards = [
        event
        for event, size in enumerate(trace.event_bytes)
        if size > 0 and trace.op_phase[trace.event_op[event]] == "forward"
    ]
    turns: list[tuple[int, set[int], Update]] = []
    for update in updates:
        place = bisect_right(forwards, update.event - 1)
        begins = forwards[place] if place < len(forwards) else len(trace.event_op)
        if turns and turns[-1][0] == begins:
            turns[-1] = (begins, turns[-1][1] | {update.optimizer}, update)
        else:
            turns.append((begins, {update.optimizer}, update))
    return turns


def _used_across(trace: Trace, cuts: Sequence[int]) -> bool:
    """Whether a backward lets go of what autograd kept from before a cut: it was used, and no leak."""
    born: dict[int, int] = {}
    for event, (number, size) in enumerate(zip(trace.event_storage, trace.event_bytes, strict=True)):
        if size > 0:
            born.setdefault(number, event)
            continue
        began = born.pop(number, None)
        if began is None or number not in trace.saved or number in trace.identity:
            continue
        phase = trace.op_phase[trace.event_op[event]]
        if phase in ("backward", "recompute") and bisect_right(cuts, began) != bisect_right(cuts, event):
            return True
    return False
