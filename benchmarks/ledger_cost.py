"""What the ledger costs an op, beside MemTracker and FlopCounterMode, and whether that stays linear.

    python benchmarks/ledger_cost.py [--out reports/ledger] [--quick]

Chains of (Linear, ReLU) pairs grow until a training step dispatches 100,000 ops; two transformers stand beside them. On
each, the plain step and the step under each tool run in turn, round after round, in one process on one thread, and
every ratio is taken within a round. A tool's time is all that its user waits for: opening, the traced step, closing and
the figures; the ledger's include the peak, its split and what is held by module and op. Opening and closing
is what a tool costs once, whatever the step; the rest, less the plain step, is what it costs an op.
"""

from __future__ import annotations

import argparse
import gc
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import NullFormatter
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dbbench import Ledger
from dbbench.networks.base import InputShape, initialise
from dbbench.networks.vit import ViT
from dbbench.report import figure_style
from dbbench.streams import Streams

CHAINS = (25, 50, 100, 200, 400, 1600, 6250)
QUICK_CHAINS = (25, 50, 100)
WIDTH, ROWS = 16, 8
ROUNDS, QUICK_ROUNDS = 7, 3
FEWEST_ROUNDS = 3
#: A tool whose step would take longer than this sits out the larger chains.
STEP_LIMIT_SECONDS = 60.0
#: Rounds on one model stop after this long, once there are `FEWEST_ROUNDS`.
MODEL_LIMIT_SECONDS = 60.0
#: Growth is fitted from here on: below, the noise of what a tool costs once is as large as what its ops cost.
LARGE_OPS = 1_000
PLAIN, LEDGER, FLOPS, MEMORY = "plain step", "ledger", "FlopCounterMode", "MemTracker"
STYLES = {LEDGER: ("#0072B2", "o", "-"), FLOPS: ("#888888", "s", ":"), MEMORY: ("#D55E00", "D", "--")}


@dataclass(frozen=True)
class Job:
    """A model, its optimizer and one training step of it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Callable[[], None]


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


class CountOps(TorchDispatchMode):
    """Counts the ops that reach the dispatcher."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def _job(model: nn.Module, inputs: Tensor, loss_of: Callable[[Tensor], Tensor]) -> Job:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        loss_of(model(inputs)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Job(model, optimizer, step)


