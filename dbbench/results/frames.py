"""Records as data frames: the typed tables of a run, its configurations, and statistics over seeds.

A *configuration* is everything of a cell but its seed. Two configurations may share a variant's label, in a grid or
in a folder whose suite was edited between two runs; then what tells them apart is added to the label, so that
nothing is ever averaged over two different experiments.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dbbench.results.record import COLUMNS, MetricValue, Record, Timing, column_type

METRICS_TYPES = {
    "config_hash": "string",
    "split": "string",
    "step": "Int64",
    "name": "string",
    "variant": "string",
    "value": "Float64",
    "unit": "string",
    "direction": "string",
}
#: Keys of a cell that do not make it another experiment.
_NOT_THE_EXPERIMENT = ("seed", "suite", "timeout_seconds")


def results_frame(
    records: Sequence[Record], timings: Sequence[Timing] = (), variants: Sequence[str] = ()
) -> pd.DataFrame:
    """Return a row a record, columns `COLUMNS` with their `column_type`, in the order of the suite.

    ``samples_per_second``, ``swap_share`` and ``energy_joules`` of finished cells come from the timing of their
    configuration where there is one.
    """
    ordered = in_order(records, variants)
    names = labels(ordered)
    return rows_frame(with_timings(ordered, timing_by_label(ordered, timings, names), names))


def rows_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return a row a record, columns `COLUMNS` with their `column_type`, as they are and in their order."""
    rows = [record.row.__dict__ for record in records]
    return typed_frame(rows, {name: column_type(name) for name in COLUMNS})


def metrics_frame(records: Sequence[Record], variants: Sequence[str] = ()) -> pd.DataFrame:
    """Return ``metrics.parquet``: a row a figure of merit, ordered as the records are."""
    pairs = [(record, metric) for record in in_order(records, variants) for metric in record.metrics]
    columns: dict[str, Any] = {"config_hash": [record.row.config_hash for record, _ in pairs]}
    for name in METRICS_TYPES:
        columns.setdefault(name, [getattr(metric, name, None) for _, metric in pairs])
    return pd.DataFrame({name: pd.array(columns[name], dtype=kind) for name, kind in METRICS_TYPES.items()})


def typed_frame(rows: Sequence[Mapping[str, Any]], types: Mapping[str, Any]) -> pd.DataFrame:
    """Return a frame of ``rows`` with exactly the columns and dtypes of ``types``; what a row lacks is null."""
    return pd.DataFrame({name: pd.array([row.get(name) for row in rows], dtype=kind) for name, kind in types.items()})


def labels(records: Iterable[Record]) -> dict[str, str]:
    """Return ``{config_hash: label}``: the variant, and the keys that tell its configurations apart, if any."""
    by_variant: dict[str, list[tuple[str, dict[str, str]]]] = {}
    for record in records:
        by_variant.setdefault(record.row.variant, []).append((record.row.config_hash, experiment(record)))
    found = {}
    for variant, members in by_variant.items():
        _fill_unknown(members)
        keys = sorted({key for _, flat in members for key in flat})
        varied = [key for key in keys if len({flat.get(key) for _, flat in members}) > 1]
        for config_hash, flat in members:
            point = ", ".join(f"{key.removeprefix('cell.')}={flat.get(key, 'unset')}" for key in varied)
            found[config_hash] = f"{variant} [{point}]" if point else variant
    return found


def timing_by_label(
    records: Sequence[Record], timings: Iterable[Timing], names: Mapping[str, str]
) -> dict[str, Timing]:
    """Return ``{label: timing}``: a pass is made on one seed and holds for the configuration; ``names`` are labels."""
    alone: dict[str, set[str]] = {}
    for record in records:
        alone.setdefault(record.row.variant, set()).add(names[record.row.config_hash])
    found = {}
    for timing in timings:
        label = names.get(timing.config_hash)
        if label is None and len(alone.get(timing.variant, ())) == 1:
            (label,) = alone[timing.variant]
        if label is not None:
            found[label] = timing
    return found


