"""A step on fake tensors: the bytes and FLOPs of a model that no memory here would hold."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dbbench.measure import private
from dbbench.profile.target import place_of

_OTHERWISE = "leave it out of the step, or profile with --device cpu"


class _Mode(private.FakeTensorMode):
    """A copied tensor belongs to the mode of the one it was copied from; torch would copy the mode with it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Mode:
        return self


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Make every tensor a fake one, on a fake ``cpu``: fake ``cuda`` runs no backward without a GPU.

    ``Module.to`` swaps fake parameters, which torch refuses as soon as anything refers to them; here it assigns their
    data, as it does with real ones.
    """
    original = nn.Module._apply
    nn.Module._apply = _assign  # type: ignore[method-assign]
    try:
        with warnings.catch_warnings(), _Mode():
            # torch's own copying looks whether a tensor has data
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
            yield
    finally:
        nn.Module._apply = original  # type: ignore[method-assign]


def _assign(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    for child in module.children() if recurse else ():
        child._apply(function)
    for name, parameter in module._parameters.items():
        if parameter is None:
            continue
        gradient = parameter.grad
        with torch.no_grad():
            moved = function(parameter)
            if private.same_kind(parameter, moved):
                parameter.data = moved
            else:  # from the meta device
                module._parameters[name] = parameter = nn.Parameter(moved, parameter.requires_grad)
            if gradient is not None:
                parameter.grad = function(gradient)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = function(buffer)
    return module


def needs_data(error: BaseException) -> str | None:
    """Say in one line what asked for the numbers that fake tensors do not have, and where; None for another error."""
    seen: set[int] = set()
    cause: Any = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        reason = _reason(cause)
        if reason is not None:
            place = place_of(cause) or place_of(error)
            return f"{place}: {reason}" if place else reason
        cause = cause.__cause__ or cause.__context__
    return None


def _reason(error: BaseException) -> str | None:
    if isinstance(error, private.DataDependentOutputException):
        return f"needs a number (.item(), .tolist(), bool() of a tensor), and a fake tensor has none: {_OTHERWISE}"
    if isinstance(error, private.DynamicOutputShapeException):
        shape = "makes a shape that depends on data (a boolean mask, nonzero, unique), and a fake tensor has none"
        return f"{shape}: {_OTHERWISE}"
    words = str(error)
    if isinstance(error, RuntimeError) and words.startswith(".numpy() is not supported"):
        return f"asks for a numpy array, and a fake tensor has no data: {_OTHERWISE}"
    if isinstance(error, AssertionError) and words.startswith("Please convert all Tensors to FakeTensors"):
        return (
            "a real tensor meets a fake one: it was made before the callable ran, as when its module was imported; "
            "make it inside, or profile with --device cpu"
        )
    return None
