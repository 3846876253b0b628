"""What is alive already when a ledger opens, as far as Python can see: tensors, and what autograd graphs keep.

A ledger that opens late would otherwise miss whatever its step never touches: last week's losses with their graphs,
an average of the weights, a data set on the device. Of the rest, only the device's own counters know.

`reachable` looks where a training loop keeps things, and takes milliseconds. `existing` looks at every object of the
process, which takes the longer the more there are: some 0.1 s with torch alone.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import compress, islice
from types import FrameType
from typing import Any

from torch import Tensor, nn

from dbbench.measure import private
from dbbench.measure.holders import beside_its_parts, is_ours, parts_of, variables_from
from dbbench.measure.recorder import Recorder

#: How deep a search from the variables goes, and how many things it looks at.
_DEEP, MOST_LOOKED_AT = 6, 20_000


def existing() -> tuple[list[Tensor], list[nn.Module]]:
    """Return every tensor and module that Python knows of, in one pass over all of its objects."""
    things = gc.get_objects()
    kinds = set(map(type, things))
    tensors = {kind for kind in kinds if issubclass(kind, Tensor)}
    modules = {kind for kind in kinds if issubclass(kind, nn.Module)}
    return [list(compress(things, map(wanted.__contains__, map(type, things)))) for wanted in (tensors, modules)]  # type: ignore[return-value]


def reachable(frame: FrameType | None, known: Iterable[Any]) -> tuple[list[Tensor], list[nn.Module], bool]:
    """Return the tensors and modules to which variables lead, and whether the search looked at everything.

    First come what hangs on the modules of the models ``known`` beside their parameters, buffers and parts (caches, and
    what hooks keep), and the variables of the functions that run, from ``frame`` outward; then those of modules that
    nobody installed. Each of the two searches looks at `MOST_LOOKED_AT` things at most, near ones first.
    """
    parts = [part for one in known for part in (one.modules() if isinstance(one, nn.Module) else [one])]
    search = _Reached(set(map(id, parts)))
    besides = [thing for part in parts if isinstance(part, nn.Module) for thing in beside_its_parts(part)]
    local, others = variables_from(frame)
    complete = search.follow([*besides, *(variable.value for variable in local)])
    complete &= search.follow(variable.value for variable in others)
    return search.tensors, search.modules, complete


class _Reached:
    def __init__(self, seen: set[int]) -> None:
        self.tensors: list[Tensor] = []
        self.modules: list[nn.Module] = []
        self._seen = seen

    def follow(self, values: Iterable[Any]) -> bool:
        """Look at what ``values`` lead to; tell whether that was everything."""
        pending = deque((value, 0) for value in values)
        left = MOST_LOOKED_AT
        while pending and left > 0:
            value, depth = pending.popleft()
            left -= 1
            if id(value) in self._seen or is_ours(value):
                continue
            self._seen.add(id(value))
            if isinstance(value, Tensor):
                self.tensors.append(value)
                if value.is_leaf and value.grad is not None:
                    self.tensors.append(value.grad)
                continue
            if isinstance(value, nn.Module):
                self.modules.append(value)
            if depth < _DEEP:
                pending.extend((part, depth + 1) for _, part in islice(parts_of("", value), left))
        return not pending


def take_census(recorder: Recorder, tensors: list[Tensor]) -> None:
    """Take in every storage that exists: those of Python's ``tensors``, then those that their graphs keep."""
    for tensor in tensors:
        recorder.numbers_of(tensor)
    for tensor in kept_by_graphs(tensors):
        recorder.numbers_of(tensor)


def kept_by_graphs(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield what the autograd graphs behind ``tensors`` keep."""
    seen: set[Any] = set()
    for tensor in tensors:
        for node in private.nodes_behind(private.node_of(tensor), seen):
            on_ctx = node.__dict__.values() if private.is_custom_function(node) else ()
            for kept in (*private.saved_by(node), *on_ctx):
                for item in kept if isinstance(kept, (tuple, list)) else (kept,):
                    if isinstance(item, Tensor):
                        yield item


def copies_of(models: Iterable[nn.Module], among: Iterable[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Yield (class name, module) of the frozen copies of ``models`` ``among`` others: moving averages of their weights.

    A copy is a module that is no part of them, with parameters of the same names and shapes, none of which trains;
    torch's ``AveragedModel`` holds one.
    """
    among, models = list(among), list(models)
    if not among:
        return
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
    parameters = list(model.named_parameters())
    if any(nn.parameter.is_lazy(p) for _, p in parameters):
        return None
    return tuple((name, tuple(p.shape)) for name, p in parameters) or None
