"""One page, four ways to show it: in a terminal with rich, as plain text, as Markdown, and as HTML for a notebook.

A page is made of `Heading`, `Lines` and `Grid`. Names in it may hold anything; each way escapes what it must.
"""

from __future__ import annotations

import html
import io
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from dbbench.report import text

_RIGHT = ' style="text-align:right"'
_NARROWEST, _WIDEST, _USUAL = 80, 160, 120


@dataclass(frozen=True)
class Heading:
    """A heading; ``level`` 0 is the page's own."""

    words: str
    level: int = 1


@dataclass(frozen=True)
class Lines:
    """Sentences, one a line."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Grid:
    """A table. The first ``words`` columns are text, set as code in Markdown from ``names`` on; the rest are figures.

    The last ``totals`` rows sum up those above them.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    names: int = 1
    totals: int = 0


Block = Heading | Lines | Grid


class Shown(ABC):
    """What can be put on a page: shows itself to rich, to ``print``, to a notebook and as Markdown."""

    @abstractmethod
    def blocks(self) -> list[Block]:
        """Return what the page holds."""

    def __rich__(self) -> RenderableType:
        return Group(*(_rich(block) for block in self.blocks()))

    def __str__(self) -> str:
        width = min(max(shutil.get_terminal_size((_USUAL, 24)).columns, _NARROWEST), _WIDEST)
        file = io.StringIO()
        Console(file=file, width=width, color_system=None, force_terminal=False, emoji=False).print(self.__rich__())
        return "\n".join(line.rstrip() for line in file.getvalue().splitlines())

    def markdown(self, level: int = 1) -> str:
        """Return the page as Markdown; ``level`` is that of its first heading."""
        return "\n\n".join(_markdown(block, level) for block in self.blocks()) + "\n"

    def _repr_html_(self) -> str:
        return "\n".join(_html(block) for block in self.blocks())


def _rich(block: Block) -> RenderableType:
    if isinstance(block, Heading):
        return Text(("" if block.level == 0 else "\n") + _plain(block.words), style="bold")
    if isinstance(block, Lines):
        return Text("\n".join(_plain(line) for line in block.lines))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, name in enumerate(block.header):
        if place < block.words:
            table.add_column(Text(name), overflow="fold")
        else:
            table.add_column(Text(name), justify="right", no_wrap=True)
    for place, row in enumerate(block.rows, 1):
        above_totals = block.totals and place == len(block.rows) - block.totals
        table.add_row(*(Text(_plain(cell)) for cell in row), end_section=bool(above_totals))
    return table


def _markdown(block: Block, level: int) -> str:
    if isinstance(block, Heading):
        return f"{'#' * (level + block.level)} {text.escaped(block.words)}"
    if isinstance(block, Lines):
        return "\n".join(f"- {text.escaped(line)}" for line in block.lines)
    rows = [
        [
            text.code(cell) if block.names <= place < block.words else text.escaped(cell)
            for place, cell in enumerate(row)
        ]
        for row in block.rows
    ]
    return text.markdown_table([text.escaped(name) for name in block.header], rows, left=block.words)


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        tag = f"h{min(3 + block.level, 6)}"
        return f"<{tag}>{html.escape(text.printable(block.words))}</{tag}>"
    if isinstance(block, Lines):
        return "<p>" + "<br>\n".join(html.escape(text.printable(line)) for line in block.lines) + "</p>"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in block.header)
    rows = []
    for row in block.rows:
        cells = [
            f"<td{_RIGHT if place >= block.words else ''}>{html.escape(text.printable(cell))}</td>"
            for place, cell in enumerate(row)
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(rows) + "\n</tbody></table>"


def _plain(words: str) -> str:
    """Return ``words`` for a terminal. Where a line is broken before two colons, GitHub would read a command of it."""
    return text.printable(words).replace("::", ":\u2060:")
