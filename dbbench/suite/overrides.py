"""What the command line changes in a suite: ``--set KEY=VALUE`` before it is expanded, ``--only`` after."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dbbench.errors import BadInput, did_you_mean
from dbbench.suite.cell import Cell
from dbbench.suite.plain_yaml import MAX_DEPTH, parse
from dbbench.suite.schema import Suite


def with_settings(raw: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Return a copy of the valid suite ``raw`` in which every ``KEY=VALUE`` of ``settings`` holds.

    A value is read as YAML. `BadInput` if a key or a label is unknown, or if the grid would undo the setting.
    """
    changed = dict(raw)
    for setting in settings:
        key, equals, text = setting.partition("=")
        where = f"--set {key}"
        if not equals or not key:
            raise BadInput(f"--set {setting}: write KEY=VALUE, such as --set optimizer.lr=0.001")
        grid = changed.get("grid")
        if isinstance(grid, dict) and key in grid:
            raise BadInput(f"{where}: the suite's grid sets this key; use --set 'grid.{key}=[...]'")
        changed = with_value(changed, key, parse(text, where), where)
    return changed


def with_value(raw: Mapping[str, Any], key: str, value: Any, where: str) -> dict[str, Any]:
    """Return a copy of the suite ``raw`` in which the dotted ``key`` is ``value``; ``where`` opens an error's line.

    The first part must be a key of the schema and a variant must exist; what lies below is for the schema, and for
    the method, the task and the network, to judge.
    """
    parts = key.split(".")
    if parts[0] not in Suite.model_fields:
        raise BadInput(f"{where}: unknown key '{parts[0]}'{did_you_mean(parts[0], Suite.model_fields)}")
    if parts[0] == "methods":
        if len(parts) == 1:
            raise BadInput(f"{where}: name a variant, as in methods.LABEL.OPTION")
        if parts[1] not in raw["methods"]:
            raise BadInput(f"{where}: unknown variant '{parts[1]}'{did_you_mean(parts[1], raw['methods'])}")
    if parts[0] == "grid":
        parts = ["grid", key.removeprefix("grid.")] if len(parts) > 1 else parts  # the grid's keys hold dots
    if "" in parts or len(parts) > MAX_DEPTH:
        raise BadInput(f"{where}: is not a dotted key")
    changed = copy.deepcopy(dict(raw))
    node = changed
    for depth, part in enumerate(parts[:-1], 1):
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise BadInput(f"{where}: {'.'.join(parts[:depth])} is not a mapping")
    node[parts[-1]] = value
    return changed


#: What ``--only`` can ask of a cell: each key with the values by which the cell answers to it.
FILTERS: dict[str, Callable[[Cell], set[str]]] = {
    "method": lambda cell: {cell.variant, cell.variant.partition(".")[0], cell.method},
    "variant": lambda cell: {cell.variant, cell.variant.partition(".")[0]},
    "task": lambda cell: {cell.task.name},
    "seed": lambda cell: {str(cell.seed)},
    "depth": lambda cell: {str(cell.network.depth)} - {"None"},
}


def select(cells: Sequence[Cell], only: str) -> list[Cell]:
    """Return the cells that match ``only``, such as ``method=a,b,seed=0``: any value of a key, all of the keys."""
    wanted: dict[str, set[str]] = {}
    key = ""
    for piece in only.split(","):
        name, equals, value = piece.rpartition("=")
        key = name.strip() if equals else key
        if key not in FILTERS:
            raise BadInput(f"--only {only}: unknown key '{key or piece}'{did_you_mean(key or piece, FILTERS)}")
        value = value.strip()
        known = set().union(*(FILTERS[key](cell) for cell in cells))
        if value not in known:
            raise BadInput(f"--only {only}: no cell has {key} '{value}'{did_you_mean(value, known)}")
        wanted.setdefault(key, set()).add(value)
    kept = [cell for cell in cells if all(FILTERS[k](cell) & values for k, values in wanted.items())]
    if not kept:
        raise BadInput(f"--only {only}: no cell matches all of it")
    return kept
