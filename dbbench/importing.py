"""Imports what people name: ``package.module`` or ``path/to/file.py``."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from dbbench.errors import BadInput, did_you_mean


def is_file(name: str) -> bool:
    """Whether ``name`` is a file's and not a module's."""
    return name.endswith(".py")


def find_file(name: str) -> Path:
    """Return where the file ``name`` is: from the working folder, else from a folder that modules are found in."""
    path = Path(name)
    if path.is_file() or path.is_absolute():
        return path
    beside = (Path(entry) / name for entry in sys.path)
    return next((found for found in beside if found.is_file()), path)


def module_of_file(path: Path, where: str) -> ModuleType:
    """Import the file at ``path``, once; its folder can then be imported from, as when Python runs it.

    Raises BadInput, opened by ``where``, where there is no such file, and whatever the module raises.
    """
    if not path.is_file():
        offered = [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise BadInput(f"{where}: no file '{path}'{did_you_mean(path.name, offered)}")
    real = Path(os.path.realpath(path))
    if str(real.parent) not in sys.path:
        sys.path.insert(0, str(real.parent))
    name, known = path.stem, sys.modules.get(path.stem)
    if known is not None:
        if getattr(known, "__file__", None) and os.path.realpath(known.__file__ or "") == str(real):
            return known
        name = f"{name}_at_{real.parent.name}"  # another module's name is not this one's to take
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{where}: '{path}' is no file of Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def importable_from(folder: Path) -> None:
    """Let modules be imported from ``folder``, those of the working folder first."""
    entry = os.path.realpath(folder)
    if entry not in map(os.path.realpath, (path or "." for path in sys.path)):
        sys.path.append(entry)
