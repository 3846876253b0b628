"""How claims are laid out: a row each, what text says of them under either budget, and every figure behind a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from dbbench.report import text
from dbbench.report.claims_rules import FAILS, HOLDS, IDENTITY, OPEN, Claim, Measurement, Rule

_TEXT_KINDS = ("difference", "unrolled_difference", "clean_loss")


class Judged(NamedTuple):
    """A claim with the figures that decide it, those beside them, and the nearest where there are none."""

    claim: Claim
    measured: list[Measurement]
    beside: list[Measurement]
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
    shown += [f"*beside*, {line}" for line in _lines(one.beside, decide=False)]
    shown += [f"*nearest*, {line}" for line in _lines(one.near, decide=False)]
    body = "<br>".join(shown) or text.escaped(claim.rule.text)
    return [head, text.escaped(claim.source), text.escaped(claim.published), body, _verdict_words(one)]


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
    groups = _by(measured, lambda m: (m.suite, m.unit if m.unit else None, m.edge))
    found = []
    for members in groups.values():
        holding = f" ({_holding(members)})" if decide and len(measured) > 1 else ""
        found.append((members[0].shown if len(members) == 1 else _range(members)) + holding)
    return found


def _range(members: Sequence[Measurement]) -> str:
    ordered = sorted(members, key=lambda m: m.value)
    low, high = ordered[0].figure, ordered[-1].figure
    span = low if low == high else f"{low} to {high}"
    unit = f" {ordered[0].unit}" if ordered[0].unit else ""
    return f"{text.code(ordered[0].suite)}, {len(members)} figures: {span}{unit}{ordered[0].edge}"


def _holding(members: Sequence[Measurement]) -> str:
    count = sum(bool(m.holds) for m in members)
    if count in (0, len(members)):
        return HOLDS if count else FAILS
    return f"{count} of {len(members)} hold"


def by_budget(found: Sequence[Judged]) -> list[str]:
    """Return the section on metrics that have a bound: what holds at equal layer updates, and what at equal samples.

    Of a claim that is open these are the nearest figures, so that this decides of our data alone.
    """
    rows = []
    for rule, claims, measured in _rules_on_metrics(found):
        for suite, members in _by(measured, lambda m: m.suite).items():
            names = "<br>".join(text.code(claim.id) for claim in claims)
            under = ["<br>".join(_under(members, budget)) or OPEN for budget in ("layer_updates", "samples")]
            other = [_stated(m) for m in members if not m.equal]
            rows.append([names, text.escaped(rule.text), text.code(suite), *under, "<br>".join(other) or text.MISSING])
    if not rows:
        return []
    header = ["claim", "what is asked of our data", "suite", "at equal layer updates", "at equal samples", "neither equal"]
    note = (
        "The metrics of our runs under either budget, by what a variant and backprop really had equal. Of a claim that is "
        "open above this says what the same statement comes to on our data, and decides it no more than that. (n = 1) is "
        "one seed: there is no deviation, and no test of the difference."
    )
    return ["## By budget", note, text.markdown_table(header, rows, left=6)]


def _rules_on_metrics(found: Sequence[Judged]) -> list[tuple[Rule, list[Claim], list[Measurement]]]:
    """Return each rule with a bound on a metric that measured something, with the claims that share it."""
    kept: list[tuple[Rule, list[Claim], list[Measurement]]] = []
    for one in found:
        rule, measured = (one.claim.rule, one.measured) if one.measured else (one.claim.nearest, one.near)
        if rule is None or rule.kind not in _TEXT_KINDS or not measured or measured[0].holds is None:
            continue
        known = next((claims for other, claims, _ in kept if other == rule), None)
        if known is None:
            kept.append((rule, [one.claim], measured))
        else:
            known.append(one.claim)
    return kept


def _under(members: Iterable[Measurement], budget: str) -> list[str]:
    return [_stated(m) for m in members if budget in m.equal]


def _stated(m: Measurement) -> str:
    return f"{text.code(m.variant)}: {m.words}: **{HOLDS if m.holds else FAILS}**"


def figures(found: Sequence[Judged]) -> list[str]:
    """Return the section that lists each figure with its variant, budget and residency."""
    rows = []
    for one in found:
        kinds = ((one.measured, ""), (one.beside, "beside"), (one.near, "nearest"))
        for measured, kind in kinds:
            for m in measured:
                verdict = kind or (HOLDS if m.holds else FAILS)
                rows.append(
                    [text.escaped(one.claim.id), text.code(m.suite), text.code(m.variant), m.words + m.edge, m.budget,
                     m.residency, verdict]
                )  # fmt: skip
    if not rows:
        return []
    header = ["claim", "suite", "variant", "figure", "budget", "residency", "verdict"]
    return ["## Figures", text.markdown_table(header, rows, left=7)]


def _by(measured: Iterable[Measurement], key: Callable[[Measurement], Any]) -> dict[Any, list[Measurement]]:
    """Group ``measured`` by ``key``, in the order in which each first appears."""
    groups: dict[Key, list[Measurement]] = {}
    for m in measured:
        groups.setdefault(key(m), []).append(m)
    return groups
