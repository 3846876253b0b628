"""No network at all: the place of one beside a method that only counts (`dbbench.methods.ngram`)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dbbench.errors import BadInput
from dbbench.networks.base import InputShape, State, require_kind
from dbbench.networks.layerless import Layerless

_NOTHING = "network.name: 'counts' computes nothing; it is for the method 'ngram'"


class Counts(Layerless):
    """It takes tokens and has neither layers nor parameters."""

    called = "counts"

    def __init__(self, shape: InputShape) -> None:
        super().__init__(shape)
        require_kind(self.called, shape, "tokens")
        self.width = 0

    def embed(self, inputs: Tensor, target: Tensor | None = None) -> State:
        raise BadInput(_NOTHING)

    def read(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        raise BadInput(_NOTHING)

    def make_head(self) -> nn.Module:
        raise BadInput(_NOTHING)
