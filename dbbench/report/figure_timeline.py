"""Live bytes over one training step, by role, with the phases behind them and the peak marked.

`draw` shows a run, a panel a method; `draw_step` one step alone, at a size that can be read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from dbbench.errors import BadInput
from dbbench.report import text
from dbbench.report.figure_style import (
    DOUBLE_COLUMN_INCHES,
    MIB,
    SINGLE_COLUMN_INCHES,
    NothingToDraw,
    blank,
    height_inches,
    legend_below,
    shortened,
    swatch,
    width_points,
    wrapped,
)
from dbbench.report.palette import PHASE_TINTS, ROLE_FILLS, ROLE_NAMES
from dbbench.report.run import Run
from dbbench.results.holdings import training_steps
from dbbench.results.record import Record
from dbbench.results.roles import PHASES, ROLES

_PANELS = 6
_PANEL_INCHES = 1.55
_STEP_INCHES = 2.9
_LEFT_INCHES = 0.52
_BINS = 250


@dataclass(frozen=True)
class Step:
    """One traced step replayed: ``live`` is [events + 1, roles] in bytes, row 0 what was resident before it.

    ``place_at_peak`` is the op of the event that reached the peak and the module of what it made, '' at the opening.
    """

    live: np.ndarray
    phases: list[str]
    place_at_peak: str = ""

    @property
    def total(self) -> np.ndarray:
        return self.live.sum(axis=1)

    @property
    def peak_event(self) -> int:
        return int(self.total.argmax())


def replay(trace: pd.DataFrame) -> Step:
    """Return the step of a trace that holds the peak (the first on ties); inference is no training step."""
    steps = [_replay_step(step) for step in training_steps(trace)]
    if not steps:
        raise NothingToDraw("a trace holds no training step")
    return max(steps, key=lambda step: step.total.max())


def _replay_step(rows: pd.DataFrame) -> Step:
    resident = (rows["phase"] == "resident").to_numpy()
    column = {role: i for i, role in enumerate(ROLES)}
    roles = rows["role"].astype(str).map(lambda role: column.get(role, column["other"])).to_numpy()
    sizes = rows["bytes"].to_numpy(dtype=np.int64)
    changes = np.zeros((len(rows), len(ROLES)), dtype=np.int64)
    changes[np.arange(len(rows)), roles] = sizes
    before = changes[resident].sum(axis=0, keepdims=True)
    live = np.concatenate([before, before + changes[~resident].cumsum(axis=0)])
    events = rows[~resident]
    peak_event = int(live.sum(axis=1).argmax())
    place = ""
    if peak_event:
        op, module = (str(events[name].iloc[peak_event - 1]) for name in ("op", "module"))
        place = f"{op} in {module}" if module else op
    return Step(live, events["phase"].astype(str).tolist(), place)


def draw(run: Run, table: pd.DataFrame, width_inches: float = DOUBLE_COLUMN_INCHES) -> Figure:
    """Return small multiples with one scale: the first traced configuration of each method and residency.

    Where the run holds backprop, only what trains the same network is shown; several runs have a share of the panels.
    """
    panels = _chosen(run)
    if not panels:
        raise NothingToDraw("no finished cell left a readable trace")
    narrow = width_inches <= SINGLE_COLUMN_INCHES
    columns = min(len(panels), 2) if narrow or len(panels) in (2, 4) else min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = blank(width_inches, 1.0)
    foot = _legend_inches(figure, [step for _, _, step in panels])
    title, gap = (0.33, 0.5) if narrow else (0.2, 0.37)  # a narrow panel's title takes two lines
    height = foot + rows * _PANEL_INCHES + (rows - 1) * gap + title
    figure.set_size_inches(width_inches, height)
    grid = figure.subplots(
        rows,
        columns,
        sharey=True,
        squeeze=False,
        gridspec_kw={
            "left": _LEFT_INCHES / width_inches,
            "right": 1 - 0.07 / width_inches,
            "bottom": foot / height,
            "top": 1 - title / height,
            "hspace": gap / _PANEL_INCHES,
            "wspace": 0.08,
        },
    )
    ceiling = max(float(step.total.max()) for _, _, step in panels) / MIB * 1.22
    for axes, (label, record, step) in zip(grid.flat, panels, strict=False):
        axes.set_ylim(0, ceiling)
        row = record.row
        block = f" (block {row.peak_block})" if (row.blocks or 1) > 1 and row.peak_block is not None else ""
        _panel(figure, axes, label + block, step, title_lines=2 if narrow else 1)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    _name_axes(figure, foot, height)
    return figure


def draw_step(
    frame: pd.DataFrame, title: str = "", at_peak: str = "", width_inches: float = DOUBLE_COLUMN_INCHES
) -> Figure:
    """Return the timeline of the step of a classified frame that holds the peak (the first on ties).

    ``at_peak`` is what ran then, such as ``aten.mm in layers.3``; by default the maker of what was allocated last.
    Raises NothingToDraw where the frame holds no training step.
    """
    step = replay(frame)
    figure = blank(width_inches, 1.0)
    foot = _legend_inches(figure, [step])
    tall = _STEP_INCHES if width_inches > SINGLE_COLUMN_INCHES else _STEP_INCHES * 0.7
    height = foot + tall + 0.3
    figure.set_size_inches(width_inches, height)
    left, right = _LEFT_INCHES / width_inches, 1 - 0.24 / width_inches  # room for half of the last tick's label
    axes = figure.add_axes((left, foot / height, right - left, tall / height))
    axes.set_ylim(0, max(float(step.total.max()) / MIB, 1e-6) * 1.22)
    _panel(figure, axes, title, step, at_peak or step.place_at_peak)
    _name_axes(figure, foot, height)
    return figure


def _legend_inches(figure: Figure, steps: list[Step]) -> float:
    """Put the roles and phases that the steps have at the foot of a figure; return the room below the panels."""
    present = np.concatenate([step.live.max(axis=0, keepdims=True) for step in steps]).max(axis=0)
    handles = [swatch(ROLE_FILLS[role], ROLE_NAMES[role]) for role, most in zip(ROLES, present, strict=True) if most]
    phases = {phase for step in steps for phase in step.phases}
    handles += [
        Patch(facecolor=PHASE_TINTS[phase], edgecolor="#999999", linewidth=0.4, label=f"phase: {phase}")
        for phase in PHASES
        if phase in phases
    ]
    if not handles:
        raise NothingToDraw("the step neither held nor made a byte")
    return height_inches(figure, legend_below(figure, handles, 72 * (figure.get_size_inches()[0] - 0.1))) + 0.45


def _name_axes(figure: Figure, foot: float, height: float) -> None:
    figure.supylabel(
        "live tensor bytes (MiB)",
        x=0.028 / figure.get_size_inches()[0],
        y=(foot / height + 1) / 2,
        fontsize="medium",
        va="center",
    )
    figure.supxlabel("allocations and frees of one training step, in order", y=(foot - 0.4) / height, fontsize="medium")


def _chosen(run: Run) -> list[tuple[str, Record, Step]]:
    found: list[tuple[str, Record, Step]] = []
    seen: set[tuple[int, str, str, str | None]] = set()
    comparable = [c for c in run.configurations if run.reference(c) is not None] or run.configurations
    quota = max(1, _PANELS // len({id(c.folder) for c in comparable}))
    taken: Counter[int] = Counter()
    for configuration in comparable:
        record = configuration.costliest
        if record is None or len(found) == _PANELS:
            continue
        kind = (id(configuration.folder), record.row.network, record.row.method, record.row.residency)
        if kind in seen or taken[id(configuration.folder)] == quota:
            continue
        try:
            trace = configuration.folder.read_trace(record.row.config_hash)
            step = replay(trace) if trace is not None else None
        except (BadInput, NothingToDraw):
            continue  # the summary lists torn files among its problems
        if step is not None:
            seen.add(kind)
            taken[id(configuration.folder)] += 1
            found.append((configuration.label, record, step))
    return found


def _panel(figure: Figure, axes: Axes, title: str, step: Step, at_peak: str = "", title_lines: int = 1) -> None:
    events = len(step.phases)
    starts = [0] + [i for i, (one, two) in enumerate(pairwise(step.phases), 1) if one != two] + [events]
    for start, end in pairwise(starts):
        axes.axvspan(start, end, color=PHASE_TINTS.get(step.phases[start], "white"), linewidth=0, zorder=0)
    kept = _kept(step.total)
    floor = np.zeros(len(kept))
    for i, role in enumerate(ROLES):
        size = step.live[kept, i] / MIB
        if size.any():
            fill = ROLE_FILLS[role]
            axes.fill_between(
                kept,
                floor,
                floor + size,
                step="post",
                facecolor=fill.color,
                hatch=fill.hatch,
                edgecolor="#333333",
                linewidth=0,
                zorder=2,
            )
            floor = floor + size
    x, peak = step.peak_event, float(step.total.max())
    axes.plot(x, peak / MIB, marker="v", color="black", markersize=3.5, zorder=3, clip_on=False)
    phase = step.phases[x - 1] if x else "before the step"
    width = axes.get_window_extent(figure.canvas.get_renderer()).width * 72 / figure.dpi  # type: ignore[attr-defined]
    words = f"{text.mib(peak)} MiB, {phase}"
    if at_peak:
        words += f"\n{shortened(figure, text.printable(at_peak), width / 2)}"
    half, middle = width_points(figure, words) / 2, width * x / max(events, 1)
    aside = min(max(middle, half), max(width - half, half)) - middle  # keeps the words over their panel
    axes.annotate(
        words,
        (x, peak / MIB),
        xytext=(aside, 4),
        textcoords="offset points",
        ha="center",
        va="bottom",
        zorder=4,
    )
    axes.set_xlim(0, max(events, 1))
    axes.set_title(wrapped(figure, text.printable(title), width, title_lines), loc="left", pad=3, linespacing=1.0)
    axes.locator_params(axis="x", nbins=4 if title_lines == 1 else 3)


def _kept(total: np.ndarray) -> np.ndarray:
    """Return the events to draw: of each bin its highest and its last, so that no peak is lost to thinning."""
    if len(total) <= 2 * _BINS:
        return np.arange(len(total))
    edges = np.linspace(0, len(total), _BINS + 1).astype(int)
    highest = [start + int(total[start:end].argmax()) for start, end in pairwise(edges)]
    return np.unique(np.concatenate([[0], highest, edges[1:] - 1]))
