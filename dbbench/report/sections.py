"""The parts of ``summary.md`` below the tables: holders, budget, residency, parts, environment, and what is missing."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable

import pandas as pd

from dbbench.report import text
from dbbench.report.definitions import DEFINITIONS
from dbbench.report.run import Run
from dbbench.report.tables import BUDGET_HEADER, budget_cells
from dbbench.results.frames import final_metric, mean_sd
from dbbench.results.record import Held
from dbbench.results.store import ITEMISED

_IN_THE_ROW = ("torch", "device", "threads", "git_commit", "dataset_sha256", "dbbench")
_DIFFERENT_SHOWN = 4
#: Of so many cells a report reads the trace and the curves again to check them against the record.
FILES_READ = 300


def budget(table: pd.DataFrame) -> str:
    """What was made equal, by name, and what that leaves unequal."""
    finished = table[table["status"] == "ok"]
    kinds = sorted({f"{row['budget'].replace('_', ' ')}" for _, row in finished.iterrows()})
    lead = f"Made equal: **{text.escaped(', '.join(kinds))}**. The other figures are what that leaves unequal."
    if len(kinds) > 1:
        lead += " Variants under different budgets are not comparable at equal cost; the first column tells them apart."
    rows = [[text.code(row["variant"]), *budget_cells(row)] for _, row in finished.iterrows()]
    return f"{lead}\n\n" + text.markdown_table(["variant", *BUDGET_HEADER], rows, left=2)


def set_up(run: Run, table: pd.DataFrame) -> str:
    """Residency, optimizer and shared parts of each variant."""
    header = ["variant", "method", "network", "blocks", "residency", "swap share of time", "transfer a step, MiB"]
    header += ["optimizer (implementation)", "precision", "shared parts, MiB", "their updates"]
    rows = []
    for _, row in table[table["status"] == "ok"].iterrows():
        network = f"{row['network']} {row['network_size']}, {row['depth']} layers"
        cells = [text.code(row["variant"]), text.escaped(row["method"]), text.escaped(network)]
        cells += [_plain(row["blocks"]), _plain(row["residency"]), text.share(row["swap_share"])]
        cells += [text.mib(row["host_transfer_bytes_per_step"])]
        cells += [text.escaped(f"{row['optimizer']} ({row['optimizer_implementation']})"), _plain(row["precision"])]
        cells += [text.mib(row["shared_parameters_bytes"]), text.whole(row["shared_updates"])]
        rows.append(cells)
    parts = defaultdict(list)
    for configuration in run.configurations:
        record = configuration.costliest
        if record is not None and record.shared_parts:
            parts[", ".join(record.shared_parts)].append(configuration.label)
    named = [f"- {_codes(labels)}: {text.escaped(names)}" for names, labels in parts.items()]
    lines = text.markdown_table(header, rows, left=3)
    return lines + ("\n\nShared parts by name:\n\n" + "\n".join(named) if named else "")


def other_costs(table: pd.DataFrame) -> str:
    """Inference, energy and the device's own account, for the variants that have any of them."""
    header = ["variant", "inference peak, MiB", "inference FLOPs", "device peak, MiB", "kernel workspace, MiB"]
    header += ["allocated, MiB", "reserved, MiB", "NVML process peak, MiB", "energy, J", "peak over seeds, spread MiB"]
    sizes = ("device_peak_bytes", "kernel_workspace_bytes", "allocated_bytes", "reserved_bytes")
    rows = []
    for _, row in table[table["status"] == "ok"].iterrows():
        cells = [text.code(row["variant"]), text.mib(row["inference_peak_bytes"]), text.flops(row["flops_inference"])]
        cells += [text.mib(row[name]) for name in (*sizes, "nvml_process_peak_bytes")]
        rows.append([*cells, text.whole(row["energy_joules"]), text.mib(row["peak_spread_bytes"])])
    return text.markdown_table(header, rows)


def other_metrics(run: Run) -> str:
    """What was measured on the split of the headline besides it: other metrics, and other ways of predicting."""
    rows = []
    for configuration in run.configurations:
        found: dict[tuple[str, str, str], list[float]] = {}
        for record in configuration.finished:
            headline = final_metric(record)
            for metric in record.metrics:
                if headline is not None and metric is not headline and metric.split == headline.split:
                    key = (metric.variant or "the method's own", f"{metric.split} {metric.name}", metric.unit)
                    found.setdefault(key, []).append(metric.value)
        for (prediction, name, unit), values in found.items():
            cells = [text.code(configuration.label), *map(text.escaped, (prediction, name, unit))]
            rows.append([*cells, text.score_sd(*mean_sd(values))])
    if not rows:
        return "None."
    return text.markdown_table(["variant", "prediction", "metric", "unit", "mean ± sd (n)"], rows, left=4)


