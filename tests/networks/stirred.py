"""A network as training leaves it, and not as it starts, where a condition changes nothing."""

from __future__ import annotations

from typing import TypeVar

import torch

from dbbench.networks.base import Network, initialise
from dbbench.streams import Streams

One = TypeVar("One", bound=Network)


def stirred(network: One) -> One:
    """Return ``network`` initialised, its modulation no longer at zero."""
    initialise(network, Streams(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "modulation" in name:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.eval()
