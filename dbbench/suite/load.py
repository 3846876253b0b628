"""Finds a suite, by its path or by the name of one that ships with dbbench, and reads it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from dbbench.errors import BadInput, did_you_mean
from dbbench.files import read
from dbbench.suite.plain_yaml import parse

MAX_BYTES = 1 << 20


def shipped_suites() -> dict[str, Path]:
    """Return the path of every suite that ships with dbbench by its name.

    A wheel carries them beside the package's modules; in a checkout, and so in an editable install, they are at
    its root.
    """
    package = Path(__file__).parent.parent
    installed = package / "suites"
    folder = installed if installed.is_dir() else package.parent / "suites"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_suite(reference: str) -> tuple[dict[str, Any], str]:
    """Return the mapping in a suite file, unchecked, and the name that messages give the file.

    ``reference`` is a path, or the bare name of a shipped suite. Raises `BadInput` for a file that is missing, is no
    regular file, is larger than ``MAX_BYTES``, is not UTF-8 or is not plain YAML with a mapping at the top.
    """
    shipped = shipped_suites()
    if reference in shipped:
        path, where = shipped[reference], f"{reference}.yaml"
    else:
        path, where = Path(reference), reference
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise BadInput(f"{where}: is a folder, not a suite file")
        if not stat.S_ISREG(status.st_mode):
            raise BadInput(f"{where}: is not a regular file")
        if status.st_size > MAX_BYTES:
            raise BadInput(f"{where}: is {status.st_size:,} bytes long; a suite has at most {MAX_BYTES:,}")
        text = read(path, MAX_BYTES).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise BadInput(f"{where}: no such file or shipped suite{did_you_mean(path.stem, shipped)}") from error
    except OSError as error:
        raise BadInput(f"{where[:200]}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{where}: is not UTF-8 (byte {error.start})") from error
    raw = parse(text, where)
    if raw is None:
        raise BadInput(f"{where}: is empty")
    if not isinstance(raw, dict):
        raise BadInput(f"{where}: must be a mapping at the top, not a {type(raw).__name__}")
    return raw, where
