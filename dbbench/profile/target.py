"""What ``dbbench profile`` is given: ``my_package.train:make_step``, and what that callable must return.

def make_step(device):                    # or without the parameter
    model, optimizer, batches = …
    def step(): …                         # one training step
    return model, optimizer, step         # or a dict, which may also have inputs and ema

or ``hf:gpt2``, a model of transformers (`dbbench.profile.hugging_face`).
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from dbbench.errors import BadInput, did_you_mean
from dbbench.foreign import guarded, in_words, kind_of
from dbbench.importing import is_file, module_of_file
from dbbench.measure.optimizers import is_optimizer
from dbbench.profile import hugging_face
from dbbench.profile.ledger import by_name

_PARTS = ("model", "optimizer", "step", "inputs", "ema")
_NEEDED = _PARTS[:3]
_SHAPE = "(model, optimizer, step)"


@dataclass(frozen=True)
class Training:
    """A model, its optimizer or optimizers, and a callable that trains it for one step."""

    model: Any
    optimizer: Any
    step: Callable[[], Any]
    inputs: Any = None
    ema: Any = None


class Target:
    """A callable that makes a training, found by name: ``package.module:callable`` or ``path/to/file.py:callable``.

    The working directory can be imported from. Raises BadInput, one line, for a name that leads nowhere and, in
    `make`, for a return value that is no training. ``takes_device`` tells whether it is told where to train.
    """

    def __init__(self, reference: str) -> None:
        self.reference = reference
        if hugging_face.is_reference(reference):
            self.function: Callable[..., Any] = hugging_face.maker(reference)
            self.takes_device = True
            return
        module_name, colon, attribute = reference.rpartition(":")
        if not colon or not module_name or not attribute:
            raise BadInput(f"{reference}: name a callable as package.module:callable or file.py:callable")
        found: Any = _imported(module_name, reference)
        for part in attribute.split("."):
            if not hasattr(found, part):
                offered = [name for name, value in vars(found).items() if callable(value) and name[0] != "_"]
                raise BadInput(f"{reference}: {module_name} has no '{attribute}'{did_you_mean(part, offered)}")
            found = getattr(found, part)
        if not callable(found):
            raise BadInput(f"{reference}: '{attribute}' is {kind_of(found)}, not a callable")
        self.function = found
        needed = _needed(found)
        for name in needed:
            if name != "device":
                raise BadInput(
                    f"{reference}: takes the parameter '{name}'; it may take 'device' and must take nothing else"
                )
        self.takes_device = "device" in needed or "device" in _parameters(found)

    def make(self, device: str) -> Training:
        """Call it for ``device`` (``cpu`` or ``cuda``) and return what it made, which is checked to be there."""
        made = self.function(device=device) if self.takes_device else self.function()
        training = training_of(made, self.reference)
        for model in by_name(training.model).values():
            where = next((p.device.type for p in model.parameters() if p.device.type != "meta"), device)
            if where != device:
                remedy = "" if self.takes_device else "; let it take a parameter 'device'"
                raise BadInput(f"{self.reference}: its model is on {where}, to be profiled on {device}{remedy}")
        return training


def training_of(made: Any, where: str) -> Training:
    """Return ``made`` (a tuple, a dict or an object with the parts) as a training.

    Raises BadInput, one line opened by ``where``, for what is none.
    """
    if isinstance(made, tuple):
        given = dict(zip(_PARTS, made, strict=False))
        if not len(_NEEDED) <= len(made) <= len(_PARTS):
            raise BadInput(f"{where}: returned {len(made)} things, not {_SHAPE}")
    elif isinstance(made, Mapping):
        unknown = [str(key) for key in made if key not in _PARTS]
        if unknown:
            raise BadInput(f"{where}: returned the unknown key '{unknown[0]}'{did_you_mean(unknown[0], _PARTS)}")
        given = dict(made)
    else:
        given = {name: getattr(made, name) for name in _PARTS if hasattr(made, name)}
    missing = [name for name in _NEEDED if name not in given]
    if missing:
        raise BadInput(f"{where}: returned {kind_of(made)} without '{missing[0]}'; it must give {_SHAPE}")
    training = Training(**given)
    _require(where, "model", by_name(training.model).values(), _is_module, "a torch module")
    _require(where, "optimizer", by_name(training.optimizer).values(), is_optimizer, "a torch optimizer, nor wraps one")
    if training.model is None:
        raise BadInput(f"{where}: its model is None, not a torch module")
    check_step(training.step, where)
    return training


def check_step(step: Any, where: str) -> None:
    """Raise BadInput, opened by ``where``, unless ``step`` can be called without arguments to train once."""
    if not callable(step) or isinstance(step, nn.Module):
        raise BadInput(f"{where}: its step is {kind_of(step)}, not a function that trains once")
    needed = _needed(step)
    if needed:
        raise BadInput(f"{where}: its step takes the parameter '{needed[0]}', and must take none")


def _is_module(thing: Any) -> bool:
    return isinstance(thing, nn.Module)


def _require(where: str, name: str, things: Iterable[Any], fits: Callable[[Any], bool], words: str) -> None:
    for thing in things:
        if not fits(thing):
            raise BadInput(f"{where}: its {name} is {kind_of(thing)}, not {words}; it must give {_SHAPE}")


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return {}


def _needed(function: Callable[..., Any]) -> list[str]:
    """Return the names of the parameters without a default."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [n for n, p in _parameters(function).items() if p.default is p.empty and p.kind not in variadic]


# -- importing ------------------------------------------------------------------------------------------------------


def _imported(name: str, reference: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        with guarded():
            return module_of_file(Path(name), reference) if is_file(name) else importlib.import_module(name)
    except BadInput:
        raise
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise BadInput(f"{reference}: no module '{missing}'{_nearest_module(missing)}") from error
        raise BadInput(f"{reference}: importing it fails with {in_words(error)}") from error
    except Exception as error:  # whatever a stranger's module does when it is imported
        raise BadInput(f"{reference}: importing it fails with {in_words(error)}") from error


def _nearest_module(name: str) -> str:
    """Look for the module that was meant, in its package or in the working directory."""
    parent, _, last = name.rpartition(".")
    places = getattr(sys.modules.get(parent), "__path__", None) if parent else [str(Path.cwd())]
    hint = did_you_mean(last, [found.name for found in pkgutil.iter_modules(places)])
    return hint if "did you mean" in hint else ""  # all the modules of a package would be a long line
