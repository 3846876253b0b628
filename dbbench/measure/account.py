"""From a trace to an account: roles for storages, then a replay that finds the peak and splits it.

Nothing here needs torch: the same account is made of a trace from CPU, CUDA or fake tensors. It takes time in
proportion to the events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from dbbench.results.record import Held
from dbbench.results.roles import BEFORE, ROLES
from dbbench.results.trace import Trace, Window

if TYPE_CHECKING:
    import pandas as pd

#: Roles of what should have been gone by the end of its step.
_PASSING = ("activations", "weight_casts")


@dataclass
class Account:
    """A traced stretch in figures; every number of bytes is exact.

    ``peak_op`` and ``peak_module`` made the allocation that reached the peak. ``resident_bytes`` were there before the
    ledger opened; ``undeclared_bytes`` are those of them in no declared role. ``kept_bytes`` is what `kept_at_the_end`
    lists.
    """

    peak_bytes: int = 0
    peak_phase: str | None = None
    peak_step: int | None = None
    peak_block: int | None = None
    peak_op: str = ""
    peak_module: str = ""
    split: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))
    own_peaks: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))
    held: list[Held] = field(default_factory=list)
    inference_peak_bytes: int | None = None
    window_peaks: list[tuple[Window, int]] = field(default_factory=list)
    resident_bytes: int = 0
    undeclared_bytes: int = 0
    kept_bytes: int = 0


def role_of(trace: Trace, number: int) -> str:
    """Return the role of storage ``number``: unseen, else by identity, else by what kept it, else temporary."""
    if number in trace.unseen:
        return "unseen"
    known = trace.identity.get(number)
    if known is not None:
        return known[0]
    if number in trace.casts:
        return "weight_casts"
    if trace.birth_op[number] < 0:
        return "retained"
    if number in trace.saved:
        return "activations"
    return "retained" if number in trace.outlived else "temporaries"


class _Replay:
    """The live storages and their sums by role, event by event."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.roles = [role_of(trace, number) for number in range(len(trace.birth_op))]
        self.live: Counter[int] = Counter(trace.before)
        self.sums: dict[str, int] = dict.fromkeys(ROLES, 0)
        for number, size in trace.before.items():
            self.sums[self.roles[number]] += size
        self.total = sum(trace.before.values())

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
        """Turn what should have gone with its step into retained: another begins."""
        for number, size in self.live.items():
            role = self.roles[number]
            if role in _PASSING:
                self.roles[number] = "retained"
                self.sums[role] -= size
                self.sums["retained"] += size

    def instants(self) -> Iterator[tuple[Window, int, str | None]]:
        """Yield (window, event, role it touched) after each event in a window, first that of its opening (role None).

        What is live as a window opens counts in it, though its first event may be a free.
        """
        position = 0
        for window in self.trace.windows:
            for event in range(position, window.start):
                self.apply(event)
            position = window.end
            self.outlive()
            yield window, window.start - 1, None
            for event in range(window.start, window.end):
                yield window, event, self.apply(event)


def account(trace: Trace) -> Account:
    """Replay ``trace`` and return its account: the peak is over the windows of kind ``step``."""
    result, peak = _replayed(trace)
    result.kept_bytes = sum(row.bytes for row in kept_at_the_end(trace))
    if peak >= 0:
        _describe_peak(result, trace, peak)
    return result


def _replayed(trace: Trace) -> tuple[Account, int]:
    """Return the account but for what is at the peak, and the instant of that, -1 for a trace without steps."""
    result, replay = Account(), _Replay(trace)
    own, sums, highest = result.own_peaks, replay.sums, 0
    instant = peak = -1
    for instant, (window, event, role) in enumerate(replay.instants()):
        total = replay.total
        if role is None:
            highest = total
            result.window_peaks.append((window, highest))
        elif total > highest:
            highest = total
            result.window_peaks[-1] = (window, highest)
        if window.kind != "step":
            continue
        for touched in ROLES if role is None else (role,):
            if sums[touched] > own[touched]:
                own[touched] = sums[touched]
        if event >= window.end - 1:  # what should have gone with the step, and has not
            own["retained"] = max(own["retained"], sums["retained"] + sum(sums[passing] for passing in _PASSING))
        if total > result.peak_bytes:
            result.peak_bytes, peak = total, instant
    inference = [most for window, most in result.window_peaks if window.kind == "inference"]
    result.inference_peak_bytes = max(inference, default=None)
    result.resident_bytes = sum(trace.before.values())
    result.undeclared_bytes = sum(size for number, size in trace.before.items() if number not in trace.identity)
    return result, peak


