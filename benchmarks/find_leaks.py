"""What the ledger says of twelve mistakes in a small training script, told nothing but model, optimizer and batch.

    python -m benchmarks.find_leaks [--out reports/ledger/leaks.md] [MISTAKE …]

A single MISTAKE prints its whole table and its difference from the clean script. Exit status 1 if one is not found.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

import dbbench
from benchmarks.leaks.catalogue import MISTAKES, Mistake, Sign
from benchmarks.leaks.mistakes import GRAPH_BYTES, PARAMETERS_BYTES
from benchmarks.leaks.train import STEPS, ledger_of, train
from dbbench.profile.table import warnings
from dbbench.report import text

SEVERAL = 2

HEADER = """\
# Twelve mistakes, and what the ledger says of them

A [training script](../../benchmarks/leaks/train.py) and [twelve copies of it](../../benchmarks/leaks/mistakes.py) with
a mistake each, on CPU with torch {torch}. The ledger is told the model, the optimizer and the batch, and nothing of
the mistake. It opens around the last of {steps} steps (**late**), or before step {several} and stays (**open**).

Parameters are {parameters} MiB, the activations of a step {graph} MiB; the clean script peaks at {peak} MiB.
**Role** and **module or holder** are what the table's lines say that show the mistake, at its default length.
**Late**, **open**: MiB that they hold more than in the clean script at the peak. **By hand**: the same, counted from
the script's shapes; with ≥ a lower bound. **The difference's first sentence** is that of `clean.diff(mistaken)`, late.
{found} of {all} are found, to the byte or above the bound.
"""
WARNINGS = """
## What the tables warn of

Lines that begin with `!` in the late ledger's table, without a clean script to compare with. The clean script has none.
"""
COLUMNS = ["mistake", "role", "module or holder", "late", "open", "by hand", "the difference's first sentence"]


class Seen:
    """A mistake's two ledgers beside those of the clean script."""

    def __init__(self, mistake: Mistake, clean: tuple[dbbench.Ledger, dbbench.Ledger]) -> None:
        self.mistake, self._clean = mistake, clean
        self._ledgers = ledger_of(mistake.script), ledger_of(mistake.script, SEVERAL)
        self.sentences = clean[0].diff(self._ledgers[0]).sentences()
        self.warnings = warnings(self._ledgers[0].profile())

    def more_bytes(self, sign: Sign) -> list[int]:
        """Return what ``sign`` shows more than in the clean script: late, and open for several steps."""
        pairs = zip(self._ledgers, self._clean, strict=True)
        return [sign.held_bytes(mistaken) - sign.held_bytes(clean) for mistaken, clean in pairs]

    @property
    def is_found(self) -> bool:
        """Tell whether every sign is there, and in the late table's lines."""
        return all(
            more == sign.bytes if sign.exact else more >= sign.bytes
            for sign in self.mistake.signs
            for more in self.more_bytes(sign)
        ) and all(sign.lines(self._ledgers[0]) for sign in self.mistake.signs)

    def cells(self) -> list[str]:
        """Return the report's row; a sign a line within it."""
        columns: list[list[str]] = [[], [], [], [], []]
        for sign in self.mistake.signs:
            late, several = map(text.mib, self.more_bytes(sign))
            by_hand = ("" if sign.exact else "≥ ") + text.mib(sign.bytes)
            cells = (sign.role, text.code(self._place(sign)), late, several, by_hand)
            for column, cell in zip(columns, cells, strict=True):
                column.append(cell)
        story = f"{text.code(self.mistake.name)}: {text.escaped(self.mistake.story.replace('`', ''))}"
        return [story, *("<br>".join(column) for column in columns), text.code(self.sentences[0])]

    def _place(self, sign: Sign) -> str:
        """Return where the largest line of the table that shows ``sign`` says it is."""
        lines = sign.lines(self._ledgers[0])
        if not lines:
            return "not in the table"
        _, module, op, holder = lines[0][:4]
        return f"{module}: {holder}" if module and holder else holder or module or op


def report(rows: list[Seen], clean: dbbench.Ledger) -> str:
    """Return the table under its header, in Markdown."""
    header = HEADER.format(
        torch=torch.__version__,
        steps=STEPS,
        several=SEVERAL,
        parameters=text.mib(PARAMETERS_BYTES),
        graph=text.mib(GRAPH_BYTES),
        peak=text.mib(clean.peak.bytes),
        found=sum(row.is_found for row in rows),
        all=len(rows),
    )
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---|---|--:|--:|--:|---|"]
    lines += [f"| {' | '.join(row.cells())} |" for row in rows]
    warned = [f"- {text.code(row.mistake.name)}: {text.escaped(line)}" for row in rows for line in row.warnings]
    return "\n".join([header, *lines, WARNINGS, *warned]) + "\n"


def main() -> int:
    """Run the mistakes named, or all, and print the report, or write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mistakes", nargs="*", metavar="MISTAKE", help="default: all twelve")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.mistakes if name not in MISTAKES]
    if unknown:
        parser.error(f"no such mistake: {', '.join(unknown)}")
    clean = ledger_of(train), ledger_of(train, SEVERAL)
    if len(arguments.mistakes) == 1:
        mistaken = ledger_of(MISTAKES[arguments.mistakes[0]].script)
        print(mistaken.table(), clean[0].diff(mistaken), sep="\n\n")
        return 0
    rows = [Seen(MISTAKES[name], clean) for name in arguments.mistakes or MISTAKES]
    if arguments.out is None:
        print(report(rows, clean[0]))
    else:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(report(rows, clean[0]), encoding="utf-8")
    missed = [row.mistake.name for row in rows if not row.is_found]
    if missed:
        print(f"not found: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
