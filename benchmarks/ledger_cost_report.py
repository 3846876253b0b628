"""What `benchmarks.ledger_cost` measured, as a page and a figure."""

from __future__ import annotations

import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from matplotlib.ticker import NullFormatter

from dbbench.report import figure_style

#: A tool whose step would take longer than this sits out the larger chains.
STEP_LIMIT_SECONDS = 60.0
#: Growth is fitted from here on: below, the noise of what a tool costs once is as large as what its ops cost.
LARGE_OPS = 1_000
PLAIN, LEDGER, FLOPS, MEMORY = "plain step", "ledger", "FlopCounterMode", "MemTracker"
STYLES = {LEDGER: ("#0072B2", "o", "-"), FLOPS: ("#888888", "s", ":"), MEMORY: ("#D55E00", "D", "--")}
OPENING = "opening and closing"
HEADER = """\
# What the ledger costs

Made by `python -m benchmarks.ledger_cost`. One process, one thread, torch {torch}, Python {python}; the tools take
turns on the same model, round after round, and every figure is a median over the rounds, every ratio a median of the
rounds' ratios. A tool's time is opening it, the traced step, closing it and its figures: for the ledger the peak, its
split and what is held by role, module, op and holder.

- *whole*: that time over the ops which the step dispatches;
- *once*: of that, opening and closing (the ledger looks at what variables lead to, and hooks every parameter);
- *an op*: (whole time − once − the plain step) over the ops.
"""
LINE = """\
## A line through the chains

(Whole time − the plain step) = fixed + slope × ops, by least squares of the relative error. Where the exponent, fitted
from {large:,} ops on, is not 1 the line is a poor one.
"""


@dataclass
class Timed:
    """One model's rounds, by tool and in round order: seconds in all, and of those the seconds of opening and closing.

    ``parts`` splits the ledger's.
    """

    name: str
    ops: int
    seconds: dict[str, list[float]]
    opening: dict[str, list[float]]
    parts: dict[str, list[float]] = field(default_factory=dict)

    def an_op(self, tool: str) -> list[float]:
        """Return (with ``tool`` - its opening and closing - the plain step) / ops of each round, in µs."""
        rounds = zip(self.seconds[tool], self.opening[tool], self.seconds[PLAIN], strict=True)
        return [1e6 * (ours - once - plain) / self.ops for ours, once, plain in rounds]

    def whole(self, tool: str) -> list[float]:
        """Return (with ``tool``) / ops of each round, in µs: the step itself and what the tool costs once included."""
        return [1e6 * seconds / self.ops for seconds in self.seconds[tool]]

    def once(self, tool: str) -> float:
        """Return the median of what it takes to open and close ``tool``, in ms."""
        return 1e3 * statistics.median(self.opening[tool])


