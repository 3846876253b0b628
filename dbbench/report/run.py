"""A run as the report sees it: its folder read once, its configurations, and what each is compared with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from dbbench.errors import BadInput
from dbbench.results.frames import labels, results_frame, timing_by_label
from dbbench.results.record import Record, Timing
from dbbench.results.store import RunFolder

#: What two configurations must share for the ratio of their costs to mean something.
_SAME_WORK = ("task", "network", "network_size", "depth", "batch_size", "precision")


@dataclass(frozen=True)
class Configuration:
    """The cells that differ by their seed only, in the order of their seeds.

    ``costliest`` is the finished cell whose peak is largest (the first of equals): every figure of memory and FLOPs
    is that one cell's, so that a split always sums to the peak printed beside it. None where no cell finished.
    """

    label: str
    variant: str
    records: tuple[Record, ...]

    @property
    def finished(self) -> list[Record]:
        return [record for record in self.records if record.row.status == "ok"]

    @property
    def costliest(self) -> Record | None:
        return max(self.finished, key=lambda record: record.row.peak_bytes or 0, default=None)

    @property
    def options(self) -> dict[str, Any]:
        options = json.loads(self.records[0].row.options_json or "{}")
        return options if isinstance(options, dict) else {}


@dataclass(frozen=True)
class Run:
    """A run's folder, read once. ``problems`` are the one-line reports of what could not be read."""

    folder: RunFolder
    info: dict[str, Any]
    configurations: list[Configuration]
    timings: dict[str, Timing]
    frame: pd.DataFrame
    problems: list[str] = field(default_factory=list)

    @property
    def records(self) -> list[Record]:
        return [record for configuration in self.configurations for record in configuration.records]

    @property
    def without_record(self) -> list[str]:
        """Return the labels of the cells that ``run.json`` lists and that left no readable record, if any."""
        present = {record.row.config_hash for record in self.records}
        listed = self.info.get("cells", [])
        cells = [cell for cell in listed if isinstance(cell, dict)] if isinstance(listed, list) else []
        return [
            str(cell.get("label", cell.get("config_hash"))) for cell in cells if cell.get("config_hash") not in present
        ]

    @property
    def name(self) -> str:
        return self.records[0].row.suite

    def reference(self, configuration: Configuration) -> Configuration | None:
        """Return the backprop configuration that does the same work, None where the run holds none.

        It is the variant named ``backprop`` where the run has one of that name, else the first whose method is
        backprop, on the same task, network, size, depth, batch size and precision, and at the same point of the grid.
        """
        backprop = [c for c in self.configurations if c.records[0].row.method == "backprop"]
        named = [c for c in backprop if c.variant == "backprop"] or backprop
        mine = configuration.records[0].row
        same = [c for c in named if all(_agree(c.records[0].row, mine, key) for key in _SAME_WORK)]
        point = configuration.label.removeprefix(configuration.variant)
        at_point = [c for c in same if c.label.removeprefix(c.variant) == point]
        return next(iter(at_point or same), None)

    @property
    def main_reference(self) -> Configuration | None:
        """Return the configuration that the run as a whole is compared with."""
        return next((r for c in self.configurations if (r := self.reference(c)) is not None), None)


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
    frame = results_frame(records, timings, folder.variants())
    timed = timing_by_label(records, timings)
    return Run(folder, info, _configurations(records, frame), timed, frame, problems)


def _configurations(records: Sequence[Record], frame: pd.DataFrame) -> list[Configuration]:
    """Group the records by label, in the order of the frame; each takes its row from there, timing included."""
    by_hash = {record.row.config_hash: record for record in records}
    names = labels(records)
    groups: dict[str, list[Record]] = {}
    for config_hash, speed, share, energy in zip(
        frame["config_hash"], frame["samples_per_second"], frame["swap_share"], frame["energy_joules"], strict=True
    ):
        record = by_hash[config_hash]
        timed = {"samples_per_second": speed, "swap_share": share, "energy_joules": energy}
        row = record.row.model_copy(update={k: None if pd.isna(v) else float(v) for k, v in timed.items()})
        groups.setdefault(names[config_hash], []).append(record.model_copy(update={"row": row}))
    return [Configuration(label, group[0].row.variant, tuple(group)) for label, group in groups.items()]


def _agree(one: Any, other: Any, key: str) -> bool:
    """Whether two rows have the same ``key``; a failed cell may not know its own, which is no disagreement."""
    left, right = getattr(one, key), getattr(other, key)
    return left is None or right is None or left == right
