"""A Llama-style decoder that can be cut between layers (Touvron et al. 2023, arXiv 2302.13971).

Pre-norm with RMSNorm, rotary positions (Su et al. 2021, arXiv 2104.09864), SwiGLU (Shazeer 2020, arXiv 2002.05202), no
biases. ``depth`` and ``width`` are the dials. RMSNorm is written from plain operations, which keep the same tensors on
CPU and CUDA; torch's fused one does not.

What autograd keeps of a layer at the end of its forward, in units of one residual stream U = batch · tokens · width ·
bytes a number; r = mlp_width / width, and f is 1 in float32 and 2 in bf16, where the norms compute in float32:

============================ ============================== =======
kept                         for the backward of            units
============================ ============================== =======
x in float32                 norm1's square and product     f
norm1's result, unweighted   its weight                     1
norm1's result               q, k and v                     1
q and k, rotated, and v      attention                      3
attention's mix              itself, and the out map        1
x + … in float32             norm2's square and product     f
norm2's result, unweighted   its weight                     1
norm2's result               gate and up                    1
gate's and up's results      SiLU and the product           2r
SiLU's result                the product                    r
their product                down                           r
============================ ============================== =======
sum                                                         8+2f+4r

In float32 a cast is none and the norms keep x itself, which is U all the same. To these come two reciprocal norms (a
number a token each) and attention's log-sum-exp (a number a token and head), in float32.
tests/networks/test_activations.py adds all of it up and compares it with the ledger to the byte.

As a block-wise denoiser the decoder gets noisy embeddings of the next tokens beside the clean tokens: both streams run
through the layers as one sequence of twice the length (DiffusionBlocks, arXiv 2506.14202, autoregressive text), under a
mask in which a clean position sees the clean ones up to itself, and a noisy one the same and itself.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dbbench.networks import base
from dbbench.networks.base import InputShape, State, require_kind
from dbbench.networks.parts import Modulation, modulate

#   size     depth  width  heads  mlp_width  tied   source
SIZES = {
    "micro": (4, 32, 2, 96, 0),  # tests
    "124m": (12, 768, 12, 2048, 1),  # GPT-2's smallest in Llama's form: 124 M parameters at its 50,257 tokens
    "1.3b": (24, 2048, 16, 5504, 0),  # Sheared-LLaMA-1.3B (Xia et al. 2023, arXiv 2310.06694)
    "7b": (32, 4096, 32, 11008, 0),  # LLaMA-7B (Touvron et al., table 2)
}
FIELDS = ("depth", "width", "heads", "mlp_width", "tied")  # tied: head and embedding are one table
ROPE_BASE = 10_000.0


class RMSNorm(nn.Module):
    """x / root of its mean square, times a weight (Zhang & Sennrich 2019, arXiv 1910.07467); float32 inside."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return normed.to(self.weight.dtype) * self.weight


class CausalAttention(nn.Module):
    """Multi-head self-attention with rotary positions over [batch, tokens, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        batch, tokens, width = x.shape
        split = (batch, tokens, self.heads, width // self.heads)
        q, k = (rotate(linear(x).view(split), context["cos"], context["sin"]) for linear in (self.q, self.k))
        k, v = with_past(k, self.v(x).view(split), context)
        mask = context.get("mask")
        causal = mask is None and context.get("causal", True)
        mixed = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, is_causal=causal
        )
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))


def with_past(k: Tensor, v: Tensor, context: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return keys and values [batch, tokens, heads, width] behind those of an earlier stream, where the context has
    such; leave them for a later one where it asks for that."""
    if "kept" in context:
        context["kept"].append((k, v))
    if "past" in context:
        k, v = (torch.cat([before, own], dim=1) for before, own in zip(next(context["past"]), (k, v), strict=True))
    return k, v


def keep_waves(network: nn.Module, tokens: int, head_width: int) -> None:
    """Give ``network`` the buffers ``cos`` and ``sin`` of the angles by which a head's pairs turn at each position.

    Each is [tokens, 1, pairs].
    """
    half = head_width // 2
    angles = torch.arange(tokens)[:, None, None] * ROPE_BASE ** (-torch.arange(half) / half)
    network.register_buffer("cos", angles.cos())
    network.register_buffer("sin", angles.sin())


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (first half, second half) of x [batch, tokens, heads, width] by the angles of cos and sin, each
    [tokens, 1, width / 2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x))."""

    def __init__(self, width: int, mlp_width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, mlp_width, bias=False)
        self.up = nn.Linear(width, mlp_width, bias=False)
        self.down = nn.Linear(mlp_width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); with a condition both adaptive, at the start the plain layer."""

    def __init__(self, width: int, heads: int, mlp_width: int, condition_width: int | None) -> None:
        super().__init__()
        self.norm1 = RMSNorm(width)
        self.attention = CausalAttention(width, heads)
        self.norm2 = RMSNorm(width)
        self.mlp = SwiGLU(width, mlp_width)
        self.modulation = None if condition_width is None else Modulation(condition_width, width, chunks=6)

    def forward(self, x: Tensor, context: dict[str, Any], condition: Tensor | None = None) -> Tensor:
        if self.modulation is None or condition is None:
            x = x + self.attention(self.norm1(x), context)
            return x + self.mlp(self.norm2(x))
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)
        x = torch.addcmul(x, gate1 + 1, self.attention(modulate(self.norm1(x), shift1, scale1), context))
        return torch.addcmul(x, gate2 + 1, self.mlp(modulate(self.norm2(x), shift2, scale2)))


