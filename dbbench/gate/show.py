"""A check's outcome for people: in a terminal with rich, and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dbbench.gate.cells import GROUPS, SECONDS
from dbbench.gate.check import ONE_SIDED
from dbbench.gate.result import STATUSES, Cause, CellResult, Finding, Result
from dbbench.report.blocks import Block, Grid, Heading, Lines, Shown
from dbbench.report.diff import percent

#: Lines to commit that are shown; the command that writes them all stands beside them.
SHOWN_LINES = 30
_PARTS = ("blocks", "phases")
#: What is in proportion to the samples of a batch, and what is not.
_OF_SAMPLES = ("flops_backward", "flops_step", "activations_own_peak_bytes", "inputs_own_peak_bytes")
_OF_BOTH = tuple(f"{role}_own_peak_bytes" for role in ("temporaries", "retained", "other", "weight_casts", "unseen"))
_OF_PARAMETERS = ("parameters", "gradients", "optimizer", "buffers", "ema")
_ALIKE = 0.01


@dataclass(frozen=True)
class Report(Shown):
    """What a check found: the cells that are not as expected, with at most ``rows`` figures of each."""

    result: Result
    rows: int = 16

    def blocks(self) -> list[Block]:
        result = self.result
        found: list[Block] = [Heading(f"{result.baseline}: {words(result.status)}", 0), Lines(summary(result))]
        larger: dict[float, list[CellResult]] = {}
        for cell in result.cells:
            factor = batch_factor(cell)
            if factor is not None:
                larger.setdefault(round(factor, 3), []).append(cell)
            elif cell.outcome != "same":
                found += _cell(cell, self.rows)
        for factor, cells in larger.items():
            found += _larger_batch(factor, cells)
        return found


def batch_factor(cell: CellResult) -> float | None:
    """Return how many times as many samples explain all that changed in a cell, None where something else did.

    FLOPs, activations and inputs have grown or shrunk alike, and what belongs to the parameters has not changed.
    """
    if cell.outcome != "changed":
        return None
    ratios = {f.metric: f.measured / f.expected for f in cell.findings if f.expected and f.measured}
    factor = ratios.get("flops_forward", 1.0)
    grown = [ratios.get(metric, 1.0) for metric in _OF_SAMPLES if metric in ratios]
    if factor == 1.0 or any(abs(ratio / factor - 1) > _ALIKE for ratio in grown):
        return None
    changed = {finding.metric: finding for finding in cell.changed}
    if any(f"{role}_own_peak_bytes" in changed for role in _OF_PARAMETERS) or cell.causes == []:
        return None
    least, most = min(1.0, factor) * (1 - _ALIKE), max(1.0, factor) * (1 + _ALIKE)
    mixed = [metric for metric in _OF_BOTH if metric in changed]
    return factor if all(least <= ratios.get(metric, 0.0) <= most for metric in mixed) else None


def _larger_batch(factor: float, cells: Sequence[CellResult]) -> list[Block]:
    many = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
    said = (
        f"FLOPs, activations and inputs are {factor:.4g} × what they were, and parameters, gradients and the optimizer "
        "are the same: a batch of another size, or inputs of another shape, explains it"
    )
    rows = []
    for cell in cells:
        peak = next((finding for finding in cell.findings if finding.metric == "peak_bytes"), None)
        ends = [figure(peak.expected if peak else None), figure(peak.measured if peak else None)]
        rows.append([f"{cell.cell} ({cell.source})", *ends])
    heading = Heading(f"✗ {many}: changed as one")
    return [heading, Lines([said]), Grid(["cell", "peak, expected", "measured"], rows, names=1)]


def words(status: int) -> str:
    """Say an exit status."""
    return f"{STATUSES[status]} (status {status})"


def summary(result: Result) -> list[str]:
    """Return what holds of the check as a whole."""
    same = sum(cell.outcome == "same" for cell in result.cells)
    torch = f", torch {', '.join(result.torch)}" if result.torch else ""
    cells = "1 cell" if len(result.cells) == 1 else f"{len(result.cells)} cells"
    counts = f"{cells}, {same} of them the same; {result.compared:,} figures compared"
    lines = [f"{result.measured}{torch}: {counts}"]
    if len(result.statuses) > 1:
        lines.append(f"all that applies: {'; '.join(words(status) for status in result.statuses)}")
    return [*lines, *_left_out(result), *result.notes]


def _left_out(result: Result) -> list[str]:
    """Say which figures were not compared, and why, so that a green check is not taken for more than it is."""
    cells: Counter[tuple[str, str]] = Counter()
    for cell in result.cells:
        left = {(f.group if f.group in _PARTS else f.metric, f.why) for f in cell.not_compared}
        cells.update(pair for pair in left if pair[0] != SECONDS and not pair[1].startswith(ONE_SIDED))
    return [f"not compared in {count} cells: {what}, since {why}" for (what, why), count in sorted(cells.items())]


def headline(cell: CellResult) -> str:
    """Say in a line what became of a cell, a culprit's name in it where one is known."""
    if cell.outcome != "changed":
        return f"{cell.outcome}{': ' if cell.reason else ''}{cell.reason}"
    if not cell.causes:
        return "; ".join(change(finding) for finding in cell.changed[:3])
    root = cell.causes[0]
    return f"{root.sentence}{': ' if root.culprits else ''}{root.culprits[0].sentence if root.culprits else ''}"


