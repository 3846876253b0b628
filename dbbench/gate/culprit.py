"""Who did it: from two peaks to the role, the module and the op that changed at the root.

What a role holds at the peak of the whole rises and falls when that peak moves to another instant, though nothing of
the role changed. So a role is first judged by its own peak. Where the own peaks do not explain the difference of the
peaks (gradients that are kept from one step to the next reach no further than before, and are there for longer), the
roles at the peak do.

New parameters bring gradients, optimizer state, a moving average, casts and activations of the same modules with them:
there the parameters are the cause and the rest follows.
"""

from __future__ import annotations

from dataclasses import dataclass

from dbbench.gate.cells import IN_PHASE, Cell, group_of
from dbbench.gate.result import Cause, Culprit
from dbbench.report import text
from dbbench.report.diff import Diff, Side, Told, compare
from dbbench.report.palette import ROLE_NAMES
from dbbench.results.record import Held
from dbbench.results.roles import ROLES

#: Lines of a role that are shown of what changed; the others are summed up.
_SHOWN = 5
#: Own peaks explain a difference of the whole peak if they sum to at least this share of it.
_EXPLAINED = 0.5
#: A role follows from new parameters if all but this share of its change is in their modules.
_REST = 0.1
#: Roles whose lines have a name in the place of a module: what is known by the name that the method gives it.
_BY_NAME = ("ema", "other", "inputs")


@dataclass(frozen=True)
class _Change:
    """A role's change, at its own peak or at that of the whole."""

    role: str
    instant: str
    diff: Diff

    @property
    def difference_bytes(self) -> int:
        return self.diff.difference_bytes


def causes(before: Cell, after: Cell) -> tuple[list[Cause], list[str]]:
    """Return the roles that changed by themselves, the root first, and sentences on those that follow from it."""
    found = _changes(before, after)
    if all(any(group_of(metric) == "phases" for metric in cell.figures) for cell in (before, after)):
        if all(change.role != "temporaries" for change in found):
            found += _in_phases(before, after)
        found = found or _in_parts(before, after)
    parameters = next((change for change in found if change.role == "parameters"), None)
    reach = _Reach(parameters.diff) if parameters else None
    weights: dict[str, int] = {}
    following = []
    for change in found:
        follows = 0 if reach is None or change is parameters else reach.bytes_of(change)
        weights[change.role] = abs(change.difference_bytes - follows)
        if parameters and change is not parameters:
            weights["parameters"] = weights.get("parameters", abs(parameters.difference_bytes)) + abs(follows)
        if follows and weights[change.role] <= _REST * abs(follows):
            following.append(change)
    roots = [change for change in found if change not in following]
    roots.sort(key=lambda change: (-weights[change.role], ROLES.index(change.role)))
    return [_cause(change) for change in roots], [_sentence(change) for change in following]


class _Reach:
    """The modules in which a change of parameters brings other changes with it.

    Those whose parameters changed; the modules right above them, and what stands there without parameters of its own
    (an activation between two linear maps); and of a subtree that is new, or gone, the whole.
    """

    def __init__(self, parameters: Diff) -> None:
        sides = [{row.module for row in side.held} for side in (parameters.before, parameters.after)]
        self._owners = sides[0] | sides[1]
        changed = {change.module for change in parameters.changes} - {""}
        self._roots = {_highest(module, sides) for module in changed}
        self._above = {module.rpartition(".")[0] for module in changed} - {""}

    def bytes_of(self, change: _Change) -> int:
        """Return how much of a change is within reach."""
        return sum(
            line.difference_bytes
            for line in change.diff.changes
            if self._reaches(_place(change.role, line.module, line.holder))
        )

    def _reaches(self, place: str) -> bool:
        if not place:
            return False
        if place in self._above or any(_is_within(place, root) for root in self._roots):
            return True
        return place.rpartition(".")[0] in self._above and not any(_is_within(owner, place) for owner in self._owners)


def _highest(module: str, sides: list[set[str]]) -> str:
    """Return the highest module above ``module`` below which one of the sides has no parameters, else itself."""
    above = module.rpartition(".")[0]
    while above and any(not any(_is_within(owner, above) for owner in side) for side in sides):
        module, above = above, above.rpartition(".")[0]
    return module


def _is_within(module: str, root: str) -> bool:
    return module == root or module.startswith(f"{root}.")


def _changes(before: Cell, after: Cell) -> list[_Change]:
    """Return the roles that changed: at their own peaks, and at the whole's as far as those do not explain it."""
    own = [_own(before, after, role) for role in ROLES]
    own = [change for change in own if change.difference_bytes]
    whole = after.bytes("peak_bytes") - before.bytes("peak_bytes")
    explained = sum(change.difference_bytes for change in own if change.difference_bytes * whole > 0)
    if own and abs(explained) >= _EXPLAINED * abs(whole):
        return own
    at_peak = [_at_peak(before, after, role) for role in ROLES]
    if whole:
        at_peak = [change for change in at_peak if change.difference_bytes * whole > 0]
    at_peak = [change for change in at_peak if change.difference_bytes]
    known = {change.role for change in at_peak}
    return [*at_peak, *(change for change in own if change.role not in known)]


def _own(before: Cell, after: Cell, role: str) -> _Change:
    metric = f"{role}_own_peak_bytes"
    rows = before.own_peak(role), after.own_peak(role)
    return _change(role, "own peak", *_as_far_as_known(before, after, role, metric, rows))


