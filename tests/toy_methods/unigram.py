"""A network whose prediction is known: each token of a masked text by itself, whatever is not masked."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from dbbench.networks.base import State
from toy_methods.bigram import Table


class UnigramTable(Table):
    """``table`` is [classes]."""

    def embed(self, inputs: Mapping[str, Tensor], target: Tensor | None = None) -> State:
        return State(self.table.expand(*inputs["tokens"].shape, -1))
