"""What is alive already when a ledger opens, as far as Python can see: tensors, and what autograd graphs keep.

A ledger that opens late would otherwise miss whatever its step never touches: last week's losses with their graphs,
an average of the weights, a data set on the device. Of the rest, only the device's own counters know.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from dbbench.measure import private
from dbbench.measure.recorder import Recorder


def existing() -> tuple[list[Tensor], list[nn.Module]]:
    """Return every tensor and module that Python knows of, in one pass over all of its objects."""
    kinds: dict[type, int] = {}
    found: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for thing in gc.get_objects():
        kind = type(thing)
        place = kinds.get(kind)
        if place is None:
            place = kinds[kind] = 0 if issubclass(kind, Tensor) else 1 if issubclass(kind, nn.Module) else 2
        if place < 2:
            found[place].append(thing)
    return found[0], found[1]


def take_census(recorder: Recorder, tensors: list[Tensor]) -> None:
    """Take in every storage that exists: those of Python's ``tensors``, then those that their graphs keep."""
    for tensor in tensors:
        recorder.numbers_of(tensor)
    seen: set[int] = set()
    for tensor in tensors:
        for node in private.nodes_behind(private.node_of(tensor), seen):
            for kept in private.saved_by(node):
                for item in kept if isinstance(kept, (tuple, list)) else (kept,):
                    if isinstance(item, Tensor):
                        recorder.numbers_of(item)


def copies_of(models: Iterable[nn.Module], among: Iterable[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Yield (class name, module) of the frozen copies of ``models`` ``among`` others: moving averages of their weights.

    A copy is a module that is no part of them, with parameters of the same names and shapes, none of which trains;
    torch's ``AveragedModel`` holds one.
    """
    declared = {id(module) for model in models for module in model.modules()}
    shapes = {_shapes(model) for model in models}
    for thing in among:
        if id(thing) in declared:
            continue
        if any(p.requires_grad for p in thing.parameters()) and type(thing).__name__ != "AveragedModel":
            continue
        if _shapes(thing) in shapes or _shapes(getattr(thing, "module", None)) in shapes:
            yield type(thing).__name__, thing


def _shapes(model: Any) -> tuple[tuple[str, tuple[int, ...]], ...] | None:
    if not isinstance(model, nn.Module):
        return None
    return tuple((name, tuple(p.shape)) for name, p in model.named_parameters()) or None
