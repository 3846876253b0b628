"""Several runs side by side: for each pair that follows one another, what changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from dbbench.errors import BadInput
from dbbench.report import text
from dbbench.report.document import Block, Bullets, Cell, Grid, Section, data, figure, name, words
from dbbench.report.run import Run
from dbbench.report.run_comparison import NOISE, NOTES, SAME, Compared, RunComparison, compare_runs

#: Rows over all the pairs, and of one pair at the least.
_ROWS, _FEWEST = 300, 40
_VERDICTS = ("higher", "lower", "only before", "only after", "not measured", NOISE, SAME)


def between(runs: Sequence[Run], names: Sequence[str]) -> list[Section]:
    """Return a section for each consecutive pair of ``runs``; a pair that cannot be compared says why."""
    found = []
    most = max(_ROWS // max(len(runs) - 1, 1), _FEWEST)
    for (before, after), (old, new) in zip(pairwise(runs), pairwise(names), strict=True):
        title = f"From {text.printable(old)} to {text.printable(new)}"
        try:
            comparison = compare_runs(before, after)
        except BadInput as error:
            found.append(Section(title, [f"Not compared: {data(error)}"]))
            continue
        blocks: list[Block] = [_counted(comparison, most)]
        blocks += [_grid(comparison.changed, most)] if comparison.changed else []
        rest = [row for row in comparison.rows if row.verdict in (NOISE, SAME)]
        blocks += [_grid(rest, most, "What is the same, or differs within noise")] if rest else []
        blocks += [Bullets([data(note) for note in comparison.notes])] if comparison.notes else []
        blocks.append(NOTES)
        found.append(Section(title, blocks))
    return found


def _counted(comparison: RunComparison, most: int) -> str:
    rows, changed = comparison.rows, len(comparison.changed)
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in _VERDICTS}
    said = ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items() if count)
    cut = f" {most:,} of the {changed:,} that changed are listed; the verb compare has all." if changed > most else ""
    return f"{len(rows):,} figures: {said}.{cut}"


def _grid(rows: Sequence[Compared], most: int, folded: str = "") -> Grid:
    rank = {verdict: place for place, verdict in enumerate(_VERDICTS)}
    ordered = sorted(rows, key=lambda row: rank.get(row.verdict, len(rank)))
    header = ["configuration", "metric", "unit", "verdict", "before", "after", "difference"]
    if folded and len(rows) > most:
        folded += f" (the first {most:,} of {len(rows):,})"
    return Grid(header, [_row(row) for row in ordered[:most]], left=4, folded=folded)


def _row(row: Compared) -> list[Cell]:
    unit = Cell("MiB") if row.unit == "bytes" else words(row.unit)
    write = _WRITTEN.get(row.unit, text.score)
    lead = [name(row.label), words(row.metric), unit, words(row.verdict)]
    return [*lead, *(figure(write, value) for value in (row.before, row.after)), _difference(row, write)]


def _difference(row: Compared, write: Callable[[Any], str]) -> Cell:
    """The signed difference; one of bytes that MiB would round away is given in bytes."""
    gap = row.difference
    if not gap:
        return Cell(text.MISSING if gap is None else "0", gap)
    size = f"{abs(gap):,} bytes" if row.unit == "bytes" and abs(gap) < 2**14 else write(abs(gap))
    return Cell(f"{'−' if gap < 0 else '+'}{size}", gap)


_WRITTEN: dict[str, Callable[[Any], str]] = {"bytes": text.mib, "FLOPs": text.flops, "samples/s": text.whole}
