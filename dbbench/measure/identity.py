"""Roles that follow from what a storage is: a parameter, its gradient, its optimizer state, a declared tensor.

They are taken at every phase boundary and whenever a gradient is accumulated, because after the step it is too late:
an update inside the backward has freed the gradient by then, and an offloaded parameter has another storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dbbench.measure import private
from dbbench.measure.modules import compiled
from dbbench.measure.recorder import Recorder
from dbbench.results.roles import IDENTITY_ROLES

#: Roles of what belongs to the model, wherever its memory came from.
_OWNED = ("parameters", "gradients", "optimizer", "buffers")
_STRENGTH = {role: rank for rank, role in enumerate(IDENTITY_ROLES)}


class Identities:
    """What is declared to a ledger, and which storages that is at this moment."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._models: list[tuple[str, nn.Module]] = []
        self._optimizers: list[Callable[[], Sequence[torch.optim.Optimizer]]] = []
        self._others: list[Callable[[], Iterable[tuple[str, str, Tensor]]]] = []
        self._handles: list[Any] = []
        self._hooked: set[int] = set()
        # where parameters and buffers hang: (a module's own table, key, role, full name)
        self._places: list[tuple[dict[str, Tensor | None], str, str, str]] = []

    def watch(
        self,
        models: Mapping[str, nn.Module],
        optimizers: Callable[[], Sequence[torch.optim.Optimizer]],
        others: Callable[[], Iterable[tuple[str, str, Tensor]]],
    ) -> None:
        """Declare models, what gives their optimizers, and what gives (role, name, tensor) of anything else.

        Paths of a model's modules begin with its name. Raises BadInput for a compiled model.
        """
        for name, model in models.items():
            for path, module in model.named_modules():
                if private.is_compiled(module):
                    raise compiled(_joined(name, path), module)
            self._models.append((name, model))
            self._recorder.modules.name(model, name)
        self._optimizers.append(optimizers)
        self._others.append(others)
        self.refresh()
        self.take()

    def refresh(self) -> None:
        """Look anew where parameters and buffers hang: modules come and go between steps."""
        self._places = []
        for root, model in self._models:
            for path, module in model.named_modules():
                for role, table in (("parameters", module._parameters), ("buffers", module._buffers)):
                    for key in table:
                        self._places.append((table, key, role, _joined(root, _joined(path, key))))
            for path, parameter in model.named_parameters():
                if id(parameter) not in self._hooked:
                    self._hook(_joined(root, path), parameter)

    def _hook(self, name: str, parameter: nn.Parameter) -> None:
        if not parameter.requires_grad:
            return

        def accumulated(p: Tensor) -> None:
            if p.grad is not None:
                with self._recorder.aside():
                    note(self._recorder, p.grad, "gradients", name)

        self._hooked.add(id(parameter))
        handle = parameter.register_post_accumulate_grad_hook(accumulated)
        private.first_of_its_hooks(parameter, handle)  # before the code's own, which may free the gradient
        self._handles.append(handle)

    def close(self) -> None:
        """Take the hooks off and let go of what was declared."""
        for handle in self._handles:
            handle.remove()
        for held in (self._handles, self._models, self._optimizers, self._others, self._places):
            held.clear()

    def take(self) -> None:
        """Note the identity of every storage that has one now."""
        names: dict[int, str] = {}
        recorder = self._recorder
        for table, key, role, name in self._places:
            tensor = table.get(key)
            if tensor is None:
                continue
            note(recorder, tensor, role, name)
            if role == "parameters":
                names.setdefault(id(tensor), name)
                if tensor.grad is not None:
                    note(recorder, tensor.grad, "gradients", name)
        for optimizers in self._optimizers:
            for optimizer in optimizers():
                for owner, state in optimizer.state.items():
                    of = names.get(id(owner), "?")
                    for path, value in tensors_in(state):
                        note(recorder, value, "optimizer", of + path)
        for others in self._others:
            for role, name, tensor in others():
                note(recorder, tensor, role, name)


def note(recorder: Recorder, tensor: Tensor, role: str, name: str) -> None:
    """Give ``tensor``'s storage ``role`` unless it already has a stronger one."""
    identity = recorder.trace.identity
    for number in recorder.numbers_of(tensor, owned=role in _OWNED):
        known = identity.get(number)
        if known is None or (known[0] != role and _STRENGTH[role] < _STRENGTH[known[0]]):
            identity[number] = (role, name)


def tensors_in(state: Any, path: str = "") -> Iterable[tuple[str, Tensor]]:
    """Yield (path, tensor) of whatever is nested in mappings, lists and tuples; a path begins with a dot."""
    if isinstance(state, Tensor):
        yield path, state
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from tensors_in(value, f"{path}.{key}")
    elif isinstance(state, (list, tuple)):
        for i, value in enumerate(state):
            yield from tensors_in(value, f"{path}.{i}")


def _joined(outer: str, inner: str) -> str:
    return f"{outer}.{inner}" if outer and inner else outer or inner
