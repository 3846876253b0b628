"""The comparison: what each variant holds, costs and learns, beside the same for backprop.

`comparison` is the one place where it is computed; the terminal, the Markdown, the CSV, the figures and the verdict
all show its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from dbbench.report import text
from dbbench.report.document import Block, Cell, Grid, data, figure, words
from dbbench.report.document import name as named
from dbbench.report.palette import ROLE_NAMES
from dbbench.report.run import Configuration, Run
from dbbench.results.frames import final_metric, mean_sd, paired_ratio, typed_frame
from dbbench.results.record import column_type
from dbbench.results.roles import ROLES

ROLE_COLUMNS = tuple(f"{role}_bytes" for role in ROLES)
#: The roles that a narrow table has columns for, under the names it gives them; the others are its rest.
MAIN_ROLES = {"parameters": "param", "gradients": "grad", "optimizer": "optim", "activations": "activ"}
MAIN_COLUMNS = tuple(f"{role}_bytes" for role in MAIN_ROLES)
OWN_COLUMNS = tuple(f"{role}_own_peak_bytes" for role in ROLES)
#: Taken from the cell with the largest peak.
_FROM_COSTLIEST = (
    *("source", "device", "peak_bytes", "peak_phase", "peak_step", "peak_block"),
    *ROLE_COLUMNS,
    *OWN_COLUMNS,
    *("shared_parameters_bytes", "host_transfer_bytes_per_step", "swap_share", "inference_peak_bytes"),
    *("device_peak_bytes", "kernel_workspace_bytes", "allocated_bytes", "reserved_bytes", "nvml_process_peak_bytes"),
    *("flops_forward", "flops_backward", "flops_recompute", "flops_step", "flops_train_total", "flops_inference"),
    *("uncounted_ops", "parameters_count", "samples_per_second"),
)
#: Known before a cell runs, and so of failed cells too.
_CONFIGURED = (
    *("task", "network", "network_size", "depth", "batch_size", "method", "blocks", "layers_per_block", "residency"),
    *("precision", "optimizer", "optimizer_implementation", "budget", "budget_value", "threads"),
)
_MEANS = ("samples", "layer_updates", "shared_updates", "train_seconds", "energy_joules")
_TYPES: dict[str, str] = {
    **dict.fromkeys(
        ("variant", "status", "error", "seeds", "log", "metric", "metric_split", "metric_direction"), "string"
    ),
    **dict.fromkeys(("seeds_finished", "metric_n", "speed_rounds", "peak_spread_bytes"), "Int64"),
    **dict.fromkeys(("peak_ratio", "activations_own_peak_ratio", "flops_step_ratio"), "Float64"),
    **dict.fromkeys(("flops_train_total_ratio", "speed_ratio", "metric_mean", "metric_sd"), "Float64"),
    **{name: column_type(name) for name in (*_CONFIGURED, *_FROM_COSTLIEST)},
    **dict.fromkeys(_MEANS, "Float64"),
}
#: Columns of `comparison` and of ``summary.csv``.
COLUMNS = (
    *("variant", "status", "error", "log", "seeds_finished", "seeds"),
    *("peak_bytes", "peak_ratio", "peak_spread_bytes", "peak_phase", "peak_step", "peak_block"),
    *ROLE_COLUMNS,
    *OWN_COLUMNS,
    "activations_own_peak_ratio",
    *("flops_forward", "flops_backward", "flops_recompute", "flops_step", "flops_step_ratio"),
    *("flops_train_total", "flops_train_total_ratio", "samples_per_second", "speed_ratio", "speed_rounds"),
    *_MEANS,
    *("metric", "metric_split", "metric_direction", "metric_mean", "metric_sd", "metric_n"),
    *_CONFIGURED,
    *("source", "device", "parameters_count", "shared_parameters_bytes", "host_transfer_bytes_per_step", "swap_share"),
    *("inference_peak_bytes", "flops_inference", "uncounted_ops", "device_peak_bytes", "kernel_workspace_bytes"),
    *("allocated_bytes", "reserved_bytes", "nvml_process_peak_bytes"),
)


def comparison(run: Run) -> pd.DataFrame:
    """Return a row a configuration that finished on some seed, then a row a cell that did not, columns `COLUMNS`.

    Ratios are to `Run.reference`: null where the run holds no backprop on the same network.
    """
    rows = [_compared(run, c) for c in run.configurations if c.finished]
    for configuration in run.configurations:
        for record in configuration.records:
            if record.row.status != "ok":
                row = {name: getattr(record.row, name) for name in _CONFIGURED}
                error = record.row.error or "no message"
                row |= {"variant": configuration.label, "seeds": str(record.row.seed), "seeds_finished": 0}
                row |= {"status": record.row.status, "error": error, "log": _text(record.environment.get("log"))}
                rows.append(row)
    return typed_frame(rows, {name: _TYPES[name] for name in COLUMNS})


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _compared(run: Run, configuration: Configuration) -> dict[str, Any]:
    mine = configuration.costliest
    assert mine is not None
    row: dict[str, Any] = {name: getattr(mine.row, name) for name in (*_CONFIGURED, *_FROM_COSTLIEST)}
    finished = configuration.finished
    for name in _MEANS:
        row[name] = mean_sd(getattr(record.row, name) for record in finished)[0]
    peaks = [record.row.peak_bytes for record in finished if record.row.peak_bytes is not None]
    mean, sd, n = mean_sd(record.row.metric_value for record in finished)
    metric = final_metric(mine)
    row |= {
        "variant": configuration.label,
        "status": "ok",
        "seeds_finished": len(finished),
        "seeds": ",".join(str(record.row.seed) for record in finished),
        "peak_spread_bytes": max(peaks) - min(peaks) if peaks else None,
        "metric": metric.name if metric else mine.row.metric,
        "metric_split": metric.split if metric else None,
        "metric_direction": metric.direction if metric else None,
        "metric_mean": mean,
        "metric_sd": sd,
        "metric_n": n,
    }
    return row | _ratios(run, configuration)


def _ratios(run: Run, configuration: Configuration) -> dict[str, Any]:
    reference, mine = run.reference(configuration), configuration.costliest
    theirs = reference.costliest if reference else None
    if reference is None or theirs is None or mine is None:
        return {}
    found: dict[str, Any] = {}
    pairs = {
        "peak_ratio": "peak_bytes",
        "activations_own_peak_ratio": "activations_own_peak_bytes",
        "flops_step_ratio": "flops_step",
        "flops_train_total_ratio": "flops_train_total",
    }
    for name, column in pairs.items():
        ours, base = getattr(mine.row, column), getattr(theirs.row, column)
        partial = column.startswith("flops") and (mine.row.uncounted_ops or theirs.row.uncounted_ops)
        found[name] = ours / base if ours is not None and base and not partial else None
    timing, base_timing = run.timings.get(configuration.label), run.timings.get(reference.label)
    if timing is not None and base_timing is not None:
        found["speed_ratio"], found["speed_rounds"] = paired_ratio(timing, base_timing)
    return found


def metric_name(table: pd.DataFrame) -> str:
    """Return the run's figure of merit with its split, ``metric`` where nothing finished or they differ."""
    pairs = table.loc[table["metric"].notna(), ["metric", "metric_split"]].drop_duplicates()
    names = {named_metric(row) for _, row in pairs.iterrows()}
    return names.pop() if len(names) == 1 else "metric"


