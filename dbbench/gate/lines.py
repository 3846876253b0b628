r"""A line of a baseline, written and read: columns set apart by tabs, names escaped, numbered modules folded.

In a field a backslash escapes: ``\t``, ``\n``, ``\r``, ``\\``, ``\{``, ``\}``, ``\#`` and ``\-`` at its beginning, and
``\xNN``, ``\uNNNN`` or ``\UNNNNNNNN`` for whatever else cannot be seen. A field that is empty is ``-``. Lines of
what is held that differ in one number alone are one line: ``layers.{0..5,7}.up`` stands for seven modules with as many
bytes *each*; the same list stands at every place of the line where that number does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dbbench.report.fold import NUMBER, spelled

_NAMED = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\", "{": "\\{", "}": "\\}"}
_BACK = {escape[1]: character for character, escape in _NAMED.items()} | {"#": "#", "-": "-"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))|\\", re.DOTALL)
_PLACE = re.compile(r"(?<!\\)((?:\\\\)*)\{([0-9.,]+)\}")
#: What a folded number is replaced by while lines are compared; no name that is written can hold it.
_HOLE = "\0"
_MOST = 100_000

Names = tuple[str, str, str]


def escape(field: str) -> str:
    """Return ``field`` as it stands in a column."""
    return _ends("".join(_escaped(character) for character in field))


def _ends(words: str) -> str:
    if not words:
        return "-"
    if words[0] in "#-":
        words = "\\" + words
    return words[:-1] + "\\x20" if words[-1] == " " else words  # editors strip what ends a line


def _escaped(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def unescape(words: str) -> str:
    """Return the field that `escape` wrote. Raises ValueError for an escape that it never writes."""
    if words == "-":
        return ""
    if not words:
        raise ValueError("an empty column; '-' stands for nothing")
    if any(not character.isprintable() for character in words):
        raise ValueError(f"a character that cannot be seen in {words!r}")
    return _ESCAPE.sub(_unescaped, words)


def _unescaped(match: re.Match[str]) -> str:
    digits = match[1] or match[2] or match[3]
    if digits:
        number = int(digits, 16)
        if number > 0x10FFFF:
            raise ValueError(f"no character has the number in '{match[0]}'")
        return chr(number)
    if match[4] not in _BACK:
        raise ValueError(f"'{match[0]}' is no escape")
    return _BACK[match[4]]


def fold_names(rows: Iterable[tuple[Names, int]]) -> list[tuple[str, str, str, int]]:
    """Return (module, op, holder, bytes) as columns, lines that differ in one number alone as one.

    ``rows`` are ((module, op, holder), bytes), no names twice.
    """
    groups: dict[tuple[Names, int], list[int]] = {}
    single: list[tuple[str, str, str, int]] = []
    for names, size in rows:
        template, number = _with_hole(names)
        if number is None:
            single.append((*_columns(names), size))
        else:
            groups.setdefault((template, size), []).append(number)
    for (template, size), numbers in groups.items():
        place = str(numbers[0]) if len(numbers) == 1 else f"{{{spelled(sorted(numbers))}}}"
        module, op, holder = (_filled(name, place) for name in template)
        single.append((module, op, holder, size))
    return sorted(single)


def _with_hole(names: Names) -> tuple[Names, int | None]:
    """Return the names with a hole where the first of the module's numbers stands, else of the holder's."""
    if any(_HOLE in name for name in names):
        return names, None
    found = NUMBER.search(names[0]) or NUMBER.search(names[2])
    if found is None or str(int(found[0])) != found[0] or not found[0].isascii():
        return names, None
    module, op, holder = (_holed(name, found[0]) for name in names)
    return (module, op, holder), int(found[0])


def _holed(name: str, number: str) -> str:
    return NUMBER.sub(lambda match: _HOLE if match[0] == number else match[0], name)


def _filled(name: str, place: str) -> str:
    return _ends("".join(place if character == _HOLE else _escaped(character) for character in name))


def _columns(names: Names) -> Names:
    module, op, holder = (escape(name) for name in names)
    return module, op, holder


def unfold_names(columns: Sequence[str]) -> list[Names]:
    """Return the names that (module, op, holder) stand for. Raises ValueError where they were not folded by us."""
    lists = {match[2] for words in columns for match in _PLACE.finditer(words)}
    if not lists:
        return [_unescaped_names(columns)]
    if len(lists) > 1:
        raise ValueError(f"two lists of numbers in one line: {', '.join(sorted(lists))}")
    return [_unescaped_names([_PLACE.sub(rf"\g<1>{n}", words) for words in columns]) for n in numbers_of(lists.pop())]


def _unescaped_names(columns: Sequence[str]) -> Names:
    for words in columns:
        if re.search(r"(?<!\\)(?:\\\\)*[{}]", words):
            raise ValueError(f"a brace in '{words}' that is not escaped and holds no list of numbers")
    module, op, holder = (unescape(words) for words in columns)
    return module, op, holder


def numbers_of(words: str) -> list[int]:
    """Return the numbers of a list such as ``0..3,7``. Raises ValueError where it is none."""
    found: list[int] = []
    for piece in words.split(","):
        match = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", piece)
        if match is None or int(match[2] or match[1]) - int(match[1]) > _MOST:
            raise ValueError(f"'{words}' is no list of numbers")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    if len(set(found)) < len(found) or found != sorted(found) or not found:
        raise ValueError(f"'{words}' is no list of rising numbers")
    return found
