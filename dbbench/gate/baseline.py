"""The baseline: a text file of what cells must cost, which git merges line by line and people can read and edit.

    dbbench baseline 1
    # a comment belongs to the line that follows it, and stays with it
    vision/backprop  fake
    vision/backprop  fake  2.13.0  activations_bytes       26397700  exact
    vision/backprop  fake  2.13.0  at_peak.activations     layers.{0..5}.mlp.up  aten.addmm  input of gelu …  1114112
    vision/backprop  cpu   2.13.0  test_accuracy           0.8463 sd 0.0038 n 3  p<0.05,1%

The first line names the format. Below it every line is one fact, columns are set apart by a tab, and lines are sorted
as text; nothing counts or sums up the others. A line has, in this order,

    cell source                                                       the cell is in the baseline; between the facts of
                                                                      two cells git finds a line that never changes
    cell source torch metric value tolerance                          a figure; `dbbench.gate.cells` lists the metrics,
                                                                      `dbbench.gate.tolerance` the tolerances
    cell source torch at_peak.ROLE     module op holder bytes         what was held at the peak, to name a culprit by:
    cell source torch at_own_peak.ROLE module op holder bytes         it is not compared; where a role's own peak is
                                                                      more than it holds there, at that too
    cell source torch in_PHASE.temporaries module op holder bytes     and of temporaries at the most that they are in a
                                                                      phase

``source`` is cpu, fake or the name of a device; ``torch`` the version without its build. A mean over seeds is written
``0.8463 sd 0.0038 n 3``. Names are escaped and numbered modules folded (`dbbench.gate.lines`). Reading is strict: what
is none of this is refused with the file and the line, and so are a line given twice and a merge conflict left in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dbbench.errors import BadInput, did_you_mean
from dbbench.files import read as read_file
from dbbench.files import write_atomically
from dbbench.gate import tolerance
from dbbench.gate.cells import AT_PEAK, IN_PHASE, Cell, Figure
from dbbench.gate.lines import escape, fold_names, unescape, unfold_names
from dbbench.results.record import Held
from dbbench.results.roles import PHASES, ROLES

VERSION = 1
_FIRST = "dbbench baseline"
#: Instants as the file names them, and as `Cell.held` does; '' is the role.
_HELD = {"at_peak": AT_PEAK, "at_own_peak": "", **{name: name for name in (f"{IN_PHASE}{phase}" for phase in PHASES)}}
_CONFLICT = re.compile(r"(<<<<<<<|>>>>>>>|\|\|\|\|\|\|\||=======)( |$)")
_VALUE = re.compile(r"(?P<value>[-+.\deE]+)(?: sd (?P<sd>[.\de+-]+) n (?P<n>\d+))?")
_MOST_BYTES = 2**63
_HELD_COLUMNS = 8

#: (cell, source, torch).
Key = tuple[str, str, str]


@dataclass
class Baseline:
    """A baseline's cells by their key. ``present`` are the (cell, source) that it lists, with or without figures.

    ``places`` has the line of each (key, metric); ``comments`` what stood above a line, by what the line is about.
    """

    path: Path
    cells: dict[Key, Cell] = field(default_factory=dict)
    present: set[tuple[str, str]] = field(default_factory=set)
    places: dict[tuple[Key, str], int] = field(default_factory=dict)
    comments: dict[tuple[str, ...], list[str]] = field(default_factory=dict)

    def versions(self, name: str, source: str) -> list[str]:
        """Return the versions of torch that it knows a cell at."""
        return sorted(torch for cell, where, torch in self.cells if (cell, where) == (name, source))

    def text(self) -> str:
        """Return the file's content."""
        rows = [[escape(name), escape(source)] for name, source in self.present]
        rows += [row for cell in self.cells.values() for row in _rows(cell)]
        found = [f"{_FIRST} {VERSION}"]
        comments = dict(self.comments)
        for row in sorted(rows):
            found += [*comments.pop(_about(row), ()), "\t".join(row)]
        return "\n".join([*found, *comments.get((), ())]) + "\n"

    def write(self) -> None:
        """Replace the file; a link to it stays one."""
        write_atomically(self.path, self.text().encode())


