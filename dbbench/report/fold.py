"""Lines that differ in the numbers of their names alone become one: ``layers.{0..11}.mlp``, twelve times.

A number folds where it is a whole part of a path, as in a list of layers, or the index of a variable, as in
``losses[3]``; ``conv1`` and ``conv2`` are two names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import groupby
from typing import TypeVar

Line = TypeVar("Line")

NUMBER = re.compile(r"(?:(?<![^\s.])|(?<=\[))\d+(?:(?![^\s.])|(?=\]))")


def fold(
    lines: Iterable[Line], names: Callable[[Line], Sequence[str]], alike: Callable[[Line], Hashable]
) -> list[tuple[list[str], list[Line]]]:
    """Group the lines that share ``alike`` and, but for their numbers, ``names``.

    Returns (names as written for the group, its lines) in the order of each group's first line.
    """
    groups: dict[Hashable, list[Line]] = {}
    for line in lines:
        shape = tuple(NUMBER.sub("0", name) for name in names(line))
        groups.setdefault((alike(line), shape), []).append(line)
    return [
        ([_joined(column) for column in zip(*(names(line) for line in group), strict=True)], group)
        for group in groups.values()
    ]


def _joined(names: Sequence[str]) -> str:
    """Write names that differ in their numbers alone as one."""
    columns = list(zip(*(NUMBER.findall(name) for name in names), strict=True))
    pieces = NUMBER.split(names[0])
    words = pieces[0]
    for column, piece in zip(columns, pieces[1:], strict=True):
        numbers = sorted({int(number) for number in column})
        if len(numbers) == 1:
            words += column[0]
        else:
            words += spelled(numbers) if words.endswith("[") else f"{{{spelled(numbers)}}}"
        words += piece
    return words


def spelled(numbers: Sequence[int]) -> str:
    """Write sorted numbers with runs of three and more drawn together: ``0..3,7,9``."""
    words = []
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        words += [f"{members[0]}..{members[-1]}"] if len(members) > 2 else [str(number) for number in members]
    return ",".join(words)
