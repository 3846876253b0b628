"""EDM's preconditioning (Karras et al. 2022, appendix B.6): what its coefficients are derived to do."""

from __future__ import annotations

import pytest
import torch

from dbbench.diffusion.precondition import edm_weight, precondition

SIGMAS = torch.logspace(-2.7, 1.9, 24, dtype=torch.float64)


@pytest.mark.parametrize("sigma_data", [0.5, 0.125, 2.0])
def test_the_networks_input_has_unit_variance(sigma_data: float) -> None:
    """c_in² · Var(y + σε) = 1, or the network would have to scale its own input (eq. 117)."""
    c = precondition(SIGMAS, sigma_data)
    assert torch.allclose(c.c_in**2 * (sigma_data**2 + SIGMAS**2), torch.ones_like(SIGMAS))


@pytest.mark.parametrize("sigma_data", [0.5, 0.125, 2.0])
def test_the_networks_target_has_unit_variance(sigma_data: float) -> None:
    """Var[(y − c_skip·z)/c_out] = ((1 − c_skip)²·σ_data² + c_skip²·σ²)/c_out² = 1 (eq. 123)."""
    c = precondition(SIGMAS, sigma_data)
    variance = ((1 - c.c_skip) ** 2 * sigma_data**2 + c.c_skip**2 * SIGMAS**2) / c.c_out**2
    assert torch.allclose(variance, torch.ones_like(SIGMAS))


def test_c_skip_makes_the_networks_part_as_small_as_it_can_be() -> None:
    """c_skip minimises c_out² (eq. 129): any other would amplify the network's errors."""
    c = precondition(SIGMAS, 0.5)
    for shifted in (c.c_skip + 1e-3, c.c_skip - 1e-3):
        assert bool((((1 - shifted) * 0.5) ** 2 + (shifted * SIGMAS) ** 2 > c.c_out**2).all())


def test_input_and_target_have_unit_variance_on_real_draws() -> None:
    """The algebra above would hold for formulas that nothing computes: the same, by Monte Carlo."""
    generator = torch.Generator().manual_seed(3)
    y = 0.5 * torch.randn(200_000, generator=generator)
    for sigma in (0.05, 0.5, 5.0):
        z = y + sigma * torch.randn(200_000, generator=generator)
        c = precondition(torch.tensor(sigma), 0.5)
        assert float((c.c_in * z).var()) == pytest.approx(1, abs=0.02)
        assert float(((y - c.c_skip * z) / c.c_out).var()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("sigma_data", [0.5, 0.125])
def test_the_weight_undoes_the_output_scale(sigma_data: float) -> None:
    """w(σ)·c_out² = 1, so that at the start every noise level counts the same (eq. 144)."""
    c = precondition(SIGMAS, sigma_data)
    assert torch.allclose(edm_weight(SIGMAS, sigma_data) * c.c_out**2, torch.ones_like(SIGMAS))


def test_the_ends_are_what_they_must_be() -> None:
    """Without noise the denoiser would not return its input; in pure noise it would not come from the network."""
    low, high = precondition(torch.tensor(1e-6), 0.5), precondition(torch.tensor(1e6), 0.5)
    assert float(low.c_skip) == pytest.approx(1)
    assert float(low.c_out) == pytest.approx(0, abs=1e-5)
    assert float(high.c_skip) == pytest.approx(0, abs=1e-5)
    assert float(high.c_out) == pytest.approx(0.5)
    assert float(precondition(torch.tensor(1.0), 0.5).c_noise) == 0.0
    assert float(precondition(torch.e * torch.ones(()), 0.5).c_noise) == pytest.approx(0.25)
