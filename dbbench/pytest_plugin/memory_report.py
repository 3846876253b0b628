"""The table of ``--memory-report``, and the figures that reports carry for it, between processes and into JUnit XML.

A measured test's report has the user properties ``memory:WHAT:peak_bytes``, ``…:peak_phase``, ``…:source``,
``…:ROLE_own_peak_bytes`` for every role that had any, and ``…:limit`` for what was limited. WHAT says what was
measured: ``body``, ``ledger``, ``step`` or a reference's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dbbench.pytest_plugin.limits import Figures, Limit, bytes_of

Property = tuple[str, str | int]
_PREFIX = "memory"
_OWN = "_own_peak_bytes"
_ROLES_SHOWN = 3
_MIB = 2**20


class Row(NamedTuple):
    """One measured stretch of one test."""

    test: str
    what: str
    peak_bytes: int
    phase: str
    roles: dict[str, int]
    limit: str


def properties(what: str, figures: Any, source: str, uses: Sequence[str]) -> list[Property]:
    """Return the user properties of what was measured: a ledger's account, and how far its limits are used."""
    found: dict[str, str | int] = {
        "peak_bytes": figures.peak_bytes,
        "peak_phase": figures.peak_phase or "",
        "source": source,
    }
    found |= {role + _OWN: size for role, size in figures.own_peaks.items() if size}
    if uses:
        found["limit"] = "; ".join(uses)
    return [(f"{_PREFIX}:{what}:{name}", value) for name, value in found.items()]


def use_of(limit: Limit, figures: Figures, references: Mapping[str, Figures]) -> str:
    """Say what a limit is and the share of it that is used."""
    bound = limit.bound_bytes(references)
    share = f" ({float(bytes_of(figures, limit.name) / bound):.1%})" if bound else ""
    return f"{limit.name.replace('_', ' ')} {limit.written}{share}"


def rows(reports: Iterable[Any]) -> list[Row]:
    """Return what the tests of ``reports`` measured, the largest peak first."""
    found = [row for report in reports if getattr(report, "when", None) == "call" for row in _of(report)]
    return sorted(found, key=lambda row: (-row.peak_bytes, row.test, row.what))


def _of(report: Any) -> Iterator[Row]:
    groups: dict[str, dict[str, Any]] = {}
    for name, value in report.user_properties:
        prefix, _, rest = str(name).partition(":")
        if prefix == _PREFIX and ":" in rest:
            what, _, figure = rest.rpartition(":")
            groups.setdefault(what, {})[figure] = value
    for what, figures in groups.items():
        if "peak_bytes" not in figures:
            continue
        roles = {name.removesuffix(_OWN): int(size) for name, size in figures.items() if name.endswith(_OWN)}
        phase, limit = str(figures.get("peak_phase", "")), str(figures.get("limit", ""))
        yield Row(report.nodeid, what, int(figures["peak_bytes"]), phase, roles, limit)


def table(found: Sequence[Row]) -> list[str]:
    """Return the table of the terminal's summary, one line a row."""
    cells = [["peak MiB", "in", "test", "measured", "own peaks of the largest roles, MiB", "limit"]]
    for row in found:
        most = sorted(row.roles.items(), key=lambda item: (-item[1], item[0]))[:_ROLES_SHOWN]
        roles = ", ".join(f"{role.replace('_', ' ')} {_mib(size)}" for role, size in most)
        cells.append([_mib(row.peak_bytes), row.phase, row.test, row.what, roles, row.limit])
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return [
        "  ".join(cell.rjust(width) if i == 0 else cell.ljust(width) for i, (cell, width) in enumerate(pairs)).rstrip()
        for pairs in (list(zip(line, widths, strict=True)) for line in cells)
    ]


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.2f}" if size_bytes >= 0.005 * _MIB else "<0.01" if size_bytes else "0"
