"""A decoder of recurrent depth that can be cut out of its recurrence (Geiping et al. 2025, arXiv 2502.05171).

Prelude, core, coda (their section 3, figure 2): the prelude turns tokens into e = P(x); the core, ``depth`` layers, is
applied K = ``recurrences`` times to a state s, s_i = R(e, s_{i−1}), with e given anew each time through a linear map of
[s, e]; the coda and the head read p = C(s_K). Layers are the decoder's (`dbbench.networks.llama`), with norms behind
the residual sums as well (``norms: sandwich``, theirs) or without (``pre``). All attention is causal.

`layers` holds the core alone and `schedule` repeats it; prelude and coda stand outside, as embedding and head do, and
are trained at every step. A method that reckons in layer updates counts a layer of the core once a step, however often
it ran.

Where this network differs from theirs: K is fixed, where they draw it for each step (a log-normal Poisson law, 32 on
average); s_0 is zero, where they draw it from a normal law, so that a prediction is a function of its inputs; no biases
on queries and keys, and no scaling of embeddings.

As a denoiser (DiffusionBlocks, arXiv 2506.14202, recurrent depth) the state s *is* the noisy target: z, scaled, enters
in the place of s_{i−1}, and K steps of inference run the core K times. There is one stream of tokens, not two: position
i holds the noisy embedding of token i + 1 beside the clean past in e, and what it sees at the positions before it are
noisy embeddings of tokens that e has clean. No position sees what it, or a later one, is to predict.

A core layer keeps what `dbbench.networks.llama` derives, two norms more with ``sandwich``, and the first of them the
concatenation, which is two residual streams. Backpropagation through K′ recurrences keeps that K′ times.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from dbbench.limits import Layers, SomeLayers
from dbbench.networks import base
from dbbench.networks.base import InputShape, State, require_kind
from dbbench.networks.llama import DecoderLayer, Embedding, RMSNorm, TokenHead, keep_waves
from dbbench.networks.parts import modulate

#   size     depth  width  heads  mlp_width  prelude  coda  recurrences  source
SIZES = {
    "micro": (2, 32, 2, 96, 1, 1, 3),  # tests
    "tiny": (2, 128, 4, 352, 1, 1, 8),  # the suites that two cores train
    "124m": (4, 768, 12, 2048, 2, 2, 32),  # Huginn's shape at the width of GPT-2's smallest
    "3.5b": (4, 5280, 55, 17920, 2, 2, 32),  # Huginn (Geiping et al., section 4): 2 + 4 + 2 layers, 32 recurrences
}
FIELDS = ("depth", "width", "heads", "mlp_width", "prelude", "coda", "recurrences")
Norms = Literal["sandwich", "pre"]


class RecurrentLayer(DecoderLayer):
    """A decoder's layer with ``norms`` before its branches or behind its sums too; the first of a core takes e in."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_width: int,
        condition_width: int | None = None,
        norms: str = "sandwich",
        injects: bool = False,
    ) -> None:
        super().__init__(width, heads, mlp_width, condition_width)
        self.adapter = nn.Linear(2 * width, width, bias=False) if injects else None
        self.after1, self.after2 = (RMSNorm(width) if norms == "sandwich" else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor, context: dict[str, Any], condition: Tensor | None = None) -> Tensor:
        if self.adapter is not None:
            x = self.adapter(torch.cat([x, context["injected"]], dim=-1))
        if self.modulation is None or condition is None:
            x = self.after1(x + self.attention(self.norm1(x), context))
            return self.after2(x + self.mlp(self.norm2(x)))
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)
        branch = self.attention(modulate(self.norm1(x), shift1, scale1), context)
        x = self.after1(torch.addcmul(x, gate1 + 1, branch))
        return self.after2(torch.addcmul(x, gate2 + 1, self.mlp(modulate(self.norm2(x), shift2, scale2))))


class Recurrent(base.Network):
    """Prelude, a core run ``recurrences`` times over, coda; as a denoiser the core's state is the noisy target."""

    class Options(base.BaseOptions):
        width: base.Width = None
        prelude: SomeLayers | None = None
        coda: SomeLayers | None = None
        recurrences: Layers | None = None
        norms: Norms | None = None

    presets, fields = SIZES, FIELDS

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        shape: InputShape,
        depth: int,
        width: int,
        heads: int,
        mlp_width: int,
        prelude: int,
        coda: int,
        recurrences: int,
        norms: Norms = "sandwich",
        condition_width: int | None = None,
    ) -> None:
        super().__init__()
        require_kind("recurrent", shape, "tokens")
        assert shape.sequence_length is not None
        self.width, self.classes, self.recurrences = width, shape.classes, recurrences
        self.condition_width = condition_width
        self.embedding = Embedding(shape.classes, width)
        keep_waves(self, shape.sequence_length, width // heads)
        plain = (width, heads, mlp_width, None, norms)
        self.prelude = nn.ModuleList(RecurrentLayer(*plain) for _ in range(prelude))
        self.layers = nn.ModuleList(
            RecurrentLayer(width, heads, mlp_width, condition_width, norms, injects=i == 0) for i in range(depth)
        )
        self.coda = nn.ModuleList(RecurrentLayer(*plain) for _ in range(coda))
        self.head = self.make_head()

    def schedule(self) -> list[int]:
        return list(range(self.depth)) * self.recurrences

    def embed(self, inputs: Tensor, target: Tensor | None = None) -> State:
        """Return the state s_0, or ``target`` [batch, tokens, width] in its place, with e in the context."""
        context: dict[str, Any] = {"cos": self.cos, "sin": self.sin}
        injected = self.embedding(inputs)
        for layer in self.prelude:
            injected = layer(injected, context)
        context["injected"] = injected
        return State(torch.zeros_like(injected) if target is None else target.to(injected.dtype), context)

    def read(self, x: Tensor, context: dict[str, Any]) -> Tensor:
        """Return what the coda makes of the state x."""
        for layer in self.coda:
            x = layer(x, context)
        return x

    def make_head(self) -> nn.Module:
        return TokenHead(self.width, self.classes, self.condition_width, None)

    def target_weight(self) -> nn.Parameter:
        return cast(nn.Parameter, self.embedding.weight)
