"""A network whose prediction is known: each token of a masked text by itself, whatever is not masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from dbbench.networks.base import BaseOptions, InputShape, Network, State
from toy_methods.bigram import _Same


class UnigramTable(Network):
    """``table`` [classes] holds the logits; there are no layers."""

    presets, fields = {"tiny": (0,)}, ("depth",)

    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        self.width = shape.classes
        self.table = nn.Parameter(torch.empty(shape.classes))
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

    def embed(self, inputs: Mapping[str, Tensor], target: Tensor | None = None) -> State:
        return State(self.table.expand(*inputs["tokens"].shape, -1))

    def read(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        return x

    def make_head(self) -> nn.Module:
        return _Same()
