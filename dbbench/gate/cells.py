"""What is known of a cell, as a baseline keeps it and as a run or a fake pass measures it: figures, and what was held.

A cell is named ``SUITE/VARIANT``, with ``[network.depth=N]`` behind it where a suite has the variant at several depths.
Its figures, by the name of the metric:

    peak_bytes, <role>_bytes, <role>_own_peak_bytes     a role that has no line holds nothing
    block.N.peak_bytes, block.N.<role>_bytes            the same at the peak of the steps that train block N, where
                                                        there are several
    phase.P.peak_bytes, phase.P.<role>_bytes            the same at the most that is live while phase P runs
    phase.P.temporaries_own_peak_bytes                  temporaries die in their phase: their own peak in this one
    inference_peak_bytes
    kept_bytes                                          of a user's own step: what it leaves alive
    flops_forward, flops_backward, flops_recompute, flops_step, flops_inference
    reserved_bytes                                      fake: simulated; with device_peak_bytes and allocated_bytes on
                                                        a device: the allocator's own
    host_transfer_bytes_per_step                        fake; in a run it depends on the blocks that the seed drew
    test_accuracy, or what else the task calls it       a run's: mean and deviation over seeds
    seconds_per_step                                    a run's, and only where it is asked for
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from dbbench.errors import BadInput
from dbbench.gate.tolerance import DEVICE, EXACT, NOISE, Tolerance
from dbbench.report import unseen
from dbbench.report.run import Configuration, Run
from dbbench.report.verdict import Sample
from dbbench.results.frames import mean_sd
from dbbench.results.holdings import AtPeak, InPhase, held_at_own_peaks, held_at_peak, peaks_of_blocks, peaks_of_phases
from dbbench.results.profile import Profile
from dbbench.results.record import Held, Record, Row, Timing
from dbbench.results.roles import ROLES

#: Where `Cell.held` has what was held at the peak; what a role held at its own peak stands under the role's name.
AT_PEAK = "peak"
#: What `Cell.held` has before the name of a phase: temporaries at their own peak in it.
IN_PHASE = "in_"
SECONDS = "seconds_per_step"
#: What a metric can belong to, in the order that people are shown them.
GROUPS = ("memory", "allocator", "FLOPs", "learning", "time", "blocks", "phases")
_FLOPS = ("flops_forward", "flops_backward", "flops_recompute", "flops_step", "flops_inference")
_ALLOCATORS = ("device_peak_bytes", "allocated_bytes", "reserved_bytes")
#: FLOPs of a step are a mean over the blocks that a seed drew; where these differ in cost, so do the seeds.
_DRAWN = Tolerance("relative", 0.01)


@dataclass(frozen=True)
class Figure:
    """A value, how far it may be off, and of a mean over seeds the deviation and the number of these."""

    value: int | float
    tolerance: Tolerance = EXACT
    sd: float = 0.0
    n: int = 1

    @property
    def sample(self) -> Sample:
        return Sample(self.value, self.sd, self.n)


@dataclass(frozen=True)
class Cell:
    """One cell. ``held`` is by instant: `AT_PEAK`; by role where the role's own peak is more than its bytes there; and
    `IN_PHASE` with a phase.

    ``parts`` has what was held at the peak of each block and phase, by ``block.N`` and ``phase.P``: of a measured cell
    alone, for a baseline would be several times as large. ``blind`` says why blocks, phases and what is held are not
    known: a run's cell without a trace.
    """

    name: str
    source: str
    torch: str
    figures: dict[str, Figure]
    held: dict[str, list[Held]] = field(default_factory=dict)
    blind: str = ""
    parts: dict[str, list[Held]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.name, self.source, self.torch

    def bytes(self, metric: str) -> int:
        """Return a metric in bytes, 0 where there is none of it."""
        figure = self.figures.get(metric)
        return int(figure.value) if figure else 0

    def own_peak(self, role: str) -> list[Held]:
        """Return the lines of a role at its own peak."""
        return self.held.get(role) or self.at_peak(role)

    def at_peak(self, role: str) -> list[Held]:
        """Return the lines of a role at the peak of the whole."""
        return [row for row in self.held.get(AT_PEAK, ()) if row.role == role]


def group_of(metric: str) -> str:
    """Return the one of `GROUPS` that a metric belongs to."""
    if metric.startswith(("block.", "phase.")):
        return f"{metric.partition('.')[0]}s"
    if metric in _ALLOCATORS:
        return "allocator"
    if metric.endswith(("_bytes", "_bytes_per_step")):
        return "memory"
    return "FLOPs" if metric.startswith("flops_") else "time" if metric == SECONDS else "learning"


def cell_name(suite: str, label: str) -> str:
    return f"{suite}/{label}"


def public(torch_version: str) -> str:
    """Return a version without what a build adds: 2.13.0 of 2.13.0+cpu."""
    return torch_version.partition("+")[0]


def cell_of(name: str, record: Record, frame: pd.DataFrame | None) -> Cell:
    """Return what a finished ``record`` and its classified ``frame`` say of bytes and FLOPs.

    Raises BadInput where the two are not of one step.
    """
    row, device = record.row, record.row.device
    exact = device in ("cpu", "fake")
    figures = {metric: Figure(value) for metric, value in _bytes(row) if value or not _is_role(metric)}
    figures |= {metric: Figure(value) for metric in _FLOPS if (value := getattr(row, metric)) is not None}
    if row.source == "fake" and row.host_transfer_bytes_per_step is not None:
        figures["host_transfer_bytes_per_step"] = Figure(row.host_transfer_bytes_per_step)
    held: dict[str, list[Held]] = {AT_PEAK: record.held_at_peak}
    parts: dict[str, list[Held]] = {}
    blind = "" if frame is not None else "the run has no trace of it"
    if frame is not None:
        held = _holdings(name, row, frame)
        blocks, inside = peaks_of_blocks(frame), peaks_of_phases(frame)
        parts |= {f"block.{block}": peak.held for block, peak in blocks.items()}
        parts |= {f"phase.{phase}": peak.held for phase, peak in inside.items()}
        figures |= _of_blocks(blocks)
        figures |= _of_phases(inside)
        held |= {f"{IN_PHASE}{phase}": peak.temporaries for phase, peak in inside.items()}
    if not exact:
        figures = {metric: _on_device(metric, figure, row) for metric, figure in figures.items()}
    return Cell(name, device, public(row.torch_version), figures, held, blind, parts)


def is_own_step(name: str) -> bool:
    """Whether a cell is a user's own step, which is named as it is written; no suite's cell has a colon."""
    return ":" in name


def cell_of_profile(name: str, profile: Profile, frame: pd.DataFrame) -> Cell:
    """Return what a ``profile`` and its classified ``frame`` say of bytes and FLOPs, a step's FLOPs as a mean."""
    figures = {"peak_bytes": Figure(profile.peak_bytes), "kept_bytes": Figure(profile.kept_bytes)}
    figures |= {f"{role}_bytes": Figure(size) for role, size in profile.split.items() if size}
    figures |= {f"{role}_own_peak_bytes": Figure(size) for role, size in profile.own_peaks.items() if size}
    flops = {f"flops_{phase}": number for phase, number in profile.flops_per_step.items()}
    flops["flops_step"] = sum(flops.values())
    figures |= {metric: Figure(number) for metric, number in flops.items() if metric in _FLOPS}
    allocators = {key: getattr(profile.device_figures, key) for key in _ALLOCATORS} if profile.device_figures else {}
    exact = profile.source in ("cpu", "fake")
    held = {AT_PEAK: profile.held} | _elsewhere(frame, Counter(profile.split))
    inside = peaks_of_phases(frame)
    figures |= _of_phases(inside)
    held |= {f"{IN_PHASE}{phase}": peak.temporaries for phase, peak in inside.items()}
    if not exact:
        near = {m: f for m, f in figures.items() if group_of(m) != "FLOPs"}
        figures |= {metric: Figure(figure.value, DEVICE) for metric, figure in near.items()}
    if profile.source == "fake" or not exact:
        within = EXACT if exact else DEVICE
        figures |= {metric: Figure(value, within) for metric, value in allocators.items() if value is not None}
    parts = {f"phase.{phase}": peak.held for phase, peak in inside.items()}
    source = profile.source if exact else profile.device
    return Cell(name, source, public(profile.torch_version), figures, held, "", parts)