def median_ratio(theirs: list[float], ours: list[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def growth_exponent(found: list[Timed], tool: str) -> float | None:
    """Return the least-squares slope of log(µs an op × ops) on log(ops) over the larger chains; None for one chain."""
    large = [timed for timed in found if tool in timed.seconds and timed.ops >= LARGE_OPS]
    points = [(timed.ops, statistics.median(timed.an_op(tool)) * timed.ops) for timed in large]
    if len(points) < 2:
        return None
    logs = np.log(np.array(points))
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def fixed_and_slope(found: list[Timed], tool: str) -> tuple[float, float] | None:
    """Return (ms a step, µs an op) of added = fixed + slope × ops, by least squares of the relative error."""
    points = []
    for timed in found:
        if tool in timed.seconds:
            pairs = zip(timed.seconds[tool], timed.seconds[PLAIN], strict=True)
            points.append((timed.ops, statistics.median(ours - plain for ours, plain in pairs)))
    if len(points) < 2:
        return None
    ops, added = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    slope, fixed = np.polyfit(ops, added, 1, w=1 / added)
    return float(fixed) * 1e3, float(slope) * 1e6


def draw(chains: list[Timed], others: list[Timed], stem: Path) -> None:
    """Draw µs an op over the number of ops: a line a tool for the chains, a hollow mark for each transformer."""
    with figure_style.page():
        figure = figure_style.blank(figure_style.SINGLE_COLUMN_INCHES, 2.5)
        axes = figure.add_axes((0.17, 0.17, 0.8, 0.75))
        for tool, (color, marker, dash) in STYLES.items():
            line = [(t.ops, statistics.median(t.an_op(tool))) for t in chains if tool in t.seconds]
            axes.plot(*zip(*line, strict=True), color=color, marker=marker, linestyle=dash, markersize=3.5, label=tool)
            single = [(t.ops, statistics.median(t.an_op(tool))) for t in others if tool in t.seconds]
            axes.plot(*zip(*single, strict=True), color=color, marker=marker, linestyle="", markersize=4.5, mfc="white")
        axes.set(xscale="log", yscale="log", xlabel="ops dispatched in a training step", ylabel="µs an op")
        bottom, top = axes.get_ylim()
        axes.set_ylim(min(bottom, 10), max(top, 1000))
        axes.set_title("chains of (Linear, ReLU); hollow: transformers", loc="left", color="#555555")
        for axis in (axes.xaxis, axes.yaxis):  # the page sets no mathematics, which the default 10² would need
            axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axis.set_minor_formatter(NullFormatter())
        axes.legend(loc="best")
        figure_style.light_grid(axes, "both")
        figure_style.save(figure, stem)


def _rows(found: list[Timed]) -> list[str]:
    rows = []
    for timed in found:
        cells = [f"{statistics.median(timed.an_op(tool)):,.1f}" if tool in timed.seconds else "–" for tool in STYLES]
        cells += [f"{timed.once(tool):,.1f}" if tool in timed.seconds else "–" for tool in STYLES]
        cells += [
            f"{statistics.median(timed.whole(tool)):,.1f}" if tool in timed.seconds else "–"
            for tool in (PLAIN, *STYLES)
        ]
        both = [timed.an_op, timed.whole] if {MEMORY, LEDGER} <= timed.seconds.keys() else []
        cells += [f"**{median_ratio(figure(MEMORY), figure(LEDGER)):.1f}**" for figure in both] or ["–", "–"]
        cells.append(str(len(timed.seconds[PLAIN])))
        rows.append(f"| {timed.name} | {timed.ops:,} | {' | '.join(cells)} |")
    return rows


def verdicts(chains: list[Timed], others: list[Timed]) -> list[str]:
    """Say of both claims whether they hold, from the figures in the table."""
    both = [timed for timed in chains + others if MEMORY in timed.seconds]
    cheaper = {timed.name: median_ratio(timed.an_op(MEMORY), timed.an_op(LEDGER)) for timed in both}
    whole = {timed.name: median_ratio(timed.whole(MEMORY), timed.whole(LEDGER)) for timed in both}
    least, least_whole = min(cheaper, key=cheaper.__getitem__), min(whole, key=whole.__getitem__)
    lines = [
        f"- **At least 4 times cheaper an op than MemTracker, attribution included: "
        f"{'holds' if cheaper[least] >= 4 else 'does not hold'}.** {cheaper[least]:.1f} times at least ({least}), "
        f"{max(cheaper.values()):.1f} at most, over {len(both)} models. By the whole time, with what each costs once "
        f"and the step itself: {whole[least_whole]:.1f} times at least ({least_whole}), {max(whole.values()):.1f} at "
        f"most. Larger chains are left out where a step under MemTracker would take more than "
        f"{STEP_LIMIT_SECONDS:.0f} s."
    ]
    exponent, most = growth_exponent(chains, LEDGER), max(t.ops for t in chains if LEDGER in t.seconds)
    if exponent is not None:
        lines.append(
            f"- **Linear in the number of ops, up to {most:,}: {'holds' if exponent <= 1.1 else 'does not hold'}.** "
            f"The time of all ops grows as ops^{exponent:.2f} (least squares on logarithms from {LARGE_OPS:,} ops on; "
            "1.1 is allowed)."
        )
    memory = growth_exponent(chains, MEMORY)
    if memory is not None:
        lines.append(f"- MemTracker's grows as ops^{memory:.2f} over the chains that it can take.")
    return lines


def report(chains: list[Timed], others: list[Timed]) -> str:
    """Return the page: verdicts, the table, the fixed cost and the slope, and where the ledger's time goes."""
    names = " | ".join(STYLES)
    lines = [
        HEADER.format(torch=torch.__version__, python=platform.python_version()),
        *verdicts(chains, others),
        "",
        "![µs an op over the number of ops](cost.png)",
        "",
        f"| model | ops | µs an op: {names} | once, ms: {names} | whole, µs an op: plain step | {names} "
        "| MemTracker ÷ ledger: an op | whole | rounds |",
        "|---|" + "--:|" * 14,
        *_rows(chains + others),
        "",
        LINE.format(large=LARGE_OPS),
        "| tool | fixed, ms a step | slope, µs an op | an op's time × ops grows as ops^ |",
        "|---|--:|--:|--:|",
    ]
    for tool in STYLES:
        fit = fixed_and_slope(chains, tool)
        exponent = growth_exponent(chains, tool)
        if fit is not None:
            lines.append(f"| {tool} | {fit[0]:.1f} | {fit[1]:.1f} | {'–' if exponent is None else f'{exponent:.2f}'} |")
    lines += [
        "",
        "## Where the ledger's time goes",
        "",
        "µs an op, the plain step included in the traced one.",
        "",
        "| model | opening and closing | the step, traced | account and table |",
        "|---|--:|--:|--:|",
    ]
    for timed in chains + others:
        if timed.parts:
            cells = " | ".join(f"{1e6 * statistics.median(s) / timed.ops:.1f}" for s in timed.parts.values())
            lines.append(f"| {timed.name} | {cells} |")
    return "\n".join(lines) + "\n"
