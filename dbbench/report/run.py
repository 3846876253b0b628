"""A run as the report sees it: its folder read once, its configurations, and what each is compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dbbench.errors import BadInput
from dbbench.results.frames import in_order, labels, suite_order, timing_by_label, with_timings
from dbbench.results.holdings import held_at_peak
from dbbench.results.parts import parts_at_peak
from dbbench.results.record import Record, Timing
from dbbench.results.store import SUMMED_BY_ROLE, RunFolder

#: {part: {role: bytes}}, as `dbbench.results.parts.parts_at_peak` has it.
Parts = dict[str, dict[str, int]]

#: What two configurations must share for the ratio of their costs to mean something.
_SAME_WORK = ("task", "network", "network_size", "depth", "batch_size", "precision")


@dataclass(frozen=True)
class Configuration:
    """The cells that differ by their seed only, in the order of their seeds; ``folder`` holds their traces and curves.

    ``point`` is what tells it apart from the other configurations of its variant, '' where nothing has to.
    ``costliest`` is the finished cell whose peak is largest (the first of equals): every figure of memory and FLOPs
    is that one cell's, so that a split always sums to the peak printed beside it. None where no cell finished.
    """

    label: str
    variant: str
    records: tuple[Record, ...]
    folder: RunFolder
    point: str = ""

    @cached_property
    def finished(self) -> list[Record]:
        return [record for record in self.records if record.row.status == "ok"]

    @cached_property
    def costliest(self) -> Record | None:
        return max(self.finished, key=lambda record: record.row.peak_bytes or 0, default=None)

    @cached_property
    def parts(self) -> tuple[Parts | None, str]:
        """The costliest cell's peak by part of the network, None with the reason where it cannot be had.

        It is of the record, or of the trace where the record has its smaller holders summed by role alone.
        """
        record = self.costliest
        if record is None or record.row.peak_bytes is None:
            return None, "no peak was measured"
        held = record.held_at_peak
        if not held or record.unavailable.get("held_at_peak") == SUMMED_BY_ROLE:
            try:
                trace = self.folder.read_trace(record.row.config_hash)
                held = [] if trace is None else held_at_peak(trace).held
            except BadInput as problem:
                return None, str(problem)
            if not held:
                return None, "the record has its smaller holders summed by role, and there is no trace beside it"
        total = sum(line.bytes for line in held)
        if total != record.row.peak_bytes:
            return None, f"what is held sums to {total:,} bytes, the peak is {record.row.peak_bytes:,}"
        return parts_at_peak(held, record.row.peak_phase), ""

    @property
    def options(self) -> dict[str, Any]:
        try:
            options = json.loads(self.records[0].row.options_json or "{}")
        except (ValueError, RecursionError):  # a hand's work; the cell has the options too, and they tell it apart
            options = {}
        return options if isinstance(options, dict) else {}


@dataclass(frozen=True)
class Run:
    """A run's folder, read once, or several runs side by side (`dbbench.report.together`).

    ``timings`` are by label. ``problems`` are the one-line reports of what could not be read, ``without_record`` the
    labels of the cells that ``run.json`` lists and that left no readable record.
    """

    name: str
    info: dict[str, Any]
    configurations: list[Configuration]
    timings: dict[str, Timing]
    problems: list[str] = field(default_factory=list)
    without_record: list[str] = field(default_factory=list)

    @cached_property
    def folder(self) -> RunFolder:
        """The folder of a run that is alone. Raises ValueError for several: there each configuration has its own."""
        first = self.configurations[0].folder
        if any(c.folder is not first for c in self.configurations):
            raise ValueError("several runs have no one folder; ask a configuration for its own")
        return first

    @property
    def records(self) -> list[Record]:
        return [record for configuration in self.configurations for record in configuration.records]

    def configuration(self, label: str) -> Configuration:
        """Return the configuration of that label. Raises KeyError where there is none."""
        return self._by_label[label]

    def reference(self, configuration: Configuration) -> Configuration | None:
        """Return the backprop configuration that does the same work, None where its run holds none.

        It is the variant named ``backprop`` where the run has one of that name, else the first whose method is
        backprop, on the same task, network, size, depth, batch size and precision, and at the same point of the grid.
        """
        work = _work(configuration)
        return self._references.get((*work, configuration.point)) or self._references.get(work)

    @property
    def main_reference(self) -> Configuration | None:
        """Return the configuration that the run as a whole is compared with."""
        return next((r for c in self.configurations if (r := self.reference(c)) is not None), None)

    @cached_property
    def _by_label(self) -> dict[str, Configuration]:
        return {c.label: c for c in self.configurations}

    @cached_property
    def _references(self) -> dict[tuple[Any, ...], Configuration]:
        """The first backprop of each work, and of each work at each point of the grid."""
        backprop = [c for c in self.configurations if c.records[0].row.method == "backprop"]
        named = {id(c.folder) for c in backprop if c.variant == "backprop"}
        found: dict[tuple[Any, ...], Configuration] = {}
        for c in backprop:
            if c.variant == "backprop" or id(c.folder) not in named:
                found.setdefault(_work(c), c)
                found.setdefault((*_work(c), c.point), c)
        return found


def load(path: Path) -> Run:
    """Read the run in ``path``. Raises BadInput where there is no such folder or not one readable record."""
    if not path.is_dir():
        raise BadInput(f"{path}: no such folder")
    folder = RunFolder(path)
    records, problems = folder.read_records()
    timings, torn = folder.read_timings()
    problems += torn
    try:
        info = folder.read_run()
    except BadInput as error:
        info = {}
        problems.append(f"run.json: {str(error).partition(': ')[2]}; variants stand in alphabetical order")
    if not records:
        why = f" ({problems[0]})" if problems else ""
        raise BadInput(f"{path}: holds no readable record{why}")
    ordered = in_order(records, suite_order(info))
    names = labels(ordered)
    timed = timing_by_label(ordered, timings, names)
    configurations = _configurations(with_timings(ordered, timed, names), names, folder)
    lost = _without_record(info, {record.row.config_hash for record in records})
    return Run(configurations[0].records[0].row.suite, info, configurations, timed, problems, lost)


def _configurations(records: Sequence[Record], names: Mapping[str, str], folder: RunFolder) -> list[Configuration]:
    """Group the records by label, in their order."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(names[record.row.config_hash], []).append(record)
    found = []
    for label, group in groups.items():
        variant = group[0].row.variant
        found.append(Configuration(label, variant, tuple(group), folder, label.removeprefix(variant)))
    return found


def _without_record(info: dict[str, Any], present: set[str]) -> list[str]:
    listed = info.get("cells", [])
    cells = [cell for cell in listed if isinstance(cell, dict)] if isinstance(listed, list) else []
    return [str(c.get("label", c.get("config_hash"))) for c in cells if c.get("config_hash") not in present]


def _work(configuration: Configuration) -> tuple[Any, ...]:
    row = configuration.records[0].row
    return (id(configuration.folder), *(getattr(row, key) for key in _SAME_WORK))