def cells_of_run(run: Run, with_seconds: bool = False) -> tuple[list[Cell], dict[str, str], list[str]]:
    """Return a run's cells, seeds merged; what failed and why, by the cell's name; and notes.

    Bytes are of the costliest seed, as in a report; FLOPs of the first; what is learnt is over the seeds. A cell of
    which one seed failed is there with the others.
    """
    cells: list[Cell] = []
    failed: dict[str, str] = {}
    notes = list(run.problems)
    for configuration in run.configurations:
        name = cell_name(configuration.records[0].row.suite, configuration.label)
        for record in configuration.records:
            if record.row.status != "ok":
                why = f": {record.row.error}" if record.row.error else ""
                failed[name] = f"seed {record.row.seed} {record.row.status.replace('_', ' ')}{why}"
        if configuration.costliest is None:
            continue
        notes += [f"{name}: {line}" for line in notes_of(configuration.costliest.row)]
        if blind := unseen_of(configuration.costliest.row):
            failed[name] = blind
            continue
        try:
            cell = _with_seeds(cell_of(name, configuration.costliest, _trace(run, configuration)), configuration)
        except BadInput as error:  # a torn trace costs its own cell
            failed[name] = str(error)
            continue
        timing = run.timings.get(configuration.label)
        if with_seconds and timing is None:
            notes.append(f"{name}: the run has no timing of it")
        cells.append(_with_time(cell, timing) if with_seconds and timing else cell)
    for label in run.without_record:
        failed[cell_name(run.name, label.partition(" · ")[0])] = f"{label} left no record that can be read"
    return cells, failed, notes


