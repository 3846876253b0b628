"""What scalings say of a claim: a fitted exponent within bounds, or bytes equal to backprop's at every value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dbbench.report import text
from dbbench.report.claims_rules import FAILS, HOLDS, SCALING_KINDS, Claim, Measurement, Rule, bounded, claims, matches
from dbbench.results.scaling import PowerLaw, Scaling, ScalingLine


def measured_by_scalings(scalings: Sequence[Scaling], rule: Rule) -> Iterator[Measurement]:
    """Yield a measurement for each line of ``scalings`` over the rule's axis that the rule is about."""
    if rule.kind not in SCALING_KINDS:
        return
    for scaling in scalings:
        for line in scaling.lines if scaling.axis == rule.axis else ():
            known = line.points[0].options | line.model_dump(exclude={"points", "laws"}, exclude_none=True)
            if not matches(known, rule.of):
                continue
            found = _exponent(line, rule) if rule.kind == "exponent" else _equal(scaling, line, rule)
            if found is not None:
                value, words, edge, holds = found
                residency = line.residency or text.MISSING
                yield Measurement(
                    scaling.name, line.variant, value, words, "", words, edge, holds, text.MISSING, residency
                )


def _exponent(line: ScalingLine, rule: Rule) -> tuple[float, str, str, bool | None] | None:
    law = line.law(rule.figure)
    if law is None or law.error is None:
        return None
    holds, edge = bounded(law.exponent, rule.at_least, rule.at_most)
    values = [value for value, size in line.series(rule.figure) if size]
    words = f"exponent {exponent(law)} ({law.points} values, {values[0]:,} to {values[-1]:,})"
    return law.exponent, words, edge, holds


def _equal(scaling: Scaling, line: ScalingLine, rule: Rule) -> tuple[float, str, str, bool] | None:
    reference = scaling.reference(line)
    if reference is None or reference is line:
        return None
    theirs = dict(reference.series(rule.figure))
    pairs = [(value, size, theirs[value]) for value, size in line.series(rule.figure) if value in theirs]
    if not pairs:
        return None
    value, mine, other = max(pairs, key=lambda pair: (abs(pair[1] - pair[2]), pair[0]))
    if mine == other:
        return 0, f"backprop's bytes at each of {len(pairs)} values, {text.mib(mine)} MiB at {value:,}", "", True
    return mine - other, f"{text.signed_mib(mine - other)} MiB against backprop's at {value:,}", "", False


def exponent(law: PowerLaw) -> str:
    """The exponent with its standard error: ``0.512 ± 0.004``."""
    value = f"{round(law.exponent, 3) + 0.0:.3f}"  # no minus before a zero
    if law.error is None:
        return value
    return f"{value} ± {law.error:.3f}" if law.error >= 0.0005 else f"{value} ± <0.001"


class Tested(NamedTuple):
    """A claim that a scaling tests, what it found, and the verdict."""

    claim: Claim
    measured: list[Measurement]
    verdict: str


def claims_tested(scaling: Scaling) -> list[Tested]:
    """Return the claims that ``scaling`` tests, in the order of the file."""
    found = [(claim, list(measured_by_scalings([scaling], claim.rule))) for claim in claims()]
    return [Tested(c, ms, HOLDS if all(m.holds for m in ms) else FAILS) for c, ms in found if ms]
