"""The contract of how a network is trained. A method is one file: its options, its step, its prediction.

A step must also run on fake tensors: no ``.item()``, no shape that depends on data. A method that is nothing but such
shapes says why it cannot (`Method.not_on_fakes`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dbbench.methods.optimizers import OptimizerSettings
from dbbench.networks.base import BaseOptions, Network
from dbbench.streams import Streams
from dbbench.tasks.base import Batch, Task


@dataclass(frozen=True, slots=True)
class Plan:
    """What a step trains, decided on the host before any tensor moves.

    ``block_step`` counts the steps of this block; ``block_fraction`` and ``fraction`` are the parts of the block's
    own and of the whole budget that are spent (0 at the first step): the learning rates follow them.
    """

    step: int
    block: int
    block_step: int
    block_fraction: float
    fraction: float


@dataclass(frozen=True)
class StepReport:
    """What a step did. ``loss`` is a detached scalar tensor; counts are for this step."""

    loss: Tensor
    layers_updated: int
    samples: int


def even_split(depth: int, blocks: int) -> list[int]:
    """Return the number of layers of each of ``blocks`` blocks; the first get what is left over."""
    each, left = divmod(depth, blocks)
    return [each + (b < left) for b in range(blocks)]


@dataclass(frozen=True)
class Setting:
    """What a suite fixes for every method alike."""

    optimizer: OptimizerSettings
    precision: str
    streams: Streams
    device: str


class Method(ABC):
    """One way to train a network.

    A subclass sets up ``self.model`` (a module that holds *every* parameter) and ``self.optimizers`` in `prepare`.
    ``blocks`` is the number of things that can be the active one; end-to-end methods have one. ``staged`` says that
    blocks are trained one after another, an equal share of the budget each, and never again.
    """

    Options: ClassVar[type[BaseOptions]] = BaseOptions
    #: The option that sets the number of blocks, if there is one.
    blocks_option: ClassVar[str | None] = None
    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    staged: ClassVar[bool] = False
    #: Why a step cannot be taken on fake tensors, where that is so; an estimate says this and measures nothing.
    not_on_fakes: ClassVar[str] = ""
    blocks: int = 1
    #: Of the network's layers, each counted once however often it runs; they sum to its depth.
    layers_per_block: list[int]
    residency: str = "all"

    @classmethod
    def check(cls, options: BaseOptions, depth: int) -> None:
        """Raise ``ValueError("key: what is wrong")`` if ``options`` do not suit a network of ``depth`` layers."""
        return

    @classmethod
    def condition_width(cls, options: BaseOptions, width: int) -> int | None:
        """Return the width of the condition that the network's layers must take, or None for the plain network."""
        return None

    @classmethod
    @abstractmethod
    def split(cls, options: BaseOptions, depth: int) -> list[int]:
        """Return the number of layers of each block, in the network's order; they sum to ``depth``."""

    def __init__(self, network: Network, task: Task, options: BaseOptions, setting: Setting) -> None:
        self.network, self.task, self.options, self.setting = network, task, options, setting
        self.layers_per_block = self.split(options, network.depth)
        self.blocks = len(self.layers_per_block)
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Build what the method adds to the network, initialise it, and make the optimizers."""

    def plan(self, step: int, fraction: float) -> int:
        """Return the block that is active at ``step``, when ``fraction`` of the budget is spent."""
        return min(int(fraction * self.blocks), self.blocks - 1)

    @abstractmethod
    def step(self, batch: Batch, plan: Plan) -> StepReport:
        """Train on ``batch`` once: forward, backward, update, gradients released."""

    @abstractmethod
    def predict(self, inputs: Any) -> dict[str, Tensor]:
        """Return predictions [batch, …], as `Task.predicts` says, by way of predicting; '' is the method's own."""

    def predict_own(self, inputs: Any) -> Tensor:
        """Return the method's own prediction alone, for those who would throw the others away."""
        return self.predict(inputs)[""]

    def may_change(self, plan: Plan) -> set[str]:
        """Return the names of the parameters of ``model`` that a step under ``plan`` may change."""
        return {name for name, _ in self.model.named_parameters()}

    def residents(self, plan: Plan) -> set[str]:
        """Return the names of the parameters whose bytes are on the device while ``plan``'s step runs."""
        return {name for name, _ in self.model.named_parameters()}

    def shared(self) -> list[str]:
        """Return the names of the parameters that a step trains whichever block is active."""
        return []

    def rehearsal(self) -> list[tuple[int, bool]]:
        """Return (block, traced?) of the steps that show every cost.

        Every block is warmed up before any is traced, so that all optimizer state is there; a stage, which never
        comes back, is traced while the ones behind it have not begun.
        """
        if self.staged:
            return [(block, traced) for block in range(self.blocks) for traced in (False, True)]
        return [(block, False) for block in range(self.blocks)] + [(block, True) for block in range(self.blocks)]

    @property
    def transferred_bytes(self) -> int:
        """Bytes that residency has moved between the device and the host so far, both ways."""
        return 0

    @property
    def transfer_seconds(self) -> float:
        """Wall time that those moves have taken so far."""
        return 0.0

    def held(self) -> Iterable[tuple[str, str, Tensor]]:
        """Yield (role, name, tensor) of what the method keeps that is neither parameter, gradient nor optimizer."""
        return ()

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context that a forward pass runs in under the suite's precision."""
        if self.setting.precision == "autocast_bf16":
            return torch.autocast(self.setting.device, torch.bfloat16)
        return nullcontext()

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on later: parameters and optimizer state."""
        return {"model": self.model.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers]}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
