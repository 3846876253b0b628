"""The published claims of DiffusionBlocks beside what our runs measured: generated, never written by hand.

``claims.yaml`` lists each claim with the rule that decides it. A verdict comes from measured figures under that rule
or not at all: a figure from another data set is shown as the nearest and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dbbench.files import write_atomically
from dbbench.report import text
from dbbench.report.claims_rules import FAILS, HOLDS, IDENTITY, OPEN, Claim, Measurement, Rule, claims, expected
from dbbench.report.claims_runs import measured_by_runs
from dbbench.report.claims_scalings import measured_by_scalings
from dbbench.report.claims_tables import Judged, by_budget, figures, judged
from dbbench.report.run import Run, load
from dbbench.results.scaling import SCALING_FILE, Scaling, read_scaling


def write_claims(folders: Sequence[Path], path: Path) -> list[str]:
    """Write ``path`` (Markdown) from the runs and scalings in ``folders``; return a line for each file left out."""
    scalings = [read_scaling(folder) for folder in folders if (folder / SCALING_FILE).exists()]
    runs = [load(folder) for folder in folders if not (folder / SCALING_FILE).exists()]
    found = [_judge(claim, runs, scalings) for claim in claims()]
    write_atomically(path, (_markdown(found, runs, scalings) + "\n").encode())
    return [f"{run.name}: {problem}" for run in runs for problem in run.problems]


def _judge(claim: Claim, runs: Sequence[Run], scalings: Sequence[Scaling]) -> Judged:
    def measured(rule: Rule) -> list[Measurement]:
        return [*measured_by_runs(runs, rule), *measured_by_scalings(scalings, rule)]

    decisive = measured(claim.rule)
    beside = [(rule, measured(rule)) for rule in claim.beside if decisive]
    near = measured(claim.nearest) if claim.nearest and not decisive else []
    return Judged(claim, decisive, beside, near)


def _markdown(found: Sequence[Judged], runs: Sequence[Run], scalings: Sequence[Scaling]) -> str:
    names = ", ".join(map(text.code, [*(run.name for run in runs), *(scaling.name for scaling in scalings)]))
    counts = {word: sum(one.verdict == word for one in found) for word in (HOLDS, FAILS, OPEN, IDENTITY)}
    decided = [one for one in found if one.measured]
    near = [one for one in found if one.near and not one.measured]
    rest = [one for one in found if not one.measured and not one.near]
    parts = [
        "# The claims of DiffusionBlocks, and what was measured",
        "Shing, Koyama, Akiba, arXiv 2506.14202 v4, ICLR 2026. Generated from the records of "
        f"{names} by `dbbench.report.claims`. " + "; ".join(f"{word}: {n}" for word, n in counts.items()) + ".",
        *_missing(runs, scalings),
        "A verdict is given only where the measured figure is of the thing claimed, under the rule at the end. It is "
        "of every suite that has such a figure, and where they differ it names them. A figure marked *nearest* is of "
        "something else; it decides nothing. Of several figures the lowest and the highest stand here, and each of "
        "them under [Figures](#figures). What the paper does not claim says so in its source.",
    ]
    sections = (
        ("Decided", "our measured figure", decided),
        ("Not decided, with the nearest figure", "our nearest figure", near),
        ("Not measured, and nothing near", "why", rest),
    )
    for title, column, members in sections:
        if members:
            header = ["claim", "source", "published figure", column, "verdict"]
            parts += [f"## {title}", text.markdown_table(header, [judged(one) for one in members], left=5)]
    parts += [*by_budget(found), *figures(found), "## Rules", "\n".join(_rule(one.claim) for one in decided + near)]
    return "\n\n".join(parts)


def _rule(claim: Claim) -> str:
    near = f" Nearest: {text.escaped(claim.nearest.text)}." if claim.nearest and claim.nearest.text else ""
    return f"- {text.code(claim.id)}: {text.escaped(claim.rule.text)}{near and '.' + near}"


def _missing(runs: Sequence[Run], scalings: Sequence[Scaling]) -> list[str]:
    """Return a paragraph that names what was not given and would decide something, [] where all was."""
    wanted = expected()
    suites, axes = {run.name for run in runs}, {scaling.axis for scaling in scalings}
    lacking = [text.code(name) for name in wanted.suites if name not in suites]
    lacking += [f"a scaling over {axis}" for axis in wanted.axes if axis not in axes]
    return [f"Not given: {', '.join(lacking)}. What these alone could decide is not measured here."] if lacking else []
