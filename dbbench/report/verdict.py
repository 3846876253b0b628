"""What a run shows, in sentences computed from its numbers: a method that loses is reported losing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dbbench.report import text
from dbbench.report.document import code, codes, data
from dbbench.report.run import Run
from dbbench.report.tables import named_metric

LEVEL = 0.05


class Welch(NamedTuple):
    """A two-sided test of equal means: t and p."""

    t: float
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
    """Welch's t-test (Biometrika 34, 1947), None with fewer than two values a side or no spread on either."""
    if min(one.n, other.n) < 2 or one.sd == other.sd == 0:
        return None
    from scipy.stats import ttest_ind_from_stats  # slow to import

    test = ttest_ind_from_stats(*one, *other, equal_var=False)
    return Welch(float(test.statistic), float(test.pvalue))


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
    alike = others[(others["peak_bytes"] == least["peak_bytes"]) & (others["variant"] != least["variant"])]
    several = f"Of the other variants on that network, {code(least['variant'])} holds the least at its peak"
    second = several if len(others) > 1 else f"The one other variant on that network is {code(least['variant'])}"
    second += (
        f": {text.mib(least['peak_bytes'])} MiB, "
        f"{_compared_size(row['peak_bytes'], least)}{_scores(least)}; {_difference(run, least)}."
    )
    if not alike.empty:
        second += f" The same bytes: {codes(alike['variant'])}."
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
            f"{_compared_size(_base_peak_bytes(run, row), row)}{_scores(row)}; {_difference(run, row)}."
        )
    return found


def _keeper(run: Run, base: pd.Series, least: pd.Series, others: pd.DataFrame) -> str:
    """Say which of the variants with a smaller peak keeps the metric, as far as a test over seeds can tell."""
    smaller = others[others["peak_bytes"].astype(float) < float(base["peak_bytes"])]
    if smaller.empty:
        return "No other variant has a smaller peak than backprop."
    outcomes = [(_outcome(run, row), row) for _, row in smaller.iterrows()]
    kept = [row for outcome, row in outcomes if outcome in ("equal", "same", "better")]
    untested = [row["variant"] for outcome, row in outcomes if outcome is None]
    metric = data(base["metric"]) if pd.notna(base["metric"]) else "metric"
    rest = f" Not tested, for want of seeds or of the metric: {codes(untested)}." if untested else ""
    if kept:
        best = min(kept, key=lambda row: int(row["peak_bytes"]))
        those = f"those whose {metric} is better than backprop's, the same, or not told apart from it by the test"
        if best["variant"] == least["variant"]:
            return f"It is also the least of {those}.{rest}"
        return (
            f"Of {those}, {code(best['variant'])} holds the least, {text.mib(best['peak_bytes'])} MiB "
            f"({_compared_size(base['peak_bytes'], best)}).{rest}"
        )
    if len(untested) == len(outcomes):
        return f"Whether a variant with a smaller peak keeps the {metric} cannot be said: that takes two seeds or more."
    if untested:
        lead = f"No variant with a smaller peak is shown to keep backprop's {metric}: each that was tested"
    else:
        lead = f"No variant with a smaller peak keeps backprop's {metric}: each"
    return f"{lead} is worse by more than the noise over seeds.{rest}"


def _scores(row: pd.Series) -> str:
    if pd.isna(row["metric_mean"]):
        return ""
    figure = text.score_sd(row["metric_mean"], row["metric_sd"], row["metric_n"])
    return f", with {data(named_metric(row))} {figure}"


def _compared_size(base_bytes: int, row: pd.Series) -> str:
    """A peak beside the reference's in words, with the factor above one."""
    mine, theirs = int(row["peak_bytes"]), int(base_bytes)
    if mine == theirs:
        return "exactly as much as backprop"
    if abs(mine - theirs) < 0.005 * theirs:
        return f"{abs(mine - theirs):,} bytes {'less' if mine < theirs else 'more'} than backprop"
    return f"{theirs / mine:.2f}× less than backprop" if mine < theirs else f"{mine / theirs:.2f}× as much as backprop"


def _values(run: Run, label: str) -> list[float]:
    configuration = run.configuration(label)
    return [record.row.metric_value for record in configuration.finished if record.row.metric_value is not None]


def _base_label(run: Run, row: pd.Series) -> str:
    reference = run.reference(run.configuration(row["variant"]))
    return reference.label if reference else ""


def _base_peak_bytes(run: Run, row: pd.Series) -> int:
    """Return the peak of what ``row`` is compared with, which need not be in a table that shows a part of the run."""
    costliest = run.configuration(_base_label(run, row)).costliest
    assert costliest is not None
    assert costliest.row.peak_bytes is not None
    return costliest.row.peak_bytes


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
    test = welch(mine, theirs)
    if gap == 0:
        return "its mean is backprop's"
    side = "above" if gap > 0 else "below"
    if test is None:
        why = "one seed a side" if min(len(mine), len(theirs)) < 2 else "no spread over seeds"
        return f"that is {text.score(abs(gap))} {side} backprop's, and with {why} there is no test of it"
    larger = "larger" if test.p < LEVEL else "not larger"
    return (
        f"that is {text.score(abs(gap))} {side} backprop's, {larger} than the noise over seeds "
        f"(Welch's t-test, {text.p_value(test.p)})"
    )
