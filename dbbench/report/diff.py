"""What grew and what shrank between two peaks, largest first.

    print(diff(before, after))      # each a Profile, what read_profile returns, or a ledger's timeline()

The differences of all lines sum to the difference of the peaks exactly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from dbbench.report import text
from dbbench.report.blocks import Block, Grid, Heading, Lines, Shown
from dbbench.report.fold import fold
from dbbench.report.palette import ROLE_NAMES
from dbbench.results.holdings import RESIDENT, held_at_peak
from dbbench.results.profile import Profile
from dbbench.results.record import Held
from dbbench.results.roles import BEFORE, IDENTITY_ROLES, PHASES, ROLES

#: What a peak can be taken from.
Measured = Profile | pd.DataFrame | tuple[Profile, pd.DataFrame]

#: Why autograd keeps a storage, and the module that does.
_KEPT = re.compile(r"(?P<what>(?:input|output) of .+?)(?: in (?P<module>\S+))?")
OLDER_NOTE = (
    "one of the two is a trace of an older ledger: the ops of what was resident, and holders, are unknown there and "
    "are not compared"
)


@dataclass(frozen=True)
class Side:
    """One of the two peaks; ``held`` sums to ``peak_bytes``. ``flops`` is by phase, None where it is not known."""

    name: str
    peak_bytes: int
    phase: str | None
    step: int | None
    held: list[Held]
    flops: dict[str, int] | None = None
    uncounted: bool = False  # some ops have no FLOP formula

    @property
    def older(self) -> bool:
        """Whether it came from a trace without makers (`dbbench.results.holdings.with_makers`)."""
        return any(row.op == RESIDENT for row in self.held)

    @property
    def split(self) -> Counter[str]:
        """Bytes by role."""
        sizes: Counter[str] = Counter()
        for row in self.held:
            sizes[row.role] += row.bytes
        return sizes


@dataclass(frozen=True)
class Change:
    """A (role, module, op, holder) whose bytes at the peak differ."""

    role: str
    module: str
    op: str
    holder: str
    before_bytes: int
    after_bytes: int

    @property
    def difference_bytes(self) -> int:
        return self.after_bytes - self.before_bytes


@dataclass(frozen=True)
class Told:
    """Changes alike to the byte, but for the numbers in their names, as one: their sum, how many, and a sentence."""

    whole: Change
    members: list[Change]
    sentence: str


@dataclass(frozen=True)
class Diff(Shown):
    """Two peaks and every change between them, by absolute difference; a page shows ``rows`` of them."""

    before: Side
    after: Side
    changes: list[Change]
    notes: list[str] = field(default_factory=list)
    rows: int = 20

    @property
    def difference_bytes(self) -> int:
        """The difference of the peaks, to which the changes sum."""
        return self.after.peak_bytes - self.before.peak_bytes

    def sentences(self) -> list[str]:
        """Return a sentence a change, largest first; equal changes of numbered modules share one."""
        return [group.sentence for group in self.told()]

    def frame(self) -> pd.DataFrame:
        """Return the changes, a row each, with exact bytes."""
        columns = ["role", "module", "op", "holder", "before_bytes", "after_bytes", "difference_bytes"]
        return pd.DataFrame([[getattr(c, name) for name in columns] for c in self.changes], columns=columns)

    def blocks(self) -> list[Block]:
        found: list[Block] = [
            Heading(f"{self.before.name} → {self.after.name}: {text.signed_mib(self.difference_bytes)} MiB", 0),
            Lines([_peak("before", self.before), _peak("after", self.after), *self._moved(), *self.notes]),
            Heading("By role"),
            self._roles(),
            Heading("What changed at the peak, largest first"),
            Lines(self._largest()),
        ]
        flops = self._flops()
        return [*found, Heading("FLOPs a step"), flops] if flops else found

    def told(self) -> list[Told]:
        """Return the groups of alike changes, largest first."""
        split = self.before.split
        groups = fold(
            self.changes,
            lambda change: (change.module, change.holder),
            lambda change: (change.role, change.op, change.before_bytes, change.after_bytes),
        )
        told = []
        for (module, holder), members in groups:
            first, count = members[0], len(members)
            whole = Change(
                *(first.role, module, first.op, holder), first.before_bytes * count, first.after_bytes * count
            )
            told.append(Told(whole, members, _sentence(whole, count, split[first.role])))
        return sorted(told, key=lambda group: -abs(group.whole.difference_bytes))

    def _largest(self) -> list[str]:
        told = self.told()
        if not told:
            return ["nothing: every line is the same to the byte"]
        shown = told if len(told) <= self.rows + 1 else told[: self.rows]
        lines = [group.sentence for group in shown]
        if len(shown) < len(told):
            rest = sum(group.whole.difference_bytes for group in told[len(shown) :])
            lines.append(f"everything else: {text.signed_mib(rest)} MiB in {len(told) - len(shown)} smaller changes")
        return [*lines, f"together: {text.signed_mib(self.difference_bytes)} MiB"]

    def _moved(self) -> list[str]:
        if self.before.phase == self.after.phase:
            return []
        return [f"the peak moved from {self.before.phase} to {self.after.phase}"]

    def _roles(self) -> Grid:
        before, after = self.before.split, self.after.split
        known = [role for role in ROLES if before[role] or after[role]]
        rows = [
            [
                ROLE_NAMES[role],
                *(text.mib(before[role]), text.mib(after[role])),
                *_difference(before[role], after[role]),
            ]
            for role in sorted(known, key=lambda role: -abs(after[role] - before[role]))
        ]
        ends = self.before.peak_bytes, self.after.peak_bytes
        rows.append(["peak", *map(text.mib, ends), *_difference(*ends)])
        return Grid(["role", "before, MiB", "after, MiB", "difference, MiB", "change"], rows, totals=1)

    def _flops(self) -> Grid | None:
        before, after = self.before.flops, self.after.flops
        if before is None or after is None or not (before or after):
            return None
        rows = []
        for phase in (phase for phase in PHASES if phase in before or phase in after):
            rows.append(_flops_row(phase, before.get(phase, 0), after.get(phase, 0)))
        rows.append(_flops_row("together", sum(before.values()), sum(after.values())))
        for place, side in ((1, self.before), (2, self.after)):
            rows[-1][place] = f"≥ {rows[-1][place]}" if side.uncounted else rows[-1][place]
        return Grid(["phase", "before", "after", "difference", "change"], rows, totals=1)


def diff(before: Measured, after: Measured, rows: int = 20) -> Diff:
    """Compare what two peaks are made of. Raises BadInput where a frame holds no training step."""
    return compare(side_of(before, "before"), side_of(after, "after"), rows)


def side_of(measured: Measured, name: str) -> Side:
    """Return the peak of a profile, or of a classified frame alone, which is called ``name``."""
    if isinstance(measured, tuple):
        measured = measured[0]
    if isinstance(measured, Profile):
        flops = measured.flops_per_step if measured.steps else None
        place = measured.peak_phase, measured.peak_step
        return Side(measured.name, measured.peak_bytes, *place, measured.held, flops, bool(measured.uncounted))
    peak = held_at_peak(measured)
    return Side(name, peak.total_bytes, peak.phase, peak.step, peak.held)


def compare(before: Side, after: Side, rows: int = 20) -> Diff:
    """Return the changes between two sides; where one is older, both are told as coarsely as it can tell."""
    notes = []
    if before.older or after.older:
        notes.append(OLDER_NOTE)
        unknown = {row.role for side in (before, after) for row in side.held if row.op == RESIDENT}
        before, after = (_coarse(side, unknown.union(IDENTITY_ROLES)) for side in (before, after))
    sizes = _sizes(before), _sizes(after)
    changes = [Change(*key, *(side[key] for side in sizes)) for key in sizes[0].keys() | sizes[1].keys()]
    changes = [change for change in changes if change.difference_bytes]
    changes.sort(key=lambda c: (-abs(c.difference_bytes), c.role, c.module, c.op, c.holder))
    return Diff(before, after, changes, notes, rows)


def _sizes(side: Side) -> Counter[tuple[str, str, str, str]]:
    sizes: Counter[tuple[str, str, str, str]] = Counter()
    for row in side.held:
        sizes[row.role, row.module, row.op, row.holder or ""] += row.bytes
    return sizes


def _coarse(side: Side, without_ops: set[str]) -> Side:
    """Return ``side`` without holders, and without ops in the roles ``without_ops``."""
    held = [replace(row, holder=None, op="" if row.role in without_ops else row.op) for row in side.held]
    return replace(side, held=held)


def _sentence(change: Change, count: int, role_bytes: int) -> str:
    """Say one change: how much of its role, where, and what it is."""
    size = change.difference_bytes
    how_much = percent(size, role_bytes) if role_bytes else "new"
    module, what = change.module, _made_by(change.op)
    kept = _KEPT.fullmatch(change.holder)
    if change.role == "activations" and kept is not None:
        module, what = kept["module"] or change.module, _keeping(kept["what"], change)
    elif change.role in ("parameters", "gradients", "optimizer", "buffers"):
        what = change.op
    elif change.holder:
        what = f"{change.holder}{', ' * bool(what)}{what}"
    where = f" in {module}" if module else ""
    times = f" ({count} ×)" if count > 1 else ""
    words = f"{ROLE_NAMES.get(change.role, change.role)} {how_much} ({text.signed_mib(size)} MiB){where}{times}"
    return f"{words}: {what}" if what else words


def _made_by(op: str) -> str:
    if op == BEFORE:
        return "alive before the ledger opened"
    return f"made by {op}" if op else ""


def _keeping(what: str, change: Change) -> str:
    if not change.after_bytes:
        return f"{what} no longer kept"
    return f"{what} kept" if change.difference_bytes > 0 else f"less of {what} kept"


def percent(difference: float, whole: float) -> str:
    """A signed share of ``whole``, with a decimal below one per cent; a multiple from ten times on."""
    if difference >= 9 * whole:
        return f"×{1 + difference / whole:,.0f}"
    share = 100 * abs(difference) / whole
    digits = f"{share:,.0f}" if share >= 0.95 else f"{share:.1f}" if share >= 0.05 else "<0.1"
    return f"{'−' if difference < 0 else '+'}{digits} %"


def _difference(before: int, after: int) -> Sequence[str]:
    if before == after:
        return "0", ""
    return text.signed_mib(after - before), percent(after - before, before) if before else "new"


def _flops_row(name: str, before: int, after: int) -> list[str]:
    sign = "−" if after < before else "+" if after > before else ""
    share = "" if before == after else percent(after - before, before) if before else "new"
    difference = f"{sign}{text.flop_words(abs(after - before))}" if sign else "0"
    return [name, text.flop_words(before), text.flop_words(after), difference, share]


def _peak(word: str, side: Side) -> str:
    line = f"{word}: {side.name}, {text.mib(side.peak_bytes)} MiB ({side.peak_bytes:,} bytes)"
    line += f" in {side.phase}" if side.phase else ""
    return line + (f" of step {side.step}" if side.step is not None else "")
