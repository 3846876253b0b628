"""What a run shows, in sentences computed from its numbers: a method that loses is reported losing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dbbench.report import text
from dbbench.report.document import code, data
from dbbench.report.run import Run
from dbbench.report.tables import named_metric

LEVEL = 0.05


class Welch(NamedTuple):
    """A two-sided test of equal means: t, degrees of freedom, p."""

    t: float
    degrees: float
    p: float


class Sample(NamedTuple):
    """What a test needs of some values: their mean, their sample standard deviation (0 for a single one), how many."""

    mean: float
    sd: float = 0.0
    n: int = 1


def welch(one: Sequence[float], other: Sequence[float]) -> Welch | None:
    """Welch's t-test of two sets of values, None with fewer than two a side or no spread on either."""
    if min(len(one), len(other)) < 2:
        return None
    return welch_of(*(Sample(float(np.mean(v)), float(np.std(v, ddof=1)), len(v)) for v in (one, other)))


def welch_of(one: Sample, other: Sample) -> Welch | None:
    """Welch's t-test (Biometrika 34, 1947), None with fewer than two values a side or no spread on either.

    The tail of Student's t is integrated by Gauss and Legendre after t = √ν·tan θ, which turns its density into
    cos(θ)^(ν−1) on a finite interval.
    """
    errors = [sample.sd**2 / sample.n for sample in (one, other)]
    if min(one.n, other.n) < 2 or sum(errors) == 0:
        return None
    t = (one.mean - other.mean) / math.sqrt(sum(errors))
    degrees = sum(errors) ** 2 / sum(e**2 / (s.n - 1) for e, s in zip(errors, (one, other), strict=True))
    start = math.atan(abs(t) / math.sqrt(degrees))
    whole = math.sqrt(math.pi) * math.exp(math.lgamma(degrees / 2) - math.lgamma((degrees + 1) / 2))
    nodes, weights = _quadrature()
    half = (math.pi / 2 - start) / 2
    angle = start + half * (nodes + 1)
    tail = half * float(np.sum(weights * np.cos(angle) ** (degrees - 1)))
    return Welch(t, degrees, min(1.0, 2 * tail / whole))


@cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(200)


def verdict(run: Run, table: pd.DataFrame) -> str:
    """Return three sentences on the run: the reference, the smallest peak, the smallest that keeps the metric.

    The text is marked, as in `dbbench.report.document`.
    """
    finished = table[table["status"] == "ok"]
    reference = run.main_reference
    base = finished[finished["variant"] == reference.label] if reference else finished.iloc[:0]
    if base.empty or pd.isna(base.iloc[0]["peak_bytes"]):
        return "No cell of backprop finished with a peak, so there is nothing to compare the other variants with."
    row = base.iloc[0]
    first = (
        f"Under a budget of {text.whole(row['budget_value'])} {row['budget'].replace('_', ' ')} on "
        f"{data(row['task'])} ({data(row['network'])} {data(row['network_size'])}, "
        f"{row['depth']} layers), {code(row['variant'])} peaks at {text.mib(row['peak_bytes'])} MiB"
        f"{_scores(row)}."
    )
    others = finished[(finished["variant"] != row["variant"]) & finished["peak_ratio"].notna()]
    if others.empty:
        return first + " No other variant finished on the same network."
    least = others.loc[others["peak_bytes"].astype(float).idxmin()]
    lead = "Of the other variants on that network" if len(others) > 1 else "The one other variant on that network"
    holds = "holds the least at its peak" if len(others) > 1 else "is"
    second = (
        f"{lead}, {code(least['variant'])} {holds}: {text.mib(least['peak_bytes'])} MiB, "
        f"{_compared_size(float(least['peak_ratio']))}{_scores(least)}; {_difference(run, least)}."
    )
    return " ".join([first, second, _keeper(run, row, least, others)])


def bullets(run: Run, table: pd.DataFrame) -> list[str]:
    """Return a marked sentence for each variant that can be compared: peak, metric, and whether noise explains it."""
    reference = run.main_reference
    found: list[str] = []
    if reference is None:
        return found
    base = reference.records[0].row
    for _, row in table[(table["status"] == "ok") & table["peak_ratio"].notna()].iterrows():
        if row["variant"] == reference.label or _own_reference(run, row):
            continue
        spent = ""
        if (row["budget"], row["budget_value"]) != (base.budget, base.budget_value):
            spent = f" (under another budget: {row['budget'].replace('_', ' ')} {text.whole(row['budget_value'])})"
        found.append(
            f"{code(row['variant'])}{spent} peaks at {text.mib(row['peak_bytes'])} MiB, "
            f"{_compared_size(float(row['peak_ratio']))}{_scores(row)}; {_difference(run, row)}."
        )
    return found


