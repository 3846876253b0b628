"""The published claims of DiffusionBlocks beside what our runs measured: generated, never written by hand.

``claims.yaml`` lists each claim with the rule that decides it. A verdict comes from measured figures under that rule
or not at all: a figure from another data set is shown as the nearest and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dbbench.report import text
from dbbench.report.claims_rules import FAILS, HOLDS, IDENTITY, OPEN, Claim, Measurement, Rule, claims
from dbbench.report.claims_runs import measured_by_runs
from dbbench.report.claims_scalings import measured_by_scalings
from dbbench.report.run import Run, load
from dbbench.results.scaling import SCALING_FILE, Scaling, read_scaling
from dbbench.results.store import write_atomically


def write_claims(folders: Sequence[Path], path: Path) -> list[str]:
    """Write ``path`` (Markdown) from the runs and scalings in ``folders``; return a line for each file left out."""
    scalings = [read_scaling(folder) for folder in folders if (folder / SCALING_FILE).exists()]
    runs = [load(folder) for folder in folders if not (folder / SCALING_FILE).exists()]
    rows, rules = [], []
    for claim in claims():
        measured = _measured(runs, scalings, claim.rule)
        verdict = _verdict(claim, measured)
        near = _measured(runs, scalings, claim.nearest) if verdict == OPEN and claim.nearest else []
        rows.append(_row(claim, verdict, measured, near))
        rules.append(f"- {text.code(claim.id)}: {text.escaped(claim.rule.text)}")
    header = ["claim", "source", "published figure", "our measured figure", "budget", "residency", "verdict"]
    names = ", ".join(map(text.code, [*(run.name for run in runs), *(scaling.name for scaling in scalings)]))
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


def _measured(runs: Sequence[Run], scalings: Sequence[Scaling], rule: Rule) -> list[Measurement]:
    return [*measured_by_runs(runs, rule), *measured_by_scalings(scalings, rule)]


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
    cells = [text.escaped(part) for part in (claim.claim, claim.source, claim.published)]
    cells[0] = f"{text.code(claim.id)} {cells[0]}"
    columns = (shown, dict.fromkeys(m.budget for m in used), dict.fromkeys(m.residency for m in used))
    return [*cells, *("<br>".join(column) or text.MISSING for column in columns), verdict]
