"""What a test says when a limit is exceeded: which and by how much, the split by role, and who holds the bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from dbbench.pytest_plugin.limits import Figures, Limit, bytes_of

if TYPE_CHECKING:
    from dbbench.profile.ledger import Ledger
    from dbbench.results.record import Held

_Failed: Any = pytest.fail.Exception  # an outcome of pytest's, which shows no traceback if told so
_LIMITS_SHOWN, _ROLES_SHOWN, _HOLDERS_SHOWN = 4, 7, 5
_WIDEST_NAME = 60


class LimitExceeded(_Failed, AssertionError):
    """A measured step did not keep to a limit. ``pytrace`` is false where no line of the test's own can be shown."""

    __module__ = "builtins"  # as pytest's own outcomes have it: the name alone is shown

    def __init__(self, words: str, pytrace: bool = True) -> None:
        super().__init__(words, pytrace=pytrace)  # type: ignore[call-arg]


def check(
    limits: Sequence[Limit], ledger: Ledger, what: str, references: Mapping[str, Figures], pytrace: bool = True
) -> None:
    """Raise LimitExceeded unless what ``ledger`` measured, called ``what``, keeps to every limit."""
    __tracebackhide__ = True
    figures = ledger.account()
    broken = [limit for limit in limits if not limit.holds(figures, references)]
    if broken:
        raise LimitExceeded(message(broken, ledger, what, references), pytrace)


def message(broken: Sequence[Limit], ledger: Ledger, what: str, references: Mapping[str, Figures]) -> str:
    """Return the words for limits that do not hold, the first of them explained; at most 25 lines."""
    from dbbench.report import text  # it imports pandas

    profile = ledger.profile()
    lines = [_verdict(limit, profile, references) for limit in broken[:_LIMITS_SHOWN]]
    if len(broken) > _LIMITS_SHOWN:
        lines.append(f"and {len(broken) - _LIMITS_SHOWN} more limits")
    where = f"{profile.peak_op or 'no op'} in {profile.peak_module or 'no module'}"
    lines += [
        f"{what}, {profile.source}: {text.mib(profile.peak_bytes)} MiB at the peak, in {profile.peak_phase} ({where})",
        "",
        *_split(profile.split, profile.own_peaks, {limit.name for limit in broken}),
        "",
        *_holders(broken[0].name, ledger),
    ]
    return "\n".join(lines)


def _verdict(limit: Limit, figures: Figures, references: Mapping[str, Figures]) -> str:
    from dbbench.report import text

    measured, bound = bytes_of(figures, limit.name), limit.bound_bytes(references)
    difference = measured - bound
    size = _size(abs(difference))
    share = f" ({float(abs(difference) / bound):.1%})" if 10 * bound > abs(difference) else ""
    side = "above" if difference > 0 else "below" if difference < 0 else "at"
    by = f"{size}{share} {side}" if difference else side
    whose = ""
    if limit.reference:
        theirs = bytes_of(references[limit.reference], limit.name)
        whose = f" = {text.mib(float(bound))} MiB, {limit.reference} being at {text.mib(theirs)} MiB"
    name = limit.name.replace("_", " ")
    return f"{name}: {text.mib(measured)} MiB ({measured:,} bytes), {by} the limit ({limit.written}{whose})"


def _size(size: Fraction) -> str:
    """Say a difference so that one byte is not lost in rounding."""
    return f"{float(size) / 2**20:,.2f} MiB" if size >= 2**20 / 50 else f"{float(size):,.6g} byte{'s' * (size != 1)}"


def _split(split: Mapping[str, int], own_peaks: Mapping[str, int], broken: set[str]) -> list[str]:
    from dbbench.report import text

    roles = sorted((role for role in split if own_peaks[role]), key=lambda role: (-split[role], -own_peaks[role], role))
    shown = roles[:_ROLES_SHOWN]
    shown += [role for role in roles[_ROLES_SHOWN:] if role in broken][:1]
    rows = [
        [role.replace("_", " "), text.mib(split[role]), text.mib(own_peaks[role]), "<--" if role in broken else ""]
        for role in shown
    ]
    lines = _columns([["role", "MiB at the peak", "its own peak", ""], *rows], figures=(1, 2))
    rest = [role for role in roles if role not in shown]
    if rest:
        lines.append(f"and {len(rest)} more roles with {text.mib(sum(split[role] for role in rest))} MiB at the peak")
    return lines


def _holders(name: str, ledger: Ledger) -> list[str]:
    """Return the largest holders at the peak or, for a role, at the instant when it was at its own."""
    from dbbench.report import text
    from dbbench.report.fold import fold
    from dbbench.results.holdings import held_at_peak

    peak = ledger.peak
    words, held = f"held at the peak (in {peak.phase})", peak.held
    if name == "kept":
        words, held = "still held at the end", ledger.kept
    elif name != "peak":
        frame = ledger.timeline()
        ours = frame[frame["role"] == name]
        if ours.empty:
            return [f"nothing was ever held as {name.replace('_', ' ')}"]
        instant = held_at_peak(ours)
        phase = "before the step" if instant.phase == "resident" else f"in {instant.phase}"
        words, held = f"held as {name.replace('_', ' ')} at their own peak ({phase})", instant.held
    groups = fold(held, lambda row: (row.module, row.holder or ""), lambda row: (row.role, row.op, row.bytes))
    groups.sort(key=lambda group: -sum(row.bytes for row in group[1]))
    rows = [["MiB", "×", *(["role"] if name == "peak" else []), "module", "op", "held by"]]
    for (module, holder), members in groups[:_HOLDERS_SHOWN]:
        times = str(len(members)) if len(members) > 1 else ""
        role = [members[0].role.replace("_", " ")] if name == "peak" else []
        rows.append([text.mib(_sum(members)), times, *role, module or "(no module)", members[0].op, holder])
    lines = [f"largest {words}:", *_columns(rows, figures=(0, 1))]
    rest = [row for _, members in groups[_HOLDERS_SHOWN:] for row in members]
    if rest:
        lines.append(f"and {text.mib(_sum(rest))} MiB in {len(rest)} smaller lines")
    return lines


def _sum(rows: Sequence[Held]) -> int:
    return sum(row.bytes for row in rows)


def _columns(rows: Sequence[Sequence[str]], figures: Sequence[int]) -> list[str]:
    """Set rows in columns, those of ``figures`` flush right; a column that is empty but for its heading goes."""
    cells = [[_short(cell) for cell in row] for row in rows]
    kept = [i for i in range(len(cells[0])) if any(row[i] for row in cells[1:])]
    widths = {i: max(len(row[i]) for row in cells) for i in kept}
    return [
        "  ".join(row[i].rjust(widths[i]) if i in figures else row[i].ljust(widths[i]) for i in kept).rstrip()
        for row in cells
    ]


def _short(cell: str) -> str:
    cell = "".join(c for c in " ".join(cell.split()) if c.isprintable())
    return cell if len(cell) <= _WIDEST_NAME else f"{cell[: _WIDEST_NAME // 2 - 1]}…{cell[-_WIDEST_NAME // 2 :]}"
