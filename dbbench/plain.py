"""Text of unknown origin, made safe for a terminal and for a spreadsheet."""

from __future__ import annotations

from typing import Any


def printable(text: Any) -> str:
    """Return ``text`` on one line, without the characters that would drive a terminal or turn a line round."""
    line = " ".join(str(text).split())
    return line if line.isprintable() else "".join(c for c in line if c.isprintable())


def harmless(text: str) -> str:
    """Return ``text`` as it is laid out, line breaks and tabs included, without what would drive a terminal."""
    if text.isprintable():
        return text
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


def cell(text: str) -> str:
    """Return ``text`` as a cell of a CSV file that no spreadsheet takes for a formula."""
    line = printable(text)
    return f"'{line}" if line[:1] in ("=", "+", "-", "@") else line