def own_peaks_within(trace: Trace, inside: Callable[[str], bool]) -> dict[str, int]:
    """Return each role's own peak, counting only storages of modules whose path is ``inside``.

    The module is the one that made a storage, or that owns it where it is known by identity.
    """
    roles = [role_of(trace, number) for number in range(len(trace.birth_op))]
    counts = [inside(_place(trace, number, role)[0]) for number, role in enumerate(roles)]
    pairs = zip(trace.event_storage, trace.event_bytes, strict=True)
    before = {number: size for number, size in trace.before.items() if counts[number]}
    part = replace(trace, event_bytes=[size * counts[number] for number, size in pairs], before=before)
    return _replayed(part)[0].own_peaks


def gradient_bytes_by_block(trace: Trace) -> dict[int, int]:
    """Return the bytes of the gradients that a step of each block makes, those of one parameter once."""
    found: dict[int, dict[str, int]] = {}
    for window in trace.windows:
        if window.kind != "step":
            continue
        sizes = found.setdefault(window.block, {})
        for event in range(window.start, window.end):
            role, name = trace.identity.get(trace.event_storage[event], ("", ""))
            if role == "gradients":
                sizes[name] = max(sizes.get(name, 0), trace.event_bytes[event])
    return {block: sum(sizes.values()) for block, sizes in found.items()}


def _describe_peak(result: Account, trace: Trace, peak: int) -> None:
    """Replay to the instant ``peak`` and note where it is and what is held there."""
    replay = _Replay(trace)
    window, event, _ = next(islice(replay.instants(), peak, None))
    result.split = {role: replay.sums[role] for role in ROLES}
    result.peak_step, result.peak_block, result.peak_phase = window.step, window.block, "setup"
    if event >= 0:
        op = trace.event_op[event]
        result.peak_phase, result.peak_op, result.peak_module = (
            trace.op_phase[op], trace.op_name[op], trace.op_module[op],
        )  # fmt: skip
    result.held = _held(trace, replay.live, replay.roles)


def _place(trace: Trace, number: int, role: str) -> tuple[str, str, str | None]:
    """Return (module, op, holder) of a storage; for an identity the module is the one that owns it."""
    birth = trace.birth_op[number]
    op = trace.op_name[birth] if birth >= 0 else BEFORE
    module = trace.op_module[birth] if birth >= 0 else ""
    if role == "unseen":
        return module, op, trace.unseen[number]
    known = trace.identity.get(number)
    if known is None:
        if role == "activations":
            return module, op, trace.saved.get(number)
        return module, op, (trace.outlived.get(number) or trace.saved.get(number)) if role == "retained" else None
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


def kept_at_the_end(trace: Trace) -> list[Held]:
    """Return what was made since the ledger opened, is alive at the end and is no part of the model, largest first.

    Inputs and averages of the weights are declared to stay; whatever else is left was kept by its holder.
    """
    replay = _Replay(trace)
    for event in range(len(trace.event_op)):
        replay.apply(event)
    replay.outlive()
    made = {
        number: size
        for number, size in replay.live.items()
        if number not in trace.before and replay.roles[number] in ("retained", "temporaries", "other", "unseen")
    }
    return _held(trace, made, replay.roles)


def timeline(trace: Trace) -> pd.DataFrame:
    """Return the classified events of every traced step, the schema of ``traces/<hash>.parquet``.

    A step begins with rows of phase ``resident``: what is live already, by role, module, op that made it and holder.
    """
    import pandas as pd  # an estimate's process does without

    rows: list[tuple[int, int, str, str, str, str, int, int, str, str]] = []
    replay = _Replay(trace)
    for window, event, role in replay.instants():
        if window.kind != "step":
            continue
        if role is None:
            resident: Counter[tuple[str, str, str, str]] = Counter()
            for number, size in replay.live.items():
                module, made_by, holder = _place(trace, number, replay.roles[number])
                resident[replay.roles[number], module, made_by, holder or ""] += size
            for (role, module, made_by, holder), size in sorted(resident.items()):
                rows.append(
                    (window.step, window.block, "resident", role, module, "(resident)", -1, size, made_by, holder)
                )
            continue
        number, op = trace.event_storage[event], trace.event_op[event]
        module, made_by, holder = _place(trace, number, role)
        phase, delta = trace.op_phase[op], trace.event_bytes[event]
        rows.append(
            (window.step, window.block, phase, role, module, trace.op_name[op], number, delta, made_by, holder or "")
        )
    columns = ("step", "block", "phase", "role", "module", "op", "storage", "bytes", "made_by", "holder")
    frame = pd.DataFrame(rows, columns=list(columns))
    kinds = {"step": "int32", "block": "int32", "storage": "int64", "bytes": "int64"}
    return frame.astype(kinds | dict.fromkeys(("phase", "role", "module", "op", "made_by", "holder"), "category"))
