"""The noise law and its partition, against scipy's normal distribution and the published boundaries."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dbbench.diffusion.noise import Interval, NoiseLaw, owner

LAW = NoiseLaw()
#: ln σ under the untruncated law, as scipy has it.
NORMAL = stats.norm(-1.2, 1.2)

#: Boundaries as published for P_mean = −1.2, P_std = 1.2 on [0.002, 80].
PUBLISHED = {
    2: [0.002, 0.3012, 80],
    3: [0.002, 0.17963, 0.50504, 80],
    4: [0.002, 0.13408, 0.3012, 0.67665, 80],
    6: [0.002, 0.09434, 0.17963, 0.3012, 0.50504, 0.96167, 80],
}


def log_cdf(sigma: float) -> float:
    """Return the untruncated law's probability below ``sigma``."""
    return float(NORMAL.cdf(math.log(sigma)))


def truncated(interval: Interval) -> stats.rv_continuous:
    """Return scipy's law of ln σ inside ``interval``."""
    low, high = ((math.log(sigma) + 1.2) / 1.2 for sigma in interval)
    return stats.truncnorm(low, high, loc=-1.2, scale=1.2)


@pytest.mark.parametrize("blocks", PUBLISHED)
def test_boundaries_are_the_published_ones(blocks: int) -> None:
    """Blocks would be trained on other noise than the paper's."""
    assert [float(f"{sigma:.4g}") for sigma in LAW.boundaries(blocks)] == [
        float(f"{sigma:.4g}") for sigma in PUBLISHED[blocks]
    ]


@given(st.integers(1, 24), st.floats(-3, 1), st.floats(0.3, 2))
@settings(max_examples=60, deadline=None)
def test_every_interval_has_the_same_probability(blocks: int, mean: float, std: float) -> None:
    """Blocks would see noise levels of unequal weight, which is what the partition is there to prevent."""
    law, normal = NoiseLaw(mean, std), stats.norm(mean, std)
    edges = law.boundaries(blocks)
    assert (edges[0], edges[-1]) == (law.sigma_min, law.sigma_max)
    masses = [normal.cdf(math.log(high)) - normal.cdf(math.log(low)) for low, high in itertools.pairwise(edges)]
    assert masses == pytest.approx([sum(masses) / blocks] * blocks, rel=1e-6)


def test_the_uniform_partition_divides_the_log_axis() -> None:
    """The ablation would not be the one that its docstring describes."""
    edges = LAW.boundaries(5, "uniform")
    widths = [math.log(high / low) for low, high in itertools.pairwise(edges)]
    assert widths == pytest.approx([math.log(80 / 0.002) / 5] * 5)


@pytest.mark.parametrize("partition", ["equi_probability", "uniform"])
def test_the_first_layers_own_the_highest_noise(partition: str) -> None:
    """The chain would run from low noise to high, or leave a gap between two blocks."""
    intervals = LAW.intervals(4, partition)  # type: ignore[arg-type]
    assert intervals[0][1] == 80.0
    assert intervals[-1][0] == 0.002
    for above, below in itertools.pairwise(intervals):
        assert above[0] == below[1]


def test_overlap_widens_by_a_power_of_the_ratio_inside_the_range() -> None:
    """γ would mean something else than in the paper: (σ_high/σ_low)^γ on either side, clamped."""
    ratio = (0.50504 / 0.17963) ** 0.05
    assert LAW.widen((0.17963, 0.50504), 0.05) == pytest.approx((0.17963 / ratio, 0.50504 * ratio))
    assert LAW.widen((0.17963, 0.50504), 0.0) == (0.17963, 0.50504)
    assert LAW.widen((0.002, 80.0), 0.1) == (0.002, 80.0)


@pytest.mark.parametrize("block", range(3))
@pytest.mark.parametrize("overlap", [0.0, 0.05, 0.1])
def test_samples_follow_the_truncated_law_inside_the_widened_interval(block: int, overlap: float) -> None:
    """A block would train on noise it does not own, or on its own in other proportions."""
    interval = LAW.widen(LAW.intervals(3)[block], overlap)
    sigma = LAW.sample(interval, 20_000, torch.Generator().manual_seed(7))
    assert sigma.dtype == torch.float32
    assert float(sigma.min()) >= interval[0]
    assert float(sigma.max()) <= interval[1]
    assert stats.kstest(sigma.double().log().numpy(), truncated(interval).cdf).pvalue > 0.01


def test_samples_stay_inside_an_interval_as_narrow_as_float32_can_tell() -> None:
    """Rounding to float32 would put a draw outside the interval, where another block owns it."""
    low = 0.3
    interval = (low, low * (1 + 1e-6))
    sigma = LAW.sample(interval, 1_000, torch.Generator().manual_seed(0)).double()
    assert float(sigma.min()) >= torch.tensor(low).double() - 1e-7
    assert float(sigma.max()) <= torch.tensor(interval[1]).double() + 1e-7


def test_samples_repeat_with_their_generator_and_only_with_it() -> None:
    """A run could not be repeated, or two seeds would share their noise."""
    interval = LAW.intervals(2)[0]
    draw = [LAW.sample(interval, 50, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])


@given(st.integers(1, 12), st.floats(0.002, 80))
@settings(max_examples=100, deadline=None)
def test_every_noise_level_has_one_owner_whose_interval_holds_it(blocks: int, sigma: float) -> None:
    """A step of the sampler would be taken by a block that never saw its noise."""
    intervals = LAW.intervals(blocks)
    low, high = intervals[owner(sigma, intervals)]
    assert low <= sigma <= high * (1 + 1e-8)


@given(st.integers(2, 12), st.sampled_from([-1e-14, 0.0, 1e-14]))
@settings(max_examples=60, deadline=None)
def test_a_border_belongs_to_the_block_that_steps_down_from_it(blocks: int, rounding: float) -> None:
    """A chain that starts each block at its own top would run the block above twice and the last one never."""
    intervals = LAW.intervals(blocks)
    assert [owner(high * (1 + rounding), intervals) for _, high in intervals] == list(range(blocks))


def test_levels_outside_the_range_go_to_the_nearest_block() -> None:
    """The last step of a chain may lie below the lowest border by a rounding."""
    intervals = LAW.intervals(3)
    assert owner(1e-9, intervals) == 2
    assert owner(1e9, intervals) == 0
