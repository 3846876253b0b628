"""AdamW with its implementation pinned, and the learning rate's course over a budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from dbbench.errors import BadInput


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) as a suite fixes it for every method.

    ``warmup`` is the fraction of the budget over which the rate rises linearly; after it the rate follows
    ``schedule`` from ``lr`` down to ``final_fraction`` · ``lr``.
    """

    lr: float
    weight_decay: float
    beta1: float
    beta2: float
    schedule: str
    warmup: float
    final_fraction: float
    implementation: str

    def rate(self, fraction: float) -> float:
        """Return the learning rate when ``fraction`` (0 to 1) of the budget is spent."""
        if fraction < self.warmup:
            return self.lr * max(fraction, 1e-3) / self.warmup
        if self.schedule == "constant":
            return self.lr
        along = min(1.0, (fraction - self.warmup) / max(1.0 - self.warmup, 1e-12))
        return self.lr * (self.final_fraction + (1 - self.final_fraction) * (1 + math.cos(math.pi * along)) / 2)

    def make(self, groups: Mapping[str, Iterable[nn.Parameter]]) -> torch.optim.AdamW:
        """Return an AdamW with a named parameter group for each item; norms and biases are not decayed.

        BadInput if there is nothing to train.
        """
        parameter_groups = []
        for name, members in groups.items():
            parameters = list(members)
            for decay in (True, False):
                chosen = [p for p in parameters if (p.dim() >= 2) is decay]
                if chosen:
                    weight_decay = self.weight_decay if decay else 0.0
                    parameter_groups.append({"params": chosen, "name": name, "weight_decay": weight_decay})
        if not parameter_groups:
            raise BadInput("method: trains parameters, and the network has none")
        return torch.optim.AdamW(
            parameter_groups,
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            fused=self.implementation == "fused",
            foreach=self.implementation == "foreach",
        )

    def set_rate(self, optimizer: torch.optim.Optimizer, fraction: float, group: str | None = None) -> None:
        """Set the learning rate of the groups named ``group`` (all of them for None)."""
        for parameters in optimizer.param_groups:
            if group is None or parameters["name"] == group:
                parameters["lr"] = self.rate(fraction)
