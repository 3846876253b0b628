"""What is to be seen of a mistake, and where: in what is held at the peak, in the ledger's table, in a difference."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import dbbench
from benchmarks.leaks.train import Watch

MIB = 2**20
_ANYTHING = ".*"


@dataclass(frozen=True)
class Sign:
    """Lines of this role, whose module, op and holder match the patterns, hold ``bytes`` more than in the clean script.

    ``bytes`` is counted by hand from shapes; with ``exact`` it is no mere lower bound.
    """

    role: str
    bytes: int
    module: str = _ANYTHING
    op: str = _ANYTHING
    holder: str = _ANYTHING
    exact: bool = True

    def held_bytes(self, ledger: dbbench.Ledger) -> int:
        """Return the bytes at the peak of the lines that match."""
        return sum(h.bytes for h in ledger.peak.held if self._matches(h.role, h.module, h.op, h.holder or ""))

    def lines(self, ledger: dbbench.Ledger) -> list[list[str]]:
        """Return those lines of the ledger's table, as it is printed by default, that match: (role, …, MiB, …)."""
        page = ledger.table().markdown().split("## Held at the peak")[1]
        rows = [line for line in page.splitlines() if line.startswith("| ")]
        cells = [[cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
        return [row for row in cells if len(row) > 4 and self._matches(*row[:4])]

    def table_bytes(self, ledger: dbbench.Ledger) -> int:
        """Return the bytes of `lines`, which are rounded to 0.01 MiB each."""
        return sum(round(float(row[5].replace(",", "").replace("<", "")) * MIB) for row in self.lines(ledger))

    def in_sentence(self, sentence: str) -> bool:
        """Tell whether a sentence of a difference says it: the role first, then wherever it is."""
        places = [place for place in (self.module, self.op, self.holder) if place != _ANYTHING]
        return sentence.startswith(f"{self.role} ") and all(re.search(place, sentence) for place in places)

    def _matches(self, role: str, module: str, op: str, holder: str) -> bool:
        pairs = ((self.module, module), (self.op, op), (self.holder, holder))
        return role == self.role and all(re.fullmatch(pattern, found) for pattern, found in pairs)


@dataclass(frozen=True)
class Mistake:
    """One script with its mistake, the story of it in a sentence, and what is to be seen."""

    name: str
    story: str
    script: Callable[[Watch], None]
    signs: tuple[Sign, ...]


MISTAKES: dict[str, Mistake] = {}


def mistake(*signs: Sign) -> Callable[[Callable[[Watch], None]], Callable[[Watch], None]]:
    """Register a script, whose docstring is its story, and what is to be seen of its mistake."""

    def register(script: Callable[[Watch], None]) -> Callable[[Watch], None]:
        name, story = script.__name__, " ".join((script.__doc__ or "").split())
        MISTAKES[name] = Mistake(name, story, script, signs)
        return script

    return register
