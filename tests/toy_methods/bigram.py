"""A network whose prediction is known: logits of the next token are a row of a table, chosen by the token before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dbbench.networks.base import InputShape, State
from dbbench.networks.layerless import Layerless


class Table(Layerless):
    """``table`` holds the logits of all that is asked; there are no layers, and the head changes nothing."""

    called = "table"

    def __init__(self, shape: InputShape, *rows: int) -> None:
        super().__init__(shape)
        self.width = shape.classes
        self.table = nn.Parameter(torch.empty(*rows, shape.classes))
        self.head = self.make_head()

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        nn.init.normal_(parameter, generator=generator)

    def read(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        return x

    def make_head(self) -> nn.Module:
        return _Same()


class BigramTable(Table):
    """``table`` is [classes, classes]."""

    def __init__(self, shape: InputShape) -> None:
        super().__init__(shape, shape.classes)

    def embed(self, inputs: Tensor, target: Tensor | None = None) -> State:
        return State(self.table[inputs])


class _Same(nn.Module):
    def forward(self, features: Tensor, condition: Tensor | None = None) -> Tensor:
        return features
