"""What the loaders share: a user's folder, a file's bytes, an optional library, each with its one clear line."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from dbbench.errors import BadInput
from dbbench.files import read


def find_folder(folder: str, where: str) -> Path:
    """Return ``folder`` (``~`` expanded) as a path, or raise `BadInput` if there is no such folder."""
    try:
        path = Path(folder).expanduser()
    except RuntimeError as error:
        raise BadInput(f"{where}: {folder}: there is no such user, or no home") from error
    if not path.is_dir():
        raise BadInput(f"{where}: {path}: {'is a file, not a folder' if path.exists() else 'there is no such folder'}")
    return path


def read_bytes(path: Path, where: str, expected_bytes: int | None = None) -> bytes:
    """Return the file's bytes, or raise `BadInput` if it is missing, unreadable or not ``expected_bytes`` long."""
    try:
        # Asked before reading, so that a wrong file of any size costs nothing.
        found_bytes = path.stat().st_size
        if expected_bytes is not None and path.is_file() and found_bytes != expected_bytes:
            raise BadInput(f"{where}: {path}: {found_bytes} bytes, not {expected_bytes}: truncated or another file")
        return read(path)
    except OSError as error:
        raise BadInput(f"{where}: {path}: {error.strerror or error}") from error


def import_optional(module: str, package: str, extra: str, where: str) -> ModuleType:
    """Import ``module``, or raise `BadInput` that says which ``package`` to install, or which ``extra`` brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        remedy = f"pip install {package}, or 'dbbench[{extra}]'"
        raise BadInput(f"{where}: needs {package}, which cannot be imported ({error}): {remedy}") from error
