"""The layer that vision and diffusion transformers share: attention and an MLP behind layer norms, and patches before.

Every operation saves the same tensors for its backward on CPU and CUDA (no dropout inside attention, tanh GELU, layer
norm), so a ledger taken on one speaks for the other.

What autograd keeps of a layer at the end of its forward, in units of one residual stream U = batch · tokens · width ·
bytes a number, with r = mlp_width / width:

============================ ============================== ===== ========
kept                         for the backward of            plain adaptive
============================ ============================== ===== ========
x                            norm1 (and the gate's product) 1     1
norm1(x)                     qkv; its modulation            1     1
norm1(x), modulated          qkv                                  1
q, k, v                      attention                      3     3
attention's mix              itself, and the out map        1     1
the out map's result         the gate                             1
x + …                        norm2                          1     1
norm2(…)                     mlp.up; its modulation         1     1
norm2(…), modulated          mlp.up                               1
mlp.up's result              GELU                           r     r
GELU's result                mlp.down                       r     r
mlp.down's result            the gate                             1
============================ ============================== ===== ========
sum                                                         8+2r  12+2r

To these comes what is smaller by a factor of the width or of the tokens: mean and reciprocal deviation of two norms
(four numbers a token; in bf16 CPU keeps them in bf16, CUDA in float32), attention's log-sum-exp (a number a token and
head, in float32), and in the adaptive layer two 1 + scale, two gates and the condition behind SiLU (five times the
width, a sample). tests/networks/test_activations.py adds all of it up and compares it with the ledger to the byte.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dbbench.networks.parts import Modulation, modulate


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
    is the identity (DiT's adaLN-Zero, which the released DiffusionBlocks code uses). Without ``affine`` the norms
    have no weights of their own.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_width: int,
        dropout: float,
        condition_width: int | None,
        gate_start: int,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=affine)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=affine)
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
