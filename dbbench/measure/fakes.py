"""A world of fake tensors for strangers' code: they have shapes, types and no memory, and stand for the CPU's.

torch refuses to move or cast a module of fake tensors, because it would swap the contents of two of them while
something watches. Here a conversion replaces the parameters instead, which is the same to whoever comes afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from dbbench.measure.private import FakeTensorMode


@contextmanager
def fake_world() -> Iterator[None]:
    """Make tensors fake, and modules convertible, while it is open."""
    original = nn.Module._apply
    nn.Module._apply = _apply  # type: ignore[method-assign]
    try:
        with FakeTensorMode():
            yield
    finally:
        nn.Module._apply = original  # type: ignore[method-assign]


def _apply(self: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Convert parameters and buffers by ``fn``; one that two modules share stays shared.

    An optimizer that was made before keeps the old parameters where ``fn`` gave new ones, as after
    ``set_overwrite_module_params_on_conversion``.
    """
    converted: dict[int, Any] = {}
    modules = self.modules() if recurse else [self]
    for module in modules:
        for key, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in converted:
                new = fn(parameter.detach())
                same = new.dtype == parameter.dtype and new.device == parameter.device
                converted[id(parameter)] = parameter if same else nn.Parameter(new, parameter.requires_grad)
            module._parameters[key] = converted[id(parameter)]
        for key, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[key] = fn(buffer)
    return self
