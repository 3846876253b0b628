"""Writes what was measured into a baseline, and says what that changed."""

from __future__ import annotations

from dataclasses import replace

from dbbench.gate.baseline import Baseline, lines, value_text
from dbbench.gate.cells import SECONDS, Cell, Figure
from dbbench.gate.check import Measurement

_NAMED = 6


def update(baseline: Baseline, measurement: Measurement, prune: bool = False) -> tuple[Baseline, list[str]]:
    """Return the baseline with the measured cells in the place of its own, and a line on each cell that changed.

    A cell's lines from the same source are replaced, those of other versions of torch among them; a tolerance that
    stands in the file stays, and so do a time that was not asked for and what is not of the measurement. With ``prune``
    the cells go that the measurement would have and has not.
    """
    found = Baseline(baseline.path, dict(baseline.cells), set(baseline.present), comments=dict(baseline.comments))
    told: list[str] = []
    for cell in (cell for cell in measurement.cells if cell.name not in measurement.failed):
        old = _old(baseline, cell)
        new = _kept(cell, old) if old else cell
        for key in [key for key in found.cells if key[:2] == (cell.name, cell.source)]:
            del found.cells[key]
        found.cells[new.key] = new
        found.present.add((cell.name, cell.source))
        told += _told(old, new)
    known = {(cell.name, cell.source) for cell in measurement.cells}
    for name, source in sorted(baseline.present - known):
        if measurement.speaks_of(name, source) and name not in measurement.failed:
            if prune:
                found.present.discard((name, source))
                found.cells = {key: cell for key, cell in found.cells.items() if key[:2] != (name, source)}
            told.append(f"{name} ({source}): {'taken out' if prune else 'stays, though it was not measured (--prune)'}")
    return found, told


def _old(baseline: Baseline, cell: Cell) -> Cell | None:
    """Return what the baseline has of a cell, at the same version of torch if it can be."""
    versions = baseline.versions(cell.name, cell.source)
    if not versions:
        return None
    return baseline.cells[cell.name, cell.source, cell.torch if cell.torch in versions else versions[-1]]


def _kept(cell: Cell, old: Cell) -> Cell:
    figures: dict[str, Figure] = {}
    for metric, figure in cell.figures.items():
        before = old.figures.get(metric)
        figures[metric] = replace(figure, tolerance=before.tolerance) if before else figure
    if SECONDS in old.figures and SECONDS not in figures:
        figures[SECONDS] = old.figures[SECONDS]
    return replace(cell, figures=figures)


def _told(old: Cell | None, new: Cell) -> list[str]:
    where = f"{new.name} ({new.source}, torch {new.torch})"
    if old is None:
        return [f"{where}: added, {len(new.figures)} figures"]
    changed = []
    for metric in sorted(old.figures.keys() | new.figures.keys()):
        before, after = old.figures.get(metric), new.figures.get(metric)
        if before != after:
            ends = [value_text(figure) if figure else "none" for figure in (before, after)]
            if before is None or after is None or ends[0] != ends[1]:
                changed.append(f"{metric} {ends[0]} → {ends[1]}")
    if old.torch != new.torch:
        changed.insert(0, f"torch {old.torch} → {new.torch}")
    if not changed:
        return [] if lines(old) == lines(new) else [f"{where}: the same figures, of other modules, ops or holders"]
    more = f", and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    return [f"{where}: {', '.join(changed[:_NAMED])}{more}"]
