"""The state of whatever updates the parameters: torch's optimizers, and what wraps them.

ZeRO, Accelerate, mixed-precision and home-made wrappers keep the optimizer that does the work in an attribute, a list
or a dict, under names of their own. They are found by what they are, so that state is counted wherever it hangs, and
once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

#: Attributes of a wrapper that lead to the parameters, which are not its state.
_PARAMETERS = ("param_groups", "params", "defaults")
_NO_NAMES: Mapping[int, str] = {}


def is_optimizer(thing: Any) -> bool:
    """Tell whether ``thing`` is a torch optimizer, or wraps some and can take a step."""
    return isinstance(thing, torch.optim.Optimizer) or (_can_step(thing) and any(True for _ in _inner(thing)))


def with_inner(given: Iterable[Any]) -> list[Any]:
    """Return ``given`` and all the optimizers inside them, each once, outer ones first."""
    found: dict[int, Any] = {}
    pending = list(given)
    while pending:
        thing = pending.pop(0)
        if id(thing) not in found:
            found[id(thing)] = thing
            pending += _inner(thing)
    return list(found.values())


def states(optimizers: Sequence[Any], names: Mapping[int, str], outermost: int) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor) of the state of ``optimizers``, as `with_inner` gives them from the first ``outermost``.

    ``names`` are the parameters' by identity. Parameters of an inner optimizer that are none of these are a wrapper's
    copies, which it keeps from one step to the next; so are the tensors that it holds itself.
    """
    for place, optimizer in enumerate(optimizers):
        state = getattr(optimizer, "state", None)
        if isinstance(state, Mapping):
            for owner, values in state.items():
                of = names.get(id(owner), "?" if isinstance(owner, Tensor) else str(owner))
                if isinstance(values, dict) and all(isinstance(value, Tensor) for value in values.values()):
                    for key, value in values.items():  # as nearly all are
                        yield f"{of}.{key}", value
                    continue
                for path, value in tensors_in(values):
                    yield of + path, value
        if place >= outermost:
            for group in getattr(optimizer, "param_groups", ()):
                for parameter in group["params"]:
                    if id(parameter) not in names:
                        yield "?.copy", parameter
        if not type(optimizer).__module__.startswith("torch.optim."):  # those keep it all in their state
            for key, value in vars(optimizer).items():
                if key not in (*_PARAMETERS, "state"):
                    for path, tensor in tensors_in(value, names=names):
                        if id(tensor) not in names:
                            yield f"{type(optimizer).__name__}.{key}{path}", tensor


def tensors_in(state: Any, path: str = "", names: Mapping[int, str] = _NO_NAMES) -> Iterable[tuple[str, Tensor]]:
    """Yield (path, tensor) of whatever is nested in mappings, lists and tuples; a path begins with a dot.

    A key that is a tensor is spelt by its name among ``names``, which are by identity.
    """
    if isinstance(state, Tensor):
        yield path, state
    elif isinstance(state, Mapping):
        for key, value in state.items():
            spelt = names.get(id(key), "?") if isinstance(key, Tensor) else key
            yield from tensors_in(value, f"{path}.{spelt}", names)
    elif isinstance(state, (list, tuple)):
        for i, value in enumerate(state):
            yield from tensors_in(value, f"{path}.{i}", names)


def _inner(thing: Any) -> Iterator[Any]:
    """Yield the optimizers that hang on ``thing``."""
    attributes = getattr(thing, "__dict__", None)
    pending = [value for key, value in attributes.items() if key != "state"] if isinstance(attributes, dict) else []
    for value in pending:
        if isinstance(value, (list, tuple)):
            pending += [item for item in value if not isinstance(item, (Tensor, str, int, float))]
        elif isinstance(value, dict):
            pending += [item for item in value.values() if not isinstance(item, (Tensor, str, int, float))]
        elif isinstance(value, torch.optim.Optimizer) or _can_step(value):
            yield value


def _can_step(thing: Any) -> bool:
    if isinstance(thing, (Tensor, nn.Module, type, torch.optim.lr_scheduler.LRScheduler)):
        return False
    return all(callable(getattr(type(thing), name, None)) for name in ("step", "zero_grad"))
