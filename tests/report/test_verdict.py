"""The sentences: Welch's test against scipy, and a method that loses is said to lose."""

from __future__ import annotations

import dataclasses

import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st
from synthetic import USUAL, Variant, build, failed

from dbbench.report.document import markdown
from dbbench.report.run import load
from dbbench.report.tables import comparison
from dbbench.report.verdict import bullets, verdict, welch

VALUES = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=2, max_size=8)


@given(VALUES, VALUES)
def test_welch_agrees_with_scipy(one, other):
    assume(min(max(v) - min(v) for v in (one, other)) > 1e-6)
    mine, theirs = welch(one, other), scipy.stats.ttest_ind(one, other, equal_var=False)
    assert mine.t == pytest.approx(theirs.statistic, rel=1e-6, abs=1e-9)
    assert mine.p == pytest.approx(theirs.pvalue, rel=1e-5, abs=1e-12)


def test_welch_of_far_means_keeps_its_small_p():
    one, other = [0.5, 0.5001, 0.4999], [0.9, 0.9001, 0.8999]
    assert welch(one, other).p == pytest.approx(scipy.stats.ttest_ind(one, other, equal_var=False).pvalue, rel=1e-6)


def test_without_spread_or_with_one_seed_there_is_no_test():
    assert welch([0.5], [0.4, 0.6]) is None
    assert welch([0.5, 0.5], [0.5, 0.5]) is None


def said(tmp_path, variants, **options):
    build(tmp_path, variants=variants, traces=False, curves=False, **options)
    run = load(tmp_path)
    table = comparison(run)
    return markdown(verdict(run, table)), [markdown(line) for line in bullets(run, table)]


BACKPROP = USUAL[0]
LOSER = Variant("loser", "toy", (0.70, 0.71, 0.69), {}, activations_mib=30.0)
EVEN = Variant("even", "toy", (0.860, 0.867, 0.859), {}, activations_mib=60.0)
WINNER = Variant("winner", "toy", (0.95, 0.951, 0.949), {}, activations_mib=90.0)
HUNGRY = Variant("hungry", "toy", (0.95, 0.951, 0.949), {}, activations_mib=500.0)


def test_a_method_that_loses_is_said_to_lose(tmp_path):
    whole, (line,) = said(tmp_path, [BACKPROP, LOSER])
    assert "`loser` peaks at 43.00 MiB, 3.09× less than backprop" in line
    assert "0.162 below backprop's, larger than the noise over seeds" in line
    assert "No variant with a smaller peak keeps backprop's accuracy" in whole


def test_the_smallest_that_keeps_the_metric_is_named_apart_from_the_smallest(tmp_path):
    whole, lines = said(tmp_path, [BACKPROP, LOSER, EVEN, WINNER])
    assert "`loser` holds the least at its peak" in whole
    assert "or not told apart from it by the test, `even` holds the least" in whole
    assert "not larger than the noise" in lines[1]
    assert "above backprop's, larger than the noise" in lines[2]


def test_a_better_metric_at_a_larger_peak_is_no_saving(tmp_path):
    whole, (line,) = said(tmp_path, [BACKPROP, HUNGRY])
    assert "3.86× as much as backprop" in line
    assert "No other variant has a smaller peak than backprop." in whole


def test_three_sentences(tmp_path):
    whole, _ = said(tmp_path, [BACKPROP, LOSER, EVEN])
    assert len([s for s in whole.replace("et al.", "").split(". ") if s.strip()]) == 3


def test_one_seed_claims_nothing_about_noise(tmp_path):
    whole, (line,) = said(tmp_path, [BACKPROP, LOSER], seeds=1)
    assert "with one seed a side there is no test of it" in line
    assert "±" not in whole + line
    assert "cannot be said" in whole


def test_an_identical_metric_is_said_to_be_identical(tmp_path):
    _, (line,) = said(tmp_path, USUAL[:2])
    assert "the same, seed by seed" in line


def test_another_budget_is_named_beside_the_variant(tmp_path):
    _, (line,) = said(tmp_path, [BACKPROP, dataclasses.replace(LOSER, budget="samples")])
    assert "(under another budget: samples 102,400)" in line


def test_without_backprop_nothing_is_compared(tmp_path):
    whole, lines = said(tmp_path, [BACKPROP, LOSER], seeds=1, failures=[failed(BACKPROP, 0, "killed", "SIGKILL")])
    assert "No cell of backprop finished" in whole
    assert lines == []
