"""What a kind of training step is, and the registry that the themed files of this folder fill."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

#: Sizes shared by the small models of the catalogue: features, batch, positions of a sequence.
WIDTH, BATCH, LENGTH = 32, 16, 12

#: Role, name and tensor of something that is neither a parameter, a buffer, a gradient nor an optimizer's state.
Other = tuple[str, str, Tensor]


@dataclass
class Setup:
    """What a builder returns: everything a ledger is told, and the step to run.

    ``others`` is asked again at every phase boundary, so it may name tensors that the step itself replaces. ``result``
    gives the tensors in which a disturbed step would show; without one, all parameters and buffers.
    """

    step: Callable[[], None]
    models: dict[str, nn.Module]
    optimizers: Sequence[torch.optim.Optimizer] = ()
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    ema: Mapping[str, Tensor] = field(default_factory=dict)
    others: Callable[[], Sequence[Other]] = list
    result: Callable[[], list[Tensor]] | None = None

    def declared(self) -> list[Other]:
        """Return (role, name, tensor) of every input, EMA tensor and other tensor."""
        inputs = [("inputs", name, tensor) for name, tensor in self.inputs.items()]
        ema = [("ema", name, tensor) for name, tensor in self.ema.items()]
        return [*inputs, *ema, *self.others()]

    def outcome(self) -> list[Tensor]:
        """Return copies of what training has changed."""
        if self.result is not None:
            return [tensor.detach().clone() for tensor in self.result()]
        tensors = [t for model in self.models.values() for t in (*model.parameters(), *model.buffers())]
        return [tensor.detach().clone() for tensor in tensors]


@dataclass(frozen=True)
class Kind:
    """One kind of training step. ``opens`` says when the ledger opens: before the model is built, or after the
    warm-up, with everything there already. ``raises`` is the error with which the measured step ends, if it does.
    ``between`` names ops that run while memory is out that no op has been handed yet: nobody can know of it."""

    name: str
    about: str
    build: Callable[[], Setup]
    opens: Literal["before", "after"] = "before"
    warm_steps: int = 1
    raises: type[BaseException] | None = None
    between: tuple[str, ...] = ()


#: Every kind by name, in the order of the report.
STEPS: dict[str, Kind] = {}

#: Kinds that the ledger does not follow to the byte, and why.
LIMITS = {
    "packed_in_numpy": (
        "once numpy has looked at a storage it cannot be resized, which is how memory that is not torch's is told; a "
        "ledger that opens afterwards leaves such inputs out, parameters count regardless"
    )
}


def kind(
    about: str,
    *,
    opens: Literal["before", "after"] = "before",
    warm_steps: int = 1,
    raises: type[BaseException] | None = None,
    between: tuple[str, ...] = (),
) -> Callable[[Callable[[], Setup]], Callable[[], Setup]]:
    """Register the decorated builder under its own name."""

    def register(build: Callable[[], Setup]) -> Callable[[], Setup]:
        name = build.__name__
        if name in STEPS:
            raise ValueError(f"two kinds of step are called {name}")
        STEPS[name] = Kind(name, about, build, opens, warm_steps, raises, between)
        return build

    return register


class Block(nn.Module):
    """A residual two-layer map with a norm before it: ``x + down(gelu(up(norm(x))))``."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.act = nn.GELU()
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, width) to the same shape."""
        return x + self.down(self.act(self.up(self.norm(x))))


class Stack(nn.Module):
    """``depth`` blocks and a linear head to ten classes."""

    def __init__(self, depth: int = 3, width: int = WIDTH) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, width) to logits (…, 10)."""
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def batch(size: int = BATCH, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """Return random features (size, width) and labels (size,) of ten classes."""
    return torch.randn(size, width), torch.randint(0, 10, (size,))


def adamw(module: nn.Module) -> torch.optim.Optimizer:
    """Return the catalogue's usual optimizer: AdamW in one fused kernel."""
    return torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)
