"""Roles that follow from what a storage is: a parameter, its gradient, its optimizer state, a declared tensor.

They are taken at every phase boundary and whenever a gradient is accumulated, because after the step it is too late:
an update inside the backward has freed the gradient by then, and an offloaded parameter has another storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dbbench.measure.recorder import Recorder
from dbbench.results.roles import IDENTITY_ROLES

_STRENGTH = {role: rank for rank, role in enumerate(IDENTITY_ROLES)}


class Identities:
    """What is declared to a ledger, and which storages that is at this moment."""

    def __init__(self) -> None:
        self._models: list[nn.Module] = []
        self._optimizers: list[Callable[[], Sequence[torch.optim.Optimizer]]] = []
        self._others: list[Callable[[], Iterable[tuple[str, str, Tensor]]]] = []
        self._handles: list[Any] = []

    def watch(
        self,
        recorder: Recorder,
        model: nn.Module,
        optimizers: Callable[[], Sequence[torch.optim.Optimizer]],
        others: Callable[[], Iterable[tuple[str, str, Tensor]]],
    ) -> None:
        """Declare a model, what gives its optimizers, and what gives (role, name, tensor) of anything else."""
        self._models.append(model)
        self._optimizers.append(optimizers)
        self._others.append(others)
        recorder.modules.name(model)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad or parameter.is_leaf:
                self._hook(recorder, name, parameter)
        self.take(recorder)

    def _hook(self, recorder: Recorder, name: str, parameter: nn.Parameter) -> None:
        if not parameter.requires_grad:
            return

        def accumulated(p: Tensor) -> None:
            if p.grad is not None:
                note(recorder, p.grad, "gradients", name)

        self._handles.append(parameter.register_post_accumulate_grad_hook(accumulated))

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def take(self, recorder: Recorder) -> None:
        """Note the identity of every storage that has one now."""
        names: dict[int, str] = {}
        for model in self._models:
            for name, parameter in model.named_parameters():
                names[id(parameter)] = name
                note(recorder, parameter, "parameters", name)
                if parameter.grad is not None:
                    note(recorder, parameter.grad, "gradients", name)
            for name, buffer in model.named_buffers():
                note(recorder, buffer, "buffers", name)
        for optimizers in self._optimizers:
            for optimizer in optimizers():
                for owner, state in optimizer.state.items():
                    for key, value in state.items():
                        if isinstance(value, Tensor):
                            note(recorder, value, "optimizer", f"{names.get(id(owner), '?')}.{key}")
        for others in self._others:
            for role, name, tensor in others():
                note(recorder, tensor, role, name)


def note(recorder: Recorder, tensor: Tensor, role: str, name: str) -> None:
    """Give ``tensor``'s storage ``role`` unless it already has a stronger one."""
    number = recorder.number_of(tensor)
    if number is None:
        return
    known = recorder.trace.identity.get(number)
    if known is None or _STRENGTH[role] < _STRENGTH[known[0]]:
        recorder.trace.identity[number] = (role, name)
