"""From a trace to an account: roles for storages, then a replay that finds the peak and splits it.

Nothing here needs torch: the same account is made of a trace from CPU, CUDA or fake tensors.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pandas as pd

from dbbench.results.record import Held
from dbbench.results.roles import ROLES
from dbbench.results.trace import Trace, Window

#: Roles of what should have been gone by the end of its step.
_PASSING = ("activations", "weight_casts")
_BEFORE = "(before)"


@dataclass
class Account:
    """A traced stretch in figures; every number of bytes is exact."""

    peak_bytes: int = 0
    peak_phase: str | None = None
    peak_step: int | None = None
    peak_block: int | None = None
    split: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))
    own_peaks: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))
    held: list[Held] = field(default_factory=list)
    inference_peak_bytes: int | None = None
    window_peaks: list[tuple[Window, int]] = field(default_factory=list)
    unseen_bytes: int = 0


def role_of(trace: Trace, number: int) -> str:
    """Return the role of storage ``number``: by identity, else by what kept it, else temporary."""
    known = trace.identity.get(number)
    if known is not None:
        return known[0]
    if number in trace.casts:
        return "weight_casts"
    birth = trace.birth_op[number]
    if birth < 0:
        return "retained"
    if number in trace.saved and trace.op_phase[birth] in ("setup", "forward", "recompute"):
        return "activations"
    return "retained" if number in trace.outlived else "temporaries"


class _Replay:
    """The live storages and their sums by role, event by event."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.roles = [role_of(trace, number) for number in range(len(trace.birth_op))]
        self.live: Counter[int] = Counter(trace.unseen)
        self.sums: Counter[str] = Counter()
        for number, size in trace.unseen.items():
            self.sums[self.roles[number]] += size
        self.total = sum(trace.unseen.values())

    def apply(self, event: int) -> str:
        number, delta = self.trace.event_storage[event], self.trace.event_bytes[event]
        role = self.roles[number]
        self.live[number] += delta
        if not self.live[number]:
            del self.live[number]
        self.sums[role] += delta
        self.total += delta
        return role

    def outlive(self) -> None:
        """Turn what should have gone with its step into retained."""
        for number, size in self.live.items():
            role = self.roles[number]
            if role in _PASSING:
                self.roles[number] = "retained"
                self.sums[role] -= size
                self.sums["retained"] += size


def account(trace: Trace) -> Account:
    """Replay ``trace`` and return its account: the peak is over the windows of kind ``step``."""
    result, replay, position = Account(unseen_bytes=sum(trace.unseen.values())), _Replay(trace), 0
    at_peak: tuple[dict[int, int], list[str]] | None = None
    for window in trace.windows:
        for event in range(position, window.start):
            replay.apply(event)
        highest, position = -1, window.end
        # the instant before the first event counts too: what is live as the window opens
        for event in range(window.start - 1, window.end):
            touched = (replay.apply(event),) if event >= window.start else ROLES
            highest = max(highest, replay.total)
            if window.kind != "step":
                continue
            for role in touched:
                result.own_peaks[role] = max(result.own_peaks[role], replay.sums[role])
            if replay.total > result.peak_bytes:
                result.peak_bytes, result.split = replay.total, {role: replay.sums[role] for role in ROLES}
                result.peak_step, result.peak_block = window.step, window.block
                result.peak_phase = _phase(trace, max(event, 0))
                at_peak = dict(replay.live), list(replay.roles)
        result.window_peaks.append((window, highest))
        if window.kind == "inference":
            result.inference_peak_bytes = max(result.inference_peak_bytes or 0, highest)
        elif window.kind == "step":
            replay.outlive()
    if at_peak is not None:
        result.held = _held(trace, *at_peak)
    return result


def _phase(trace: Trace, event: int) -> str:
    return trace.op_phase[trace.event_op[event]] if trace.event_op else "setup"


def _place(trace: Trace, number: int, role: str) -> tuple[str, str, str | None]:
    """Return (module, op, holder) of a storage; for an identity the module is the one that owns it."""
    birth = trace.birth_op[number]
    op = trace.op_name[birth] if birth >= 0 else _BEFORE
    module = trace.op_module[birth] if birth >= 0 else ""
    known = trace.identity.get(number)
    if known is None:
        return module, op, trace.outlived.get(number) if role == "retained" else None
    name = known[1]
    if role == "optimizer":
        path, _, key = name.rpartition(".")
        return path.rpartition(".")[0], key, None
    if role in ("parameters", "gradients", "buffers"):
        return name.rpartition(".")[0], name.rpartition(".")[2], None
    return module, op, name


def _held(trace: Trace, live: dict[int, int], roles: list[str]) -> list[Held]:
    sizes: Counter[tuple[str, str, str, str | None]] = Counter()
    counts: Counter[tuple[str, str, str, str | None]] = Counter()
    for number, size in live.items():
        key = (roles[number], *_place(trace, number, roles[number]))
        sizes[key] += size
        counts[key] += 1
    rows = [Held(role=k[0], module=k[1], op=k[2], holder=k[3], bytes=b, storages=counts[k]) for k, b in sizes.items()]
    return sorted(rows, key=lambda row: (-row.bytes, row.role, row.module, row.op, row.holder or ""))


def timeline(trace: Trace) -> pd.DataFrame:
    """Return the classified events of every traced step, the schema of ``traces/<hash>.parquet``.

    A step begins with rows of phase ``resident``: what is live already, by role and module.
    """
    rows: list[tuple[int, int, str, str, str, str, int, int]] = []
    replay, position = _Replay(trace), 0
    for window in trace.windows:
        for event in range(position, window.start):
            replay.apply(event)
        position = window.end
        if window.kind != "step":
            for event in range(window.start, window.end):
                replay.apply(event)
            continue
        resident: Counter[tuple[str, str]] = Counter()
        for number, size in replay.live.items():
            resident[replay.roles[number], _place(trace, number, replay.roles[number])[0]] += size
        for (role, module), size in sorted(resident.items()):
            rows.append((window.step, window.block, "resident", role, module, "(resident)", -1, size))
        for event in range(window.start, window.end):
            role = replay.apply(event)
            number, op = trace.event_storage[event], trace.event_op[event]
            module = _place(trace, number, role)[0]
            phase, delta = trace.op_phase[op], trace.event_bytes[event]
            rows.append((window.step, window.block, phase, role, module, trace.op_name[op], number, delta))
        replay.outlive()
    columns = ("step", "block", "phase", "role", "module", "op", "storage", "bytes")
    frame = pd.DataFrame(rows, columns=list(columns))
    kinds = {"step": "int32", "block": "int32", "storage": "int64", "bytes": "int64"}
    return frame.astype(kinds | dict.fromkeys(("phase", "role", "module", "op"), "category"))
