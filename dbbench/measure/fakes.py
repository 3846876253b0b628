"""A world of fake tensors for strangers' code: they have shapes, types and no memory, and stand for the CPU's.

Two things that most code does torch cannot do with them. It refuses to move or cast a module, because it would swap the
contents of two fake tensors while something refers to them: here a conversion assigns their data, as with real ones.
And a deep copy gets a mode of its own, in which nothing can be computed with the original: here it keeps the mode.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dbbench.measure import private

_OTHERWISE = "leave it out of the step, or profile with --device cpu"


class _Mode(private.FakeTensorMode):
    def __deepcopy__(self, memo: dict[int, Any]) -> _Mode:
        return self


@contextmanager
def fake_world() -> Iterator[None]:
    """Make tensors fake, and modules of them convertible and copyable, while it is open."""
    original = nn.Module._apply
    nn.Module._apply = _apply  # type: ignore[method-assign]
    try:
        with warnings.catch_warnings(), _Mode():
            # torch's own deep copy looks whether a tensor has data
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
            yield
    finally:
        nn.Module._apply = original  # type: ignore[method-assign]


def _apply(self: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Convert parameters, their gradients and buffers by ``fn``, in place: an optimizer may know them already."""
    for child in self.children() if recurse else ():
        child._apply(fn)  # a recurrent layer's own also renews its list of weights
    for key, parameter in self._parameters.items():
        if parameter is None:
            continue
        gradient = parameter.grad
        with torch.no_grad():
            converted = fn(parameter)
            if private.same_kind(parameter, converted):
                parameter.data = converted
            else:  # from the meta device
                self._parameters[key] = parameter = nn.Parameter(converted, parameter.requires_grad)
            if gradient is not None:
                parameter.grad = fn(gradient)
    for key, buffer in self._buffers.items():
        if buffer is not None:
            self._buffers[key] = fn(buffer)
    return self


def needed_data(error: BaseException) -> str | None:
    """Say in words what asked for data that fake tensors do not have, and what to do; None for another error."""
    if isinstance(error, private.DataDependentOutputException):
        return f"this needs a number (.item(), .tolist(), bool() of a tensor), and a fake tensor has none: {_OTHERWISE}"
    if isinstance(error, private.DynamicOutputShapeException):
        what = "this shape depends on data (a boolean mask, nonzero, unique), and a fake tensor has none"
        return f"{what}: {_OTHERWISE}"
    words = str(error)
    if isinstance(error, RuntimeError) and words.startswith(".numpy() is not supported"):
        return f"this asks for a numpy array, and a fake tensor has no data: {_OTHERWISE}"
    if isinstance(error, AssertionError) and words.startswith("Please convert all Tensors to FakeTensors"):
        return (
            "a real tensor meets a fake one: it was made before the callable ran, as when its module was imported; "
            "make it inside, or profile with --device cpu"
        )
    return None
