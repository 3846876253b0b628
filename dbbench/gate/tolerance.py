"""How far a figure may be from what the baseline expects: written in a column of its own, and edited there by hand.

exact        not at all
1%           by so much of the expected value
4096         by so much, in the figure's own unit
p<0.05,1%    a mean over seeds: a change is one that Welch's t-test tells from noise at this level, shared out over
             all means that are tested (Bonferroni), and that is besides larger than the second figure
off          it is shown and not compared
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from dbbench.report.verdict import Sample, welch_of

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_WITHIN = re.compile(rf"(?P<amount>{_NUMBER})(?P<percent>%?)")
_NOISE = re.compile(rf"p<(?P<level>{_NUMBER}),(?P<least>.+)")


@dataclass(frozen=True)
class Tolerance:
    """``amount`` is a share of the expected value where it is relative, else in the figure's unit."""

    kind: Literal["exact", "relative", "absolute", "noise", "off"]
    amount: float = 0.0
    least: Literal["relative", "absolute"] = "relative"
    level: float = 0.0

    def __str__(self) -> str:
        if self.kind in ("exact", "off"):
            return self.kind
        share = self.kind == "relative" or (self.kind == "noise" and self.least == "relative")
        amount = f"{100 * self.amount:.10g}%" if share else f"{self.amount:.10g}"
        return f"p<{self.level:.10g},{amount}" if self.kind == "noise" else amount


EXACT = Tolerance("exact")
OFF = Tolerance("off")
#: The allocator of a device decides by what is in its cache; two runs of one program differ by less than this.
DEVICE = Tolerance("relative", 0.01)
#: What an accuracy is held to: a family-wise level, and what nobody would call a change even if it were certain.
NOISE = Tolerance("noise", 0.01, "relative", 0.05)


def parse(words: str) -> Tolerance:
    """Return the tolerance that ``words`` spell. Raises ValueError that says what they could be."""
    if words in ("exact", "off"):
        return EXACT if words == "exact" else OFF
    noise = _NOISE.fullmatch(words)
    within = _WITHIN.fullmatch(noise["least"] if noise else words)
    level = float(noise["level"]) if noise else 0.0
    if within is None or (noise and not 0 < level < 1):
        raise ValueError(f"'{words}' is no tolerance: exact, 1%, 4096, p<0.05,1% or off")
    amount, percent = float(within["amount"]), bool(within["percent"])
    if amount > 1e18:
        raise ValueError(f"'{words}' is no tolerance that could ever be passed")
    scale = Tolerance("relative", amount / 100) if percent else Tolerance("absolute", amount)
    if noise is None:
        return scale
    return Tolerance("noise", scale.amount, "relative" if percent else "absolute", level)


@dataclass(frozen=True)
class Judgement:
    """``changed`` is None where the two could not be compared; ``why`` says that, or what decided."""

    changed: bool | None
    why: str = ""


def judge(tolerance: Tolerance, expected: Sample, measured: Sample, tests: int = 1) -> Judgement:
    """Hold ``measured`` against ``expected``. ``tests`` is how many means over seeds share the level of the test."""
    if tolerance.kind == "off":
        return Judgement(None, "its tolerance is off")
    difference = abs(measured.mean - expected.mean)
    if tolerance.kind == "exact":
        return Judgement(difference != 0)
    if tolerance.kind == "noise":
        return _beyond_noise(tolerance, expected, measured, tests)
    return Judgement(difference > _allowed(tolerance.kind == "relative", tolerance.amount, expected.mean))


def _allowed(relative: bool, amount: float, expected: float) -> float:
    return amount * abs(expected) if relative else amount


def _beyond_noise(tolerance: Tolerance, expected: Sample, measured: Sample, tests: int) -> Judgement:
    least = _allowed(tolerance.least == "relative", tolerance.amount, expected.mean)
    larger = abs(measured.mean - expected.mean) > least
    if min(expected.n, measured.n) < 2:
        where = "the baseline" if expected.n < 2 else "the run"
        return Judgement(None, f"{where} has one seed, and noise cannot be told from one")
    level = tolerance.level / max(tests, 1)
    test = welch_of(expected, measured)
    if test is None:
        return Judgement(larger, "no spread over seeds on either side: any difference above the least counts")
    words = f"Welch's t-test: p = {test.p:.2g} against {level:.2g}"
    words += f" (one of {tests} tests)" if tests > 1 else ""
    if test.p < level and not larger:
        words += f", and smaller than the least that counts, {least:.3g}"
    return Judgement(test.p < level and larger, words)