def holders(run: Run) -> str:
    """Itemise what is ``retained`` and ``other`` at each variant's peak; modules that hold alike share a line."""
    rows = []
    for configuration in run.configurations:
        record = configuration.costliest
        alike: dict[tuple[str, str, str], list[Held]] = {}
        for held in record.held_at_peak if record else ():
            if held.role in ITEMISED:
                alike.setdefault((held.role, held.holder or text.MISSING, held.op or text.MISSING), []).append(held)
        for (role, holder, op), lines in alike.items():
            modules = [line.module or text.MISSING for line in lines]
            where = modules[0] if len(modules) == 1 else f"{modules[0]} and {len(modules) - 1} more"
            cells = [text.code(configuration.label), role, *map(text.escaped, (holder, where, op))]
            rows.append([*cells, f"{sum(h.bytes for h in lines):,}", f"{sum(h.storages for h in lines):,}"])
    if not rows:
        return "No byte is retained or other at any variant's peak."
    header = ["variant", "role", "held by", "module", "op", "bytes", "storages"]
    return text.markdown_table(header, rows, left=5)


def definitions() -> str:
    return text.markdown_table(
        ["term", "what it means here"],
        [[text.escaped(term), text.escaped(said)] for term, said in DEFINITIONS.items()],
        left=2,
    )


def provenance(run: Run) -> str:
    """Where the figures come from: environment, data, tuning. A value that differs between cells is given for each."""
    found: dict[str, dict[str, list[str]]] = {}
    finished = [record for record in run.records if record.row.status == "ok"]
    for record in finished or run.records:
        row = record.row
        facts = {
            "torch": row.torch_version,
            "device": row.device,
            "threads a cell": row.threads,
            "git commit": row.git_commit,
            "data sha256": row.dataset_sha256,
            "dbbench": row.dbbench_version,
            "schema version": row.schema_version,
        }
        more = {name: value for name, value in record.environment.items() if name not in _IN_THE_ROW}
        for name, value in (facts | more).items():
            if value is not None:
                words = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
                found.setdefault(name, {}).setdefault(words, []).append(record.row.variant)
    rows = []
    for name, values in found.items():
        if len(values) > _DIFFERENT_SHOWN:
            rows.append([text.escaped(name), f"{len(values)} different values; each record has its own"])
            continue
        alone = len(values) == 1
        shown = [
            text.escaped(v) if alone else f"{text.escaped(v)} ({_codes(dict.fromkeys(by))})" for v, by in values.items()
        ]
        rows.append([text.escaped(name), "; ".join(shown)])
    tuning = run.info.get("tuning")
    rows.append(["tuning", text.escaped(tuning) if tuning else "no grid is named in run.json"])
    seeds = sorted({record.row.seed for record in run.records})
    rows.append(["seeds", ", ".join(map(str, seeds))])
    if len(run.records) > FILES_READ:
        rows.append(["traces and curves read to check them", f"those of {FILES_READ:,} of {len(run.records):,} cells"])
    return text.markdown_table(["what", "value"], rows, left=2)


def not_measured(run: Run) -> str:
    """The union of what the cells say they could not measure, with the reason, and the ops without a FLOP formula."""
    reasons: dict[tuple[str, str], list[str]] = {}
    ops: dict[tuple[str, int], list[str]] = {}
    for configuration in run.configurations:
        for record in configuration.records:
            for name, reason in record.unavailable.items():
                reasons.setdefault((name, reason), []).append(configuration.label)
            for op, count in record.uncounted.items():
                ops.setdefault((op, count), []).append(configuration.label)
    lines = [f"- {text.code(label)}: never measured, the cell left no record" for label in run.without_record]
    lines += [
        f"- {text.code(name)}: {text.escaped(reason)} ({_who(run, labels)})"
        for (name, reason), labels in sorted(reasons.items())
    ]
    lines += [
        f"- FLOPs of {text.code(op)}, called {count} times: no formula, so they are in no total ({_who(run, labels)})"
        for (op, count), labels in sorted(ops.items())
    ]
    listed = {op for op, _ in ops}
    spoken = {o for r in run.records for o in (r.row.uncounted_ops or "").replace(",", " ").split()}
    lines += [f"- FLOPs of {text.code(op)}: no formula, so they are in no total" for op in sorted(spoken - listed)]
    return "\n".join(lines) if lines else "Nothing was left out."


def _who(run: Run, labels: Iterable[str]) -> str:
    unique = list(dict.fromkeys(labels))
    return "every variant" if len(unique) == len(run.configurations) > 1 else _codes(unique)


def _codes(labels: Iterable[str]) -> str:
    return ", ".join(text.code(label) for label in labels)


def _plain(value: object) -> str:
    return text.MISSING if pd.isna(value) else text.escaped(value)  # type: ignore[call-overload]
