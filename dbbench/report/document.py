"""What a report says before it is Markdown or HTML: marked sentences, lists and tables.

A *marked* text is plain text in which names and other data stand between control characters. `printable` keeps those
out of every name, so a mark cannot be forged, and sentences stay readable f-strings. `markdown` and the page's own
renderer turn the same text into their form; each escapes what the marks say is data in its own way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from dbbench.report import text

CODE, DATA, STRONG = ("\x01", "\x02"), ("\x03", "\x04"), ("\x05", "\x06")
_IN_A_ROW = 24
_CODE, _DATA = (re.compile(f"{start}([^{end}]*){end}") for start, end in (CODE, DATA))


def code(name: Any) -> str:
    """Mark a name, such as a variant's label."""
    return f"{CODE[0]}{text.printable(name)}{CODE[1]}"


def data(words: Any) -> str:
    """Mark words that are shown literally: an error's text, a task's name."""
    return f"{DATA[0]}{text.printable(words)}{DATA[1]}"


def strong(marked: str) -> str:
    """Mark words that carry a sentence; they may hold data."""
    return f"{STRONG[0]}{marked}{STRONG[1]}"


class Cell(NamedTuple):
    """A table's cell: its marked text, and the exact value that it is sorted by (None: by its text)."""

    words: str
    value: int | float | str | None = None


@dataclass(frozen=True)
class Grid:
    """A table. The first ``left`` columns are text, the others figures; header and cells are marked texts.

    A page folds it away under the words ``folded``, where there are any.
    """

    header: list[str]
    rows: list[list[Cell]]
    left: int = 1
    folded: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list of marked texts."""

    lines: list[str]


Block = str | Grid | Bullets


@dataclass(frozen=True)
class Section:
    """A heading (plain text) and what stands below it."""

    title: str
    blocks: list[Block] = field(default_factory=list)


def figure(write: Callable[[Any], str], value: Any) -> Cell:
    """A cell that shows ``value`` as ``write`` does and is sorted by it; a null stands last and shows a dash."""
    return Cell(write(value), None if pd.isna(value) else value)


def words(value: Any) -> Cell:
    """A cell of data, a dash where there is none."""
    return Cell(text.MISSING if pd.isna(value) else data(value))


def name(label: Any) -> Cell:
    """A cell with a name."""
    return Cell(code(label))


def codes(labels: Sequence[str]) -> str:
    """Names in a row, with commas; past two dozen they are counted."""
    rest = f" and {len(labels) - _IN_A_ROW:,} more" if len(labels) > _IN_A_ROW else ""
    return ", ".join(map(code, labels[:_IN_A_ROW])) + rest


def plain(marked: str) -> str:
    """A marked text without its marks, for a terminal."""
    return marked.translate(dict.fromkeys(range(1, 7)))


def markdown(block: Block) -> str:
    """Return a block as Markdown."""
    if isinstance(block, Bullets):
        return "\n".join(f"- {_inline(line)}" for line in block.lines)
    if isinstance(block, Grid):
        rows = [[_inline(cell.words) for cell in row] for row in block.rows]
        return text.markdown_table([_inline(title) for title in block.header], rows, block.left)
    return _inline(block)


def markdown_section(section: Section) -> str:
    """Return a section of level two as Markdown."""
    return "\n\n".join([f"## {section.title}", *map(markdown, section.blocks)])


def _inline(marked: str) -> str:
    coded = _CODE.sub(lambda found: text.code(found[1]), marked)
    shown = _DATA.sub(lambda found: text.escaped(found[1]), coded)
    return shown.replace(STRONG[0], "**").replace(STRONG[1], "**")
