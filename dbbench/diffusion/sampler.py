"""From noise to a target along the probability-flow ODE dz/dσ = (z − D(z; σ))/σ (Karras et al. 2022, eq. 1)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from dbbench.diffusion.noise import Interval, NoiseLaw

Grid = Literal["probability", "block_edges"]


def euler_step(z: Tensor, denoised: Tensor, sigma: float, next_sigma: float) -> Tensor:
    """Return D + (σ_next/σ)·(z − D).

    This is z + (σ_next − σ)·(z − D)/σ, Euler's step, written as the residual update that DiffusionBlocks reads a
    layer as. (The sign in the paper's eqs. 3–5 is a typo.)
    """
    return denoised + (next_sigma / sigma) * (z - denoised)


def euler(denoise: Callable[[Tensor, float], Tensor], z: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Follow ``sigmas`` (descending) from z at sigmas[0] and return z at sigmas[-1]."""
    for sigma, next_sigma in itertools.pairwise(sigmas):
        z = euler_step(z, denoise(z, sigma), sigma, next_sigma)
    return z


def inference_sigmas(law: NoiseLaw, intervals: Sequence[Interval], steps: int, grid: Grid) -> list[float]:
    """Return the ``steps`` noise levels, descending, at which a prediction denoises.

    ``probability`` spaces them equally in probability with both ends included (the released code: with as many
    steps as blocks each block is used once, the last at σ_min). ``block_edges`` starts each block at the top of its
    own interval, equally many steps in each, equally spaced in probability inside it.
    """
    if grid == "probability":
        parts = [1.0] if steps == 1 else [1 - i / (steps - 1) for i in range(steps)]
        return [law.between(part, law.sigma_min, law.sigma_max) for part in parts]
    each = steps // len(intervals)
    return [law.between(1 - i / each, low, high) for low, high in intervals for i in range(each)]