def read(path: Path) -> Baseline | None:
    """Return the baseline in ``path``, None where there is no such file. Raises BadInput with the file and line."""
    try:
        text = read_file(path).decode("utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: is not UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    rows = text.split("\n")
    _check_first(path, rows[0].rstrip("\r"))
    if rows.pop():
        raise BadInput(f"{path}:{len(rows) + 1}: the last line has no end: was the file cut short?")
    reader = _Reader(Baseline(path))
    for number, line in enumerate(rows[1:], 2):
        try:
            reader.line(number, line.removesuffix("\r"))
        except ValueError as error:
            raise BadInput(f"{path}:{number}: {error}") from error
    if reader.waiting:
        reader.into.comments[()] = reader.waiting
    return reader.into


def lines(cell: Cell) -> list[str]:
    """Return a cell's lines in their order."""
    return sorted("\t".join(row) for row in _rows(cell))


def figure_line(cell: Cell, metric: str) -> str:
    """Return the line of a cell's figure."""
    return "\t".join(_figure_row(cell, metric))


# ---------------------------------------------------------------------------------------------------------- writing


def _rows(cell: Cell) -> Iterator[list[str]]:
    yield from (_figure_row(cell, metric) for metric in cell.figures)
    start = [escape(column) for column in cell.key]
    for instant, rows in cell.held.items():
        word = "at_peak" if instant == AT_PEAK else instant if instant.startswith(IN_PHASE) else "at_own_peak"
        for role in sorted({row.role for row in rows}):
            names = [((row.module, row.op, row.holder or ""), row.bytes) for row in rows if row.role == role]
            for module, op, holder, size in fold_names(names):
                yield [*start, escape(f"{word}.{role}"), module, op, holder, str(size)]


def _figure_row(cell: Cell, metric: str) -> list[str]:
    figure = cell.figures[metric]
    return [*map(escape, (*cell.key, metric)), value_text(figure), str(figure.tolerance)]


def value_text(figure: Figure) -> str:
    """Return a value as the file has it."""
    words = str(figure.value) if isinstance(figure.value, int) else f"{figure.value + 0.0:.10g}"  # no -0
    return f"{words} sd {figure.sd:.6g} n {figure.n}" if figure.tolerance.kind == "noise" else words


def _about(row: list[str]) -> tuple[str, ...]:
    """Return what a line is about: all but its value, tolerance and version of torch."""
    return (*row[:2], *row[3:4], *(row[4:7] if len(row) == _HELD_COLUMNS else ()))


# ---------------------------------------------------------------------------------------------------------- reading


def _check_first(path: Path, line: str) -> None:
    _refuse_conflict(f"{path}:1", line)
    match = re.fullmatch(rf"{_FIRST} (\d{{1,9}})", line)
    if match is None:
        raise BadInput(f"{path}:1: no baseline of dbbench: its first line would be '{_FIRST} {VERSION}'")
    if int(match[1]) != VERSION:
        age = "newer" if int(match[1]) > VERSION else "older"
        raise BadInput(
            f"{path}:1: version {match[1]} of the format is {age} than the {VERSION} that this dbbench reads; "
            "delete the file and write it anew with --update"
        )


def _refuse_conflict(where: str, line: str) -> None:
    if _CONFLICT.match(line):
        raise BadInput(f"{where}: a merge conflict was left in the file ('{line[:40]}'): keep one side, then --update")


class _Reader:
    """Takes the lines of one file; ``waiting`` are comments whose line has not come yet."""

    def __init__(self, into: Baseline) -> None:
        self.into = into
        self.waiting: list[str] = []
        self._seen: dict[tuple[str, ...], int] = {}

    def line(self, number: int, line: str) -> None:
        """Take a line; ValueError says what is wrong with it."""
        _refuse_conflict(f"{self.into.path}:{number}", line)
        if line.startswith("#"):
            self.waiting.append(line)
            return
        if not line.strip():
            return
        row = line.split("\t")
        take = {2: self._cell, 6: self._figure, _HELD_COLUMNS: self._held}.get(len(row))
        if take is None:
            raise ValueError(f"a line has 2, 6 or {_HELD_COLUMNS} columns set apart by tabs, not {len(row)}")
        take(number, row)
        if self.waiting:
            self.into.comments.setdefault(_about(row), []).extend(self.waiting)
            self.waiting = []

    def _once(self, number: int, *names: str) -> None:
        before = self._seen.setdefault(names, number)
        if before != number:
            raise ValueError(f"{' '.join(filter(None, names))} stands in line {before} already")

    def _cell(self, number: int, row: list[str]) -> None:
        name, source = map(unescape, row)
        self._once(number, name, source)
        self.into.present.add((name, source))

    def _of(self, row: list[str]) -> Cell:
        name, source, torch = (unescape(words) for words in row[:3])
        if not (name and source and torch):
            raise ValueError("cell, source and torch must be given")
        self.into.present.add((name, source))
        return self.into.cells.setdefault((name, source, torch), Cell(name, source, torch, {}))

    def _figure(self, number: int, row: list[str]) -> None:
        cell, metric = self._of(row), unescape(row[3])
        if not metric:
            raise ValueError("the metric must be given")
        self._once(number, *cell.key, metric)
        cell.figures[metric] = _figure(row[4], tolerance.parse(row[5]))
        self.into.places[cell.key, metric] = number

    def _held(self, number: int, row: list[str]) -> None:
        cell, (instant, _, role) = self._of(row), unescape(row[3]).partition(".")
        if instant not in _HELD:
            raise ValueError(f"'{row[3]}' is none of {', '.join(f'{name}.ROLE' for name in _HELD)}")
        if role not in ROLES:
            raise ValueError(f"unknown role '{role}'{did_you_mean(role, ROLES)}")
        size = _figure(row[7], tolerance.EXACT).value
        if not isinstance(size, int):
            raise ValueError(f"'{row[7]}' is no number of bytes")
        for module, op, holder in unfold_names(row[4:7]):
            self._once(number, *cell.key, instant, role, module, op, holder)
            held = Held(role=role, module=module, op=op, holder=holder or None, bytes=size, storages=1)
            cell.held.setdefault(_HELD[instant] or role, []).append(held)


def _figure(words: str, within: tolerance.Tolerance) -> Figure:
    match = _VALUE.fullmatch(words)
    no_value = f"'{words}' is no value: 1234, or of a mean over seeds '0.85 sd 0.01 n 3'"
    if match is None:
        raise ValueError(no_value)
    try:
        value = int(match["value"]) if re.fullmatch(r"-?\d+", match["value"]) else float(match["value"])
        sd, n = float(match["sd"] or 0), int(match["n"] or 1)
    except ValueError as error:
        raise ValueError(no_value) from error
    if match["n"] is None and within.kind == "noise":
        raise ValueError(f"'{words}' has no deviation, and its tolerance is of a mean over seeds: '0.85 sd 0.01 n 3'")
    if not (-_MOST_BYTES * 2 < value < _MOST_BYTES * 2 and 0 <= sd < _MOST_BYTES and n > 0):  # NaN is none of it
        raise ValueError(f"'{words}' is out of all bounds")
    return Figure(value, within, sd, n)