def change(finding: Finding) -> str:
    """Say a change of a figure."""
    before, after = (figure(value) for value in (finding.expected, finding.measured))
    why = f" ({finding.why})" if finding.why else ""
    return f"{finding.metric} {before} → {after}{why}"


def figure(value: int | float | None) -> str:
    """Write a value with separators."""
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def commit_lines(result: Result) -> list[str]:
    """Return the lines that would make the baseline say what was measured: ``-`` those that stand, ``+`` the new."""
    found = []
    changed = [cell for cell in result.cells if batch_factor(cell) is None]  # the others are one cause
    for finding in (finding for cell in changed for finding in cell.changed):
        found += [f"-{finding.stands}"] * (finding.stands is not None)
        found += [f"+{finding.commit}"] * (finding.commit is not None)
    return found


def shortened(lines: Sequence[str], most: int = SHOWN_LINES) -> list[str]:
    """Return the first lines, and a word on how many there are besides."""
    if len(lines) <= most + 1:
        return list(lines)
    return [*lines[:most], f"# and {len(lines) - most} more"]


def markdown(result: Result) -> str:
    """Return the whole as Markdown, for a step's summary or a comment."""
    found = Report(result, rows=1000).markdown(level=3)
    lines = commit_lines(result)
    if lines:
        found += "\nTo accept it, commit these lines"
        found += ", and those of what is held, as `--update` writes them:\n\n"
        found += f"    {result.update}\n\n" if result.update else ""
        found += "\n".join(["```diff", *shortened(lines, 10 * SHOWN_LINES), "```"]) + "\n"
    return found


def _cell(cell: CellResult, rows: int) -> list[Block]:
    found: list[Block] = [Heading(f"✗ {cell.cell} ({cell.source}): {cell.outcome}")]
    lines = [cell.reason] if cell.reason else []
    for place, cause in enumerate(cell.causes):
        lines += _cause(cause, "" if place == 0 else "besides: ")
    lines += [f"this follows from it: {sentence}" for sentence in cell.following]
    if cell.outcome == "not compared":
        lines += [f"{finding.metric} is not compared: {finding.why}" for finding in cell.not_compared]
    lines += cell.notes
    if lines:
        found.append(Lines(lines))
    return [*found, *_changes(cell.changed, rows)] if cell.changed else found


def _cause(cause: Cause, first: str) -> list[str]:
    return [f"{first}{cause.sentence}", *(f"· {culprit.sentence}" for culprit in cause.culprits)]


def _changes(changed: Sequence[Finding], most: int) -> list[Block]:
    order = sorted(
        changed, key=lambda f: (f.metric != "peak_bytes", GROUPS.index(f.group), -abs(f.difference), f.metric)
    )
    shown = order if len(order) <= most + 1 else order[:most]
    rows = []
    for finding in shown:
        sign, size = "−" if finding.difference < 0 else "+", abs(finding.difference)
        difference = f"{sign}{size:,}" if isinstance(size, int) else f"{sign}{size:.4g}"
        ends = [figure(value) for value in (finding.expected, finding.measured)]
        share = percent(finding.difference, finding.expected) if finding.expected else "new"
        rows.append([finding.metric, *ends, difference, share, finding.tolerance])
    header = ["figure", "expected", "measured", "difference", "change", "tolerance"]
    found: list[Block] = [Grid(header, rows, names=0)]
    reasons = [f"{finding.metric}: {finding.why}" for finding in shown if finding.why]
    found += [Lines(reasons)] if reasons else []
    if len(shown) < len(order):
        found.append(Lines([f"and {len(order) - len(shown)} more figures (--json has them all)"]))
    return found
