"""Compares two folders: saved profiles, or runs of ``dbbench run``, variant by variant.

print(compare_folders("runs/vision", "runs/vision2"))
print(compare_folders("runs/vision:backprop", "runs/vision:checkpointing"))
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from dbbench.errors import BadInput, did_you_mean
from dbbench.report.blocks import Block, Heading, Lines, Shown
from dbbench.report.diff import Diff, Side, compare, side_of
from dbbench.report.run import Configuration, Run, load
from dbbench.results.profile import PROFILE_FILE, read_profile
from dbbench.results.record import Record


@dataclass(frozen=True)
class Comparison(Shown):
    """A `Diff` for each variant that both folders have, and what only one of them has."""

    before: str
    after: str
    diffs: dict[str, Diff]
    notes: list[str] = field(default_factory=list)

    def blocks(self) -> list[Block]:
        pages = [one.blocks() for one in self.diffs.values()]
        if len(pages) == 1 and not self.notes:
            return pages[0]
        found: list[Block] = [Heading(f"{self.before} → {self.after}", 0)]
        found += [Lines(self.notes)] if self.notes else []
        for block in chain.from_iterable(pages):
            found.append(replace(block, level=block.level + 1) if isinstance(block, Heading) else block)
        return found


@dataclass(frozen=True)
class _Folder:
    """One side: ``{label: {seed: how to read it}}``. ``single`` if it is one peak, chosen by its selector or alone."""

    name: str
    peaks: dict[str, dict[int, Callable[[], Side]]]
    single: bool
    problems: list[str] = field(default_factory=list)


def compare_folders(before: str | Path, after: str | Path, rows: int = 20) -> Comparison:
    """Compare two folders, each a saved profile, a run, or ``RUN:VARIANT``, one variant of a run.

    Of runs the variants with the same label are compared, on the lowest seed that both have. Raises BadInput, one line,
    where a folder is neither, a variant is unknown, or there is nothing to compare.
    """
    one, two = _open(str(before)), _open(str(after))
    pairs, notes = _pairs(one, two)
    diffs: dict[str, Diff] = {}
    for mine, theirs in pairs:
        seeds = one.peaks[mine].keys() & two.peaks[theirs].keys()
        if not seeds:
            notes.append(f"{mine}: no finished cell with a trace and the same seed in both")
            continue
        seed = min(seeds)
        sides = one.peaks[mine][seed](), two.peaks[theirs][seed]()
        diffs[mine if mine == theirs else f"{mine} → {theirs}"] = compare(*_told_apart(*sides, one, two), rows)
    if not diffs:
        raise BadInput(f"{before} and {after}: {notes[0] if notes else 'nothing to compare'}")
    problems = [f"left out of {side.name}: {line}" for side in (one, two) for line in side.problems]
    return Comparison(one.name, two.name, diffs, [*notes, *dict.fromkeys(problems)])


def _told_apart(mine: Side, theirs: Side, one: _Folder, two: _Folder) -> tuple[Side, Side]:
    """Name the sides by their folders too where their own names are the same."""
    if mine.name != theirs.name or one.name == two.name:
        return mine, theirs
    return replace(mine, name=f"{mine.name} of {one.name}"), replace(theirs, name=f"{theirs.name} of {two.name}")


def _pairs(one: _Folder, two: _Folder) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the labels to compare, and a note for each that only one folder has."""
    if one.single and two.single:
        return [(next(iter(one.peaks)), next(iter(two.peaks)))], []
    if one.single or two.single:
        chosen, many = (one, two) if one.single else (two, one)
        label = next(iter(chosen.peaks))
        if label not in many.peaks:
            hint = did_you_mean(label, many.peaks)
            raise BadInput(f"{many.name} has no variant '{label}'{hint}; choose one with {many.name}:VARIANT")
        return [(label, label)], []
    common = [(label, label) for label in one.peaks if label in two.peaks]
    notes = [f"only in {one.name}: {label}" for label in one.peaks if label not in two.peaks]
    notes += [f"only in {two.name}: {label}" for label in two.peaks if label not in one.peaks]
    if not common:
        raise BadInput(
            f"{one.name} and {two.name} have no variant in common ({', '.join(one.peaks)}; {', '.join(two.peaks)}); "
            "choose two with RUN:VARIANT"
        )
    return common, notes


def _open(reference: str) -> _Folder:
    path, variant = Path(reference), ""
    if not path.is_dir():
        head, colon, variant = reference.rpartition(":")
        path = Path(head)
        if not colon or not path.is_dir():
            missing = head if colon else reference
            raise BadInput(f"{missing}: no such folder")
    if (path / PROFILE_FILE).exists():
        if variant:
            raise BadInput(f"{reference}: {path} is one profile and has no variants")
        profile = read_profile(path)
        return _Folder(str(path), {profile[0].name: {0: lambda: side_of(profile, "")}}, True)
    if not (path / "records").is_dir():
        raise BadInput(f"{path}: neither a saved profile ({PROFILE_FILE}) nor a run (records/)")
    run = load(path)
    peaks = {c.label: _peaks(run, c) for c in run.configurations}
    if not variant:
        return _Folder(str(path), peaks, False, run.problems)
    label = _chosen(variant, run, reference)
    return _Folder(str(path), {label: peaks[label]}, True, run.problems)


def _chosen(variant: str, run: Run, reference: str) -> str:
    labels = [c.label for c in run.configurations]
    if variant in labels:
        return variant
    of_variant = [c.label for c in run.configurations if c.variant == variant]
    if of_variant:  # a label that says more: it is one point of a grid
        raise BadInput(f"{reference}: several configurations are called '{variant}'; name one: {'; '.join(of_variant)}")
    raise BadInput(f"{reference}: no variant '{variant}'{did_you_mean(variant, labels)}")


def _peaks(run: Run, configuration: Configuration) -> dict[int, Callable[[], Side]]:
    """Return how to read each finished cell that left a trace, by seed."""
    traces = run.folder.path / "traces"
    found: dict[int, Callable[[], Side]] = {}
    for record in configuration.finished:
        if os.path.lexists(traces / f"{record.row.config_hash}.parquet"):
            found[record.row.seed] = lambda record=record: _side(run, configuration.label, record)  # type: ignore[misc]
    return found


def _side(run: Run, label: str, record: Record) -> Side:
    """Return a cell's peak from its trace, which unlike its record names every holder."""
    frame = run.folder.read_trace(record.row.config_hash)
    assert frame is not None
    side = side_of(frame, label)
    row = record.row
    if side.peak_bytes != row.peak_bytes:
        trace = run.folder.path / "traces" / f"{row.config_hash}.parquet"
        raise BadInput(f"{trace}: rises to {side.peak_bytes} bytes, its record's peak is {row.peak_bytes}")
    flops = {"forward": row.flops_forward, "backward": row.flops_backward, "recompute": row.flops_recompute}
    known = {phase: count for phase, count in flops.items() if count is not None}
    return replace(side, phase=row.peak_phase, flops=known or None)
