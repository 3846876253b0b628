"""The gate for people's own models: a training step, a saved profile or a transformers model as a cell of a baseline.

A cell is named as it is written, ``my_package.train:make_step``; such a name has a colon, which no suite's cell has.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbbench.errors import BadInput, did_you_mean
from dbbench.files import read
from dbbench.gate.cells import Cell, cell_of_profile
from dbbench.gate.check import Measurement
from dbbench.report import unseen
from dbbench.results.profile import PROFILE_FILE, read_profile

if TYPE_CHECKING:
    from dbbench.profile.command import Where

PROJECT_FILE = "pyproject.toml"
_KEYS = ("steps", "baseline", "device", "batch", "sequence", "optimizer")
MOST_BYTES = 2**24


@dataclass(frozen=True)
class Project:
    """What ``[tool.dbbench.check]`` of a ``pyproject.toml`` says: which steps are checked, against which baseline."""

    steps: tuple[str, ...] = ()
    baseline: Path | None = None
    device: str | None = None
    settings: dict[str, Any] | None = None


def read_project(path: Path = Path(PROJECT_FILE)) -> Project:
    """Return what the project's file says, nothing where there is none. Raises BadInput with the file and the key."""
    try:
        raw = tomllib.loads(read(path, MOST_BYTES).decode())
    except FileNotFoundError:
        return Project()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {error}") from error
    table = raw
    for key in ("tool", "dbbench", "check"):
        table = table.get(key, {}) if isinstance(table, dict) else {}
    where = f"{path}: tool.dbbench.check"
    if not isinstance(table, dict):
        raise BadInput(f"{where}: is no table")
    for key in table:
        if key not in _KEYS:
            raise BadInput(f"{where}.{key}: no such key{did_you_mean(key, _KEYS)}")
    steps = table.get("steps", [])
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise BadInput(f"{where}.steps: is no list of texts, such as ['train.py:make_step']")
    for key in ("baseline", "device", "optimizer"):
        if not isinstance(table.get(key, ""), str):
            raise BadInput(f"{where}.{key}: is no text")
    baseline = table.get("baseline")
    settings = {key: table.get(key) for key in ("batch", "sequence", "optimizer")}
    return Project(tuple(steps), Path(baseline) if baseline else None, table.get("device"), settings)


def is_step(target: str) -> bool:
    """Whether ``target`` is a step, a model or a saved profile, and not a run's folder."""
    path = Path(target)
    return (path / PROFILE_FILE).exists() if path.is_dir() else ":" in target


def require_steps(targets: Sequence[str], settings: dict[str, Any]) -> None:
    """Raise BadInput where one of ``targets`` leads nowhere; nothing is measured."""
    from dbbench.profile.target import Target

    for target in targets:
        if Path(target).is_dir():
            read_profile(Path(target))
        else:
            Target(_named(target, settings))


def measure_steps(
    targets: Sequence[str], device: Where, settings: dict[str, Any], update: str, whole: bool
) -> Measurement:
    """Measure each of ``targets`` once and return them as cells; a step that fails is a failed cell.

    ``settings`` (batch, sequence, optimizer) are for models of transformers. Raises BadInput for a name that leads
    nowhere.
    """
    cells: list[Cell] = []
    failed: dict[str, str] = {}
    notes: list[str] = []
    for target in targets:
        name, profile, frame, failure = _measured(target, device, settings)
        if name in {cell.name for cell in cells} | failed.keys():
            raise BadInput(f"check: '{name}' is given twice")
        if profile is not None:
            left = profile.unmeasured_work
            failure = failure or "; ".join(unseen.blind_spots(profile.own_peaks.get("unseen", 0), left))
            notes += [f"{name}: {line}" for line in unseen.notes(left)]
            if profile.uncounted:
                notes.append(f"{name}: FLOPs are a lower bound (≥): no formula for {', '.join(profile.uncounted)}")
        if failure or profile is None:
            failed[name] = failure or "it could not be measured"
        else:
            cells.append(cell_of_profile(name, profile, frame))
    what = targets[0] if len(targets) == 1 else f"{len(targets)} steps"
    sources = {cell.source for cell in cells} or {device}
    return Measurement(what, cells, failed, set(), sources, update, whole, notes, own_steps=True)


def _measured(target: str, device: Where, settings: dict[str, Any]) -> tuple[str, Any, Any, str]:
    """Return (name, profile, classified events, why it failed)."""
    if Path(target).is_dir():
        profile, frame = read_profile(Path(target))
        return f"profile:{profile.name}", profile, frame, profile.ended_early or ""
    from dbbench.profile.command import Order, trace_step
    from dbbench.profile.target import Target

    name = _named(target, settings)
    found = Target(name)
    try:
        outcome = trace_step(found, Order(device=device))
    except BadInput as error:  # it is there, and makes nothing that can be trained
        return name, None, None, str(error).removeprefix(f"{name}: ")
    return name, outcome.profile, outcome.frame, outcome.failure or ""


def _named(target: str, settings: dict[str, Any]) -> str:
    """Return a target as its cell is named: a model of transformers with all of its settings."""
    from dbbench.profile import hugging_face

    return hugging_face.completed(target, settings) if hugging_face.is_reference(target) else target