def _at_peak(before: Cell, after: Cell, role: str) -> _Change:
    rows = before.at_peak(role), after.at_peak(role)
    return _change(role, "peak", *_as_far_as_known(before, after, role, f"{role}_bytes", rows))


def _as_far_as_known(
    before: Cell, after: Cell, role: str, metric: str, rows: tuple[list[Held], list[Held]]
) -> tuple[list[Held], list[Held]]:
    """Return the lines of both sides where they sum to the figure, else the figures alone.

    They do not where a run has no trace, or a hand took a new figure over and left what is held as it was.
    """
    if all(sum(r.bytes for r in side) == cell.bytes(metric) for side, cell in zip(rows, (before, after), strict=True)):
        return rows
    return _whole(before, role, metric), _whole(after, role, metric)


def _in_phases(before: Cell, after: Cell) -> list[_Change]:
    """Return the phase in which temporaries changed the most, where they did: below the peak that costs nothing yet."""
    phases = [instant for instant in before.held.keys() | after.held.keys() if instant.startswith(IN_PHASE)]
    found = []
    for phase in sorted(phases):
        when = f"own peak in {phase.removeprefix(IN_PHASE)}"
        found.append(_change("temporaries", when, before.held.get(phase, []), after.held.get(phase, [])))
    return _largest(found)


def _in_parts(before: Cell, after: Cell) -> list[_Change]:
    """Return the role that changed the most at the peak of a block or phase."""
    found = []
    for metric in sorted(before.figures.keys() | after.figures.keys()):
        part, _, role = metric.removesuffix("_bytes").rpartition(".")
        if part and role in ROLES:
            kind, _, name = part.partition(".")
            when = f"peak of block {name}" if kind == "block" else f"peak in {name}"
            found.append(_change(role, when, *_in_part(before, after, part, role, metric)))
    return _largest(found)


def _in_part(before: Cell, after: Cell, part: str, role: str, metric: str) -> tuple[list[Held], list[Held]]:
    """Return a role's lines of both sides at the peak of a part, as far as they can be known, else the figures alone.

    A baseline has no lines of it. It held none where its figure is 0; it may have held those that it has of another
    instant where these are as large, which is believed only if all that then changed, changed the same way. Or the
    change is what the baseline has at no instant, to the byte: the rest is then as it was.
    """
    whole = _whole(before, role, metric), _whole(after, role, metric)
    size, now = before.bytes(metric), [row for row in after.parts.get(part, ()) if row.role == role]
    if _sum(now) != after.bytes(metric):
        return whole
    instants = [before.own_peak(role), before.at_peak(role)]
    for then in ([], *instants):
        if _sum(then) == size:
            ways = {change.difference_bytes > 0 for change in _change(role, "", then, now).diff.changes}
            if len(ways) == 1:
                return then, now
    known = {_line(row) for rows in instants for row in rows}
    rest = [row for row in now if _line(row) in known]
    return (rest, now) if rest != now and _sum(rest) == size else whole


def _sum(rows: list[Held]) -> int:
    return sum(row.bytes for row in rows)


def _line(row: Held) -> tuple[str, str, str | None]:
    return row.module, row.op, row.holder


def _whole(cell: Cell, role: str, metric: str) -> list[Held]:
    size = cell.bytes(metric)
    return [Held(role=role, module="", op="", bytes=size, storages=1)] if size else []


def _largest(found: list[_Change]) -> list[_Change]:
    found = [change for change in found if change.difference_bytes]
    return [max(found, key=lambda change: abs(change.difference_bytes))] if found else []


def _change(role: str, instant: str, before: list[Held], after: list[Held]) -> _Change:
    one, two = (Side(role, sum(row.bytes for row in rows), None, None, rows) for rows in (before, after))
    return _Change(role, instant, compare(one, two))


def _place(role: str, module: str, holder: str) -> str:
    """Return the module of a line; of what has a name alone, what the name says before its last dot."""
    if module or role not in _BY_NAME:
        return module
    return holder.rpartition(".")[0] or holder


def _cause(change: _Change) -> Cause:
    told = change.diff.told()
    grew = change.difference_bytes > 0
    # what a moved instant takes away from one module and gives to another is not what the role changed by
    along = [group for group in told if (group.whole.difference_bytes > 0) == grew]
    return Cause(
        role=change.role,
        difference_bytes=change.difference_bytes,
        instant=change.instant,
        sentence=_sentence(change),
        culprits=[_culprit(change, group) for group in along[:_SHOWN]],
    )


def _culprit(change: _Change, group: Told) -> Culprit:
    whole = group.whole
    places = [_place(change.role, member.module, member.holder) for member in group.members]
    return Culprit(
        role=change.role,
        module=_place(change.role, whole.module, whole.holder),
        modules=sorted(set(places)),
        op=whole.op,
        holder=whole.holder,
        before_bytes=whole.before_bytes,
        after_bytes=whole.after_bytes,
        instant=change.instant,
        sentence=group.sentence,
    )


def _sentence(change: _Change) -> str:
    """Say how much a role changed, and when that was counted."""
    before, after = change.diff.before.peak_bytes, change.diff.after.peak_bytes
    when = f"at {'its' if change.instant.startswith('own') else 'the'} {change.instant}"
    sizes = f"{text.mib(before)} → {text.mib(after)} MiB, {change.difference_bytes:+,} bytes"
    return f"{ROLE_NAMES[change.role]} {text.signed_mib(change.difference_bytes)} MiB {when} ({sizes})"
