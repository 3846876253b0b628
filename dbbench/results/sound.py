"""Whether what was read from a run's folder can be what dbbench wrote: a line on what is wrong, '' where nothing is."""

from __future__ import annotations

import math
import operator
from typing import Any

from dbbench.results.record import COLUMNS, SCHEMA_VERSION, Record, Timing, column_type
from dbbench.results.roles import ROLES

_BELOW_ZERO = ("seed", "peak_step", "peak_block", "kernel_workspace_bytes")
#: The columns of whole numbers that count something; a step or a block may be −1, and a residue is signed.
_WHOLE = tuple(name for name in COLUMNS if column_type(name) == "Int64" and name not in _BELOW_ZERO)
#: What rounding may add to a figure of merit beyond its bound.
ROUNDING = 1e-3
#: Bounds of a record that has none of its own, by a metric's name: one of before they were kept.
_USUAL_BOUNDS: dict[str, tuple[float | None, float | None]] = {
    "accuracy": (0, 1),
    "cross_entropy": (0, None),
    "bits_per_character": (0, None),
    "perplexity": (1, None),
}
_whole_of = operator.attrgetter(*_WHOLE)


def version_problem(raw: Any) -> str:
    """Say why a record of another schema is left out, before its unknown fields are taken for a hand's work."""
    row = raw.get("row") if isinstance(raw, dict) else None
    version = row.get("schema_version", SCHEMA_VERSION) if isinstance(row, dict) else SCHEMA_VERSION
    return _other_version(version) if isinstance(version, int) else ""


def _other_version(version: int) -> str:
    if version == SCHEMA_VERSION:
        return ""
    age = "newer" if version > SCHEMA_VERSION else "older"
    return f"schema version {version} is {age} than the {SCHEMA_VERSION} this dbbench reads; left out"


def record_problem(record: Record, stem: str) -> str:
    """Say why the record in the file of that stem is left out, '' where it is sound."""
    if record.row.config_hash != stem:
        return f"holds the hash {record.row.config_hash}, not that of its name; left out"
    return (
        _other_version(record.row.schema_version)
        or _impossible(record)
        or roles_against_peak(record)
        or metrics_problem(record)
    )


def _impossible(record: Record) -> str:
    """Say which figure no measurement gives: negative, or too large for a column of whole numbers."""
    for name, value in zip(_WHOLE, _whole_of(record.row), strict=True):
        if value is not None and not 0 <= value < 2**63:
            return f"row.{name} is {value}, which nothing measured can be; edited by hand?"
    return ""


def broken_bound(value: float, lowest: float | None, highest: float | None) -> str:
    """Return ``below 0`` or ``above 1`` where a figure of merit is so by more than rounding, '' where it is within."""
    if lowest is not None and value < lowest - ROUNDING:
        return f"below {lowest:g}"
    return f"above {highest:g}" if highest is not None and value > highest + ROUNDING else ""


def metrics_problem(record: Record) -> str:
    """Say which figure of merit cannot be, '' for none: beyond its bounds, or in the row another than in the list."""
    for metric in record.metrics:
        usual = _USUAL_BOUNDS.get(metric.name, (None, None))
        lowest = usual[0] if metric.lowest is None else metric.lowest
        highest = usual[1] if metric.highest is None else metric.highest
        if bound := broken_bound(metric.value, lowest, highest):
            return f"its {metric.split} {metric.name} is {metric.value:.6g}, which is {bound}; left out"
    row = record.row
    if row.metric_value is None or not record.metrics:
        return ""
    own = [m.value for m in record.metrics if f"{m.split}_{m.name}" == row.metric and not m.variant]
    same = row.metric_value in own or (math.isnan(row.metric_value) and any(map(math.isnan, own)))
    return "" if same or row.status != "ok" else f"row.metric_value is not the {row.metric} among its metrics; left out"


def timing_problem(timing: Timing, stem: str) -> str:
    """Say why the timing in the file of that stem is left out, '' where it is sound."""
    if timing.config_hash != stem:
        return f"holds the hash {timing.config_hash}, not that of its name; left out"
    if not timing.seconds_per_step or not all(
        0 < x < math.inf for x in (*timing.seconds_per_step, timing.samples_per_step)
    ):
        return "holds no positive times; left out"
    return ""


def roles_against_peak(record: Record) -> str:
    """Return '' where the roles sum to the peak (or were not measured), else the two figures."""
    sizes = [getattr(record.row, f"{role}_bytes") for role in ROLES]
    if record.row.peak_bytes is None or any(size is None for size in sizes):
        return ""
    total = sum(sizes)
    return "" if total == record.row.peak_bytes else f"roles sum to {total} bytes, the peak is {record.row.peak_bytes}"
