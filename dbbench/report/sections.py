"""The parts of a report below its verdict: tables, holders, budget, residency, environment, and what is missing.

Each is a `Section` of marked texts, lists and tables, which ``summary.md`` and the page show in their own form.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from functools import partial

import pandas as pd

from dbbench.report import budgets, part_tables, sample_texts, tables, text, ways
from dbbench.report.definitions import DEFINITIONS
from dbbench.report.document import Bullets, Cell, Grid, Section, code, codes, data, figure, name, strong, words
from dbbench.report.run import Run
from dbbench.report.verdict import LEVEL
from dbbench.results.frames import final_metric, mean_sd
from dbbench.results.record import Held
from dbbench.results.store import ITEMISED

FIRST_TITLE = "What training costs and what it learns"
_IN_THE_ROW = ("torch", "device", "threads", "git_commit", "dataset_sha256", "dbbench")
_DIFFERENT_SHOWN = 4
#: Of so many cells a report reads the trace and the curves again to check them against the record.
FILES_READ = 300


def of_report(run: Run, table: pd.DataFrame, whole: Run | None = None) -> tuple[list[Section], list[Section]]:
    """Return what stands above the figures and what stands below them, in the order of every report of a run.

    Where ``run`` and ``table`` are some configurations of a larger run, ``whole`` is that run: where the figures come
    from and what was not measured is said of all of it.
    """
    whole = whole or run
    finished = table["status"] == "ok"
    above = [problems(run)] if run.problems else []
    if finished.any():
        above.append(Section(FIRST_TITLE, [tables.first(table)]))
        more = (ways.side_by_side(run), memory(table), part_tables.by_part(run))
        above += [results(run, table), *(section for section in more if section is not None)]
    above += [] if finished.all() else [failed(table)]
    above.append(budgets.budget(run, table))
    below = [section] if (section := sample_texts.samples(run)) is not None else []
    below += [set_up(run, table), other_metrics(run), other_costs(table)]
    below += [section] if (section := part_tables.by_part_and_role(run)) is not None else []
    below += [holders(run), definitions(), provenance(whole), not_measured(whole)]
    return above, below


def unfinished(run: Run) -> str:
    """How many cells did not finish or left no record, and which; '' where all finished."""
    lost = [record for record in run.records if record.row.status != "ok"]
    absent = run.without_record
    if not lost and not absent:
        return ""
    line = strong(f"{len(lost)} of {len(run.records) + len(absent)} cells did not finish")
    line += f", and {len(absent)} left no record: {codes(absent)}" if absent else ""
    return f"{line}. Means are over the seeds that did finish; n says how many."


def note_on_tests(sentences: list[str]) -> str:
    """How many tests the sentences name, and what they cannot show; '' where they name none."""
    tests = sum("Welch" in line for line in sentences)
    if not tests:
        return ""
    return (
        f"{tests} tests at the {100 * LEVEL:.0f} % level, not corrected for their number. With few seeds only "
        "large differences can be told from noise, so a difference that is not larger is not shown to be zero."
    )


def problems(run: Run) -> Section:
    lines = [data(problem) for problem in run.problems]
    return Section("Problems with this folder", ["Left out of everything below:", Bullets(lines)])


def results(run: Run, table: pd.DataFrame) -> Section:
    return Section("Result and cost", [tables.cost(table), *without_ratio(run, table)])


def memory(table: pd.DataFrame) -> Section:
    return Section("Memory at the peak of a training step, MiB", [*tables.memory(table), *untrained(table)])


def without_ratio(run: Run, table: pd.DataFrame) -> list[str]:
    """Say why the finished rows that have no ratio to backprop have none."""
    lone: dict[str, list[str]] = defaultdict(list)
    for _, row in table[(table["status"] == "ok") & table["peak_bytes"].notna()].iterrows():
        if run.reference(run.configuration(row["variant"])) is None:
            work = f"{row['network']} {row['network_size']}, {row['depth']} layers, batches of {row['batch_size']}"
            lone[f"{work}, {row['precision']}"].append(row["variant"])
    return [f"No ratio for {codes(who)}: no backprop does the same work ({data(work)})." for work, who in lone.items()]


def untrained(table: pd.DataFrame) -> list[str]:
    """Say what a row that trains nothing lacks; nothing where there is none."""
    who = tables.trains_nothing(table)
    if not who:
        return []
    return [
        f"{codes(who)}: no parameter is trained, so that there are no gradients, no optimizer state, no activations, "
        "no layer updates, and no matrix product to count FLOPs of. The peak is of counting a batch, which has a size "
        "of its own; figures of what a network costs leave these rows out."
    ]


def failed(table: pd.DataFrame) -> Section:
    return Section("Cells that did not finish", [tables.failed(table)])


def set_up(run: Run, table: pd.DataFrame) -> Section:
    """Residency, optimizer and shared parts of each variant."""
    header = ["variant", "method", "network", "blocks", "residency", "swap share of time", "transfer a step, MiB"]
    header += ["optimizer (implementation)", "precision", "shared parts, MiB", "their updates"]
    rows = []
    for _, row in table[table["status"] == "ok"].iterrows():
        network = f"{row['network']} {row['network_size']}, {row['depth']} layers"
        cells = [name(row["variant"]), words(row["method"]), words(network)]
        cells += [figure(text.whole, row["blocks"]), words(row["residency"]), figure(text.share, row["swap_share"])]
        cells += [figure(text.mib, row["host_transfer_bytes_per_step"])]
        cells += [words(f"{row['optimizer']} ({row['optimizer_implementation']})"), words(row["precision"])]
        cells += [figure(text.mib, row["shared_parameters_bytes"]), figure(text.whole, row["shared_updates"])]
        rows.append(cells)
    parts = defaultdict(list)
    for configuration in run.configurations:
        record = configuration.costliest
        if record is not None and record.shared_parts:
            parts[", ".join(record.shared_parts)].append(configuration.label)
    section = Section("Set-up of each variant", [Grid(header, rows, left=3)])
    if parts:
        named = [f"{codes(labels)}: {data(names)}" for names, labels in parts.items()]
        section.blocks.extend(["Shared parts by name:", Bullets(named)])
    return section


def other_costs(table: pd.DataFrame) -> Section:
    """Inference, energy and the device's own account, for the variants that have any of them."""
    header = ["variant", "inference peak, MiB", "inference FLOPs", "device peak, MiB", "kernel workspace, MiB"]
    header += ["allocated, MiB", "reserved, MiB", "NVML process peak, MiB", "energy, J", "peak over seeds, spread MiB"]
    sizes = ("device_peak_bytes", "kernel_workspace_bytes", "allocated_bytes", "reserved_bytes")
    rows = []
    for _, row in table[table["status"] == "ok"].iterrows():
        cells = [name(row["variant"]), figure(text.mib, row["inference_peak_bytes"])]
        cells += [figure(partial(text.flops, uncounted=row["uncounted_ops"]), row["flops_inference"])]
        cells += [figure(text.mib, row[size]) for size in (*sizes, "nvml_process_peak_bytes")]
        rows.append([*cells, figure(text.whole, row["energy_joules"]), figure(text.mib, row["peak_spread_bytes"])])
    return Section("Inference, device and energy", [Grid(header, rows)])


