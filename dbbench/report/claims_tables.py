"""How claims are laid out: a row each, what is learnt under either budget, and every figure behind a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from dbbench.report import text
from dbbench.report.claims_rules import FAILS, HOLDS, IDENTITY, OPEN, Claim, Measurement, Rule

#: The kinds of rules that compare what was learnt.
_ON_METRICS = ("difference", "unrolled_difference", "clean_loss")


class Judged(NamedTuple):
    """A claim with the figures that decide it, those beside them, and the nearest where there are none."""

    claim: Claim
    measured: list[Measurement]
    beside: list[tuple[Rule, list[Measurement]]]
    near: list[Measurement]

    @property
    def verdict(self) -> str:
        """The verdict on the claim as it is stated: it holds where every figure is within its bounds."""
        if self.claim.rule.kind == "identity":
            return IDENTITY
        return _verdict(self.measured)


def _verdict(measured: Sequence[Measurement]) -> str:
    if not measured:
        return OPEN
    return HOLDS if all(m.holds for m in measured) else FAILS


def judged(one: Judged) -> list[str]:
    """Return a claim's row: claim, source, published figure, the measured or nearest or why there is none, verdict."""
    claim = one.claim
    head = f"{text.code(claim.id)} {text.escaped(claim.claim)}"
    shown = _lines(one.measured)
    for rule, measured in one.beside:
        shown += [f"*beside*, {text.escaped(rule.text)}: {line}" for line in _lines(measured, decide=False)]
    shown += [f"*nearest*, {line}" for line in _lines(one.near, decide=False)]
    body = "<br>".join(shown) or _why(claim.rule)
    return [head, text.escaped(claim.source), text.escaped(claim.published), body, _verdict_words(one)]


def _why(rule: Rule) -> str:
    """Say why nothing was measured: what the rule says, or that no run has what it asks for."""
    said = text.escaped(rule.text)
    return said if rule.kind in ("none", "identity") else f"no run or scaling given has it; it takes: {said}"


def _verdict_words(one: Judged) -> str:
    """Return the verdict, by suite where the suites do not agree."""
    suites = _by(one.measured, lambda m: m.suite)
    said: dict[str, list[str]] = {}
    for suite, members in suites.items():
        said.setdefault(_verdict(members), []).append(text.code(suite))
    if len(said) < 2:
        return one.verdict
    return "; ".join(f"{word}: {', '.join(said[word])}" for word in (FAILS, HOLDS))


def _lines(measured: Sequence[Measurement], decide: bool = True) -> list[str]:
    """Return a line a suite, unit and bound: the figure of a variant alone, or the range over several."""
    found = []
    for members in _by(measured, lambda m: (m.suite, m.unit, m.edge)).values():
        said = members[0].said if len(members) == 1 else _range(members)
        edge = members[0].edge if decide else ""
        found.append(said + edge + (f" ({_holding(members)})" if decide and len(measured) > 1 else ""))
    return found


def _range(members: Sequence[Measurement]) -> str:
    ordered = sorted(members, key=lambda m: m.value)
    low, high = ordered[0].figure, ordered[-1].figure
    span = low if low == high else f"{low} to {high}"
    unit = f" {ordered[0].unit}" if ordered[0].unit else ""
    return f"{text.code(ordered[0].suite)}, {len(members)} figures: {span}{unit}"


def _holding(members: Sequence[Measurement]) -> str:
    count = sum(bool(m.holds) for m in members)
    if count in (0, len(members)):
        return HOLDS if count else FAILS
    return f"{count} of {len(members)} hold"


def by_budget(found: Sequence[Judged]) -> list[str]:
    """Return the section on metrics that have a bound: what holds at equal layer updates, and what at equal samples.

    Of a claim that is open these are the nearest figures, so that this decides of our data alone.
    """
    rows: dict[tuple[str, ...], list[str]] = {}
    for one in found:
        measured = _bounded_metrics(one)
        for m in measured or ():
            said = HOLDS if m.holds else FAILS
            under = (said if budget in m.equal else text.MISSING for budget in ("layer_updates", "samples"))
            row = (text.code(m.suite), text.code(m.variant), m.words, *under)
            rows.setdefault(row, []).append(text.code(one.claim.id))
        if measured == []:
            rows.setdefault((text.MISSING, text.MISSING, text.MISSING, OPEN, OPEN), []).append(text.code(one.claim.id))
    header = ["claim", "suite", "variant", "our figure", "at equal layer updates", "at equal samples"]
    note = (
        "The metrics of our runs under either budget, by what a variant and backprop really had equal; a dash where "
        "they had not. Of a claim that is open above this says what the same statement comes to on our data, and "
        "decides it no more than that. (n = 1) is one seed: there is no deviation, and no test of the difference."
    )
    cells = [[", ".join(ids), *row] for row, ids in rows.items()]
    return ["## By budget", note, text.markdown_table(header, cells, left=6)]


def _bounded_metrics(one: Judged) -> list[Measurement] | None:
    """Return the figures that a bound on a metric has been held against, None for a claim that is not of that kind."""
    rule, measured = (one.claim.rule, one.measured) if one.measured else (one.claim.nearest or one.claim.rule, one.near)
    return measured if rule.kind in _ON_METRICS and (rule.at_most, rule.at_least) != (None, None) else None


def figures(found: Sequence[Judged]) -> list[str]:
    """Return the section of every figure with its variant, budget and residency, and the claims that it is for."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for one in found:
        beside = [m for _, measured in one.beside for m in measured]
        for measured, kind in ((one.measured, ""), (beside, "beside"), (one.near, "nearest")):
            for m in measured:
                figure, verdict = (m.words, kind) if kind else (m.words + m.edge, HOLDS if m.holds else FAILS)
                row = (text.code(m.suite), text.code(m.variant), figure, m.budget, m.residency, verdict)
                rows.setdefault(row, []).append(text.escaped(one.claim.id))
    if not rows:
        return []
    header = ["suite", "variant", "figure", "budget", "residency", "verdict", "of claim"]
    cells = [[*row, ", ".join(ids)] for row, ids in rows.items()]
    return ["## Figures", text.markdown_table(header, cells, left=7)]


def _by(measured: Iterable[Measurement], key: Callable[[Measurement], Any]) -> dict[Any, list[Measurement]]:
    """Group ``measured`` by ``key``, in the order in which each first appears."""
    groups: dict[Any, list[Measurement]] = {}
    for m in measured:
        groups.setdefault(key(m), []).append(m)
    return groups
