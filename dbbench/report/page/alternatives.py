"""What each figure shows, in words with its main numbers, for a reader who does not see it."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from dbbench.report import text
from dbbench.report.palette import ROLE_NAMES
from dbbench.report.tables import named_metric
from dbbench.results.roles import ROLES

#: An alternative names so many variants; the tables have all of them.
_NAMED = 12


def alternative(name: str, table: pd.DataFrame) -> str:
    """Return the text alternative of the figure ``name`` drawn from ``table``."""
    finished = table[table["status"] == "ok"]
    describe = _DESCRIBED.get(name)
    if describe is None:
        return name.replace("_", " ").capitalize() + "."
    lead, line = describe
    said = [f"{text.printable(row['variant'])} {line(row)}" for _, row in finished.head(_NAMED).iterrows()]
    rest = len(finished) - _NAMED
    return f"{lead}: {'; '.join(said)}{f'; and {rest:,} more variants' if rest > 0 else ''}."


def _split(row: pd.Series) -> str:
    sizes = {role: row[f"{role}_bytes"] for role in ROLES if pd.notna(row[f"{role}_bytes"])}
    largest = sorted(sizes, key=lambda role: -int(sizes[role]))[:2]
    parts = " and ".join(f"{text.mib(sizes[role])} of {ROLE_NAMES[role]}" for role in largest)
    return f"{text.mib(row['peak_bytes'])} MiB, most of it {parts}" if parts else "not measured"


def _metric(row: pd.Series) -> str:
    score = text.score_sd(row["metric_mean"], row["metric_sd"], row["metric_n"])
    return f"{score} of {named_metric(row)}" if pd.notna(row["metric_mean"]) else "no metric"


def _pareto(row: pd.Series) -> str:
    return f"{_metric(row)} at {text.mib(row['peak_bytes'])} MiB"


def _instant(row: pd.Series) -> str:
    phase = f" in {row['peak_phase']}" if pd.notna(row["peak_phase"]) else ""
    return f"peaks at {text.mib(row['peak_bytes'])} MiB{phase}"


def _flops(row: pd.Series) -> str:
    phases = ("forward", "backward", "recompute")
    parts = ", ".join(f"{text.flops(row[f'flops_{phase}'])} {phase}" for phase in phases)
    step, whole = (text.flops(row[column], row["uncounted_ops"]) for column in ("flops_step", "flops_train_total"))
    return f"{step} a step ({parts}), {whole} a training"


def _device(row: pd.Series) -> str:
    sizes = (text.mib(row[name]) for name in ("peak_bytes", "device_peak_bytes", "nvml_process_peak_bytes"))
    return "{} MiB of tensors, {} MiB allocated by the device, {} MiB of the process".format(*sizes)


_DESCRIBED: dict[str, tuple[str, Callable[[pd.Series], str]]] = {
    "memory_split": ("Stacked bars of the live bytes at the peak by role, a bar a variant", _split),
    "pareto": ("A scatter of the figure of merit against the peak, a point a variant", _pareto),
    "timeline": ("Stacked areas of the live bytes over one training step by role, a panel a method", _instant),
    "flops": ("Stacked bars of floating-point operations by phase, a bar a variant", _flops),
    "learning": ("Lines of the validation metric over the share of the budget spent; at the end", _metric),
    "waterfall": ("Stacked bars from the ledger's peak to the memory of the process", _device),
}
