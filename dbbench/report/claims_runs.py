"""What runs say of a claim: a figure of a variant over backprop's, a figure of its own, or a difference of metrics."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from dbbench.report import text
from dbbench.report.claims_rules import SCALING_KINDS, Measurement, Rule, bounded, matches
from dbbench.report.run import Configuration, Run
from dbbench.results.frames import final_metric, mean_sd


def measured_by_runs(runs: Sequence[Run], rule: Rule) -> Iterator[Measurement]:
    """Yield a measurement for each variant of ``runs`` that ``rule`` is about and that has the figure."""
    if rule.kind in ("identity", "none", *SCALING_KINDS):
        return
    for run in runs:
        for configuration in run.configurations:
            row = configuration.records[0].row
            known = configuration.options | row.model_dump(exclude_none=True)
            if configuration.costliest is None or not matches(known, rule.of):
                continue
            found = _difference(run, configuration) if rule.kind == "difference" else _figure(run, configuration, rule)
            if found is None:
                continue
            value, words = found
            parts = {"block": row.blocks or 1, "layer": row.depth, None: 1}[rule.per]
            low, high = (None if bound is None else bound / parts for bound in (rule.at_least, rule.at_most))
            holds, edge = bounded(value, low, high)
            where = text.code(configuration.label) + (f" of {text.code(run.name)}" if len(runs) > 1 else "")
            budget = f"{row.budget.replace('_', ' ')} {text.whole(row.budget_value)}"
            yield Measurement(f"{where}: {words}{edge}", holds, budget, row.residency or text.MISSING)


def _figure(run: Run, configuration: Configuration, rule: Rule) -> tuple[float, str] | None:
    """Return the rule's figure, and its words: a ratio to backprop, or a figure of the variant alone."""
    mine = configuration.costliest
    assert mine is not None
    if rule.figure == "state_over_parameters":
        row = mine.row
        own = [row.parameters_own_peak_bytes, row.gradients_own_peak_bytes, row.optimizer_own_peak_bytes]
        if None in own or not own[0]:
            return None
        value = sum(size for size in own if size is not None) / own[0]
        return value, f"{value:.3f} × parameters"
    reference = run.reference(configuration)
    theirs = reference.costliest if reference else None
    if reference is None or theirs is None or reference is configuration:
        return None
    if rule.figure.startswith("step_seconds"):
        timing, base = run.timings.get(configuration.label), run.timings.get(reference.label)
        if timing is None or base is None:
            return None
        pairs = zip(timing.seconds_per_step, base.seconds_per_step, strict=False)
        value = statistics.median(ours / other for ours, other in pairs)
        value *= (mine.row.blocks or 1) if rule.figure == "step_seconds_all_blocks" else 1
        return value, f"{value:.3f} of backprop's on {text.escaped(mine.row.device)}"
    ours, base_value = getattr(mine.row, rule.figure), getattr(theirs.row, rule.figure)
    if ours is None or not base_value:
        return None
    return ours / base_value, f"{ours / base_value:.3f} of backprop's, {mine.row.depth} layers"


def _difference(run: Run, configuration: Configuration) -> tuple[float, str] | None:
    reference = run.reference(configuration)
    if reference is None or reference is configuration:
        return None
    mean, sd, n = mean_sd(record.row.metric_value for record in configuration.finished)
    base, base_sd, base_n = mean_sd(record.row.metric_value for record in reference.finished)
    if mean is None or base is None or min(n, base_n) < 2:
        return None
    row = configuration.records[0].row
    words = f"{text.score_sd(mean, sd, n)} against {text.score_sd(base, base_sd, base_n)}"
    metric = final_metric(configuration.finished[0])
    name = metric.name if metric else configuration.finished[0].row.metric
    return mean - base, f"{words}, {text.escaped(name)} on {text.escaped(row.task)}"
