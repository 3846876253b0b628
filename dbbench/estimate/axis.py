"""The axes along which a cell can be stretched: each is one dial of its suite, its method or its network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dbbench.errors import BadInput, did_you_mean
from dbbench.estimate.suite import merged_seeds
from dbbench.harness.resolve import Resolved, resolve_cell
from dbbench.suite import schema
from dbbench.suite.cell import Cell
from dbbench.suite.schema import Shared

#: Multiples of the suite's own value that are tried where no values are given.
_MULTIPLES = {
    "batch": (0.25, 0.5, 1, 2, 4),
    "depth": (0.5, 1, 2, 4),
    "width": (0.5, 1, 1.5, 2),
    "sequence": (0.25, 0.5, 1, 2, 4),
}
AXES = (*_MULTIPLES, "blocks")


@dataclass(frozen=True)
class Dial:
    """One cell's dial on an axis: the value it stands at, and the cell with another value in its place.

    ``turn`` is None where the method has no such dial: it is what it is at every value.
    """

    own: int
    turn: Callable[[int], Cell] | None

    def at(self, value: int) -> Cell:
        """Return the cell at ``value``."""
        assert self.turn is not None
        return self.turn(value)


def dial(axis: str, cell: Cell, where: str) -> Dial:
    """Return the dial of ``cell`` on ``axis``; ``where`` (the suite's file) opens a BadInput's line.

    Raises BadInput for an unknown axis, and where task or network have no such dial; a method without blocks to choose
    is no mistake.
    """
    if axis not in AXES:
        raise BadInput(f"--over {axis}: is no axis{did_you_mean(axis, AXES)}")
    resolved = resolve_cell(cell, where)
    return _DIALS[axis](resolved)


def _batch(resolved: Resolved) -> Dial:
    cell = resolved.cell
    return Dial(cell.batch_size, lambda value: _set(cell, "batch_size", value))


def _depth(resolved: Resolved) -> Dial:
    cell = resolved.cell
    if not resolved.depth:
        raise BadInput(_none(resolved, "depth", f"network.name: '{cell.network.name}' has no layers"))
    return Dial(resolved.depth, lambda value: _with(cell, "network", "depth", value))


def _width(resolved: Resolved) -> Dial:
    cell = resolved.cell
    if "width" not in resolved.network.Options.model_fields:
        raise BadInput(_none(resolved, "width", f"network.name: '{cell.network.name}' has no option 'width'"))
    own = resolved.network.numbers(cell.network.size, resolved.network_options)["width"]
    return Dial(own, lambda value: _with(cell, "network", "width", value))


def _sequence(resolved: Resolved) -> Dial:
    cell = resolved.cell
    own = getattr(resolved.task_options, "sequence_length", None)
    if own is None:
        raise BadInput(_none(resolved, "sequence", f"task.name: '{cell.task.name}' has no option 'sequence_length'"))
    return Dial(own, lambda value: _with(cell, "task", "sequence_length", value))


def _blocks(resolved: Resolved) -> Dial:
    cell, option = resolved.cell, resolved.method.blocks_option
    own = len(resolved.method.split(resolved.options, resolved.depth))
    if option is None:
        return Dial(own, None)
    return Dial(own, lambda value: cell.model_copy(update={"options": cell.options | {option: value}}))


_DIALS: dict[str, Callable[[Resolved], Dial]] = {
    "batch": _batch,
    "depth": _depth,
    "width": _width,
    "sequence": _sequence,
    "blocks": _blocks,
}


def _none(resolved: Resolved, axis: str, why: str) -> str:
    return f"{resolved.where}: {why}, so variant '{resolved.cell.variant}' cannot be varied over {axis}"


def _with(cell: Cell, part: str, key: str, value: int) -> Cell:
    return _set(cell, part, getattr(cell, part).model_dump() | {key: value})


def _set(cell: Cell, key: str, value: Any) -> Cell:
    """Return the cell with another value of a key of its suite; BadInput where the suite could not have that."""
    body = cell.model_dump(include=set(Shared.model_fields)) | {key: value}
    return cell.model_copy(update={key: getattr(schema.check(Shared, body, f"{cell.suite}"), key)})


def check(cell: Cell, where: str) -> None:
    """Raise BadInput where a cell cannot be built: a width that heads do not divide, more blocks than layers."""
    resolve_cell(cell, where).network_on_meta()


def lowest(turned: Dial, where: str) -> int:
    """Return the smallest value up to its own at which the cell can be built (blocks need a layer each)."""
    for value in range(1, turned.own):
        if _can_be(turned.at(value), where):
            return value
    return turned.own


def default_values(axis: str, dials: Sequence[Dial], where: str) -> list[int]:
    """Return values around the first dial's own at which every cell can be built; over blocks, what divides its depth.

    One of ``dials`` at least must turn. Raises BadInput where that leaves fewer than two.
    """
    turning = [d for d in dials if d.turn is not None]
    if axis == "blocks":
        resolved = resolve_cell(turning[0].at(turning[0].own), where)
        candidates = [b for b in range(1, resolved.depth + 1) if not resolved.depth % b]
    else:
        candidates = sorted({max(1, round(m * turning[0].own)) for m in _MULTIPLES[axis]})
    values = [value for value in candidates if all(_can_be(d.at(value), where) for d in turning)]
    if len(values) < 2:
        raise BadInput(f"{where}: --over {axis} finds fewer than two values that suit every variant; give --values")
    return values


def _can_be(cell: Cell, where: str) -> bool:
    try:
        check(cell, where)
    except BadInput:
        return False
    return True


def parse_values(text: str) -> list[int]:
    """Return the whole numbers of ``text`` ("4,8,16"), ascending. Raises BadInput for anything else."""
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1 or len(set(values)) < len(values):
        raise BadInput(f"--values {text}: must be different whole numbers from 1 on, such as 4,8,16")
    return sorted(values)


def labelled(cells: Sequence[Cell]) -> list[tuple[str, Cell]]:
    """Return (label, cell) of each configuration, the first of those that differ by their seed only.

    The label is the variant's, with the depth behind it where the suite's grid gives several.
    """
    merged = merged_seeds(cells)
    names = [cell.variant for cell in merged]

    def label(cell: Cell) -> str:
        return cell.variant if names.count(cell.variant) == 1 else f"{cell.variant}.depth-{cell.network.depth}"

    return [(label(cell), cell) for cell in merged]
