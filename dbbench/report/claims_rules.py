"""The form of ``claims.yaml``: each claim, where it stands, and the rule that decides it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from dbbench.report import text
from dbbench.results.scaling import ScalingAxis

Kind = Literal[
    "ratio", "own", "difference", "unrolled", "unrolled_difference", "clean_loss", "exponent", "equal", "identity",
    "none",
]  # fmt: skip
#: What two trainings can have equal, besides the network and the data.
Budget = Literal["layer_updates", "samples"]
HOLDS, FAILS, OPEN, IDENTITY = "holds", "fails", "not measured here", "identity (algebra)"
#: The kinds that a scaling decides; the others, but for the last two, are decided by runs.
SCALING_KINDS = ("exponent", "equal")


class Rule(BaseModel):
    """What decides a claim; ``per`` divides the bounds by the variant's number of blocks, of layers, or by K′.

    ``axis`` is what a rule of `SCALING_KINDS` is over; of those, ``exponent`` bounds the fitted exponent, and ``equal``
    asks for backprop's bytes at every value. ``budget`` is what variant and backprop must have had equal for their
    metrics to be compared, None where either will do; ``seeds`` is how many of each that takes.
    """

    model_config = ConfigDict(extra="forbid")
    kind: Kind
    figure: str = "metric_value"
    of: dict[str, Any] = {}
    axis: ScalingAxis | None = None
    at_most: float | None = None
    at_least: float | None = None
    per: Literal["block", "layer", "recurrence"] | None = None
    budget: Budget | None = None
    seeds: int = 2
    text: str = ""


class Claim(BaseModel):
    """A statement, where it stands, and the rule that decides it.

    ``nearest`` is what to show where nothing decides, and ``beside`` what to show with the figures that do, each under
    its rule's text; neither ever decides.
    """

    model_config = ConfigDict(extra="forbid")
    id: str
    source: str
    claim: str
    published: str
    rule: Rule
    nearest: Rule | None = None
    beside: list[Rule] = []


class Expected(BaseModel):
    """The suites and the axes of scalings that all claims together need."""

    model_config = ConfigDict(extra="forbid")
    suites: list[str]
    axes: list[ScalingAxis]


@dataclass(frozen=True)
class Measurement:
    """One variant's figure under a rule: ``value`` as a number, ``figure`` and ``unit`` in short, ``words`` in full.

    ``holds`` is None where the rule sets no bound; ``edge`` is that bound in words. ``equal`` is what the variant had
    equal with what it is compared to, () where that is of no account.
    """

    suite: str
    variant: str
    value: float
    figure: str
    unit: str
    words: str
    edge: str
    holds: bool | None
    budget: str
    residency: str
    equal: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """The figure in full as Markdown, with the variant and the suite that it is of."""
        return f"{text.code(self.variant)} of {text.code(self.suite)}: {self.words}"

    @property
    def shown(self) -> str:
        """The same with its bounds."""
        return self.said + self.edge


def claims() -> list[Claim]:
    """Return the claims in the order of the file."""
    return [Claim.model_validate(item) for item in _file()["claims"]]


def expected() -> Expected:
    """Return what the claims need to be decided."""
    return Expected.model_validate(_file()["expected"])


@cache
def _file() -> dict[str, Any]:
    return yaml.safe_load(resources.files("dbbench.report").joinpath("claims.yaml").read_text(encoding="utf-8"))


def bounded(value: float, low: float | None, high: float | None) -> tuple[bool | None, str]:
    """Return whether ``value`` lies within the bounds, None without any, and the bounds in words."""
    holds = None if low is high is None else (low is None or value >= low) and (high is None or value <= high)
    edges = ((word, bound) for word, bound in (("at least", low), ("at most", high)) if bound is not None)
    return holds, "".join(f", {word} {bound:.3g}" for word, bound in edges)


def matches(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Say whether a variant is one that a rule is about, by its columns and options."""
    for key, value in wanted.items():
        mine = known.get(key)
        if isinstance(value, dict):
            if mine is None or mine < value["at_least"]:
                return False
        elif isinstance(value, list):
            if mine not in value:
                return False
        elif value == "same_as_blocks":
            # the option's own default is as many steps as blocks, which a suite need not spell out
            if mine is not None and mine != known.get("blocks"):
                return False
        elif mine != value:
            return False
    return True
