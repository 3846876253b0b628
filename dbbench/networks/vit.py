"""A pre-norm vision transformer that can be cut between layers (Dosovitskiy et al. 2021, arXiv 2010.11929).

The table below is the whole family; ``depth`` and ``width`` are the dials. What a layer keeps for its backward is
derived in `dbbench.networks.transformer`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dbbench.errors import BadInput
from dbbench.limits import Pixels
from dbbench.networks import base
from dbbench.networks.base import InputShape, State, require_kind
from dbbench.networks.parts import Head
from dbbench.networks.transformer import Layer, PatchEmbedding

#   size      depth  width  heads  mlp_width  patch   source
SIZES = {
    "micro": (4, 32, 2, 128, 4),  # tests
    "tiny": (6, 64, 4, 256, 7),  # 28 × 28 images on two CPU cores
    "small": (12, 128, 4, 512, 4),
    "cifar": (12, 128, 4, 3072, 4),  # DiffusionBlocks' CIFAR-100 row; its code leaves the MLP at 3,072
    "base": (12, 768, 12, 3072, 16),  # ViT-B/16, ViT-L/16 and ViT-H/14: Dosovitskiy et al., table 1
    "large": (24, 1024, 16, 4096, 16),
    "huge": (32, 1280, 16, 5120, 14),
}
FIELDS = ("depth", "width", "heads", "mlp_width", "patch")


class ViT(base.Network):
    """Pre-norm vision transformer; an option makes its layer norms adaptive, starting as the plain network."""

    class Options(base.BaseOptions):
        width: base.Width = None
        patch: Pixels | None = None
        dropout: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
        gate_start: Literal[0, 1] = 1

    presets, fields = SIZES, FIELDS

    def __init__(
        self,
        shape: InputShape,
        depth: int,
        width: int,
        heads: int,
        mlp_width: int,
        patch: int,
        dropout: float = 0.0,
        condition_width: int | None = None,
        gate_start: int = 1,
    ) -> None:
        super().__init__()
        require_kind("vit", shape, "images")
        assert shape.image_size is not None and shape.channels is not None
        if shape.image_size % patch:
            raise BadInput(f"network.patch: {patch} does not divide the image size {shape.image_size}")
        self.width, self.classes, self.condition_width = width, shape.classes, condition_width
        self.tokens = (shape.image_size // patch) ** 2 + 1
        self.patches = PatchEmbedding(shape.channels, patch, width)
        self.positions = nn.Parameter(torch.empty(1, self.tokens, width))
        # a conditioned network gets its read-out token from outside
        self.class_token = nn.Parameter(torch.empty(1, 1, width)) if condition_width is None else None
        self.layers = nn.ModuleList(
            Layer(width, heads, mlp_width, dropout, condition_width, gate_start) for _ in range(depth)
        )
        self.head = self.make_head()

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        """Positions and the class token start normal with standard deviation 0.02, as in ViT."""
        nn.init.normal_(parameter, std=0.02, generator=generator)

    def embed(self, inputs: Tensor, target: Tensor | None = None) -> State:
        patches = self.patches(inputs)
        if target is not None:
            first = target.unsqueeze(1)
        elif self.class_token is not None:
            first = self.class_token.expand(inputs.shape[0], -1, -1)
        else:
            raise ValueError("a conditioned network has no read-out token of its own: pass target")
        return State(torch.cat([first.to(patches.dtype), patches], dim=1) + self.positions)

    def read(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        return x[:, 0]

    def make_head(self) -> nn.Module:
        return Head(self.width, self.classes, self.condition_width)
