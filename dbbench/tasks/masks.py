"""Tokens under masks, whatever the text is: what is hidden at a time t, and the loss that the bound integrates.

The objective is MD4's with the linear schedule (`dbbench.tasks.masked_text` derives it): each token is masked with
probability t, and a sample's loss is 1/t times the sum of its masked tokens' cross-entropies, over their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dbbench.tasks.base import Batch, Task

FIRST_TIME = 1e-3  # training's earliest t, MD4's t(1)


class UnderMasks(Task):
    """A task on masked tokens. Mixed into one that says where the tokens come from."""

    def masked(self, tokens: Tensor, t: Tensor, uniform: Tensor) -> Batch:
        """Return the batch of ``tokens`` [batch, tokens] at times ``t`` [batch]: those are masked whose ``uniform``
        [batch, tokens] is below their sample's t."""
        masked = uniform < t[:, None]
        inputs = {"tokens": tokens.masked_fill(masked, self.shape.classes), "t": t}
        return Batch(inputs, {"tokens": tokens, "masked": masked, "weight": 1 / t}, tokens)

    def masked_at_random(self, tokens: Tensor, generator: torch.Generator) -> Batch:
        """Return the batch of ``tokens`` at times spread evenly over those of training, masked at random."""
        t = spread(len(tokens), (FIRST_TIME, 1.0), generator)
        return self.masked(tokens, t, uniform_for(tokens, generator))

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        wanted = targets["tokens"]
        per_token = F.cross_entropy(outputs.flatten(0, 1).float(), wanted.flatten(), reduction="none")
        return self._weighted(per_token, targets)

    def integrand(self, prediction: Tensor, targets: Any) -> Tensor:
        """Return the bound's integrand at each sample's t, [batch] in nats a token, of log-probabilities."""
        wanted = targets["tokens"]
        per_token = F.nll_loss(prediction.flatten(0, 1), wanted.flatten(), reduction="none")
        return self._weighted(per_token, targets)

    @staticmethod
    def _weighted(per_token: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        counted = per_token.view(targets["masked"].shape) * targets["masked"]
        return targets["weight"] * counted.mean(dim=1)


def spread(count: int, interval: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Return ``count`` times of one uniform draw, evenly spread over ``interval`` and each uniform on it; float32."""
    low, high = interval
    start = torch.rand(1, generator=generator, device=generator.device)
    steps = torch.arange(count, device=generator.device) / count
    return low + (high - low) * ((start + steps) % 1.0)


def uniform_for(tokens: Tensor, generator: torch.Generator) -> Tensor:
    """Return a uniform number for each of ``tokens``, of their shape."""
    return torch.rand(tokens.shape, generator=generator, device=generator.device)
