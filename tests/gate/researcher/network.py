"""A residual network of MLPs over patches, with a table of positions and a head of two maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dbbench.networks.base import InputShape, Network, State

PATCH = 7
SIZES = {"small": (6, 64)}


class Positions(nn.Module):
    """A fixed table of which the first rows are added to the tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(1024, width))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.table[: tokens.shape[1]]


class Layer(nn.Module):
    """x + down(gelu(up(norm(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, context: dict[str, Any], condition: Tensor | None = None) -> Tensor:
        hidden = self.up(self.norm(x))
        return x + self.down(F.gelu(hidden))


class Head(nn.Module):
    """Two maps from the mean token to the classes."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        inner = 2 * width
        self.first = nn.Linear(width, inner)
        self.second = nn.Linear(inner, classes)

    def forward(self, features: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.second(F.relu(self.first(features)))


class PatchMLP(Network):
    """Patches, positions, residual MLPs, the mean token, a head."""

    presets, fields = SIZES, ("depth", "width")

    def __init__(self, shape: InputShape, depth: int, width: int, condition_width: int | None = None) -> None:
        super().__init__()
        self.width, self.classes = width, shape.classes
        self.patches = nn.Linear(PATCH * PATCH, width)
        self.positions = Positions(width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(depth))
        self.head = self.make_head()

    def embed(self, inputs: Tensor, target: Tensor | None = None) -> State:
        rows = inputs.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
        return State(self.positions(self.patches(rows.reshape(len(inputs), -1, PATCH * PATCH))))

    def read(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        return x.mean(dim=1)

    def make_head(self) -> nn.Module:
        return Head(self.width, self.classes)
