"""A network whose prediction is known: logits of the next token are a row of a table, chosen by the token before."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from dbbench.networks.base import BaseOptions, InputShape, Network, State


class BigramTable(Network):
    """``table`` [classes, classes] holds the logits; there are no layers."""

    presets, fields = {"tiny": (0,)}, ("depth",)

    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        self.width = shape.classes
        self.table = nn.Parameter(torch.empty(shape.classes, shape.classes))
        self.layers, self.head = nn.ModuleList(), self.make_head()

    @classmethod
    def build(
        cls,
        size: str,
        shape: InputShape,
        options: BaseOptions,
        depth: int | None = None,
        condition_width: int | None = None,
    ) -> Self:
        return cls(shape)

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        nn.init.normal_(parameter, generator=generator)

    def embed(self, inputs: Tensor, target: Tensor | None = None) -> State:
        return State(self.table[inputs])

    def read(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        return x

    def make_head(self) -> nn.Module:
        return _Same()


class _Same(nn.Module):
    def forward(self, features: Tensor, condition: Tensor | None = None) -> Tensor:
        return features
