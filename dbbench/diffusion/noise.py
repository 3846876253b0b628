"""Noise levels: the law they are drawn from, and its partition into the intervals that blocks own.

DiffusionBlocks (Shing, Koyama & Akiba, arXiv 2506.14202) on the noise law of EDM (Karras et al. 2022, arXiv
2206.00364, table 1): ln σ ~ N(P_mean, P_std²), truncated to [σ_min, σ_max].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import torch
from torch import Tensor

Partition = Literal["equi_probability", "uniform"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class NoiseLaw:
    """ln σ ~ N(p_mean, p_std²) on [sigma_min, sigma_max]; σ is in units of the target's coordinates."""

    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def probability(self, sigma: float) -> float:
        """Return the untruncated law's P(σ' ≤ sigma)."""
        return NormalDist(self.p_mean, self.p_std).cdf(math.log(sigma))

    def quantile(self, probability: float) -> float:
        """Return the σ with ``probability`` below it, under the untruncated law."""
        return math.exp(NormalDist(self.p_mean, self.p_std).inv_cdf(probability))

    def between(self, part: float, low: float, high: float) -> float:
        """Return the σ that has the fraction ``part`` of [low, high]'s probability below it; the ends are exact."""
        if part <= 0.0:
            return low
        if part >= 1.0:
            return high
        low_probability, high_probability = self.probability(low), self.probability(high)
        return self.quantile(low_probability + part * (high_probability - low_probability))

    def boundaries(self, blocks: int, partition: Partition = "equi_probability") -> list[float]:
        """Return the ``blocks`` + 1 boundaries of σ, ascending.

        ``equi_probability`` gives each interval the same probability (the paper's choice). ``uniform``, the
        ablation, gives them the same width in ln σ: the paper does not say which axis it divides, this is our
        reading.
        """
        parts = [b / blocks for b in range(blocks + 1)]
        if partition == "equi_probability":
            return [self.between(part, self.sigma_min, self.sigma_max) for part in parts]
        ratio = self.sigma_max / self.sigma_min
        return [self.sigma_min * ratio**part for part in parts]

    def intervals(self, blocks: int, partition: Partition = "equi_probability") -> list[Interval]:
        """Return (low, high) of each block in the network's order: the first layers own the highest noise."""
        edges = self.boundaries(blocks, partition)
        return [(edges[b], edges[b + 1]) for b in reversed(range(blocks))]

    def widen(self, interval: Interval, overlap: float) -> Interval:
        """Return ``interval`` widened by (σ_high/σ_low)^overlap on either side, clamped to the law's range."""
        low, high = interval
        factor = (high / low) ** overlap
        return max(low / factor, self.sigma_min), min(high * factor, self.sigma_max)

    def sample(self, interval: Interval, count: int, generator: torch.Generator) -> Tensor:
        """Draw ``count`` values of σ from the law restricted to ``interval`` and renormalised; float32 [count]."""
        low, high = (self.probability(sigma) for sigma in interval)
        uniform = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)
        normal = torch.special.ndtri(low + (high - low) * uniform)
        # the float32 value nearest to an end may lie outside it
        return torch.exp(self.p_mean + self.p_std * normal).float().clamp(*interval)


def owner(sigma: float, intervals: Sequence[Interval]) -> int:
    """Return the block whose interval holds ``sigma``; on a border, to a rounding, the one below it (later layers).

    A step of the sampler leads down from its σ, into the lower of the two.
    """
    for block, (low, _) in enumerate(intervals):
        if sigma > low * (1 + 1e-9):
            return block
    return len(intervals) - 1
