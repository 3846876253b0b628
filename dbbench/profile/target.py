"""What ``dbbench profile`` is pointed at: a callable that makes a model, its optimizer and a training step.

The callable takes nothing, or one parameter ``device`` (``"cpu"`` or ``"cuda"``). It returns ``(model, optimizer,
step)``, or these by name in a mapping or as attributes, where ``inputs`` and ``ema`` may stand beside them. ``step()``
trains once.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

import dbbench
from dbbench.errors import BadInput, did_you_mean
from dbbench.profile.ledger import by_name

_PARTS = ("model", "optimizer", "step", "inputs", "ema")
_NEEDED = _PARTS[:3]
_SHAPE = "(model, optimizer, step)"
#: Where code lives that no user wrote: an error is said to be where it left theirs.
_NOT_THEIRS = tuple(
    f"{folder.resolve()}{os.sep}"
    for folder in (
        Path(dbbench.__file__).parent,
        Path(torch.__file__).parent,
        *map(Path, (sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))),
    )
)


@dataclass(frozen=True)
class Built:
    """What the callable returned, checked; ``step`` takes nothing."""

    models: dict[str, nn.Module]
    optimizers: list[torch.optim.Optimizer]
    step: Callable[[], Any]
    inputs: Any = None
    ema: Any = None


def load_target(target: str) -> Callable[..., Any]:
    """Import the callable that ``target`` names: ``package.module:callable``, or ``path/file.py:callable``.

    The working directory is importable. Raises BadInput, one line, where there is no such thing, with the nearest name.
    """
    name, colon, attribute = target.rpartition(":")
    if not colon or not name or not attribute:
        raise BadInput(f"'{target}': a target is MODULE:CALLABLE, such as my_package.train:make_step")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module = _file(name) if name.endswith(".py") else _module(name)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            raise BadInput(f"{name} has no '{attribute}'{did_you_mean(part, known)}")
        found = getattr(found, part)
    if not callable(found):
        raise BadInput(f"{target} is {_kind(found)}: a target is a callable that returns {_SHAPE}")
    _refuse_parameters(found, ("device",), target)
    return found


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise _import_failed(name, error) from error  # the module is there, and what it imports is not
        parent, _, last = missing.rpartition(".")
        places = getattr(sys.modules.get(parent), "__path__", None) if parent else [str(Path.cwd())]
        known = [found.name for found in pkgutil.iter_modules(places)]
        hint = did_you_mean(last, known) if len(known) <= 20 or "did" in did_you_mean(last, known) else ""
        raise BadInput(f"no module '{missing}'{hint}") from error
    except (Exception, SystemExit) as error:
        raise _import_failed(name, error) from error


def _file(name: str) -> ModuleType:
    path = Path(name)
    if not path.is_file():
        known = [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise BadInput(f"{name}: no such file{did_you_mean(path.name, known) if known else ''}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as when Python runs the file
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[path.stem]
        raise _import_failed(name, error) from error
    return module


def _import_failed(name: str, error: BaseException) -> BadInput:
    return BadInput(f"cannot import {name}: {in_words(error)}")


def default_device(make: Callable[..., Any], device: str) -> AbstractContextManager[Any]:
    """Return what makes torch's factories use ``device`` where the callable does not ask for it."""
    if device != "cuda" or "device" in inspect.signature(make).parameters:
        return nullcontext()
    return torch.device(device)


def build(make: Callable[..., Any], device: str, target: str) -> Built:
    """Call ``make`` with seed 0 and check what it returns. Raises BadInput, one line, for anything that goes wrong."""
    takes_device = "device" in inspect.signature(make).parameters
    torch.manual_seed(0)
    try:
        with default_device(make, device):
            made = make(device=device) if takes_device else make()
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{target}: {in_words(error)}") from error
    built = _checked(_parts(made, target), target)
    for model in built.models.values():
        where = next((p.device.type for p in model.parameters() if p.device.type != "meta"), device)
        if where != device:
            remedy = "" if takes_device else f"; give {target} a parameter 'device'"
            raise BadInput(f"{target}: the model is on {where}, and {device} is to be profiled{remedy}")
    return built


def _parts(made: Any, target: str) -> dict[str, Any]:
    """Return what was returned, by name."""
    if isinstance(made, Mapping):
        unknown = [str(name) for name in made if name not in _PARTS]
        if unknown:
            raise BadInput(f"{target}: returns an unknown '{unknown[0]}'{did_you_mean(unknown[0], _PARTS)}")
        parts = dict(made)
    elif isinstance(made, tuple) and not hasattr(made, "_fields"):
        if len(made) != len(_NEEDED):
            raise BadInput(f"{target}: returns {len(made)} things, not {_SHAPE}; name others in a dict")
        parts = dict(zip(_NEEDED, made, strict=True))
    else:
        parts = {name: getattr(made, name) for name in _PARTS if hasattr(made, name)}
    missing = [name for name in _NEEDED if name not in parts]
    if missing:
        raise BadInput(f"{target}: returns {_kind(made)} without {' and '.join(missing)}; it is to return {_SHAPE}")
    return parts


def _checked(parts: dict[str, Any], target: str) -> Built:
    models, optimizers, step = by_name(parts["model"]), by_name(parts["optimizer"]), parts["step"]
    _require(models.values(), nn.Module, "model", "a torch.nn.Module, or several", target)
    _require(
        optimizers.values(), torch.optim.Optimizer, "optimizer", "a torch.optim.Optimizer, several or None", target
    )
    if not models:
        raise BadInput(f"{target}: its model is None, and is to be a torch.nn.Module")
    if not callable(step) or isinstance(step, nn.Module):
        raise BadInput(f"{target}: its step is {_kind(step)}, and is to be a function that trains once")
    _refuse_parameters(step, (), f"{target}: its step")
    return Built(models, list(optimizers.values()), step, parts.get("inputs"), parts.get("ema"))


def _require(things: Iterable[Any], kind: type, name: str, words: str, target: str) -> None:
    for thing in things:
        if not isinstance(thing, kind):
            raise BadInput(f"{target}: its {name} is {_kind(thing)}, and is to be {words}; it returns {_SHAPE}")


def _refuse_parameters(function: Callable[..., Any], allowed: tuple[str, ...], where: str) -> None:
    """Raise BadInput where ``function`` needs arguments that nobody is going to give it."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin says nothing of its parameters
        return
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]
    wrong = [name for name in needed if name not in allowed]
    if wrong:
        what = "nothing, or 'device' alone" if allowed else "nothing"
        raise BadInput(f"{where} needs '{', '.join(wrong)}', and is to take {what}")


def _kind(thing: Any) -> str:
    return "None" if thing is None else f"a {type(thing).__name__}"


def in_words(error: BaseException) -> str:
    """Return the error in one line, with the line of the user's own code that it left last."""
    words = " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(": ")
    place = place_of(error)
    return f"{words} ({place})" if place else words


def place_of(error: BaseException) -> str:
    """Return ``file:line: code`` of the innermost frame that is neither torch's, ours nor a library's; '' for none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_relative(error.filename)}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [
        f for f in frames if f.filename[:1] != "<" and not str(Path(f.filename).resolve()).startswith(_NOT_THEIRS)
    ]
    if not theirs:
        return ""
    last = theirs[-1]
    return f"{_relative(last.filename)}:{last.lineno}" + (f": {last.line}" if last.line else "")


def _relative(filename: str) -> str:
    path, here = Path(filename).resolve(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else filename
