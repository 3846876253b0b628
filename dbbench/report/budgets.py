"""What was made equal, and what that leaves unequal: under several budgets a table for each, so that it can be read
which claim holds under which.

A table holds the variants that spent the same of one measure, whichever of them it was the budget of: a variant that
had layer updates for its budget belongs beside those that had samples, if it saw as many.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd

from dbbench.report import tables, text
from dbbench.report.document import Block, Cell, Grid, Section, codes, data, figure, name, strong, words
from dbbench.report.run import Run
from dbbench.report.verdict import gap_to_reference

TITLE = "Budget"
#: Of more budgets than these, as in a grid over them, one table has all.
_MOST = 6
#: FLOPs that differ by no more are near.
_NEAR = 0.1
#: What a training spends, by its column in the comparison, and how it is written.
_SPENT: dict[str, tuple[str, Callable[[Any], str]]] = {
    "layer_updates": ("layer updates", text.whole),
    "samples": ("samples", text.whole),
    "flops": ("FLOPs", text.flops),
    "seconds": ("train time", text.seconds),
}
_COLUMNS = {"flops": "flops_train_total", "seconds": "train_seconds"}


def budget(run: Run, table: pd.DataFrame) -> Section:
    """Return what was made equal, by name, and what that leaves unequal."""
    finished = table[table["status"] == "ok"]
    kinds = sorted({f"{kind.replace('_', ' ')}" for kind in finished["budget"]})
    lead = f"Made equal: {strong(data(', '.join(kinds)))}. The other figures are what that leaves unequal."
    groups = [tuple(pair) for pair in finished[["budget", "budget_value"]].drop_duplicates().to_numpy().tolist()]
    if not 1 < len(groups) <= _MOST:
        if len(kinds) > 1:
            lead += (
                " Variants under different budgets are not comparable at equal cost, and the first column says whose "
            )
            lead += "is which."
        return Section(TITLE, [lead, tables.budget(table)])
    lead += (
        " Each table below has the variants that spent the same of one measure, and a claim about them holds under "
        f"that measure.{_better(finished)}"
    )
    blocks: list[Block] = [lead]
    for kind, value in groups:
        blocks += _group(run, finished, kind, value)
    return Section(TITLE, blocks)


def members(finished: pd.DataFrame, kind: str, value: float) -> pd.DataFrame:
    """Return the rows that have ``value`` of ``kind`` for their budget, or spent exactly as much of it."""
    own = (finished["budget"] == kind) & (finished["budget_value"] == value)
    if kind == "seconds":  # no two trainings take the same time
        return finished[own]
    spent = (finished[_COLUMNS.get(kind, kind)] == value).fillna(False).astype(bool)
    return finished[own | spent]


def _group(run: Run, finished: pd.DataFrame, kind: str, value: float) -> list[Block]:
    rows = members(finished, kind, value)
    said, write = _SPENT[kind]
    others = [_range(rows, other) for other in _SPENT if other not in (kind, "seconds")]
    unequal = [words for words, differs in others if differs]
    line = strong(f"Equal {said}: {write(value)}.")
    line += f" Unequal: {'; '.join(unequal)}." if unequal else ""
    elsewhere = rows[(rows["budget"] != kind) | (rows["budget_value"] != value)]
    if len(elsewhere):
        had = "had" if len(elsewhere) == 1 else "have"
        line += f" {codes(elsewhere['variant'].tolist())} {had} another budget and spent as much of this one."
    if len(rows) == 1:
        line += _nearest(finished, rows.iloc[0])
    return [line, _grid(run, rows)]


def _nearest(finished: pd.DataFrame, row: pd.Series) -> str:
    """Say of a variant that spent what no other did which come near it in FLOPs."""
    lead, flops = " No other variant spent as much of it", finished["flops_train_total"].astype("Float64")
    near = ((flops - row["flops_train_total"]).abs() <= _NEAR * flops).fillna(False).astype(bool)
    who = [label for label in finished.loc[near, "variant"] if label != row["variant"]]
    return f"{lead}; within {100 * _NEAR:.0f} % of its FLOPs: {codes(who)}." if who else f"{lead}."


def _better(finished: pd.DataFrame) -> str:
    directions = set(finished["metric_direction"].dropna())
    if len(directions) != 1:
        return ""
    return f" Of {data(tables.metric_name(finished))} {'less' if directions == {'lower'} else 'more'} is better."


def _range(rows: pd.DataFrame, kind: str) -> tuple[str, bool]:
    """Return what the rows spent of ``kind`` in words, and whether that differs between them."""
    said, write = _SPENT[kind]
    uncounted = kind == "flops" and any(map(text.is_lower_bound, rows["uncounted_ops"]))
    flop_words = partial(text.flop_words, uncounted=uncounted)
    said, write = ("", flop_words) if kind == "flops" else (f"{said} ", write)
    values = rows[_COLUMNS.get(kind, kind)].dropna().astype(float)
    if values.empty or values.min() == values.max():
        return "", False
    return f"{said}from {write(values.min())} to {write(values.max())}", True


def _grid(run: Run, rows: pd.DataFrame) -> Grid:
    gaps = {row["variant"]: _gap(run, row, set(rows["variant"])) for _, row in rows.iterrows()}
    compared = any(gap.value is not None for gap in gaps.values())
    header = ["variant", data(tables.metric_name(rows)), *(["difference to backprop"] if compared else [])]
    header += [*(said for said, _ in _SPENT.values()), "own budget"]
    several = (rows["metric_n"] > 1).any()
    grid = []
    for _, row in rows.iterrows():
        own = f"{row['budget'].replace('_', ' ')} {text.whole(row['budget_value'])}"
        mean = row["metric_mean"]
        score = text.score_sd(mean, row["metric_sd"], row["metric_n"]) if several else text.score(mean)
        cells = [name(row["variant"]), Cell(score, None if pd.isna(mean) else mean)]
        cells += [gaps[row["variant"]]] if compared else []
        cells += [figure(write, row[_COLUMNS.get(kind, kind)]) for kind, (_, write) in _SPENT.items()]
        grid.append([*cells, words(own)])
    return Grid(header, grid)


def _gap(run: Run, row: pd.Series, present: set[str]) -> Cell:
    """Return the metric less that of the row's reference, with the test's p, where the reference is in the table."""
    found = gap_to_reference(run, row)
    if found is None or found[0] not in present or found[0] == row["variant"]:
        return Cell(text.MISSING)
    _, gap, test = found
    if not gap and not test:
        return Cell("the same", gap)
    sign = "−" if gap < 0 else "+"
    return Cell(f"{sign}{text.score(abs(gap))}{f' ({text.p_value(test.p)})' if test else ''}", gap)
