"""Marked texts, tables and lists as HTML, cut to what a page can hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from dbbench.report.document import CODE, DATA, STRONG, Block, Bullets, Cell, Section, plain

#: A page lists so many rows of a table and lines of a list; what is left out is counted.
ROWS, LINES = 300, 60
#: A longer text in a cell, such as an error with its traceback, is cut; the record has the rest.
CELL_CHARACTERS = 600

_TAGS = {CODE[0]: "<code>", CODE[1]: "</code>", STRONG[0]: "<strong>", STRONG[1]: "</strong>", DATA[0]: "", DATA[1]: ""}
_TABLE = str.maketrans(_TAGS)


def inline(marked: str) -> Markup:
    """Return a marked text as HTML: everything in it escaped, names set as code."""
    return Markup(str(escape(marked)).translate(_TABLE))


def safe_json(value: Any) -> Markup:
    """Return ``value`` as JSON that can stand inside a script element, whatever its texts hold."""
    body = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        body = body.replace(character, f"\\u{ord(character):04x}")
    return Markup(body)


@dataclass(frozen=True)
class CellView:
    """A cell: its HTML, and the exact value it is sorted by as an attribute, '' where its text decides."""

    html: Markup
    value: str


@dataclass(frozen=True)
class TableView:
    """A table ready for the template: which columns hold figures, and in ``note`` how many rows are left out."""

    id: str
    caption: str
    header: list[Markup]
    rows: list[list[CellView]]
    figures: list[bool]
    sortable: bool
    note: str
    folded: str
    kind: str = "table"


@dataclass(frozen=True)
class ListView:
    lines: list[Markup]
    note: str
    kind: str = "list"


@dataclass(frozen=True)
class TextView:
    html: Markup
    kind: str = "text"


@dataclass(frozen=True)
class SectionView:
    """A section ready for the template."""

    id: str
    title: str
    blocks: list[TableView | ListView | TextView]


def section_view(section: Section, id: str, caption: str, sortable: bool = True) -> SectionView:
    """Return ``section`` for the template; ids of its tables follow from ``id``, which is unique on the page."""
    blocks = [block_view(b, f"{id}-{place}", caption, sortable) for place, b in enumerate(section.blocks)]
    return SectionView(id, section.title, blocks)


def block_view(block: Block, id: str, caption: str, sortable: bool = True) -> TableView | ListView | TextView:
    """Return one block for the template."""
    if isinstance(block, str):
        return TextView(inline(block))
    if isinstance(block, Bullets):
        return ListView([inline(line) for line in block.lines[:LINES]], _left_out(len(block.lines), LINES, "lines"))
    shown = [[_cell(cell, first=i == 0) for i, cell in enumerate(row)] for row in block.rows[:ROWS]]
    note = _left_out(len(block.rows), ROWS, "rows")
    header = [inline(title) for title in block.header]
    figures = [any(row[i].value for row in shown) for i in range(len(header))]
    return TableView(id, caption, header, shown, figures, sortable and len(shown) > 1, note, block.folded)


def _cell(cell: Cell, first: bool) -> CellView:
    words = cell.words
    if len(words) > CELL_CHARACTERS:
        words = plain(words)[:CELL_CHARACTERS] + " … (cut here)"
    value = "" if cell.value is None else cell.value
    html = inline(words)
    if first:  # a long name breaks where a reader would break it
        html = Markup(str(html).replace("_", "_<wbr>"))
    return CellView(html, str(value.item() if isinstance(value, np.generic) else value))


def _left_out(count: int, shown: int, words: str) -> str:
    return f"The first {shown:,} of {count:,} {words}; the rest is in the run's folder." if count > shown else ""
