"""Ways of predicting side by side: what the first block says alone, the whole chain, and the mean over noise draws.

A record holds its figures of merit by way of predicting (`dbbench.results.record.MetricValue.variant`), and the table
has a column for each way that some record holds: the task is not asked. A family of ways that are numbered, as the
heads of greedy training, stands in the longer list of other metrics; draws of noise are columns, for their number is
the question.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from dbbench.report import text
from dbbench.report.document import Block, Bullets, Cell, Grid, Section, data, figure, name, strong, words
from dbbench.report.run import Configuration, Run
from dbbench.results.frames import final_metric, mean_sd
from dbbench.results.record import MetricValue

TITLE = "Where the figure of merit comes from"
_DRAWS = re.compile(r"draws_(\d+)")
_NUMBERED = re.compile(r".*\d")
_OWN = ""
#: Header and meaning of the ways that need one; a draw's number is put in.
_FIRST, _ENSEMBLE = "first_block", "ensemble"
_HEADERS = {_FIRST: "first block alone", _OWN: "the method's own", _ENSEMBLE: "mean of the heads"}
_OWN_MEANS = (
    f"{strong('The method’s own')}: what it predicts with; for a network cut into blocks, the full chain of them, or "
    "where no chain runs through them, the block that owns the noise level."
)
_MEANINGS = {
    _FIRST: (
        f"{strong('First block alone')}: the same trained network, asked behind its first block; one of recurrent "
        "depth, behind the first application of its core."
    ),
    _ENSEMBLE: f"{strong('Mean of the heads')}: the mean of the distributions of all heads.",
}
_DRAWS_MEAN = (
    f"{strong('N = 1, 4, …')}: the mixture, that is the mean of the softmaxes at the end of the whole Euler chain over "
    "N draws of its starting noise. A mean of distributions is a distribution, which sums to one, so its likelihood is "
    "one by the same rule as any other's."
)
_BOUND = (
    "These are an upper bound (the evidence lower bound of masked diffusion): the bits of the model itself may be "
    "fewer. They compare within this table, by the same rule for each variant, and not with the bits of an "
    "autoregressive model, which are exact."
)


class Figures(NamedTuple):
    """A configuration's figures on the split of its headline: {(metric, way): values over seeds}."""

    configuration: Configuration
    headline: MetricValue
    values: dict[tuple[str, str], list[float]]


def figures_of_ways(run: Run) -> list[Figures]:
    """Return the figures of each configuration that has a headline, in the run's order."""
    found = []
    for configuration in run.configurations:
        headline = next((m for r in configuration.finished if (m := final_metric(r)) is not None), None)
        if headline is None:
            continue
        values: dict[tuple[str, str], list[float]] = {}
        for record in configuration.finished:
            for metric in record.metrics:
                if metric.split == headline.split:
                    values.setdefault((metric.name, metric.variant), []).append(metric.value)
        found.append(Figures(configuration, headline, values))
    return found


def columns_of(figures: Iterable[Figures]) -> list[str]:
    """Return the ways that have a column, in order: the first block, the method's own, draws by number, the others."""
    ways = dict.fromkeys(way for one in figures for metric, way in one.values if metric == one.headline.name)
    draws = sorted((way for way in ways if _DRAWS.fullmatch(way)), key=lambda way: int(way.removeprefix("draws_")))
    named = [way for way in ways if way not in (_FIRST, _OWN) and not _NUMBERED.fullmatch(way)]
    return [*(way for way in (_FIRST, _OWN) if way in ways), *draws, *named]


def side_by_side(run: Run) -> Section | None:
    """Return a table for each headline that has more to it than one number a variant; None where none has."""
    blocks = [block for group in grouped_by_headline(run) for block in _of_headline(group)]
    return Section(TITLE, blocks) if blocks else None


def shown(run: Run) -> set[tuple[str, str]]:
    """Return the (metric, way) of every column of `side_by_side`."""
    found: set[tuple[str, str]] = set()
    for group in grouped_by_headline(run):
        columns, beside = _columns(group)
        found |= {(group[0].headline.name, way) for way in columns} | {(metric, _OWN) for metric in beside}
    return found


def grouped_by_headline(run: Run) -> list[list[Figures]]:
    """Return `figures_of_ways` by the split and name of the headline: one group in most runs."""
    groups: dict[tuple[str, str], list[Figures]] = {}
    for one in figures_of_ways(run):
        groups.setdefault((one.headline.split, one.headline.name), []).append(one)
    return list(groups.values())


def _columns(group: list[Figures]) -> tuple[list[str], list[str]]:
    """Return the ways and the metrics beside the headline that have a column; none where there is one number alone."""
    columns = columns_of(group)
    beside = list(dict.fromkeys(m for one in group for m, way in one.values if not way and m != one.headline.name))
    return (columns, beside) if len(columns) > 1 or beside else ([], [])


def _of_headline(group: list[Figures]) -> list[Block]:
    columns, beside = _columns(group)
    if not columns:
        return []
    headline = group[0].headline
    better = "less" if headline.direction == "lower" else "more"
    lead = f"{strong(data(f'{headline.split} {headline.name}'))}, {data(headline.unit)}, {better} is better"
    seeds = max(len(one.configuration.finished) for one in group)
    lead += "; mean ± sd over n seeds." if seeds > 1 else "; one seed each, so without a deviation."
    header = [
        "variant",
        *map(header_of, columns),
        *(data(f"{m} (own)") for m in beside),
        "samples seen",
        "equal budget",
    ]
    meanings = [_OWN_MEANS, *(_MEANINGS[way] for way in columns if way in _MEANINGS)]
    meanings += [_DRAWS_MEAN] if any(_DRAWS.fullmatch(way) for way in columns) else []
    blocks: list[Block] = [lead, Grid(header, [_row(one, columns, beside, seeds > 1) for one in group])]
    blocks += [Bullets(meanings)] if len(columns) > 1 else []
    return [*blocks, *([_BOUND] if "bound" in headline.unit else [])]


def header_of(way: str) -> str:
    """Return what the column of a way is called, a marked text."""
    draws = _DRAWS.fullmatch(way)
    return f"N = {draws[1]}" if draws else _HEADERS.get(way, data(way))


def _row(one: Figures, columns: list[str], beside: list[str], with_sd: bool) -> list[Cell]:
    row = one.configuration.finished[0].row
    samples, _, _ = mean_sd(record.row.samples for record in one.configuration.finished)
    budget = f"{row.budget.replace('_', ' ')} {text.whole(row.budget_value)}"
    cells = [name(one.configuration.label)]
    wanted = [*((one.headline.name, way) for way in columns), *((metric, _OWN) for metric in beside)]
    for key in wanted:
        mean, sd, n = mean_sd(one.values.get(key, ()))
        cells.append(Cell(text.score_sd(mean, sd, n) if with_sd else text.score(mean), mean))
    return [*cells, figure(text.whole, samples), words(budget)]
