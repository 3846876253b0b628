"""EDM preconditioning (Karras et al. 2022, arXiv 2206.00364, table 1, eq. 7)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Preconditioning:
    """The four coefficients of D(z; σ) = c_skip·z + c_out·F(c_in·z, c_noise), each shaped like σ."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def precondition(sigma: Tensor, sigma_data: float) -> Preconditioning:
    """Return the coefficients at noise level ``sigma`` for targets of standard deviation ``sigma_data``."""
    variance = sigma**2 + sigma_data**2
    root = variance.sqrt()
    return Preconditioning(sigma_data**2 / variance, sigma * sigma_data / root, 1 / root, sigma.log() / 4)


def edm_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """Return w(σ) = (σ² + σ_data²)/(σ·σ_data)² (Karras et al., table 1: λ(σ)), shaped like ``sigma``."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