def named_metric(row: Any) -> str:
    """Return a row's figure of merit with its split, e.g. ``test accuracy``."""
    return str(row["metric"]) if pd.isna(row["metric_split"]) else f"{row['metric_split']} {row['metric']}"


def trains_nothing(table: pd.DataFrame) -> list[str]:
    """Return the labels of the finished rows without a parameter: what counts, and is no network, costs otherwise."""
    return list(table.loc[(table["status"] == "ok") & (table["parameters_count"] == 0).fillna(False), "variant"])


def trained(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose cost compares with a network's: all but those of `trains_nothing`."""
    return table[~table["variant"].isin(trains_nothing(table))]


def rest_bytes(row: Any) -> Any:
    """Bytes at the peak of the roles without a column of their own in the terminal."""
    if pd.isna(row["peak_bytes"]) or any(pd.isna(row[name]) for name in MAIN_COLUMNS):
        return pd.NA
    return row["peak_bytes"] - sum(row[name] for name in MAIN_COLUMNS)


def _memory_cells(row: Any) -> list[str]:
    split = [text.mib(row[name]) for name in MAIN_COLUMNS]
    own = text.mib(row["activations_own_peak_bytes"])
    return [text.mib(row["peak_bytes"]), text.times(row["peak_ratio"]), *split, text.mib(rest_bytes(row)), own]


def _cost_cells(row: Any) -> list[str]:
    return [
        text.score_sd(row["metric_mean"], row["metric_sd"], row["metric_n"]),
        text.flops(row["flops_step"], row["uncounted_ops"]),
        text.times(row["flops_step_ratio"]),
        text.times(row["flops_train_total_ratio"]),
        text.whole(row["samples_per_second"]),
        text.times(row["speed_ratio"]),
    ]


def budget_cells(row: Any) -> list[str]:
    """Return what was made equal (by name), then the four figures it could have been."""
    flops = text.flops(row["flops_train_total"], row["uncounted_ops"])
    spent = [text.whole(row["layer_updates"]), text.whole(row["samples"]), flops]
    return [f"{row['budget'].replace('_', ' ')} {text.whole(row['budget_value'])}", *spent, _train(row)]


def _train(row: Any) -> str:
    return text.seconds(row["train_seconds"])


BUDGET_HEADER = ["equal budget", "layer updates", "samples", "FLOPs", "train time"]
_MEMORY_HEADER = ["peak MiB", "× bp", *MAIN_ROLES.values(), "rest", "activ own"]


def _cost_header(table: pd.DataFrame) -> list[str]:
    return [metric_name(table), "FLOPs/step", "× bp", "train × bp", "samples/s", "× bp"]


#: Roles that are nowhere more of a peak than this share a column.
_FEW = 0.005
_FIRST_TITLE = "What training costs and what it learns; × bp: relative to backprop on the same network"


def _first_header(table: pd.DataFrame) -> list[str]:
    return ["peak MiB", "× bp", metric_name(table), "FLOPs/step", "× bp", "speed × bp"]


def _first_cells(row: Any) -> list[str]:
    """Return the figures that a reader looks for first, seven columns with the name."""
    score, flops, ratio, *_, speed = _cost_cells(row)
    return [text.mib(row["peak_bytes"]), text.times(row["peak_ratio"]), score, flops, ratio, speed]


def first(table: pd.DataFrame) -> Grid:
    """Return what a reader looks for first: peak, metric, FLOPs and speed, a row a variant."""
    header = ["variant", "peak MiB", "× backprop", f"{data(metric_name(table))}, mean ± sd (n)", "FLOPs a step"]
    header += ["× backprop", "speed × backprop"]
    exact = ("peak_bytes", "peak_ratio", "metric_mean", "flops_step", "flops_step_ratio", "speed_ratio")
    finished = table[table["status"] == "ok"]
    return Grid(header, [_shown(row, _first_cells(row), exact) for row in _rows(finished)])


def rich_tables(table: pd.DataFrame) -> list[Table]:
    """Return the terminal's tables: what is read first, memory, cost and result, the budget, the cells that failed."""
    finished = table[table["status"] == "ok"]
    failed = table[table["status"] != "ok"]
    found = []
    if len(finished):
        found.append(_rich(_FIRST_TITLE, ["variant", *_first_header(table)], finished, _first_cells))
        title = "Memory at the peak of a training step, MiB"
        found.append(_rich(title, ["variant", *_MEMORY_HEADER], finished, _memory_cells))
        title = "Result (mean ± sd over n seeds) and cost; × bp: relative to backprop on the same network"
        found.append(_rich(title, ["variant", *_cost_header(table)], finished, _cost_cells))
        found.append(_rich("What was equal, and what was not", ["variant", *BUDGET_HEADER], finished, budget_cells))
    if len(failed):
        grid = Table(title="Cells that did not finish", title_justify="left")
        for name in ("variant", "seed", "status", "error"):
            grid.add_column(name, overflow="fold")
        for _, row in failed.iterrows():
            grid.add_row(*(Text(text.printable(row[name])) for name in ("variant", "seeds", "status", "error")))
        found.append(grid)
    return found


def _rich(title: str, header: list[str], rows: pd.DataFrame, cells: Any) -> Table:
    grid = Table(title=title, title_justify="left")
    grid.add_column(header[0], overflow="fold")
    for name in header[1:]:
        grid.add_column(name, justify="right")
    for _, row in rows.iterrows():
        grid.add_row(Text(text.printable(row["variant"])), *cells(row))
    return grid


def memory(table: pd.DataFrame) -> list[Block]:
    """Return the split at the peak by every role that counts somewhere; the others are named below it.

    Several roles that are nowhere more than `_FEW` of a peak are one column; their bytes are in ``results.csv``.
    """
    finished = table[table["status"] == "ok"]
    shown = [role for role in ROLES if (finished[f"{role}_bytes"].fillna(0) > 0).any()]
    few = [role for role in shown if role not in MAIN_ROLES and _is_small(finished, role)]
    few = few if len(few) > 1 else []
    shown = [role for role in shown if role not in few]
    zero = [ROLE_NAMES[role] for role in ROLES if (finished[f"{role}_bytes"] == 0).all()]
    header = ["variant", "peak MiB", "× backprop", *(ROLE_NAMES[role] for role in shown)]
    header += [*(["small roles"] if few else []), "activations, own peak", "phase", "block"]
    rows = []
    for _, row in finished.iterrows():
        cells = [named(row["variant"]), figure(text.mib, row["peak_bytes"]), figure(text.times, row["peak_ratio"])]
        cells += [figure(text.mib, row[f"{role}_bytes"]) for role in shown]
        cells += [figure(text.mib, sum(row[f"{role}_bytes"] for role in few))] if few else []
        cells += [figure(text.mib, row["activations_own_peak_bytes"])]
        rows.append([*cells, words(row["peak_phase"]), figure(text.whole, row["peak_block"])])
    folded = ", ".join(ROLE_NAMES[role] for role in few)
    notes = [f"Small roles, nowhere more than {text.share(_FEW)} of a peak: {folded}."] if few else []
    notes += [f"Zero at every peak: {', '.join(zero)}."] if zero else []
    return [Grid(header, rows), *notes]


def _is_small(finished: pd.DataFrame, role: str) -> bool:
    measured = finished[finished["peak_bytes"].notna()]
    return bool((measured[f"{role}_bytes"].fillna(0) <= _FEW * measured["peak_bytes"]).all())


def cost(table: pd.DataFrame) -> Grid:
    """Return result and cost, a row a variant."""
    header = ["variant", f"{data(metric_name(table))}, mean ± sd (n)", "FLOPs a step", "× backprop"]
    header += ["FLOPs of a training × backprop", "samples/s", "× backprop (paired)"]
    exact = ("metric_mean", "flops_step", "flops_step_ratio", "flops_train_total_ratio")
    finished = table[table["status"] == "ok"]
    return Grid(
        header,
        [_shown(row, _cost_cells(row), (*exact, "samples_per_second", "speed_ratio")) for row in _rows(finished)],
    )


def budget(table: pd.DataFrame) -> Grid:
    """Return what was made equal for each variant, and the four figures it could have been."""
    exact = ("budget_value", "layer_updates", "samples", "flops_train_total", "train_seconds")
    finished = table[table["status"] == "ok"]
    rows = [_shown(row, budget_cells(row), exact) for row in _rows(finished)]
    return Grid(["variant", *BUDGET_HEADER], rows, left=2)


def failed(table: pd.DataFrame) -> Grid:
    """Return a row for each cell that did not finish."""
    rows = [
        [named(row["variant"]), Cell(row["seeds"]), *(words(row[key]) for key in ("status", "error", "log"))]
        for row in _rows(table[table["status"] != "ok"])
    ]
    return Grid(["variant", "seed", "status", "error", "log"], rows, left=5)


def _rows(table: pd.DataFrame) -> Iterator[pd.Series]:
    return (row for _, row in table.iterrows())


def _shown(row: Any, cells: list[str], exact: Sequence[str]) -> list[Cell]:
    """The variant's name and its cells, each with the column that it is sorted by."""
    values = [None if pd.isna(row[column]) else row[column] for column in exact]
    return [named(row["variant"]), *map(Cell, cells, values)]
