"""The ledger against the CPU allocator, op by op, over every kind of training step in the catalogue.

    python -m benchmarks.ledger_accuracy [--out reports/ledger/accuracy.md] [KIND …]

Exit status 1 if a kind is not explained to the byte, and is no known limit.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.ledger_steps import LIMITS, STEPS, Kind
from benchmarks.ledger_steps.peers import ledger_of_the_declared, mem_tracker_peak_bytes, saved_peak_bytes
from benchmarks.ledger_steps.truth import Run, alone, compared, under_idle_mode, watched

HEADER = """\
# The ledger's accuracy

{kinds} kinds of training step, CPU, one thread, torch {torch}. In {exact} of them the ledger's peak is the allocator's
to the byte; in {workspace} more it is but for the workspace of one op, which is named; {wrong} not explained{limits}.
At the ends of {ops:,} ops the two accounts were compared; {unequal:,} differ.

Bytes throughout. **Opened**: whether the ledger was there before the model, or came after it had trained.
**Ops**: those at whose end the live bytes of both accounts were compared, and how many differ.
**Ledger's peak**: `peak_bytes`. **Allocator's peak**: the most bytes live in torch's CPU allocator during the measured
step of the same run, from its own events in the profiler, counted since before the model was built.
**Residue**: the difference.
**Workspace**: what the op running at the allocator's peak had allocated then and gave back before it ended, in the
kernel or, for a Python number, around the call; who looks at results cannot see it. With every op's workspace taken
out, the allocator's peak equals the ledger's in each explained kind.
**Peak moved**: the allocator's peak under the ledger less that of a bare run; where it is not 0, an idle dispatch mode
moves it by the same bytes{idle}: under any mode torch takes other ways in places.
**Activations**: the role's own peak, casts of weights that autocast keeps included, beside what
`torch.autograd.graph.saved_tensors_hooks` counts; hooks see nothing inside a checkpoint, under other hooks, or inside a
wrapper.
**MemTracker**: the peak of `torch.distributed._tools.mem_tracker` over a warm step, less the peak of a ledger told the
same and no more; or what it raises. It misses random-number states and Python numbers, and takes numpy's memory for
torch's.
"""

COLUMNS = (
    "kind | what it is | opened | ops | unequal | ledger's peak | allocator's peak | residue | workspace "
    "| peak moved | activations | hooks | MemTracker"
)


@dataclass
class Row:
    """One kind's figures, and whether they are explained."""

    kind: Kind
    error: str = ""
    run: Run | None = None
    activations: int = 0
    moved_bytes: int = 0
    moved_by_idle_mode: bool = True
    hooks: str = ""
    mem_tracker: str = ""

    @property
    def is_explained(self) -> bool:
        """Tell whether every byte of the two peaks and of every op's end is accounted for."""
        run = self.run
        if run is None or run.differences or run.visible_peak_bytes != run.ledger_peak_bytes:
            return False
        if run.peak_op is None or run.bytes_under_peak_op is None:
            return run.residue_bytes == 0
        return run.allocator_peak_bytes == run.bytes_under_peak_op + run.workspace_bytes

    def cells(self) -> list[str]:
        """Return the table's cells."""
        start = [f"`{self.kind.name}`", self.kind.about, self.kind.opens]
        if self.run is None:
            return [*start, *[""] * 9, self.error]
        run, workspace = self.run, ""
        if run.residue_bytes:
            workspace = f"{run.workspace_bytes:,} `{run.peak_op}`"
        peaks = [f"{run.ledger_peak_bytes:,}", f"{run.allocator_peak_bytes:,}", f"{run.residue_bytes:,}"]
        ends = [f"{self.moved_bytes:,}", f"{self.activations:,}", self.hooks, self.mem_tracker]
        return [*start, f"{run.ops:,}", f"{len(run.differences):,}", *peaks, workspace, *ends]


def _or_error(figure: Callable[[], int]) -> str:
    try:
        return f"{figure():,}"
    except Exception as error:
        return type(error).__name__


def measure(kind: Kind) -> Row:
    """Run ``kind`` in every way and return its row."""
    row = Row(kind)
    try:
        row.run = compared(kind)
        seen = watched(kind)
    except Exception as error:
        row.run, row.error = None, f"the ledger raises {type(error).__name__}: {error}"
        return row
    bare = alone(kind).allocator_peak_bytes
    row.moved_bytes = seen.allocator_peak_bytes - bare
    if row.moved_bytes:
        row.moved_by_idle_mode = under_idle_mode(kind).allocator_peak_bytes == seen.allocator_peak_bytes
    assert seen.account is not None
    row.activations = seen.account.own_peaks["activations"] + seen.account.own_peaks["weight_casts"]
    row.hooks = _or_error(lambda: saved_peak_bytes(kind))
    row.mem_tracker = _or_error(lambda: mem_tracker_peak_bytes(kind) - ledger_of_the_declared(kind).peak_bytes)
    return row


def report(rows: list[Row]) -> str:
    """Return the table under its header, in Markdown."""
    explained = [row for row in rows if row.is_explained and row.run is not None]
    unexplained = {row.kind.name for row in rows} - {row.kind.name for row in explained}
    exact = sum(row.run is not None and row.run.residue_bytes == 0 for row in explained)
    idle = all(row.moved_by_idle_mode for row in rows)
    text = HEADER.format(
        kinds=len(rows),
        torch=torch.__version__,
        exact=exact,
        workspace=len(explained) - exact,
        wrong=len(rows) - len(explained),
        limits="".join(f" (`{name}`: {why})" for name, why in LIMITS.items() if name in unexplained),
        ops=sum(row.run.ops for row in rows if row.run is not None),
        unequal=sum(len(row.run.differences) for row in rows if row.run is not None),
        idle="" if idle else " (not so in every kind)",
    )
    aligned = "|".join(["---"] * 3 + ["--:"] * 5 + ["---"] + ["--:"] * 4)
    lines = [text, f"| {COLUMNS} |", f"|{aligned}|", *(f"| {' | '.join(row.cells())} |" for row in rows)]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure the kinds named, or all, and print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="default: every kind of the catalogue")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    unknown = [name for name in arguments.kinds if name not in STEPS]
    if unknown:
        parser.error(f"no such kind: {', '.join(unknown)}")
    rows = [measure(STEPS[name]) for name in arguments.kinds or STEPS]
    text = report(rows)
    if arguments.out is None:
        print(text)
    else:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text, encoding="utf-8")
    wrong = [row.kind.name for row in rows if not row.is_explained or not row.moved_by_idle_mode]
    wrong = [name for name in wrong if name not in LIMITS]
    if wrong:
        print(f"not explained: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
