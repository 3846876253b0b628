"""A comparison of two runs as a terminal and a Markdown page show it: what differs first, the rest counted."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from dbbench.report import text
from dbbench.report.run_comparison import NOISE, NOTES, SAME, Compared, RunComparison

_ROWS_PRINTED = 300
_HEADER = ("cell", "figure", "before", "after", "difference", "%", "verdict")
_STYLES = {
    "lower": "green",
    "higher": "yellow",
    "faster": "green",
    "slower": "yellow",
    "only before": "red",
    "only after": "red",
}


def shown_rows(comparison: RunComparison, every: bool) -> list[Compared]:
    """Return what differs, by cell; with ``every`` what does not comes behind it."""
    rest = [row for row in comparison.rows if row.verdict in (SAME, NOISE)] if every else []
    return comparison.changed + rest


def count_of_rest(comparison: RunComparison) -> str:
    """Say how many figures differ, are the same and differ within noise."""
    verdicts = [row.verdict for row in comparison.rows]
    same, noise, changed = verdicts.count(SAME), verdicts.count(NOISE), len(comparison.changed)
    return f"{changed:,} of {len(verdicts):,} figures differ; {same:,} are the same, {noise:,} differ within noise."


def rich_table(comparison: RunComparison, every: bool = False) -> Table:
    """Return the terminal's table, of at most 300 rows."""
    title = f"{text.printable(comparison.before)} → {text.printable(comparison.after)}"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for name in _HEADER:
        left = name in ("cell", "figure", "verdict")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    last = ""
    rows = shown_rows(comparison, every)
    for row in rows[:_ROWS_PRINTED]:
        label = text.printable(row.label) if row.label != last else ""
        last = row.label
        style = _STYLES.get(row.verdict, "")
        table.add_row(Text(label), Text(text.printable(row.metric)), *_cells(row), Text(row.verdict, style=style))
    if len(rows) > _ROWS_PRINTED:
        table.caption = f"{len(rows) - _ROWS_PRINTED:,} more rows; --markdown prints all"
    return table


def markdown(comparison: RunComparison, every: bool = False) -> str:
    """Return a Markdown page: counts, the table, what is said of the two runs, and the rules of the verdicts."""
    rows = [
        [text.code(row.label), text.escaped(row.metric), *_cells(row), row.verdict]
        for row in shown_rows(comparison, every)
    ]
    parts = [f"# {text.escaped(comparison.before)} and {text.escaped(comparison.after)}", count_of_rest(comparison)]
    if rows:
        parts.append(text.markdown_table(list(_HEADER), rows, left=2))
    if comparison.notes:
        parts.append("\n".join(f"- {text.escaped(note)}" for note in comparison.notes))
    return "\n\n".join([*parts, NOTES]) + "\n"


def _cells(row: Compared) -> list[str]:
    return [_figure(row.before, row.unit), _figure(row.after, row.unit), _difference(row), _percent(row)]


def _figure(value: float | int | None, unit: str) -> str:
    if value is None:
        return text.MISSING
    if unit == "bytes":
        return f"{text.mib(value)} MiB" if value else "0"
    if unit == "FLOPs":
        return text.flops(value)
    return text.whole(value) if unit == "samples/s" else text.score(value)


def _difference(row: Compared) -> str:
    """A difference with its sign; a small one of bytes or FLOPs to the last of them."""
    gap = row.difference
    if gap is None:
        return text.MISSING
    if gap == 0:
        return "0"
    sign = "−" if gap < 0 else "+"
    if row.unit == "bytes" and abs(gap) < 2**14:
        return f"{sign}{abs(gap):,} bytes"
    if row.unit == "FLOPs" and abs(gap) < 10_000:
        return f"{sign}{abs(gap):,}"
    if row.unit not in ("bytes", "FLOPs", "samples/s"):
        return f"{sign}{abs(gap):.3g}"
    return sign + _figure(abs(gap), row.unit)


def _percent(row: Compared) -> str:
    if row.difference is None or not row.before:
        return text.MISSING
    share = 100 * row.difference / abs(row.before)
    if share == 0:
        return "0"
    words = f"{abs(share):.1f}" if abs(share) >= 0.05 else "<0.1"
    return ("−" if share < 0 else "+") + words
