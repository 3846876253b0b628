"""What runs say of a claim: a figure of a variant over backprop's, a figure of its own, or a difference of metrics."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from dbbench.report import text
from dbbench.report.claims_rules import SCALING_KINDS, Measurement, Rule, bounded, matches
from dbbench.report.claims_unrolled import Shape, shape_of, unrolled
from dbbench.report.run import Configuration, Run
from dbbench.results.frames import final_metric, mean_sd
from dbbench.results.holdings import live_bytes, training_steps
from dbbench.results.record import Row
from dbbench.results.scaling import LAYERS_OWN_PEAKS

#: What a figure's ratio to backprop is a ratio of.
_OF = {
    "peak_bytes": "peak",
    "activations_own_peak_bytes": "activations",
    "layers_activations_own_peak_bytes": "activations in the layers",
    "gradients_own_peak_bytes": "gradients",
    "flops_inference": "FLOPs a prediction",
    "step_seconds": "time a step",
    "step_seconds_all_blocks": "time a step, times B",
}
#: Two trainings had a quantity equal where it differs by less than this: a budget is met in whole steps.
_EQUAL = 0.01


class Found(NamedTuple):
    """A figure as `Measurement` has it; ``parts`` is what a bound is divided by where the rule asks for K′."""

    value: float
    figure: str
    unit: str
    words: str
    equal: tuple[str, ...] = ()
    parts: int = 1


def measured_by_runs(runs: Sequence[Run], rule: Rule) -> Iterator[Measurement]:
    """Yield a measurement for each variant of ``runs`` that ``rule`` is about and that has the figure."""
    if rule.kind in ("identity", "none", *SCALING_KINDS):
        return
    for run in runs:
        for configuration in run.configurations:
            if configuration.costliest is None:
                continue
            row = configuration.records[0].row
            for found in _found(run, configuration, rule):
                parts = {"block": row.blocks or 1, "layer": row.depth, "recurrence": found.parts, None: 1}[rule.per]
                low, high = (None if bound is None else bound / parts for bound in (rule.at_least, rule.at_most))
                holds, edge = bounded(found.value, low, high)
                budget = f"{row.budget.replace('_', ' ')} {text.whole(row.budget_value)}"
                yield Measurement(
                    run.name, configuration.label, found.value, found.figure, found.unit, found.words, edge, holds,
                    budget, row.residency or text.MISSING, found.equal,
                )  # fmt: skip


def _found(run: Run, configuration: Configuration, rule: Rule) -> Iterator[Found]:
    """Yield what the rule finds of a variant: one figure or none, and where K′ counts one for each backprop."""
    row = configuration.records[0].row
    known = configuration.options | row.model_dump(exclude_none=True)
    if rule.kind in ("unrolled", "unrolled_difference"):
        shape = shape_of(configuration)
        if shape is None:
            return
        for reference, kept in unrolled(run, configuration, shape):
            if not matches(known | shape._asdict() | {"kept": kept}, rule.of):
                continue
            found = _saved(configuration, reference, rule, shape, kept)
            if found is not None:
                yield found._replace(parts=kept)
        return
    if not matches(known, rule.of):
        return
    if rule.kind == "clean_loss":
        found = _clean_loss(run, configuration, rule)
    elif rule.kind == "difference":
        backprop = run.reference(configuration)
        found = None if backprop is None else _difference(configuration, backprop, rule)
    else:
        found = _figure(run, configuration, rule)
    if found is not None:
        yield found


def _figure(run: Run, configuration: Configuration, rule: Rule) -> Found | None:
    """Return the rule's figure: a ratio to backprop, or a figure of the variant alone."""
    if rule.figure == "state_over_parameters":
        return _state(configuration)
    reference = run.reference(configuration)
    if reference is None or reference is configuration:
        return None
    if rule.figure.startswith("step_seconds"):
        timing, base = run.timings.get(configuration.label), run.timings.get(reference.label)
        if timing is None or base is None:
            return None
        pairs = zip(timing.seconds_per_step, base.seconds_per_step, strict=False)
        value = statistics.median(ours / other for ours, other in pairs)
        row = configuration.records[0].row
        value *= (row.blocks or 1) if rule.figure == "step_seconds_all_blocks" else 1
        return _short(value, f"of backprop's {_OF[rule.figure]} on {text.escaped(row.device)}")
    return _ratio(configuration, reference, rule.figure)


def _state(configuration: Configuration) -> Found | None:
    mine = configuration.costliest
    assert mine is not None
    row = mine.row
    own = [row.parameters_own_peak_bytes, row.gradients_own_peak_bytes, row.optimizer_own_peak_bytes]
    if None in own or not own[0]:
        return None
    return _short(sum(size for size in own if size is not None) / own[0], "× parameters")


def _ratio(configuration: Configuration, reference: Configuration, figure: str) -> Found | None:
    """Return a figure of the costliest cell over the reference's, None where either lacks it."""
    ours, base = figure_of(configuration, figure), figure_of(reference, figure)
    if ours is None or not base:
        return None
    return _short(ours / base, f"of backprop's {_OF.get(figure, figure)}")


def _short(value: float, unit: str) -> Found:
    return Found(value, f"{value:.3f}", unit, f"{value:.3f} {unit}")