def other_metrics(run: Run) -> Section:
    """What was measured on the split of the headline and stands in no table above: metrics, ways of predicting."""
    rows, shown = [], ways.shown(run)
    if sample_texts.written(run):
        shown |= {(metric, way) for metric in sample_texts.METRICS for way in sample_texts.WAYS}
    for configuration in run.configurations:
        found: dict[tuple[str, str, str], list[float]] = {}
        for record in configuration.finished:
            headline = final_metric(record)
            for metric in record.metrics:
                if (metric.name, metric.variant) in shown:
                    continue
                if headline is not None and metric is not headline and metric.split == headline.split:
                    key = (metric.variant or "the method's own", f"{metric.split} {metric.name}", metric.unit)
                    found.setdefault(key, []).append(metric.value)
        for key, values in found.items():
            mean, sd, n = mean_sd(values)
            rows.append([name(configuration.label), *map(words, key), Cell(text.score_sd(mean, sd, n), mean)])
    grid = Grid(["variant", "prediction", "metric", "unit", "mean ± sd (n)"], rows, left=4)
    return Section("Other metrics, and other ways of predicting", [grid if rows else "None."])


def holders(run: Run) -> Section:
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
            cells = [name(configuration.label), Cell(role), *map(words, (holder, where, op))]
            sums = sum(h.bytes for h in lines), sum(h.storages for h in lines)
            rows.append([*cells, *(figure(text.whole, total) for total in sums)])
    none = "No byte is retained or other at any variant's peak."
    header = ["variant", "role", "held by", "module", "op", "bytes", "storages"]
    return Section("Retained and other, by holder", [Grid(header, rows, left=5) if rows else none])


