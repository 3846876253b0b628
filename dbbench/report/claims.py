"""The published claims of DiffusionBlocks beside what our runs measured: generated, never written by hand.

``claims.yaml`` lists each claim with the rule that decides it. A verdict comes from measured figures under that rule
or not at all: a figure from another data set is shown as the nearest and decides nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from dbbench.report import text
from dbbench.report.run import Configuration, Run, load
from dbbench.results.frames import final_metric, mean_sd
from dbbench.results.store import write_atomically

Kind = Literal["ratio", "own", "difference", "identity", "none"]
HOLDS, FAILS, OPEN, IDENTITY = "holds", "fails", "not measured here", "identity (algebra)"


class Rule(BaseModel):
    """What decides a claim; ``per`` divides the bounds by the variant's number of blocks or layers."""

    model_config = ConfigDict(extra="forbid")
    kind: Kind
    figure: str = "metric_value"
    of: dict[str, Any] = {}
    at_most: float | None = None
    at_least: float | None = None
    per: Literal["block", "layer"] | None = None
    text: str = ""


class Claim(BaseModel):
    """A statement of the paper, where it stands, and the rule that decides it."""

    model_config = ConfigDict(extra="forbid")
    id: str
    source: str
    claim: str
    published: str
    rule: Rule
    nearest: Rule | None = None


@dataclass(frozen=True)
class Measurement:
    """One variant's figure under a rule; ``holds`` is None where the rule sets no bound."""

    run: Run
    configuration: Configuration
    shown: str
    holds: bool | None


def claims() -> list[Claim]:
    """Return the claims in the order of the file."""
    raw = yaml.safe_load(resources.files("dbbench.report").joinpath("claims.yaml").read_text(encoding="utf-8"))
    return [Claim.model_validate(item) for item in raw["claims"]]


def write_claims(folders: Sequence[Path], path: Path) -> list[str]:
    """Write ``path`` (Markdown) from the runs in ``folders``; return one line for each file that was left out."""
    runs = [load(folder) for folder in folders]
    rows, rules = [], []
    for claim in claims():
        measured = list(_measured(runs, claim.rule))
        verdict = _verdict(claim, measured)
        near = list(_measured(runs, claim.nearest)) if verdict == OPEN and claim.nearest else []
        rows.append(_row(claim, verdict, measured, near))
        rules.append(f"- {text.code(claim.id)}: {text.escaped(claim.rule.text)}")
    header = ["claim", "source", "published figure", "our measured figure", "budget", "residency", "verdict"]
    names = ", ".join(text.code(run.name) for run in runs)
    counts = {word: sum(row[-1] == word for row in rows) for word in (HOLDS, FAILS, OPEN, IDENTITY)}
    parts = [
        "# The claims of DiffusionBlocks, and what was measured",
        "Shing, Koyama, Akiba, arXiv 2506.14202 v4, ICLR 2026. Generated from the records of "
        f"{names} by `dbbench.report.claims`. " + "; ".join(f"{word}: {n}" for word, n in counts.items()) + ".",
        "A verdict is given only where the measured figure is of the thing claimed, under the rule below. A figure "
        "marked *nearest* is of something else; it decides nothing.",
        text.markdown_table(header, rows, left=7),
        "## Rules",
        "\n".join(rules),
    ]
    write_atomically(path, ("\n\n".join(parts) + "\n").encode())
    return [f"{run.name}: {problem}" for run in runs for problem in run.problems]


def _verdict(claim: Claim, measured: Sequence[Measurement]) -> str:
    if claim.rule.kind == "identity":
        return IDENTITY
    if not measured:
        return OPEN
    return HOLDS if all(m.holds for m in measured) else FAILS


def _row(claim: Claim, verdict: str, measured: Sequence[Measurement], near: Sequence[Measurement]) -> list[str]:
    shown = [m.shown + (f" ({HOLDS if m.holds else FAILS})" if len(measured) > 1 else "") for m in measured]
    shown += [f"*nearest*, {m.shown}" for m in near]
    used = [*measured, *near]
    budgets = dict.fromkeys(_budget(m.configuration) for m in used)
    residencies = dict.fromkeys(m.configuration.records[0].row.residency or text.MISSING for m in used)
    cells = [text.escaped(part) for part in (claim.claim, claim.source, claim.published)]
    cells[0] = f"{text.code(claim.id)} {cells[0]}"
    join = "<br>".join
    return [
        *cells,
        join(shown) or text.MISSING,
        join(budgets) or text.MISSING,
        join(residencies) or text.MISSING,
        verdict,
    ]


def _budget(configuration: Configuration) -> str:
    row = configuration.records[0].row
    return f"{row.budget.replace('_', ' ')} {text.whole(row.budget_value)}"


def _measured(runs: Sequence[Run], rule: Rule) -> Iterator[Measurement]:
    if rule.kind in ("identity", "none"):
        return
    for run in runs:
        for configuration in run.configurations:
            if configuration.costliest is None or not _matches(configuration, rule.of):
                continue
            found = _difference(run, configuration) if rule.kind == "difference" else _figure(run, configuration, rule)
            if found is None:
                continue
            value, words = found
            low, high = _bounds(rule, configuration)
            holds = None if low is high is None else (low is None or value >= low) and (high is None or value <= high)
            where = (
                f"{text.code(configuration.label)} of {text.code(run.name)}"
                if len(runs) > 1
                else text.code(configuration.label)
            )
            edge = "".join(
                f", {word} {bound:.3g}" for word, bound in (("at least", low), ("at most", high)) if bound is not None
            )
            yield Measurement(run, configuration, f"{where}: {words}{edge}", holds)


def _bounds(rule: Rule, configuration: Configuration) -> tuple[float | None, float | None]:
    row = configuration.records[0].row
    parts = {"block": row.blocks or 1, "layer": row.depth, None: 1}[rule.per]
    low, high = (None if bound is None else bound / parts for bound in (rule.at_least, rule.at_most))
    return low, high


def _matches(configuration: Configuration, wanted: Mapping[str, Any]) -> bool:
    row = configuration.records[0].row.model_dump()
    options = configuration.options
    for key, value in wanted.items():
        mine = row[key] if row.get(key) is not None else options.get(key)
        if isinstance(value, dict):
            if mine is None or mine < value["at_least"]:
                return False
        elif value == "same_as_blocks":
            # the option's own default is as many steps as blocks, which a suite need not spell out
            if mine is not None and mine != row["blocks"]:
                return False
        elif mine != value:
            return False
    return True


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
