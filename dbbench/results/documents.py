"""One JSON file in a folder, read back with its version checked: a profile, a fit, a scaling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dbbench.errors import BadInput
from dbbench.files import read

Model = TypeVar("Model", bound=BaseModel)


def read_document(path: Path, model: type[Model], kind: str, made_by: str) -> Model:
    """Return the ``model`` in ``path``, whose field ``<kind>_version`` must be the model's own default.

    Raises BadInput, one line, where the file is missing (``made_by`` says what writes it), torn, another program's, of
    another version, or edited into something else.
    """
    raw = _raw(path, made_by)
    key = f"{kind}_version"
    ours = model.model_fields[key].default
    version = raw.get(key) if isinstance(raw, dict) else None
    if not isinstance(version, int):
        raise BadInput(f"{path}: no {kind} of dbbench (it has no {key})")
    if version != ours:
        age = "newer" if version > ours else "older"
        raise BadInput(f"{path}: {kind} version {version} is {age} than the {ours} this dbbench reads")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        where = f" at '{place}'" if place else ""
        raise BadInput(f"{path}: does not fit the schema{where}: {first['msg']}; edited by hand?") from error


def _raw(path: Path, made_by: str) -> Any:
    try:
        return json.loads(read(path))
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file; {made_by} writes it") from error
    except (ValueError, RecursionError, OSError) as error:
        raise BadInput(f"{path}: truncated or not JSON ({error})") from error
