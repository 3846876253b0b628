"""A network without a layer: what the rows to beat stand on, which train nothing that could be cut into blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from torch import nn

from dbbench.errors import BadInput
from dbbench.networks import base
from dbbench.networks.base import InputShape


class Layerless(base.Network):
    """Made of a shape alone: ``tiny``, without a depth, without a condition. ``called`` is its name in a suite."""

    called: ClassVar[str]
    presets: ClassVar[Mapping[str, tuple[int, ...]]] = {"tiny": (0,)}
    fields = ("depth",)

    def __init__(self, shape: InputShape) -> None:
        super().__init__()
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
            raise BadInput(f"network.name: '{cls.called}' has no layers, so neither a depth nor blocks")
        return cls(shape)