def chain(pairs: int) -> Job:
    """Return ``pairs`` of (Linear, ReLU), small enough that Python is what takes the time."""
    layers = [layer for _ in range(pairs) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    return _job(nn.Sequential(*layers), torch.randn(ROWS, WIDTH), Tensor.sum)


def encoder() -> Job:
    """Return ``torch.nn.TransformerEncoder`` of six layers, width 64, on 4 sequences of 32."""
    layer = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
    return _job(model, torch.randn(4, 32, 64), Tensor.sum)


def vision() -> Job:
    """Return a training step of dbbench's ViT, twelve layers, on 16 images."""
    network = ViT.build("tiny", InputShape(classes=10, channels=1, image_size=28), ViT.Options(), depth=12)
    initialise(network, Streams(0))
    targets = torch.randint(10, (16,))
    return _job(network, torch.randn(16, 1, 28, 28), lambda logits: F.cross_entropy(logits, targets))


OPENING = "opening and closing"


def run_plain(job: Job) -> dict[str, float]:
    began = time.perf_counter()
    job.step()
    return {"the step": time.perf_counter() - began, OPENING: 0.0}


def run_ledger(job: Job) -> dict[str, float]:
    """Trace the step and make its account; the table of what is held at the peak is part of it."""
    began = time.perf_counter()
    with Ledger(job.model, job.optimizer) as ledger:
        opened = time.perf_counter()
        job.step()
        stepped = time.perf_counter()
    closed = time.perf_counter()
    peak = ledger.peak
    assert sum(row.bytes for row in peak.held) == peak.bytes
    return _parts(began, opened, stepped, closed)


def run_flops(job: Job) -> dict[str, float]:
    began = time.perf_counter()
    with FlopCounterMode(display=False) as counter:
        opened = time.perf_counter()
        job.step()
        stepped = time.perf_counter()
    closed = time.perf_counter()
    counter.get_total_flops()
    return _parts(began, opened, stepped, closed)


def run_memory(job: Job) -> dict[str, float]:
    began = time.perf_counter()
    tracker = MemTracker()
    tracker.track_external(job.model, job.optimizer)
    with tracker:
        opened = time.perf_counter()
        job.step()
        stepped = time.perf_counter()
    closed = time.perf_counter()
    assert tracker.get_tracker_snapshot("peak")
    return _parts(began, opened, stepped, closed)


def _parts(began: float, opened: float, stepped: float, closed: float) -> dict[str, float]:
    return {
        OPENING: opened - began + closed - stepped,
        "the step, traced": stepped - opened,
        "account and table": time.perf_counter() - closed,
    }


TOOLS: dict[str, Callable[[Job], dict[str, float]]] = {
    PLAIN: run_plain,
    LEDGER: run_ledger,
    FLOPS: run_flops,
    MEMORY: run_memory,
}


def timed_run(tool: str, job: Job) -> dict[str, float]:
    """Return the seconds of ``job``'s step under ``tool``, in parts."""
    gc.collect()  # what another tool left behind is not this one's to collect
    return TOOLS[tool](job)


def measure(name: str, job: Job, tools: list[str], rounds: int) -> Timed:
    """Run every tool in every round, the order turning by one each time, so that none always follows the same one."""
    for _ in range(2):
        job.step()
    with CountOps() as counted:
        job.step()
    timed = Timed(name, counted.count, {tool: [] for tool in tools}, {tool: [] for tool in tools})
    began = time.perf_counter()
    for number in range(rounds):
        for place in range(len(tools)):
            tool = tools[(number + place) % len(tools)]
            parts = timed_run(tool, job)
            timed.seconds[tool].append(sum(parts.values()))
            timed.opening[tool].append(parts[OPENING])
            if tool == LEDGER:
                for part, value in parts.items():
                    timed.parts.setdefault(part, []).append(value)
        if number + 1 >= FEWEST_ROUNDS and time.perf_counter() - began > MODEL_LIMIT_SECONDS:
            break
    whole = "  ".join(f"{tool} {statistics.median(timed.whole(tool)):9.1f}" for tool in tools)
    print(f"{name:>28} {timed.ops:7,} ops, {len(timed.seconds[PLAIN])} rounds, whole µs an op: {whole}", flush=True)
    return timed


def measure_chains(sizes: tuple[int, ...], rounds: int) -> list[Timed]:
    """Measure the chains from small to large; a tool drops out where its next step would pass the limit."""
    found: list[Timed] = []
    tools = list(TOOLS)
    for place, pairs in enumerate(sizes):
        if place > 1:
            growth = pairs / sizes[place - 1]
            tools = [tool for tool in tools if _forecast(found[-2:], tool, growth) < STEP_LIMIT_SECONDS]
        torch.manual_seed(0)
        found.append(measure(f"{pairs} pairs", chain(pairs), tools, rounds))
    return found


def _forecast(last_two: list[Timed], tool: str, growth: float) -> float:
    """Return the seconds of a step ``growth`` times larger than the last, if it goes on as between the last two."""
    before, last = (statistics.median(timed.seconds[tool]) for timed in last_two)
    exponent = math.log(last / before) / math.log(last_two[1].ops / last_two[0].ops)
    return last * growth ** max(1.0, exponent)


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
        cells += [f"{statistics.median(timed.whole(tool)):,.1f}" if tool in timed.seconds else "–" for tool in TOOLS]
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
        "# What the ledger costs",
        "",
        "Made by `python benchmarks/ledger_cost.py`. One process, one thread, "
        f"torch {torch.__version__}, Python {platform.python_version()}; the tools take turns on the same model, round "
        "after round, and every figure is a median over the rounds, every ratio a median of the rounds' ratios. A "
        "tool's time is opening it, the traced step, closing it and its figures: for the ledger the peak, its split "
        "and the table of what is held by role, module and op.",
        "",
        "- *whole*: that time over the ops which the step dispatches;",
        "- *once*: of that, opening and closing (the ledger runs Python's cycle collector and looks at every object);",
        "- *an op*: (whole time − once − the plain step) over the ops.",
        "",
        *verdicts(chains, others),
        "",
        "![µs an op over the number of ops](cost.png)",
        "",
        f"| model | ops | µs an op: {names} | once, ms: {names} | whole, µs an op: plain step | {names} "
        "| MemTracker ÷ ledger: an op | whole | rounds |",
        "|---|" + "--:|" * 14,
        *_rows(chains + others),
        "",
        "## A line through the chains",
        "",
        "(Whole time − the plain step) = fixed + slope × ops, by least squares of the relative error. Where the "
        f"exponent, fitted from {LARGE_OPS:,} ops on, is not 1 the line is a poor one.",
        "",
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/ledger"), help="folder of cost.md and cost.png")
    parser.add_argument("--quick", action="store_true", help="three small chains, three rounds: does it run?")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sizes, rounds = (QUICK_CHAINS, QUICK_ROUNDS) if given.quick else (CHAINS, ROUNDS)
    chains = measure_chains(sizes, rounds)
    torch.manual_seed(0)
    others = [
        measure(name, job(), list(TOOLS), rounds)
        for name, job in (("TransformerEncoder, 6 layers", encoder), ("ViT, 12 layers", vision))
    ]
    given.out.mkdir(parents=True, exist_ok=True)
    draw(chains, others, given.out / "cost")
    text = report(chains, others)
    (given.out / "cost.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
