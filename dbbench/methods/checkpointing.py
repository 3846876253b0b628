"""Activation checkpointing (Chen et al. 2016, arXiv 1604.06174): keep the borders of segments, recompute the rest.

The gradients are those of backprop; the price is one more forward through every segment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dbbench.limits import Layers
from dbbench.methods.backprop import Backprop
from dbbench.networks import base as networks
from dbbench.networks.base import State


class Checkpointing(Backprop):
    """Backprop with segments of layers recomputed in the backward pass.

    ``policy`` gives a segment's length k on L layers: ``every_layer`` 1, ``sqrt`` ⌈√L⌉ (the O(√n) cost of Chen et
    al., §4.3), ``every_k`` the option ``k``.
    """

    class Options(Backprop.Options):
        policy: Literal["every_layer", "sqrt", "every_k"] = "every_layer"
        k: Layers | None = None

    options: Options

    @classmethod
    def check(cls, options: networks.BaseOptions, depth: int) -> None:
        assert isinstance(options, cls.Options)
        if (options.policy == "every_k") != (options.k is not None):
            raise ValueError("k: goes with policy 'every_k', and only with it")
        if options.k is not None and options.k > depth:
            raise ValueError(f"k: {options.k} is more than the network's {depth} layers")

    def segment_length(self, order: Sequence[int]) -> int:
        """Return how many of the layers that run in ``order`` lie between two kept activations."""
        options, depth = self.options, len(order)
        if options.policy == "every_k":
            assert options.k is not None
            return options.k
        return math.ceil(math.sqrt(depth)) if options.policy == "sqrt" else 1

    def run_layers(self, state: State) -> Tensor:
        state, order = self.begin(state)
        length, x = self.segment_length(order), state.x
        for start in range(0, len(order), length):

            def segment(x: Tensor, indices: list[int] = order[start : start + length]) -> Tensor:
                return self.network.run(State(x, state.context), indices)

            x = checkpoint(segment, x, use_reentrant=False)
        return x
