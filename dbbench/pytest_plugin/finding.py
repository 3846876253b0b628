"""Finds out what a test trains where nobody says it: modules that are called, optimizers that step, what fixtures hold.

A test makes models and lets go of them, and what watches it must not be what keeps them alive: everything here is held
weakly.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType, ModuleType
from typing import Any
from weakref import WeakSet, ref

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dbbench.measure import private
from dbbench.measure.census import copies_of
from dbbench.measure.holders import locals_of, parts_of
from dbbench.measure.modules import compiled
from dbbench.measure.optimizers import tensors_in

_DEEP, _MOST_OBJECTS = 5, 20_000
#: Modules that run a test or measure it: their objects and functions hold nothing that it trains.
_TOOLS = ("_pytest.", "pluggy.", "xdist.", "dbbench.pytest_plugin.", "dbbench.measure.", "dbbench.profile.")
_PLAIN = (str, bytes, int, float, complex, type(None), type, ModuleType, torch.dtype, torch.device)

Identity = tuple[str, str, Tensor]


@dataclass
class Reached:
    """What some values lead to, through containers, attributes and closures; modules and ``inputs`` by path.

    ``inputs`` are the tensors among the values themselves, or nested in their mappings and lists, that no autograd
    graph reaches; ``tensors`` are all that are no module's and no optimizer's.
    """

    modules: dict[str, nn.Module] = field(default_factory=dict)
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)
    inputs: list[tuple[str, Tensor]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)


def reached_from(values: Mapping[str, Any]) -> Reached:
    """Walk from ``values`` (by name) and return what is there to train."""
    found, seen = Reached(), set[int]()
    for name, value in values.items():
        found.inputs += [(name + path, t) for path, t in tensors_in(value) if t.is_leaf and not t.requires_grad]
    pending = deque((name, value, 0) for name, value in values.items())
    while pending and len(seen) < _MOST_OBJECTS:
        path, value, depth = pending.popleft()
        if isinstance(value, _PLAIN) or id(value) in seen or _is_tool(type(value).__module__):
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            found.modules[path] = value
        elif isinstance(value, torch.optim.Optimizer):
            found.optimizers.append(value)
        elif isinstance(value, Tensor):
            found.tensors.append(value)
        elif depth < _DEEP:
            pending.extend((inner, part, depth + 1) for inner, part in parts_of(path, value))
    inside = {id(part) for module in found.modules.values() for part in module.modules() if part is not module}
    found.modules = {path: module for path, module in found.modules.items() if id(module) not in inside}
    return found


def _is_tool(module: str) -> bool:
    return f"{module}.".startswith(_TOOLS)


class Finder:
    """While open, notices every module that is called and every optimizer that steps.

    ``named`` is told of a root module, with the name that its paths are to begin with, before its forward runs, or
    as it is expected. The first model goes without a name, others by their class.
    """

    def __init__(self, named: Callable[[str, nn.Module], None]) -> None:
        self._named = named
        self._roots: list[tuple[str, ref[nn.Module]]] = []
        self._averages: list[tuple[str, ref[nn.Module]]] = []
        self._optimizers: WeakSet[torch.optim.Optimizer] = WeakSet()
        self._known: WeakSet[nn.Module] = WeakSet()
        self._called: WeakSet[nn.Module] = WeakSet()
        self._handles: list[Any] = []

    def open(self) -> None:
        """Start looking."""
        self._handles = [
            register_module_forward_pre_hook(self._call),
            register_optimizer_step_pre_hook(lambda optimizer, *_: self._optimizers.add(optimizer)),
        ]

    def close(self) -> None:
        """Stop looking; what was found stays known."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def expect(self, reached: Reached) -> None:
        """Take what fixtures hold for what will be trained: frozen copies of it are averages of its weights."""
        modules = reached.modules
        trained = [m for m in modules.values() if type(m).__name__ != "AveragedModel" and _trains(m)]
        copies = {id(copy) for _, copy in copies_of(trained, modules.values())}
        models = {path: module for path, module in modules.items() if id(module) not in copies}
        for path, module in models.items():
            self._take("" if len(models) == 1 else path, module)
        self._averages += [(path, ref(module)) for path, module in modules.items() if id(module) in copies]
        self._optimizers.update(reached.optimizers)

    def models(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield (name, module) of the roots that are alive."""
        yield from ((name, model) for name, root in self._roots if (model := root()) is not None)

    def identities(self) -> Iterator[Identity]:
        """Yield (role, name, tensor) of everything whose role is known at this moment."""
        names: dict[int, str] = {}
        for path, parameter in self._parameters():
            if id(parameter) not in names:
                names[id(parameter)] = path
                yield "parameters", path, parameter
                if parameter.grad is not None:
                    yield "gradients", path, parameter.grad
        for name, model in self.models():
            yield from (("buffers", path, buffer) for path, buffer in model.named_buffers(prefix=name))
        for optimizer in list(self._optimizers):
            for owner, state in list(optimizer.state.items()):
                of = names.get(id(owner), "?")
                yield from (("optimizer", of + path, value) for path, value in tensors_in(state))
        for name, root in self._averages:
            average = root()
            if average is not None:
                parts = (*average.named_parameters(prefix=name), *average.named_buffers(prefix=name))
                yield from (("ema", path, tensor) for path, tensor in parts)

    def _parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, parameter) of models, then of what optimizers train that is no model's."""
        for name, model in self.models():
            yield from model.named_parameters(prefix=name)
        for optimizer in list(self._optimizers):
            for i, group in enumerate(optimizer.param_groups):
                yield from ((f"param_groups[{i}].{j}", parameter) for j, parameter in enumerate(group["params"]))

    def _call(self, module: nn.Module, args: Any) -> None:
        __tracebackhide__ = True
        if module in self._called:
            return
        self._called.add(module)
        if private.is_compiled(module):
            raise compiled(type(module).__name__, module)
        if module not in self._known and any(True for _ in (*module.parameters(), *module.buffers())):
            root = _outermost(module, sys._getframe(1))
            self._take(self._free_name(root), root)

    def _free_name(self, root: nn.Module) -> str:
        names, kind = {name for name, _ in self.models()}, type(root).__name__
        if not names:
            return ""
        return next(name for name in (kind, *(f"{kind}{i}" for i in range(1, len(names) + 2))) if name not in names)

    def _take(self, name: str, root: nn.Module) -> None:
        """Know ``root`` from now on; one that has grown keeps its name."""
        name = next((old for old, model in self.models() if model is root), name)
        self._roots = [(n, ref(m)) for n, m in self.models() if m is not root] + [(name, ref(root))]
        self._known.update(root.modules())
        self._named(name, root)


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _outermost(module: nn.Module, frame: FrameType | None) -> nn.Module:
    """Return the largest module that holds ``module`` among the variables of the functions that lead to its call.

    A test that calls ``model.layers[0](x)`` trains ``model``.
    """
    largest, size = module, sum(1 for _ in module.modules())
    while frame is not None and not _is_tool(frame.f_globals.get("__name__", "")):
        for candidate in _modules_in(value for _, value in locals_of(frame)):
            parts = set(candidate.modules())
            if module in parts and len(parts) > size:
                largest, size = candidate, len(parts)
        frame = frame.f_back
    return largest


def _modules_in(values: Iterable[Any]) -> Iterator[nn.Module]:
    """Yield the modules among ``values`` and among their attributes, such as a trainer's."""
    for value in values:
        if isinstance(value, nn.Module):
            yield value
        elif not isinstance(value, (Tensor, type)) and isinstance(getattr(value, "__dict__", None), dict):
            yield from (part for part in list(vars(value).values()) if isinstance(part, nn.Module))
