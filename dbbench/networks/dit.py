"""The diffusion transformer of Peebles & Xie (2023, arXiv 2212.09748), as a denoiser of latents that can be cut.

A noisy latent is cut into patches; noise level and class together condition every layer by adaptive layer norm whose
gates start at zero (their adaLN-Zero). The table below is the family, from their table 1; ``depth`` and ``width`` are
the dials. What a layer keeps for its backward is derived in `dbbench.networks.transformer`: 20 times the residual
stream at the family's MLP of four times the width.

Where this network differs from the released one: it gives the denoised channels alone, not a variance beside them,
since it is trained by EDM's objective; and the noise level comes in as c_noise = ¼·ln σ, not as one of 1,000 steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dbbench.errors import BadInput
from dbbench.limits import Pixels
from dbbench.networks import base
from dbbench.networks.base import InputShape, State, require_kind
from dbbench.networks.parts import Modulation, NoiseEmbedding, ZeroLinear, modulate
from dbbench.networks.transformer import Layer, PatchEmbedding

#   size        depth  width  heads  mlp_width  patch
SIZES = {
    "micro/2": (4, 32, 2, 128, 2),  # tests
    "S/2": (12, 384, 6, 1536, 2),
    "B/2": (12, 768, 12, 3072, 2),
    "L/2": (24, 1024, 16, 4096, 2),
    "XL/2": (28, 1152, 16, 4608, 2),
}
FIELDS = ("depth", "width", "heads", "mlp_width", "patch")


class LatentHead(nn.Module):
    """Adaptive norm and a linear map that starts at zero: [batch, tokens, width] → [batch, channels, size, size]."""

    def __init__(self, width: int, channels: int, patch: int, rows: int) -> None:
        super().__init__()
        self.channels, self.patch, self.rows = channels, patch, rows
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = Modulation(width, width, chunks=2)
        self.linear = ZeroLinear(width, patch * patch * channels)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(condition)
        patches = self.linear(modulate(self.norm(features), shift, scale))
        batch, rows, patch = len(patches), self.rows, self.patch
        grid = patches.view(batch, rows, rows, self.channels, patch, patch)
        return grid.permute(0, 3, 1, 4, 2, 5).reshape(batch, self.channels, rows * patch, rows * patch)


class DiT(base.Network):
    """Diffusion transformer on latents, conditioned on noise level and class by adaLN-Zero."""

    class Options(base.BaseOptions):
        width: base.Width = None
        patch: Pixels | None = None
        dropout: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
        gate_start: Literal[0, 1] = 0

    presets, fields = SIZES, FIELDS

    denoiser = True
    positions: Tensor

    def __init__(
        self,
        shape: InputShape,
        depth: int,
        width: int,
        heads: int,
        mlp_width: int,
        patch: int,
        dropout: float = 0.0,
        gate_start: int = 0,
    ) -> None:
        super().__init__()
        require_kind("dit", shape, "latents")
        assert shape.image_size is not None and shape.channels is not None
        if shape.image_size % patch:
            raise BadInput(f"network.patch: {patch} does not divide the latents' size {shape.image_size}")
        self.width, self.channels, self.patch, self.rows = width, shape.channels, patch, shape.image_size // patch
        self.patches = PatchEmbedding(shape.channels, patch, width)
        self.noise = NoiseEmbedding(width)
        self.labels = nn.Embedding(shape.classes + 1, width)  # the last row stands for no label
        self.register_buffer("positions", _sinusoids(self.rows, width).unsqueeze(0))
        self.layers = nn.ModuleList(
            Layer(width, heads, mlp_width, dropout, width, gate_start, affine=False) for _ in range(depth)
        )
        self.head = self.make_head()

    def embed(self, inputs: Mapping[str, Tensor], target: Tensor | None = None) -> State:
        noisy = inputs["noisy"] if target is None else target
        condition = self.noise(inputs["c_noise"]) + self.labels(inputs["label"])
        return State(self.patches(noisy) + self.positions, {"condition": condition})

    def read(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        return x

    def make_head(self) -> nn.Module:
        return LatentHead(self.width, self.channels, self.patch, self.rows)


def _sinusoids(rows: int, width: int) -> Tensor:
    """Return fixed positions [rows², width]: half of the width for the row, half for the column (Vaswani et al. 2017,
    §3.5, on a grid)."""
    quarter = width // 4
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(quarter) / quarter)
    angles = torch.arange(rows)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # [rows, width / 2]
    by_row = waves[:, None].expand(rows, rows, -1)
    by_column = waves[None].expand(rows, rows, -1)
    return torch.cat([by_row, by_column], dim=2).reshape(rows * rows, -1)
