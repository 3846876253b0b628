"""No network at all: the place of one beside a method that only counts (`dbbench.methods.ngram`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from dbbench.errors import BadInput
from dbbench.networks import base
from dbbench.networks.base import InputShape, State, require_kind

_NOTHING = "network.name: 'counts' computes nothing; it is for the method 'ngram'"


class Counts(base.Network):
    """It takes tokens and has neither layers nor parameters."""

    presets: ClassVar[Mapping[str, tuple[int, ...]]] = {"tiny": (0,)}
    fields = ("depth",)

    def __init__(self, shape: InputShape) -> None:
        super().__init__()
        require_kind("counts", shape, "tokens")
        self.width = 0
        self.layers = nn.ModuleList()

    @classmethod
    def build(
        cls,
        size: str,
        shape: InputShape,
        options: base.BaseOptions,
        depth: int | None = None,
        condition_width: int | None = None,
    ) -> Self:
        if depth or condition_width:
            raise BadInput("network.name: 'counts' has no layers, so neither a depth nor blocks")
        return cls(shape)

    def embed(self, inputs: Tensor, target: Tensor | None = None) -> State:
        raise BadInput(_NOTHING)

    def read(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        raise BadInput(_NOTHING)

    def make_head(self) -> nn.Module:
        raise BadInput(_NOTHING)