def _keeper(run: Run, base: pd.Series, least: pd.Series, others: pd.DataFrame) -> str:
    smaller = others[others["peak_ratio"].astype(float) < 1]
    kept, untested = [], 0
    for _, row in smaller.iterrows():
        outcome = _outcome(run, row)
        untested += outcome is None
        if outcome in ("equal", "same", "better"):
            kept.append(row)
    metric = data(base["metric"]) if pd.notna(base["metric"]) else "metric"
    if kept:
        rest = " Variants with one seed could not be tested." if untested else ""
        best = min(kept, key=lambda row: int(row["peak_bytes"]))
        those = f"those whose {metric} is better than backprop's, the same, or not told apart from it by the test"
        if best["variant"] == least["variant"]:
            return f"It is also the least of {those}.{rest}"
        return (
            f"Of {those}, {code(best['variant'])} holds the least, {text.mib(best['peak_bytes'])} MiB "
            f"({_compared_size(float(best['peak_ratio']))}).{rest}"
        )
    if untested:
        return "Which of them keep the metric cannot be said: that takes two seeds or more of each."
    return f"No variant with a smaller peak keeps backprop's {metric}: each is worse by more than the noise over seeds."


def _scores(row: pd.Series) -> str:
    if pd.isna(row["metric_mean"]):
        return ""
    figure = text.score_sd(row["metric_mean"], row["metric_sd"], row["metric_n"])
    return f", with {data(named_metric(row))} {figure}"


def _compared_size(ratio: float) -> str:
    """A ratio of peaks in words, with the factor above one."""
    if abs(ratio - 1) < 0.005:
        return "as much as backprop"
    return f"{1 / ratio:.2f}× less than backprop" if ratio < 1 else f"{ratio:.2f}× as much as backprop"


def _values(run: Run, label: str) -> list[float]:
    configuration = run.configuration(label)
    return [record.row.metric_value for record in configuration.finished if record.row.metric_value is not None]


def _base_label(run: Run, row: pd.Series) -> str:
    reference = run.reference(run.configuration(row["variant"]))
    return reference.label if reference else ""


def _own_reference(run: Run, row: pd.Series) -> bool:
    return _base_label(run, row) == row["variant"]


def _outcome(run: Run, row: pd.Series) -> str | None:
    """``same`` (seed by seed), ``equal`` (not told apart), ``better``, ``worse``, None where it cannot be tested."""
    label = _base_label(run, row)
    if not label:
        return None
    mine, theirs = _values(run, row["variant"]), _values(run, label)
    if not mine or not theirs:
        return None
    if mine == theirs:
        return "same"
    test = welch(mine, theirs)
    if test is None:
        return None
    if test.p >= LEVEL:
        return "equal"
    gain = np.mean(mine) - np.mean(theirs)
    return "better" if (gain > 0) == (row["metric_direction"] != "lower") else "worse"


def gap_to_reference(run: Run, row: pd.Series) -> tuple[str, float, Welch | None] | None:
    """Return (label of the row's reference, mean metric less the reference's, test of that), None without a pair."""
    label = _base_label(run, row)
    mine, theirs = _values(run, row["variant"]), _values(run, label) if label else []
    if not mine or not theirs:
        return None
    return label, float(np.mean(mine)) - float(np.mean(theirs)), welch(mine, theirs)


def _difference(run: Run, row: pd.Series) -> str:
    """Say how far the metric is from backprop's, and whether that is more than the noise over seeds."""
    label = _base_label(run, row)
    mine, theirs = _values(run, row["variant"]), _values(run, label) if label else []
    if not mine or not theirs:
        return "its metric cannot be compared"
    if mine == theirs:
        return "its metric is the same, seed by seed"
    gap: Any = float(np.mean(mine)) - float(np.mean(theirs))
    side = "above" if gap > 0 else "below"
    test = welch(mine, theirs)
    if test is None:
        why = "one seed a side" if min(len(mine), len(theirs)) < 2 else "no spread over seeds"
        return f"that is {text.score(abs(gap))} {side} backprop's, and with {why} there is no test of it"
    larger = "larger" if test.p < LEVEL else "not larger"
    return (
        f"that is {text.score(abs(gap))} {side} backprop's, {larger} than the noise over seeds "
        f"(Welch's t-test, {text.p_value(test.p)})"
    )