def unseen_of(row: Row) -> str:
    """Say why no figure of a cell can be vouched for: the ledger could not see all of its work. '' where it could."""
    return "; ".join(unseen.blind_spots(row.unseen_own_peak_bytes, unmeasured_of(row)))


def notes_of(row: Row) -> list[str]:
    """Return what a reader of a cell's figures has to know of them."""
    ops = ", ".join(json.loads(row.uncounted_ops)) if row.uncounted_ops else ""
    lower = [f"FLOPs are a lower bound (≥): no formula for {ops}"] if ops else []
    return [*unseen.notes(unmeasured_of(row)), *lower]


def unmeasured_of(row: Row) -> dict[str, int]:
    """Return the work of a cell that was not measured: times by kind."""
    return dict(json.loads(row.unmeasured_work)) if row.unmeasured_work else {}


def _bytes(row: Row) -> list[tuple[str, int]]:
    names = ["peak_bytes", *(f"{role}_bytes" for role in ROLES), *(f"{role}_own_peak_bytes" for role in ROLES)]
    found = [(name, getattr(row, name)) for name in [*names, "inference_peak_bytes", *_ALLOCATORS]]
    return [(name, value) for name, value in found if value is not None]


def _is_role(metric: str) -> bool:
    """Whether it is the bytes of a role, of which there may be none."""
    role = metric.rpartition(".")[2].removesuffix("_bytes").removesuffix("_own_peak")
    return role in ROLES and metric.endswith("_bytes")


def counts_as_zero(metric: str) -> bool:
    """Whether a missing line means 0: a role that is not there, a block or a phase."""
    return _is_role(metric) or group_of(metric) in ("blocks", "phases")


def _holdings(name: str, row: Row, frame: pd.DataFrame) -> dict[str, list[Held]]:
    peak = held_at_peak(frame)
    if peak.total_bytes != row.peak_bytes:
        raise BadInput(f"{name}: its trace rises to {peak.total_bytes} bytes, its record's peak is {row.peak_bytes}")
    return {AT_PEAK: peak.held} | _elsewhere(frame, _split(peak.held))


def _elsewhere(frame: pd.DataFrame, split: Counter[str]) -> dict[str, list[Held]]:
    """Return what is held at the roles' own peaks, of those that are more than at the peak of the whole."""
    own = held_at_own_peaks(frame)
    return {role: rows for role, rows in own.items() if sum(line.bytes for line in rows) != split[role]}


def _of_blocks(peaks: Mapping[int, AtPeak]) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    for block, peak in peaks.items() if len(peaks) > 1 else ():
        found[f"block.{block}.peak_bytes"] = Figure(peak.total_bytes)
        found |= {f"block.{block}.{role}_bytes": Figure(size) for role, size in _split(peak.held).items()}
    return found


def _of_phases(inside: Mapping[str, InPhase]) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    for phase, peak in inside.items():
        found[f"phase.{phase}.peak_bytes"] = Figure(peak.total_bytes)
        found |= {f"phase.{phase}.{role}_bytes": Figure(size) for role, size in peak.split.items()}
        own = sum(line.bytes for line in peak.temporaries)
        found |= {f"phase.{phase}.temporaries_own_peak_bytes": Figure(own)} if own else {}
    return found


def _split(held: Sequence[Held]) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for line in held:
        sizes[line.role] += line.bytes
    return sizes


def _on_device(metric: str, figure: Figure, row: Row) -> Figure:
    """Return the figure with a device's tolerance: of its peaks 1 %, and for a role as many bytes."""
    if group_of(metric) == "FLOPs":
        return figure
    if _is_role(metric):
        return Figure(figure.value, Tolerance("absolute", round(DEVICE.amount * (row.peak_bytes or 0))))
    return Figure(figure.value, DEVICE)


def _trace(run: Run, configuration: Configuration) -> pd.DataFrame | None:
    assert configuration.costliest is not None
    return run.folder.read_trace(configuration.costliest.row.config_hash)


def _with_seeds(cell: Cell, configuration: Configuration) -> Cell:
    """Add what several seeds say together."""
    rows = [record.row for record in configuration.finished]
    figures = dict(cell.figures)
    for metric in _FLOPS:
        if metric in figures:
            drawn = len({getattr(row, metric) for row in rows}) > 1
            figures[metric] = Figure(getattr(rows[0], metric), _DRAWN if drawn else EXACT)
    names = {row.metric for row in rows if row.metric is not None and row.metric_value is not None}
    for name in sorted(names):
        mean, sd, n = mean_sd(row.metric_value for row in rows if row.metric == name)
        if mean is not None and math.isfinite(mean):
            figures[name] = Figure(mean, NOISE, sd or 0.0, n)
    return _replaced(cell, figures)


def _with_time(cell: Cell, timing: Timing) -> Cell:
    return _replaced(cell, {**cell.figures, SECONDS: Figure(statistics.median(timing.seconds_per_step))})


def _replaced(cell: Cell, figures: Mapping[str, Figure]) -> Cell:
    return replace(cell, figures=dict(figures))
