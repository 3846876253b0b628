"""A pre-norm vision transformer that can be cut between layers (Dosovitskiy et al. 2021, arXiv 2010.11929).

Every operation saves the same tensors for its backward on CPU and CUDA (no dropout inside attention, tanh GELU,
layer norm), so a ledger taken on one speaks for the other. The table below is the whole family; ``depth`` is the dial.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dbbench.errors import BadInput
from dbbench.networks import base
from dbbench.networks.base import InputShape, State
from dbbench.networks.parts import Head, Modulation, modulate

#   size      depth  width  heads  mlp_width  patch   source
SIZES = {
    "micro": (4, 32, 2, 128, 4),  # tests
    "tiny": (6, 64, 4, 256, 7),  # 28 × 28 images on two CPU cores
    "small": (12, 128, 4, 512, 4),
    "cifar": (12, 128, 4, 3072, 4),  # DiffusionBlocks' CIFAR-100 row; its code leaves the MLP at 3,072
    "base": (12, 768, 12, 3072, 16),  # ViT-B/16
}
FIELDS = ("depth", "width", "heads", "mlp_width", "patch")


class Attention(nn.Module):
    """Multi-head self-attention over [batch, tokens, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))


class MLP(nn.Module):
    """Two linear maps with a GELU between them."""

    def __init__(self, width: int, mlp_width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, mlp_width)
        self.act = nn.GELU(approximate="tanh")
        self.down = nn.Linear(mlp_width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))


class Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); with a condition, both adaptive (shift, scale and gate).

    At the start shift and scale are 0 and the gate is ``gate_start``: with 1 the layer is the plain one, with 0 it
    is the identity (DiT's adaLN-Zero, which the released DiffusionBlocks code uses).
    """

    def __init__(
        self, width: int, heads: int, mlp_width: int, dropout: float, condition_width: int | None, gate_start: int
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, mlp_width)
        self.dropout = dropout
        self.gate_start = gate_start
        self.modulation = None if condition_width is None else Modulation(condition_width, width, chunks=6)

    def forward(self, x: Tensor, context: dict[str, Any], condition: Tensor | None = None) -> Tensor:
        if self.modulation is None or condition is None:
            x = x + self._drop(self.attention(self.norm1(x)))
            return x + self._drop(self.mlp(self.norm2(x)))
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)
        branch = self._drop(self.attention(modulate(self.norm1(x), shift1, scale1)))
        x = torch.addcmul(x, gate1 + self.gate_start, branch)
        branch = self._drop(self.mlp(modulate(self.norm2(x), shift2, scale2)))
        return torch.addcmul(x, gate2 + self.gate_start, branch)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class PatchEmbedding(nn.Module):
    """Cuts [batch, channels, size, size] into patches and maps them to [batch, patches, width]."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.linear = nn.Linear(channels * patch * patch, width)

    def forward(self, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        rows, columns = height // self.patch, width // self.patch
        patches = images.view(batch, channels, rows, self.patch, columns, self.patch).permute(0, 2, 4, 1, 3, 5)
        return self.linear(patches.reshape(batch, rows * columns, -1).to(self.linear.weight.dtype))


class ViT(base.Network):
    """Pre-norm vision transformer; an option makes its layer norms adaptive, starting as the plain network."""

    class Options(base.BaseOptions):
        patch: Annotated[int, Field(ge=1)] | None = None
        dropout: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
        gate_start: Literal[0, 1] = 1

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
        if shape.image_size is None or shape.channels is None:
            raise BadInput("network.name: 'vit' takes images, and this task has none")
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

    @classmethod
    def build(
        cls,
        size: str,
        shape: InputShape,
        options: base.BaseOptions,
        depth: int | None = None,
        condition_width: int | None = None,
    ) -> Self:
        numbers = cls.preset(size)
        given = options.model_dump(exclude_none=True)
        if depth is not None:
            given["depth"] = depth
        return cls(shape, **(numbers | given), condition_width=condition_width)

    @classmethod
    def preset(cls, size: str) -> dict[str, int]:
        return dict(zip(FIELDS, SIZES[size], strict=True))

    @classmethod
    def sizes(cls) -> tuple[str, ...]:
        return tuple(SIZES)

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
