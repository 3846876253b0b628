"""A bidirectional denoiser of masked text that can be cut between layers (MD4: Shi et al. 2024, arXiv 2406.04329).

It reads tokens of which some are the mask, and gives for every position a distribution over the vocabulary, in which
the mask is not. The layers are the decoder's (`dbbench.networks.llama`: RMSNorm, rotary positions, SwiGLU) without its
causal mask; what each keeps for its backward is derived there, and adaptive norms add four residual streams to it.

The time t, that is the part of the text that is masked on average, conditions every layer and the head by adaptive norm
(Peebles & Xie 2023, §3.2), in end-to-end training as in block-wise: MD4's network takes t the same way, and a block of
DiffusionBlocks is told its noise level so (arXiv 2506.14202, the conversion's third step). It starts as the plain
network, where MD4's gates start at zero; MD4's GELU-gated MLP is SwiGLU here, and there is no dropout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dbbench.errors import BadInput
from dbbench.networks import base
from dbbench.networks.base import InputShape, State, require_kind
from dbbench.networks.llama import DecoderLayer, Embedding, TokenHead, keep_waves
from dbbench.networks.parts import NoiseEmbedding

#   size     depth  width  heads  mlp_width  source
SIZES = {
    "micro": (4, 32, 2, 96),  # tests
    "tiny": (6, 128, 4, 352),  # the suites that two cores train
    "text8": (12, 768, 12, 2048),  # MD4's on text8: 12 layers of 12 heads of 64
}
FIELDS = ("depth", "width", "heads", "mlp_width")


class Masked(base.Network):
    """Bidirectional transformer on masked tokens, conditioned on the time t."""

    class Options(base.BaseOptions):
        width: base.Width = None

    presets, fields = SIZES, FIELDS

    denoiser = True
    cos: Tensor
    sin: Tensor

    def __init__(self, shape: InputShape, depth: int, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        require_kind("masked", shape, "masked_tokens")
        assert shape.sequence_length is not None
        self.width, self.classes = width, shape.classes
        self.embedding = Embedding(shape.classes + 1, width)  # the last row is the mask's
        self.noise = NoiseEmbedding(width)
        keep_waves(self, shape.sequence_length, width // heads)
        self.layers = nn.ModuleList(DecoderLayer(width, heads, mlp_width, width) for _ in range(depth))
        self.head = self.make_head()

    def embed(self, inputs: Mapping[str, Tensor], target: Tensor | None = None) -> State:
        if target is not None:
            raise BadInput("network.name: 'masked' denoises tokens, not their embeddings")
        context = {"cos": self.cos, "sin": self.sin, "causal": False, "condition": self.noise(inputs["t"])}
        return State(self.embedding(inputs["tokens"]), context)

    def read(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        return x

    def make_head(self) -> nn.Module:
        return TokenHead(self.width, self.classes, self.width, None)
