"""Expands a suite into cells: every point of its grid, times every variant, times every seed."""

from __future__ import annotations

import itertools
import json
import math
import re
from typing import Any, Literal

from dbbench.errors import BadInput, did_you_mean
from dbbench.suite.cell import Cell
from dbbench.suite.overrides import with_value
from dbbench.suite.schema import Shared, Suite, check

MAX_CELLS = 10_000
#: The first parts a grid's key may have; `seeds` expands by itself and the rest is not part of what is trained.
GRID_KEYS = (*Shared.model_fields, "threads", "methods")


def expand(suite: Suite, device: Literal["cpu", "cuda"], where: str | None = None) -> list[Cell]:
    """Return the cells of ``suite``: grid points in order, then variants, then seeds; none twice.

    A variant's ``method``, and its own ``task``, ``network``, ``optimizer``, ``budget``, ``batch_size`` and
    ``precision``, are taken out of its options and merged over the suite's. A grid key that changes a variant's cells
    is written into their ``variant`` (``backprop.batch_size-64``), so that no table averages over it; ``network.depth``
    is not, having a column and figures of its own. ``where`` (the file) opens the line of a `BadInput`.
    """
    where = where or suite.suite
    count = math.prod(len(values) for values in suite.grid.values()) * len(suite.methods) * len(suite.seeds)
    if count > MAX_CELLS:
        raise BadInput(f"{where}: grid: makes {count:,} cells; at most {MAX_CELLS:,} are allowed")
    points = list(itertools.product(*(range(len(values)) for values in suite.grid.values())))
    at_point = {point: _at(suite, point, where) for point in points}
    resolved = {label: {point: _resolve(at_point[point], label, where) for point in points} for label in suite.methods}
    cells: dict[str, Cell] = {}
    for point, label in itertools.product(points, suite.methods):
        variant = label + _suffix(suite, resolved[label], point)
        for seed in suite.seeds:
            body = resolved[label][point] | {"variant": variant, "seed": seed, "device": device}
            cells.setdefault(json.dumps(body, sort_keys=True), Cell.model_validate(body))
    return list(cells.values())


def _at(suite: Suite, point: tuple[int, ...], where: str) -> Suite:
    """Return the suite with the values of one grid point in place of its own."""
    raw = suite.model_dump(exclude_unset=True)
    for (key, values), index in zip(suite.grid.items(), point, strict=True):
        first, *rest = key.split(".")
        if first not in GRID_KEYS:
            hint = (
                f"; it takes {', '.join(GRID_KEYS)}" if first in Suite.model_fields else did_you_mean(first, GRID_KEYS)
            )
            raise BadInput(f"{where}: grid.{key}: cannot be a key of the grid{hint}")
        if first == "methods" and len(rest) < 2:
            raise BadInput(f"{where}: grid.{key}: name an option, as in methods.LABEL.OPTION")
        raw = with_value(raw, key, values[index], f"{where}: grid.{key}")
    return check(Suite, raw, where, "grid") if point else suite


def _resolve(suite: Suite, label: str, where: str) -> dict[str, Any]:
    """Return the fields of one variant's cells, all but its name, seed and device."""
    here = f"methods.{label}"
    options = dict(suite.methods[label])
    method = options.pop("method", label)
    if not isinstance(method, str):
        raise BadInput(f"{where}: {here}.method: must be the name or the dotted path of a method, not {method!r}")
    merged = suite.model_dump(include=set(Shared.model_fields), exclude_unset=True)
    for key in Shared.model_fields:
        if key in options:
            merged[key] = _merge(merged.get(key), options.pop(key))
    shared = check(Shared, merged, where, here).model_dump()
    fixed = suite.model_dump(include={"suite", "threads", "evaluations", "timeout_seconds", "final_split"})
    return shared | fixed | {"method": method, "options": options}


def _merge(base: Any, override: Any) -> Any:
    """Merge mappings key by key; one that names another task or network, or kind of budget, replaces the suite's."""
    if not isinstance(base, dict) or not isinstance(override, dict):
        return override
    if any(key in override and override[key] != base.get(key) for key in ("name", "kind")):
        return override
    return base | {key: _merge(base.get(key), value) for key, value in override.items()}


def _suffix(suite: Suite, resolved: dict[tuple[int, ...], dict[str, Any]], point: tuple[int, ...]) -> str:
    """Return what tells this point's cells of a variant from those of other points: ``.key-value`` a key."""
    text = ""
    for place, (key, values) in enumerate(suite.grid.items()):
        changes = any(resolved[p] != resolved[(*p[:place], 0, *p[place + 1 :])] for p in resolved)
        if changes and key != "network.depth":
            value = json.dumps(values[point[place]], separators=(",", ":")).strip('"[]{}')
            name = key.split(".", 2)[2] if key.startswith("methods.") else key
            text += "." + re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{name}-{value}")
    return text
