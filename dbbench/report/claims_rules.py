"""The form of ``claims.yaml``: each claim, where it stands, and the rule that decides it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from dbbench.results.scaling import ScalingAxis

Kind = Literal["ratio", "own", "difference", "exponent", "equal", "identity", "none"]
HOLDS, FAILS, OPEN, IDENTITY = "holds", "fails", "not measured here", "identity (algebra)"
#: The kinds that a scaling decides; the others, but for the last two, are decided by runs.
SCALING_KINDS = ("exponent", "equal")


class Rule(BaseModel):
    """What decides a claim; ``per`` divides the bounds by the variant's number of blocks or layers.

    ``axis`` is what a rule of `SCALING_KINDS` is over; of those, ``exponent`` bounds the fitted exponent, and ``equal``
    asks for backprop's bytes at every value.
    """

    model_config = ConfigDict(extra="forbid")
    kind: Kind
    figure: str = "metric_value"
    of: dict[str, Any] = {}
    axis: ScalingAxis | None = None
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

    shown: str
    holds: bool | None
    budget: str
    residency: str


def claims() -> list[Claim]:
    """Return the claims in the order of the file."""
    raw = yaml.safe_load(resources.files("dbbench.report").joinpath("claims.yaml").read_text(encoding="utf-8"))
    return [Claim.model_validate(item) for item in raw["claims"]]


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
        elif value == "same_as_blocks":
            # the option's own default is as many steps as blocks, which a suite need not spell out
            if mine is not None and mine != known.get("blocks"):
                return False
        elif mine != value:
            return False
    return True
