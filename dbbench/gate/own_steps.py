"""The gate for people's own models: a training step, a saved profile or a transformers model as a cell of a baseline.

A cell is named as it is written, ``my_package.train:make_step``; such a name has a colon, which no suite's cell has.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbbench.errors import BadInput, did_you_mean
from dbbench.files import read
from dbbench.gate.cells import Cell, cell_of_profile
from dbbench.gate.check import Measurement
from dbbench.report import unseen
from dbbench.results.profile import PROFILE_FILE, Profile

if TYPE_CHECKING:
    import pandas as pd

#: A step's name, its profile and classified events (None where there are none), and why it failed ('').
Profiled = tuple[str, "Profile | None", "pd.DataFrame | None", str]

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


def from_profiles(profiled: Iterable[Profiled], what: str, device: str, update: str, whole: bool) -> Measurement:
    """Return the figures of profiles, each taken up as it comes; a step that failed is a failed cell."""
    cells: list[Cell] = []
    failed: dict[str, str] = {}
    notes: list[str] = []
    for name, profile, frame, failure in profiled:
        if name in {cell.name for cell in cells} | failed.keys():
            raise BadInput(f"check: '{name}' is given twice")
        if profile is None or frame is None:
            failed[name] = failure or "it could not be measured"
            continue
        left = profile.unmeasured_work
        why = failure or "; ".join(unseen.blind_spots(profile.own_peaks.get("unseen", 0), left))
        notes += [f"{name}: {line}" for line in unseen.notes(left)]
        if profile.uncounted:
            notes.append(f"{name}: FLOPs are a lower bound (≥): no formula for {', '.join(profile.uncounted)}")
        if why:
            failed[name] = why
        else:
            cells.append(cell_of_profile(name, profile, frame))
    sources = {cell.source for cell in cells} or {device}
    return Measurement(what, cells, failed, set(), sources, update, whole, notes, own_steps=True)