def paired_ratio(timing: Timing, reference: Timing) -> tuple[float, int]:
    """Return how many times the reference's samples per second this variant does, and from how many rounds.

    The median of the ratios round by round: a neighbour that slows a round slows both of its members.
    """
    pairs = list(zip(timing.seconds_per_step, reference.seconds_per_step, strict=False))
    work = timing.samples_per_step / reference.samples_per_step
    return statistics.median(work * theirs / ours for ours, theirs in pairs), len(pairs)


def mean_sd(values: Iterable[Any]) -> tuple[float | None, float | None, int]:
    """Return the mean, the sample standard deviation (ddof 1, None below two values) and the count, nulls left out."""
    known = [float(value) for value in values if not pd.isna(value)]
    if not known:
        return None, None, 0
    sd = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return float(np.mean(known)), sd, len(known)


def final_metric(record: Record) -> MetricValue | None:
    """Return the entry behind ``metric_value``: the method's own prediction on the test split, else on the last given.

    The row's ``metric`` may name the split too, as ``test_accuracy`` does.
    """
    names = record.row.metric
    named = [m for m in record.metrics if names in (m.name, f"{m.split}_{m.name}") and not m.variant]
    on_test = [m for m in named if m.split == "test"]
    return next(reversed(on_test or named), None)


def in_order(records: Iterable[Record], variants: Sequence[str]) -> list[Record]:
    """Return the records in the order of the suite's ``variants``, then of seed, size and depth."""
    rank = {variant: place for place, variant in enumerate(variants)}

    def place(record: Record) -> tuple[Any, ...]:
        row = record.row
        known = rank.get(row.variant, len(rank))
        return known, row.variant, row.seed, row.network_size, row.depth, row.config_hash

    return sorted(records, key=place)


def suite_order(info: Mapping[str, Any]) -> list[str]:
    """Return the variants as ``run.json`` lists them, [] where it lists none."""
    listed = info.get("variants", [])
    return [str(label) for label in listed] if isinstance(listed, list) else []


def with_timings(records: Iterable[Record], timed: Mapping[str, Timing], names: Mapping[str, str]) -> list[Record]:
    """Return the records, the finished ones with what the timing of their label adds to their row."""
    found = []
    for record in records:
        timing = timed.get(names[record.row.config_hash])
        found.append(record if timing is None or record.row.status != "ok" else _timed(record, timing))
    return found


def _timed(record: Record, timing: Timing) -> Record:
    row = record.row
    added: dict[str, float | None] = {
        "samples_per_second": timing.samples_per_step / statistics.median(timing.seconds_per_step),
        "swap_share": timing.swap_share,
    }
    if timing.energy_joules_per_step is not None and row.samples is not None:
        added["energy_joules"] = timing.energy_joules_per_step * row.samples / timing.samples_per_step
    return record.model_copy(update={"row": row.model_copy(update=added)})


def experiment(record: Record) -> dict[str, str]:
    """Flatten what makes a record another experiment than its neighbour, each value as text."""
    flat: dict[str, str] = {}
    _flatten({key: value for key, value in record.cell.items() if key not in _NOT_THE_EXPERIMENT}, "cell", flat)
    row = record.row
    if row.status == "ok":
        flat["torch"] = ".".join(row.torch_version.split("+")[0].split(".")[:2])
        flat["device"] = row.device
        flat["dataset_sha256"] = str(row.dataset_sha256)[:12]
    return flat


def _flatten(value: Any, prefix: str, into: dict[str, str]) -> None:
    if isinstance(value, Mapping) and value:
        for key in value:
            _flatten(value[key], f"{prefix}.{key}", into)
    elif isinstance(value, str):
        into[prefix] = value
    else:
        into[prefix] = str(value) if type(value) is int else json.dumps(value, sort_keys=True)


def _fill_unknown(members: list[tuple[str, dict[str, str]]]) -> None:
    """A cell that failed is of the same experiment as its brothers, though it may not have seen device or data."""
    for key in ("torch", "device", "dataset_sha256"):
        known = next((flat[key] for _, flat in members if key in flat), "unknown")
        for _, flat in members:
            flat.setdefault(key, known)
