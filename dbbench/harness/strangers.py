"""What a user's own class must be before a cell is built from it; each fault is one line that names the suite's key."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from dbbench import plugins
from dbbench.errors import BadInput
from dbbench.foreign import guarded, in_words, kind_of
from dbbench.methods.base import Method


@contextmanager
def blamed(where: str) -> Iterator[None]:
    """Run foreign code inside that only describes a cell: whatever it raises is a BadInput, opened by ``where``."""
    try:
        with guarded():
            yield
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{where}: fails with {in_words(error)}") from error


def find_class(group: str, name: str, where: str, base: type) -> Any:
    """Return the subclass of ``base`` that ``name`` stands for; BadInput, opened by ``where``, for anything else."""
    found = plugins.find(group, name, where)
    kind = f"{base.__module__}:{base.__name__}"
    if not isinstance(found, type):
        raise BadInput(f"{where}: '{name}' is {kind_of(found)}, not a class; it must be a subclass of {kind}")
    if not issubclass(found, base):
        raise BadInput(f"{where}: '{name}' is no subclass of {kind}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise BadInput(f"{where}: '{name}' is abstract: it does not define {missing}")
    options = getattr(found, "Options", None)
    if not (isinstance(options, type) and issubclass(options, BaseModel)):
        kind = "dbbench.networks.base:BaseOptions"
        raise BadInput(f"{where}: the Options of '{name}' must be a subclass of {kind}, not {kind_of(options)}")
    return found


def require_split(layers: Any, depth: int) -> None:
    """Raise BadInput unless ``layers`` are a block's number of layers each, which sum to ``depth``."""
    if not isinstance(layers, list) or not layers or any(type(n) is not int for n in layers):
        raise BadInput(f"split: gives {_shown(layers)}, not a list with the number of layers of each block")
    if sum(layers) != depth or (depth and min(layers) < 1):
        raise BadInput(f"split: gives {_shown(layers)} layers; blocks have one each at least, and sum to {depth}")


def require_built(method: Method) -> None:
    """Raise BadInput unless ``method`` has set up its model, its optimizers and its blocks."""
    model, optimizers = getattr(method, "model", None), getattr(method, "optimizers", None)
    if not isinstance(model, nn.Module):
        raise BadInput(f"prepare: must set self.model to a torch module, and sets self.model to {kind_of(model)}")
    if not isinstance(optimizers, list) or not all(isinstance(one, torch.optim.Optimizer) for one in optimizers):
        given = f"and sets self.optimizers to {kind_of(optimizers)}"
        raise BadInput(f"prepare: must set self.optimizers to a list of torch optimizers, {given}")
    require_split(method.layers_per_block, method.network.depth)
    if method.blocks != len(method.layers_per_block):
        raise BadInput(f"prepare: sets self.blocks to {method.blocks!r}, and there are {len(method.layers_per_block)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
