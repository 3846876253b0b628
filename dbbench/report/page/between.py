"""Several runs side by side: for each pair that follows one another, what changed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from dbbench.errors import BadInput
from dbbench.report import text
from dbbench.report.document import Block, Bullets, Cell, Grid, Section, data, figure, name, words
from dbbench.report.run import Run

_VERDICTS = ("higher", "lower", "only before", "only after", "within noise", "not measured", "same")


def between(runs: Sequence[Run], names: Sequence[str]) -> list[Section]:
    """Return a section for each consecutive pair of ``runs``; a pair that cannot be compared says why."""
    from dbbench.report.run_comparison import compare_runs

    found = []
    for (before, after), (old, new) in zip(pairwise(runs), pairwise(names), strict=True):
        title = f"From {text.printable(old)} to {text.printable(new)}"
        try:
            comparison = compare_runs(before, after)
        except BadInput as error:
            found.append(Section(title, [f"Not compared: {data(error)}"]))
            continue
        blocks: list[Block] = [_counted(comparison.rows), _grid(comparison.rows)]
        blocks += [Bullets([data(note) for note in comparison.notes])] if comparison.notes else []
        found.append(Section(title, blocks))
    return found


def _counted(rows: Sequence[Any]) -> str:
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in _VERDICTS}
    said = ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items() if count)
    return f"{len(rows):,} figures: {said}. What changed stands first." if rows else "The runs share no configuration."


def _grid(rows: Sequence[Any]) -> Grid:
    rank = {verdict: place for place, verdict in enumerate(_VERDICTS)}
    ordered = sorted(rows, key=lambda row: rank.get(row.verdict, len(rank)))
    header = ["configuration", "metric", "unit", "verdict", "before", "after", "difference"]
    return Grid(header, [_row(row) for row in ordered], left=4)


def _row(row: Any) -> list[Cell]:
    in_mib = row.unit == "bytes"
    plain = text.mib if in_mib else _number
    lead = [name(row.label), words(row.metric), Cell("MiB") if in_mib else words(row.unit), words(row.verdict)]
    return [*lead, figure(plain, row.before), figure(plain, row.after), figure(_signed(in_mib), row.difference)]


def _signed(in_mib: bool) -> Any:
    def written(value: Any) -> str:
        if value is None:
            return text.MISSING
        if value == 0:
            return "0"
        if in_mib:
            return text.signed_mib(value)
        return f"+{_number(value)}" if value > 0 else f"−{_number(-value)}"

    return written


def _number(value: Any) -> str:
    if value is None:
        return text.MISSING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