class TokenHead(nn.Module):
    """Final norm, adaptive with a condition, and the map to logits [batch, tokens, classes]."""

    def __init__(self, width: int, classes: int, condition_width: int | None, tied: nn.Parameter | None) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.linear = nn.Linear(width, classes, bias=False)
        if tied is not None:
            self.linear.weight = tied
        self.modulation = None if condition_width is None else Modulation(condition_width, width, chunks=2)

    def forward(self, features: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self.norm(features)
        if self.modulation is not None and condition is not None:
            x = modulate(x, *self.modulation(condition))
        return self.linear(x)


class Llama(base.Network):
    """Llama-style decoder on tokens; as a block-wise denoiser it runs clean and noisy streams as one sequence."""

    class Options(base.BaseOptions):
        width: base.Width = None
        tied: bool | None = None

    presets, fields = SIZES, FIELDS
    two_streams = True

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        shape: InputShape,
        depth: int,
        width: int,
        heads: int,
        mlp_width: int,
        tied: int,
        condition_width: int | None = None,
    ) -> None:
        super().__init__()
        require_kind("llama", shape, "tokens")
        assert shape.sequence_length is not None
        self.width, self.classes, self.tokens = width, shape.classes, shape.sequence_length
        self.condition_width = condition_width
        self.embedding = Embedding(shape.classes, width)
        table = cast(nn.Parameter, self.embedding.weight)
        keep_waves(self, self.tokens, width // heads)
        self.layers = nn.ModuleList(DecoderLayer(width, heads, mlp_width, condition_width) for _ in range(depth))
        self.head = TokenHead(width, shape.classes, condition_width, table if tied else None)

    def embed(self, inputs: Tensor, target: Tensor | None = None) -> State:
        """Return the tokens [batch, tokens] as a state, with ``target`` [batch, tokens, width] as the noisy stream."""
        x = self.embedding(inputs)
        if target is None:
            return State(x, {"cos": self.cos, "sin": self.sin})
        cos, sin = (torch.cat([wave, wave]) for wave in (self.cos, self.sin))  # both streams have the same positions
        context = {"cos": cos, "sin": sin, "mask": streams_mask(self.tokens, x), "clean": self.tokens}
        return State(torch.cat([x, target.to(x.dtype)], dim=1), context)

    def embed_clean(self, inputs: Tensor) -> State:
        return State(self.embedding(inputs), {"cos": self.cos, "sin": self.sin, "kept": []})

    def embed_noisy(self, target: Tensor, clean: State) -> State:
        x = target.to(self.embedding.weight.dtype)
        context = {"cos": self.cos, "sin": self.sin, "mask": noisy_mask(self.tokens, x)}
        return State(x, context | {"past": iter(clean.context["kept"])})

    def read(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        return x[:, context["clean"] :] if "clean" in context else x

    def read_clean(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        return x[:, : context["clean"]] if "clean" in context else x

    def make_head(self) -> nn.Module:
        return TokenHead(self.width, self.classes, self.condition_width, None)

    def target_weight(self) -> nn.Parameter:
        return cast(nn.Parameter, self.embedding.weight)


class Embedding(nn.Embedding):
    """Token embeddings; rows start normal with a standard deviation of 0.02."""

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        """Fill the rows."""
        nn.init.normal_(parameter, std=0.02, generator=generator)


def streams_mask(tokens: int, like: Tensor) -> Tensor:
    """Return the additive mask [2·tokens, 2·tokens] of clean positions followed by noisy ones, in ``like``'s type.

    Position i of either stream sees the clean positions up to i; a noisy one sees itself besides. The noisy position i
    holds the embedding of token i + 1, so nothing sees a token that it is to predict. It is made once a step: were it
    boolean, every layer would keep a copy of its own in the type of the attention.
    """
    past, own = _past_and_own(tokens, like)
    return _additive(torch.cat([torch.cat([past, torch.zeros_like(past)], dim=1), torch.cat([past, own], dim=1)]), like)


def noisy_mask(tokens: int, like: Tensor) -> Tensor:
    """Return the lower half of `streams_mask`, [tokens, 2·tokens]: what the noisy stream sees when it runs alone."""
    return _additive(torch.cat(_past_and_own(tokens, like), dim=1), like)


def _past_and_own(tokens: int, like: Tensor) -> tuple[Tensor, Tensor]:
    past = torch.ones(tokens, tokens, device=like.device, dtype=torch.bool).tril()
    return past, torch.eye(tokens, device=like.device, dtype=torch.bool)


def _additive(seen: Tensor, like: Tensor) -> Tensor:
    return torch.zeros(seen.shape, device=like.device, dtype=like.dtype).masked_fill_(~seen, float("-inf"))