def figure_of(configuration: Configuration, figure: str) -> int | None:
    """Return a figure of the costliest cell, a column or of what was made in the layers.

    None where it is unknown, as FLOPs are where some ops have no formula.
    """
    mine = configuration.costliest
    if mine is None or figure not in LAYERS_OWN_PEAKS:
        partial = mine is not None and figure.startswith("flops") and bool(mine.row.uncounted_ops)
        return None if mine is None or partial else getattr(mine.row, figure)
    frame = configuration.folder.read_trace(mine.row.config_hash)
    if frame is None:
        return None
    role = figure.removeprefix("layers_").removesuffix("_own_peak_bytes")
    inside = frame["module"].astype(str).str.contains(r"(?:^|\.)layers\.")
    steps = training_steps(frame[(frame["role"] == role) & inside])
    return max((int(live_bytes(step).max()) for step in steps), default=None)


def _difference(configuration: Configuration, reference: Configuration, rule: Rule) -> Found | None:
    if reference is configuration:
        return None
    mean, sd, n = mean_sd(record.row.metric_value for record in configuration.finished)
    base, base_sd, base_n = mean_sd(record.row.metric_value for record in reference.finished)
    equal = equal_budgets(configuration, reference)
    if mean is None or base is None or min(n, base_n) < rule.seeds or (rule.budget and rule.budget not in equal):
        return None
    name = _metric(configuration)
    words = f"{text.score_sd(mean, sd, n)} against {text.score_sd(base, base_sd, base_n)}"
    task = text.escaped(configuration.records[0].row.task)
    return Found(
        mean - base, signed(mean - base), f"{name} against backprop's on {task}", f"{words}, {name} on {task}", equal
    )


def _clean_loss(run: Run, configuration: Configuration, rule: Rule) -> Found | None:
    """Return the metric with a clean loss against backprop's, beside the same training's without that loss."""
    reference, without = run.reference(configuration), _without_clean_loss(run, configuration)
    if reference is None or without is None:
        return None
    found = _difference(configuration, reference, rule)
    bare, sd, n = mean_sd(record.row.metric_value for record in without.finished)
    if found is None or bare is None or n < rule.seeds:
        return None
    ours, base = (mean_sd(r.row.metric_value for r in c.finished)[0] for c in (configuration, reference))
    assert ours is not None and base is not None
    words = f"{text.score_sd(bare, sd, n)} without it, {found.words}"
    if bare > base:
        words += f", {text.share((bare - ours) / (bare - base))} of the gap".replace("-", "−")
    return found._replace(words=words)


def _without_clean_loss(run: Run, configuration: Configuration) -> Configuration | None:
    """Return the finished variant that trains as this one does but for its clean loss."""

    def rest(c: Configuration) -> tuple[Any, ...]:
        row, options = c.records[0].row, c.options | {"clean_weight": 0, "residency": "any"}  # which trains alike
        return row.method, row.budget, row.budget_value, json.dumps(options, sort_keys=True)

    wanted = rest(configuration)
    same = (c for c in run.configurations if c is not configuration and not c.options.get("clean_weight"))
    return next(
        (c for c in same if c.finished and rest(c) == wanted and run.reference(c) is run.reference(configuration)), None
    )


def _saved(configuration: Configuration, reference: Configuration, rule: Rule, shape: Shape, kept: int) -> Found | None:
    """Return what one pass through the core saves against backprop through the last ``kept`` of K applications."""
    at = f"K = {shape.recurrences}, K′ = {kept}"
    if rule.kind == "unrolled_difference":
        found = _difference(configuration, reference, rule)
        return found and found._replace(words=f"{found.words}, {at}")
    if not rule.figure.startswith("flops"):
        found = _ratio(configuration, reference, rule.figure)
        whole = _ratio(configuration, reference, "activations_own_peak_bytes")
        peak = _ratio(configuration, reference, "peak_bytes")
        rest = f" (the whole network {whole.figure}, its peak {peak.figure})" if whole and peak else ""
        return found and _short(found.value, f"{found.unit} at {at}{rest}")
    ours, base = figure_of(configuration, "flops_step"), figure_of(reference, "flops_step")
    if not ours or not base:
        return None
    times, theory = base / ours, shape.theory(kept)
    if rule.figure == "flops_over_theory":
        return _short(times / theory, f"of the ratio in theory ({times:.2f} against {theory:.2f}) at {at}")
    unit = f"times fewer FLOPs a sample at {at}; {theory:.2f} in theory"
    return Found(times, f"{times:.2f}", unit, f"{times:.2f} {unit}")


def equal_budgets(configuration: Configuration, reference: Configuration) -> tuple[str, ...]:
    """Return which of layer updates and samples the two trainings had equal, whatever their budgets say."""
    mine, theirs = configuration.finished[0].row, reference.finished[0].row
    return tuple(name for name in ("layer_updates", "samples") if _close(mine, theirs, name))


def _close(mine: Row, theirs: Row, name: str) -> bool:
    ours, other = getattr(mine, name), getattr(theirs, name)
    return bool(ours and other) and abs(ours - other) <= _EQUAL * other


def signed(value: float) -> str:
    """A difference with its sign: ``−0.042``."""
    return f"{'−' if value < 0 else '+'}{text.score(abs(value))}"


def _metric(configuration: Configuration) -> str:
    metric = final_metric(configuration.finished[0])
    name = metric.name if metric else configuration.finished[0].row.metric
    return text.escaped(str(name).replace("_", " "))
