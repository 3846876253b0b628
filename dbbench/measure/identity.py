"""Roles that follow from what a storage is: a parameter, its gradient, its optimizer state, a declared tensor.

They are taken at every phase boundary and whenever a gradient is accumulated, because after the step it is too late:
an update inside the backward has freed the gradient by then, and an offloaded parameter has another storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from dbbench.measure import distributed, optimizers, private
from dbbench.measure.modules import compiled
from dbbench.measure.recorder import Recorder
from dbbench.results.roles import IDENTITY_ROLES

#: Roles of what belongs to the model, wherever its memory came from.
_OWNED = ("parameters", "gradients", "optimizer", "buffers")
_STRENGTH = {role: rank for rank, role in enumerate(IDENTITY_ROLES)}


class _Place(NamedTuple):
    """Where a parameter or buffer hangs: under ``key`` in a module's own ``table``."""

    table: Mapping[str, Tensor | None]
    key: str
    role: str
    name: str


class Identities:
    """What is declared to a ledger, and which storages that is at this moment."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._models: list[tuple[str, nn.Module]] = []
        self._optimizers: list[Callable[[], Sequence[Any]]] = []
        self._others: list[Callable[[], Iterable[tuple[str, str, Tensor]]]] = []
        self._handles: list[Any] = []
        self._hooked: set[int] = set()
        self._places: list[_Place] = []
        self._sharded: list[tuple[str, nn.Module]] = []
        self._bucket_sizes: set[int] = set()
        self._complete = False  # everything declared has been looked at once
        self._taken = (0, 0)  # events and storages as of the last look

    def watch(
        self,
        models: Mapping[str, nn.Module],
        optimizers: Callable[[], Sequence[Any]],
        others: Callable[[], Iterable[tuple[str, str, Tensor]]],
    ) -> None:
        """Declare models, what gives their optimizers, and what gives (role, name, tensor) of anything else.

        Paths of a model's modules begin with its name. Raises BadInput for a compiled model.
        """
        found = {name: list(model.named_modules()) for name, model in models.items()}
        for name, modules in found.items():
            for path, module in modules:
                if private.is_compiled(module):
                    raise compiled(_joined(name, path), module)
        for name, model in models.items():
            self._models.append((name, model))
            self._recorder.modules.name(model, name, found[name])
        self._optimizers.append(optimizers)
        self._others.append(others)
        self._complete = False
        self._look_at((name, found.get(name) or model.named_modules()) for name, model in self._models)
        self.take()

    def refresh(self) -> None:
        """Look anew where parameters and buffers hang: modules come and go."""
        self._recorder.modules.stranger_ran = False
        self._look_at((name, model.named_modules()) for name, model in self._models)

    def _look_at(self, models: Iterable[tuple[str, Iterable[tuple[str, nn.Module]]]]) -> None:
        places, hooked = self._places, self._hooked
        places.clear()
        self._sharded, self._bucket_sizes = [], set()
        for root, modules in models:
            for path, module in modules:
                full = _joined(root, path)
                before = f"{full}." if full else ""
                for key, parameter in (table := private.table(module, "_parameters")).items():
                    places.append(_Place(table, key, "parameters", before + key))
                    if parameter is not None and id(parameter) not in hooked:
                        self._hook(before + key, parameter)
                for key in (table := private.table(module, "_buffers")):
                    places.append(_Place(table, key, "buffers", before + key))
                self._bucket_sizes |= distributed.bucket_sizes(module)
                if distributed.is_sharded(module):
                    self._sharded.append((full, module))
                    self._follow_buffers(module)

    def _hook(self, name: str, parameter: Tensor) -> None:
        if nn.parameter.is_lazy(parameter) or not (parameter.requires_grad and parameter.is_leaf):
            return

        def accumulated(p: Tensor) -> None:
            if p.grad is not None:
                with self._recorder.aside():
                    self._note_gradient(p.grad, name)

        self._hooked.add(id(parameter))
        handle = parameter.register_post_accumulate_grad_hook(accumulated)
        private.first_of_its_hooks(parameter, handle)  # before the code's own, which may free the gradient
        self._handles.append(handle)

    def _follow_buffers(self, module: nn.Module) -> None:
        """Note what is sent through as it is made: it is gone before the next boundary of a phase."""
        for name, allocator in distributed.allocators(module):
            if id(allocator) in self._hooked:
                continue

            def allocate(
                *args: Any, name: str = name, made: Callable[..., Tensor] = allocator.allocate, **kwargs: Any
            ) -> Tensor:
                tensor = made(*args, **kwargs)
                with self._recorder.aside():
                    note(self._recorder, tensor, "other", name)
                return tensor

            self._hooked.add(id(allocator))
            self._recorder.patch(allocator, "allocate", allocate)

    def close(self) -> None:
        """Take the hooks off and let go of what was declared."""
        for handle in self._handles:
            handle.remove()
        for held in (self._handles, self._models, self._optimizers, self._others, self._places, self._sharded):
            held.clear()

    def take_again(self) -> None:
        """Take the identities, unless nothing was made or freed since the last time."""
        if self._taken != self._now():
            self.take()

    def _now(self) -> tuple[int, int]:
        trace = self._recorder.trace
        return len(trace.event_op), len(trace.birth_op)

    def take(self) -> None:
        """Note the identity of every storage that has one now."""
        recorder = self._recorder
        if recorder.modules.stranger_ran:  # perhaps a part that a model was given meanwhile
            self.refresh()
        names: dict[int, str] = {}
        for table, key, role, name in self._places:
            tensor = table.get(key)
            if tensor is None:
                continue
            note(recorder, tensor, role, name)
            if role == "parameters":
                names.setdefault(id(tensor), name)
                if tensor.grad is not None:
                    self._note_gradient(tensor.grad, name)
        for path, module in self._sharded:
            for name, parameter in distributed.gathered(module, path):
                if id(parameter) not in self._hooked:
                    self._hook(name, parameter)
            for role, name, tensor in distributed.tensors_of_sharded(module, path):
                note(recorder, tensor, role, name)
        for given in self._optimizers:
            outer = given()
            for name, value in optimizers.states(optimizers.with_inner(outer), names, len(outer)):
                self._note_own(value, "optimizer", name)
        for others in self._others:
            for role, name, tensor in others():
                note(recorder, tensor, role, name)
        self._complete = True
        self._taken = self._now()

    def bucket_of(self, number: int, size: int) -> bool:
        """Tell whether storage ``number``, which nobody in Python holds, is a gradient bucket of DDP's, and note it."""
        if size not in self._bucket_sizes:
            return False
        self._recorder.trace.identity.setdefault(number, ("gradients", distributed.BUCKET))
        return True

    def _note_gradient(self, gradient: Tensor, name: str) -> None:
        if self._bucket_sizes:
            for storage, plain in private.storages(gradient):
                if plain.nbytes < storage.nbytes() and storage.nbytes() in self._bucket_sizes:
                    note(self._recorder, gradient, "gradients", distributed.BUCKET)
                    return
        self._note_own(gradient, "gradients", name)

    def _note_own(self, tensor: Tensor, role: str, name: str) -> None:
        """Note a gradient or an optimizer's state. One that nobody saw made, though all were known, is unseen."""
        note(self._recorder, tensor, role, name, f"{role} of {name}" if self._complete else "")


def note(recorder: Recorder, tensor: Tensor, role: str, name: str, appeared: str = "") -> None:
    """Give ``tensor``'s storage ``role`` unless it already has a stronger one.

    One that is not known was there before, or has ``appeared`` unseen, under that name.
    """
    identity = recorder.trace.identity
    for number in recorder.numbers_of(tensor, role in _OWNED, appeared):
        known = identity.get(number)
        if known is None or (known[0] != role and _STRENGTH[role] < _STRENGTH[known[0]]):
            identity[number] = (role, name)


def _joined(outer: str, inner: str) -> str:
    return f"{outer}.{inner}" if outer and inner else outer or inner
