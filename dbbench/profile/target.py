"""What ``dbbench profile`` is given: ``my_package.train:make_step``, and what that callable must return.

def make_step(device):                    # or without the parameter
    model, optimizer, batches = …
    def step(): …                         # one training step
    return model, optimizer, step         # or a dict, which may also have inputs and ema
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from dbbench.errors import BadInput, did_you_mean

_PARTS = ("model", "optimizer", "step", "inputs", "ema")
_NEEDED = _PARTS[:3]


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

    Raises BadInput, one line, for a name that leads nowhere and, in `make`, for a return value that is no training.
    """

    def __init__(self, reference: str) -> None:
        self.reference = reference
        module_name, colon, attribute = reference.rpartition(":")
        if not colon or not module_name or not attribute:
            raise BadInput(f"{reference}: name a callable as package.module:callable or file.py:callable")
        module = _imported(module_name, reference)
        make = getattr(module, attribute, None)
        if make is None:
            offered = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
            raise BadInput(f"{reference}: {module_name} has no '{attribute}'{did_you_mean(attribute, offered)}")
        if not callable(make):
            raise BadInput(f"{reference}: '{attribute}' is a {type(make).__name__}, not a callable")
        self._make = make
        self._takes_device = _takes_device(make, reference)

    def make(self, device: str) -> Training:
        """Call it for ``device`` (``cpu`` or ``cuda``) and return what it made."""
        made = self._make(device) if self._takes_device else self._make()
        if isinstance(made, tuple):
            given = dict(zip(_PARTS, made, strict=False))
            if not len(_NEEDED) <= len(made) <= len(_PARTS):
                raise BadInput(f"{self.reference}: returned {len(made)} things, not (model, optimizer, step)")
        elif isinstance(made, Mapping):
            unknown = [str(key) for key in made if key not in _PARTS]
            if unknown:
                raise BadInput(
                    f"{self.reference}: returned the unknown key '{unknown[0]}'{did_you_mean(unknown[0], _PARTS)}"
                )
            given = dict(made)
        else:
            given = {name: getattr(made, name) for name in _PARTS if hasattr(made, name)}
        missing = [name for name in _NEEDED if name not in given]
        if missing:
            what = type(made).__name__
            raise BadInput(
                f"{self.reference}: returned a {what} without '{missing[0]}'; it must give model, optimizer, step"
            )
        if not callable(given["step"]):
            raise BadInput(f"{self.reference}: its step is a {type(given['step']).__name__}, not a callable")
        models = given["model"]
        several = list(models.values()) if isinstance(models, Mapping) else models
        for one in several if isinstance(several, (list, tuple)) else [several]:
            if not isinstance(one, nn.Module):
                raise BadInput(f"{self.reference}: its model is a {type(one).__name__}, not a torch module")
        return Training(**given)


def _takes_device(make: Callable[..., Any], reference: str) -> bool:
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):  # written in C
        return False
    needed = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    for name in needed:
        if name != "device":
            raise BadInput(
                f"{reference}: takes the parameter '{name}'; it may take 'device' and must take nothing else"
            )
    return "device" in parameters


def _imported(name: str, reference: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return _from_file(Path(name), reference) if name.endswith(".py") else importlib.import_module(name)
    except BadInput:
        raise
    except ModuleNotFoundError as error:
        hint = (
            f"; it imports '{error.name}', which is not there" if error.name and not name.startswith(error.name) else ""
        )
        raise BadInput(
            f"{reference}: no module '{name}'{hint}" if not hint else f"{reference}: cannot import{hint}"
        ) from error
    except Exception as error:  # whatever a stranger's module does when it is imported
        raise BadInput(f"{reference}: importing it fails with {type(error).__name__}: {error}") from error


def _from_file(path: Path, reference: str) -> ModuleType:
    if not path.is_file():
        raise BadInput(f"{reference}: no file '{path}'")
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