def definitions() -> Section:
    rows = [[words(term), words(said)] for term, said in DEFINITIONS.items()]
    return Section("Definitions", [Grid(["term", "what it means here"], rows, left=2)])


def provenance(run: Run) -> Section:
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
        more = {key: value for key, value in record.environment.items() if key not in _IN_THE_ROW}
        for what, value in (facts | more).items():
            if value is not None:
                said = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
                found.setdefault(what, {}).setdefault(said, []).append(record.row.variant)
    rows = []
    for what, values in found.items():
        if len(values) > _DIFFERENT_SHOWN:
            rows.append([words(what), Cell(f"{len(values)} different values; each record has its own")])
            continue
        alone = len(values) == 1
        shown = [data(v) if alone else f"{data(v)} ({codes(list(dict.fromkeys(by)))})" for v, by in values.items()]
        rows.append([words(what), Cell("; ".join(shown))])
    tuning = run.info.get("tuning")
    rows.append([Cell("tuning"), words(tuning) if tuning else Cell("no grid is named in run.json")])
    seeds = sorted({record.row.seed for record in run.records})
    rows.append([Cell("seeds"), Cell(", ".join(map(str, seeds)))])
    if len(run.records) > FILES_READ:
        checked = f"those of {FILES_READ:,} of {len(run.records):,} cells"
        rows.append([Cell("traces and curves read to check them"), Cell(checked)])
    return Section("Where these figures come from", [Grid(["what", "value"], rows, left=2)])


def not_measured(run: Run) -> Section:
    """The union of what the cells say they could not measure, with the reason, and the ops without a FLOP formula."""
    reasons: dict[tuple[str, str], list[str]] = {}
    ops: dict[tuple[str, int], list[str]] = {}
    for configuration in run.configurations:
        for record in configuration.records:
            for what, reason in record.unavailable.items():
                reasons.setdefault((what, reason), []).append(configuration.label)
            for op, count in record.uncounted.items():
                ops.setdefault((op, count), []).append(configuration.label)
    lines = [f"{code(label)}: never measured, the cell left no record" for label in run.without_record]
    lines += [
        f"{code(what)}: {data(reason)} ({_who(run, labels)})" for (what, reason), labels in sorted(reasons.items())
    ]
    lines += [
        f"FLOPs of {code(op)}, called {count} times: no formula, so they are in no total ({_who(run, labels)})"
        for (op, count), labels in sorted(ops.items())
    ]
    return Section("What was not measured", [Bullets(lines) if lines else "Nothing was left out."])


def _who(run: Run, labels: Iterable[str]) -> str:
    unique = list(dict.fromkeys(labels))
    return "every variant" if len(unique) == len(run.configurations) > 1 else codes(unique)
