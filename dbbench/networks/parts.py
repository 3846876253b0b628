"""Pieces that networks and methods share: a modulated layer norm, a head, and the embedding of a noise level."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ZeroLinear(nn.Linear):
    """A linear map that starts at zero."""

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        """Fill weight and bias with zeros."""
        parameter.zero_()


class Modulation(nn.Module):
    """Adaptive layer norm's numbers from a condition (Peebles & Xie 2023, §3.2; arXiv 2212.09748).

    ``forward(condition [batch, condition_width])`` returns ``chunks`` tensors of shape [batch, 1, width]. Weights and
    biases start at zero, so every number starts at zero; what zero means is its user's choice (`gate_start`).
    """

    def __init__(self, condition_width: int, width: int, chunks: int) -> None:
        super().__init__()
        self.chunks = chunks
        self.linear = ZeroLinear(condition_width, chunks * width)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        return self.linear(F.silu(condition)).unsqueeze(1).chunk(self.chunks, dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return x · (1 + scale) + shift, all broadcast over tokens."""
    return torch.addcmul(shift, x, 1 + scale)


class Head(nn.Module):
    """Final norm and linear read-out: features [batch, width] → logits [batch, classes].

    With ``condition_width`` the norm is adaptive, as in the released DiffusionBlocks code.
    """

    def __init__(self, width: int, classes: int, condition_width: int | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, classes)
        self.modulation = None if condition_width is None else Modulation(condition_width, width, chunks=2)

    def forward(self, features: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self.norm(features)
        if self.modulation is not None and condition is not None:
            shift, scale = self.modulation(condition)
            x = modulate(x, shift.squeeze(1), scale.squeeze(1))
        return self.linear(x)


class NoiseEmbedding(nn.Module):
    """Embeds c_noise [batch] as a condition [batch, width]: sinusoids, then two linear maps.

    Frequencies fall geometrically from 1 to 1/``longest_period`` after c_noise is multiplied by ``SCALE``, as
    transformers and DiT embed a position or a time step (Vaswani et al. 2017, §3.5).
    """

    FREQUENCIES = 64
    SCALE = 100.0

    def __init__(self, width: int, longest_period: float = 10_000.0) -> None:
        super().__init__()
        self.longest_period = longest_period
        self.up = nn.Linear(2 * self.FREQUENCIES, width)
        self.down = nn.Linear(width, width)

    def forward(self, c_noise: Tensor) -> Tensor:
        steps = torch.arange(self.FREQUENCIES, device=c_noise.device, dtype=torch.float32)
        frequencies = torch.exp(-math.log(self.longest_period) * steps / self.FREQUENCIES)
        angles = self.SCALE * c_noise.float().unsqueeze(1) * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(self.up.weight.dtype)
        return self.down(F.silu(self.up(waves)))
