"""Holds measured cells against a baseline: every figure within its tolerance, either way, and nothing left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dbbench.gate.baseline import Baseline, figure_line
from dbbench.gate.cells import SECONDS, Cell, Figure, counts_as_zero, group_of, is_own_step
from dbbench.gate.culprit import causes
from dbbench.gate.result import (
    FINE,
    NOTHING_COMPARED,
    OF_OUTCOME,
    CellResult,
    Finding,
    Outcome,
    Result,
    Verdict,
)
from dbbench.gate.tolerance import OFF, Tolerance, judge
from dbbench.report.verdict import Sample

#: How it begins that a block or phase is there before or after alone; its peak, or its scratch, says that already.
ONE_SIDED = "only one side has"
_BYTES = ("memory", "blocks", "phases", "allocator")


@dataclass(frozen=True)
class Measurement:
    """What was measured: ``cells``, and by name why others ``failed``.

    ``what`` names it in messages; ``update`` is the command that writes it into the baseline. ``suites`` and
    ``sources`` are those that it speaks of: cells of the baseline in others are none of its business. Where it is not
    ``whole`` (a part was asked for) it speaks of its own cells alone. ``own_steps``: it is of people's own steps.
    """

    what: str
    cells: Sequence[Cell]
    failed: dict[str, str]
    suites: set[str]
    sources: set[str]
    update: str = ""
    whole: bool = True
    notes: Sequence[str] = field(default_factory=tuple)
    own_steps: bool = False

    def speaks_of(self, name: str, source: str) -> bool:
        """Whether a cell of a baseline that it has not would have to be in it."""
        mine = is_own_step(name) if self.own_steps else name.partition("/")[0] in self.suites
        return self.whole and source in self.sources and mine


def check(baseline: Baseline, measurement: Measurement, seconds: Tolerance = OFF) -> Result:
    """Compare. ``seconds`` is the tolerance of time; what the baseline says of it is not asked.

    ``Result.status`` is the lowest of all that apply.
    """
    tests = _tests(baseline, measurement.cells)
    results = [_cell(baseline, cell, seconds, tests) for cell in measurement.cells]
    source = ", ".join(sorted(measurement.sources))
    results += [
        CellResult(cell=n, source=source, outcome="failed", reason=why) for n, why in measurement.failed.items()
    ]
    known = {(cell.name, cell.source) for cell in measurement.cells}
    for name, where in sorted(baseline.present - known):
        if measurement.speaks_of(name, where) and name not in measurement.failed:
            reason = f"{measurement.what} has no such cell; --update --prune takes it out of the baseline"
            results.append(CellResult(cell=name, source=where, outcome="missing from the run", reason=reason))
    statuses = {OF_OUTCOME[result.outcome] for result in results if result.outcome in OF_OUTCOME}
    if not any(result.compared for result in results):
        statuses.add(NOTHING_COMPARED)
    return Result(
        baseline=str(baseline.path),
        measured=measurement.what,
        torch=sorted({cell.torch for cell in measurement.cells}),
        update=measurement.update,
        cells=sorted(results, key=lambda result: (result.cell, result.source)),
        notes=list(measurement.notes),
        statuses=sorted(statuses) or [FINE],
        status=min(statuses, default=FINE),
    )


def _tests(baseline: Baseline, cells: Sequence[Cell]) -> int:
    """Return how many means over seeds share the level of the test."""
    pairs = [(baseline.cells[cell.key], cell) for cell in cells if cell.key in baseline.cells]
    return sum(
        figure.tolerance.kind == "noise" and figure.n > 1 and metric in cell.figures and cell.figures[metric].n > 1
        for expected, cell in pairs
        for metric, figure in expected.figures.items()
    )


def _cell(baseline: Baseline, cell: Cell, seconds: Tolerance, tests: int) -> CellResult:
    expected = baseline.cells.get(cell.key)
    if expected is None:
        return _unknown(baseline, cell)
    metrics = sorted(expected.figures.keys() | cell.figures.keys())
    findings = [_finding(baseline, expected, cell, metric, seconds, tests) for metric in metrics]
    result = CellResult(cell=cell.name, source=cell.source, outcome="same", findings=findings)
    if cell.blind:
        result.notes.append(f"{cell.blind}, so blocks, phases and modules are not compared")
    if not result.compared:
        result.outcome = "not compared"
    if result.changed:
        result.outcome = "changed"
        if any(finding.group in _BYTES for finding in result.changed):
            result.causes, result.following = causes(expected, cell)
            result.notes += _moved(expected, cell)
    return result


def _moved(before: Cell, after: Cell) -> list[str]:
    """Say that the peak is in another phase than it was, where the phases know."""
    ends = []
    for cell in (before, after):
        phases = [
            metric.split(".")[1]
            for metric in sorted(cell.figures)
            if group_of(metric) == "phases" and metric.endswith(".peak_bytes")
            if cell.bytes(metric) == cell.bytes("peak_bytes")
        ]
        ends.append(phases[0] if phases else "")
    return [f"the peak moved from {ends[0]} to {ends[1]}"] if all(ends) and ends[0] != ends[1] else []


def _unknown(baseline: Baseline, cell: Cell) -> CellResult:
    versions = baseline.versions(cell.name, cell.source)
    outcome: Outcome = "other torch" if versions else "missing from the baseline"
    if outcome == "other torch":
        reason = f"the baseline is of torch {', '.join(versions)}, this is {cell.torch}"
    else:
        others = sorted({source for name, source in baseline.present if name == cell.name} - {cell.source})
        reason = f"the baseline has it from {', '.join(others)} alone, not from {cell.source}" if others else ""
    return CellResult(cell=cell.name, source=cell.source, outcome=outcome, reason=reason)


def _finding(baseline: Baseline, expected: Cell, cell: Cell, metric: str, seconds: Tolerance, tests: int) -> Finding:
    before, after = expected.figures.get(metric), cell.figures.get(metric)
    within = (before or after or Figure(0)).tolerance
    if metric == SECONDS:
        within = seconds
    blind = _unseen(metric, expected, cell)
    verdict, why = ("not compared", blind) if blind else _verdict(metric, before, after, within, tests)
    finding = Finding(
        metric=metric,
        group=group_of(metric),
        expected=before.value if before else None,
        measured=after.value if after else None,
        tolerance=str(within),
        verdict=verdict,
        why=why,
        line=baseline.places.get((expected.key, metric)),
        stands=figure_line(expected, metric) if before else None,
    )
    if after is not None and verdict == "changed":
        kept = replace(after, tolerance=before.tolerance) if before else after
        finding.commit = figure_line(Cell(*cell.key, {metric: kept}), metric)
    return finding


def _unseen(metric: str, expected: Cell, cell: Cell) -> str:
    """Say why a figure of a block or phase cannot be compared, or return ''.

    A phase that makes nothing has no event, and no peak that could be seen: a fused optimizer's, for one. Temporaries
    it has none. Of a block that only one side has, its peak says that.
    """
    group = group_of(metric)
    if group not in ("blocks", "phases"):
        return ""
    part = metric.rpartition(".")[0]
    both = f"{part}.peak_bytes" in expected.figures and f"{part}.peak_bytes" in cell.figures
    if cell.blind or both:
        return cell.blind
    told = f"{part}.temporaries_own_peak_bytes" if group == "phases" else f"{part}.peak_bytes"
    return "" if metric == told else f"{ONE_SIDED} {part.replace('.', ' ')}"


def _verdict(
    metric: str, before: Figure | None, after: Figure | None, within: Tolerance, tests: int
) -> tuple[Verdict, str]:
    if metric == SECONDS and within == OFF:
        return "not compared", "time is compared where --time asks for it"
    if before is None and not counts_as_zero(metric):
        return "not compared", "the baseline has no line of it"
    if after is None and not counts_as_zero(metric):
        return ("not compared", "the baseline's tolerance is off") if within == OFF else ("changed", "it is gone")
    zero = Sample(0)
    judgement = judge(within, before.sample if before else zero, after.sample if after else zero, tests)
    if judgement.changed is None:
        return "not compared", judgement.why
    return "changed" if judgement.changed else "same", judgement.why
