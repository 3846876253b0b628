"""Tolerances: spelled in the file, edited by hand, and what they let pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dbbench.gate.tolerance import DEVICE, EXACT, NOISE, OFF, judge, parse
from dbbench.report.verdict import Sample, welch_of

VALUES = st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=2, max_size=8)


def sample(values: list[float]) -> Sample:
    return Sample(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, len(values))


@pytest.mark.parametrize("words", ["exact", "off", "1%", "0.5%", "20%", "4096", "0.01", "p<0.05,1%", "p<0.001,0.005"])
def test_what_is_written_is_read_back(words: str) -> None:
    """Broken if a tolerance changes its meaning each time that the file is written."""
    assert str(parse(words)) == words


@pytest.mark.parametrize(
    "words", ["", "-1%", "1 %", "~1%", "p<0,1%", "p<1.5,1%", "p<0.05", "p<0.05,off", "inf", "1e99", "EXACT"]
)
def test_a_slip_of_the_hand_is_no_tolerance(words: str) -> None:
    """Broken if a typing mistake opens the gate."""
    with pytest.raises(ValueError, match="is no tolerance"):
        parse(words)


def test_bytes_are_exact_and_devices_are_not() -> None:
    """Broken if a byte may be lost on the CPU, or a device's allocator raises an alarm each night."""
    a_lot = 2**60 + 1  # more than a float tells apart
    assert judge(EXACT, Sample(a_lot), Sample(a_lot)).changed is False
    assert judge(EXACT, Sample(a_lot), Sample(a_lot + 1)).changed is True
    assert judge(DEVICE, Sample(1000), Sample(1010)).changed is False
    assert judge(DEVICE, Sample(1000), Sample(1011)).changed is True
    assert judge(DEVICE, Sample(1000), Sample(989)).changed is True, "less is a change too"
    assert judge(DEVICE, Sample(0), Sample(1)).changed is True
    assert judge(OFF, Sample(0), Sample(10)).changed is None


@pytest.mark.filterwarnings("ignore:Precision loss")
@settings(max_examples=100, deadline=None)
@given(one=VALUES, other=VALUES)
def test_the_test_of_means_is_scipys(one: list[float], other: list[float]) -> None:
    """Broken if the level that the file states is not the level of the test."""
    ours = welch_of(sample(one), sample(other))
    if np.ptp(one) == 0 and np.ptp(other) == 0:  # there a rounding error is all the spread that scipy sees
        return
    assert ours is not None
    theirs = stats.ttest_ind(one, other, equal_var=False)
    assert ours.p == pytest.approx(theirs.pvalue, abs=1e-5)
    assert ours.t == pytest.approx(theirs.statistic, rel=1e-6, abs=1e-9)


def test_a_change_is_beyond_noise_and_large_enough() -> None:
    """Broken if luck is a change, or a certain difference of a thousandth."""
    before = Sample(0.860, 0.002, 5)
    assert judge(NOISE, before, Sample(0.859, 0.002, 5)).changed is False
    assert judge(NOISE, before, Sample(0.840, 0.002, 5)).changed is True
    assert judge(NOISE, before, Sample(0.880, 0.002, 5)).changed is True, "better is a change too"
    assert judge(NOISE, before, Sample(0.840, 0.05, 5)).changed is False, "that is noise"
    certain = judge(NOISE, Sample(0.860, 1e-5, 5), Sample(0.855, 1e-5, 5))
    assert (certain.changed, "smaller than the least that counts" in certain.why) == (False, True)


def test_the_level_is_shared_by_all_tests() -> None:
    """Broken if a suite of many cells raises an alarm by chance alone, one in twenty a cell."""
    before, after = Sample(0.86, 0.01, 3), Sample(0.82, 0.01, 3)
    test = welch_of(before, after)
    assert test is not None and 0.005 < test.p < 0.05
    assert judge(NOISE, before, after, tests=1).changed is True
    assert judge(NOISE, before, after, tests=20).changed is False


def test_one_seed_is_not_compared_and_says_so() -> None:
    """Broken if a single run is called better or worse, or passes for one that was compared."""
    for one, other in ((Sample(0.9), Sample(0.5, 0.1, 3)), (Sample(0.5, 0.1, 3), Sample(0.9))):
        found = judge(NOISE, one, other)
        assert (found.changed, "one seed" in found.why) == (None, True)


def test_without_spread_the_least_difference_decides() -> None:
    """Broken if seeds that agree to the last digit on both sides let any difference pass."""
    assert judge(NOISE, Sample(0.5, 0.0, 3), Sample(0.6, 0.0, 3)).changed is True
    assert judge(NOISE, Sample(0.5, 0.0, 3), Sample(0.501, 0.0, 3)).changed is False


def test_alarms_under_the_null_are_rarer_than_the_level() -> None:
    """Broken if an unchanged method of nine cells and three seeds fails more than one check in twenty."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        draws = rng.normal(0.85, 0.02, size=(9, 2, 3))
        alarms += any(judge(NOISE, sample(list(a)), sample(list(b)), tests=9).changed for a, b in draws)
    assert alarms <= 0.05 * 200 + 3 * (200 * 0.05 * 0.95) ** 0.5
