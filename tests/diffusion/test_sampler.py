"""Euler's method on denoisers in closed form, against scipy's adaptive solver of the same equation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch import Tensor

from dbbench.diffusion.noise import NoiseLaw, owner
from dbbench.diffusion.sampler import euler, euler_step, inference_sigmas

LAW = NoiseLaw()
Denoiser = Callable[[Tensor, float], Tensor]

MEAN, STD = 0.7, 0.5
CENTRES, SPREAD = (-1.0, 1.5), 0.3


def gaussian(z: Tensor, sigma: float) -> Tensor:
    """Return E[y | z] for y ~ N(MEAN, STD²)."""
    return (STD**2 * z + sigma**2 * MEAN) / (STD**2 + sigma**2)


def mixture(z: Tensor, sigma: float) -> Tensor:
    """Return E[y | z] for y with equal chances from N(c, SPREAD²), c of CENTRES."""
    centres = torch.tensor(CENTRES, dtype=z.dtype)
    variance = SPREAD**2 + sigma**2
    weights = torch.softmax(-((z[..., None] - centres) ** 2) / (2 * variance), dim=-1)
    means = (SPREAD**2 * z[..., None] + sigma**2 * centres) / variance
    return (weights * means).sum(-1)


def by_block(denoise: Denoiser, blocks: int, used: set[int]) -> Denoiser:
    """Return ``denoise`` made of one denoiser a block, each of which refuses noise that it does not own."""
    intervals = LAW.intervals(blocks)

    def make(block: int) -> Denoiser:
        low, high = intervals[block]

        def own(z: Tensor, sigma: float) -> Tensor:
            assert low <= sigma <= high * (1 + 1e-8)
            used.add(block)
            return denoise(z, sigma)

        return own

    denoisers = [make(block) for block in range(blocks)]
    return lambda z, sigma: denoisers[owner(sigma, intervals)](z, sigma)


@pytest.mark.parametrize("denoise", [gaussian, mixture])
@pytest.mark.parametrize("blocks", [1, 3])
def test_the_error_falls_with_the_first_power_of_the_steps(denoise: Denoiser, blocks: int) -> None:
    """The sampler would not follow the equation: Euler's global error is O(1/n), across block borders as well."""
    start, end = 80.0, 0.002
    z = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64) * start
    exact = solve_ivp(
        lambda sigma, values: (values - denoise(torch.from_numpy(values), float(sigma)).numpy()) / sigma,
        (start, end), z.numpy(), method="DOP853", rtol=1e-12, atol=1e-13,
    )  # fmt: skip
    counts, errors, used = (64, 128, 256, 512, 1024), [], set[int]()
    for steps in counts:
        sigmas = np.geomspace(start, end, steps + 1).tolist()
        sigmas[0], sigmas[-1] = start, end
        reached = euler(by_block(denoise, blocks, used), z, sigmas)
        errors.append(float(np.abs(reached.numpy() - exact.y[:, -1]).max()))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(-1, abs=0.05), errors
    assert used == set(range(blocks))


def test_the_exact_solution_for_a_gaussian_is_reached() -> None:
    """Both solvers could follow one wrong equation: here z(σ) = μ + (z₀ − μ)·√((s² + σ²)/(s² + σ₀²)) is known."""
    z = torch.tensor([-100.0, 3.0, 160.0], dtype=torch.float64)
    sigmas = np.geomspace(80.0, 0.002, 4097).tolist()
    expected = MEAN + (z - MEAN) * math.sqrt((STD**2 + 0.002**2) / (STD**2 + 80.0**2))
    assert torch.allclose(euler(gaussian, z, sigmas), expected, atol=5e-3)


numbers = st.floats(-50, 50)


@given(numbers, numbers, st.floats(0.002, 80), st.floats(0.0, 80))
def test_a_step_is_eulers_written_as_a_residual_update(z: float, denoised: float, sigma: float, after: float) -> None:
    """One step is z + (σ_next − σ)·(z − D)/σ: the identity by which a layer is read as a step."""
    stepped = euler_step(
        torch.tensor(z, dtype=torch.float64), torch.tensor(denoised, dtype=torch.float64), sigma, after
    )
    expected = z + (after - sigma) * (z - denoised) / sigma
    scale = abs(z) + abs(denoised) + abs(after / sigma * (z - denoised))
    assert float(stepped) == pytest.approx(expected, abs=1e-12 * (1 + scale))


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 6])
def test_the_released_grid_uses_each_block_once_and_ends_at_sigma_min(blocks: int) -> None:
    """A block would be left out of the prediction, or used twice."""
    intervals = LAW.intervals(blocks)
    sigmas = inference_sigmas(LAW, intervals, blocks, "probability")
    assert sigmas[0] == 80.0
    assert [owner(sigma, intervals) for sigma in sigmas] == list(range(blocks))
    if blocks > 1:
        assert sigmas[-1] == 0.002
        steps = np.diff([LAW.probability(sigma) for sigma in sigmas])
        assert steps == pytest.approx([steps.mean()] * (blocks - 1))


@pytest.mark.parametrize(("blocks", "steps"), [(2, 3), (3, 4), (3, 7), (4, 9)])
def test_a_finer_grid_gives_each_block_its_share(blocks: int, steps: int) -> None:
    """Levels that fall on a border would go to one block or the other as rounding has it."""
    intervals = LAW.intervals(blocks)
    used = [owner(sigma, intervals) for sigma in inference_sigmas(LAW, intervals, steps, "probability")]
    each = (steps - 1) // blocks
    assert used == [b for b in range(blocks) for _ in range(each)] + [blocks - 1]


@pytest.mark.parametrize(("blocks", "steps"), [(1, 1), (3, 3), (3, 6), (4, 12)])
def test_the_other_grid_starts_each_block_at_its_own_top(blocks: int, steps: int) -> None:
    """A block would start from noise that another one should have removed."""
    intervals = LAW.intervals(blocks)
    sigmas = inference_sigmas(LAW, intervals, steps, "block_edges")
    each = steps // blocks
    assert len(sigmas) == steps
    assert sigmas == sorted(sigmas, reverse=True)
    assert [sigmas[block * each] for block in range(blocks)] == [high for _, high in intervals]
    assert [owner(sigma, intervals) for sigma in sigmas] == [b for b in range(blocks) for _ in range(each)]
