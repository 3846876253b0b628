"""Estimates as a table: what each cell would take at its peak, by role, and whether that fits a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from dbbench.files import write_atomically
from dbbench.report import text
from dbbench.results.estimate import AllocatorFigures, Bound, EstimateLine, Estimates
from dbbench.results.record import Record, Row
from dbbench.results.roles import ROLES
from dbbench.results.store import RunFolder, to_json

ESTIMATES_FILE = "estimates.json"
PAGE_FILE = "estimate.md"
GIB, MIB = 2**30, 2**20
#: Roles with a column of their own; the others are summed up as the rest, so that all of them sum to the peak.
SHOWN = ("parameters", "gradients", "optimizer", "activations", "temporaries")
REST = tuple(role for role in ROLES if role not in SHOWN)
#: Headings as a terminal has room for them.
SHORT = {
    "parameters": "param",
    "gradients": "grad",
    "optimizer": "optim",
    "activations": "activ",
    "temporaries": "temp",
    "allocated": "alloc",
    "reserved": "reserv",
    "expandable": "expand",
    "reserved, asked": "asked",
    "TFLOPs / step": "TFLOPs",
}


@dataclass(frozen=True)
class EstimateTable:
    """The table of ``estimates``; ``records`` holds the record of each of its lines, by hash."""

    estimates: Estimates
    records: dict[str, Record]

    @property
    def pairs(self) -> list[tuple[EstimateLine, Row]]:
        """Each line with its row, failed cells left out."""
        found = [(line, self.records[line.config_hash].row) for line in self.estimates.lines]
        return [(line, row) for line, row in found if row.status == "ok"]

    @property
    def failures(self) -> list[str]:
        """A line for each cell that could not be estimated."""
        rows = [self.records[line.config_hash].row for line in self.estimates.lines]
        return [f"{row.variant}: {row.error}" for row in rows if row.status != "ok"]

    def grid(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and the rows; sizes are in `unit`."""
        asked, budget = self.estimates.allocator, self.estimates.budget
        header = ["variant", "network", "batch", "peak", *SHOWN, "rest", "allocated", "reserved", "expandable"]
        header += ["reserved, asked"] if asked else []
        header += ["TFLOPs / step"]
        header += ["step takes", "bound by"] if budget and budget.device_model else []
        header += ["fits"] if budget else []
        return header, [self._cells(line, row) for line, row in self.pairs]

    def _cells(self, line: EstimateLine, row: Row) -> list[str]:
        asked, budget = self.estimates.allocator, self.estimates.budget
        sizes = {role: getattr(row, f"{role}_bytes") for role in ROLES}
        figures = [row.peak_bytes, *(sizes[role] for role in SHOWN), sum(sizes[role] for role in REST)]
        figures += [row.allocated_bytes, row.reserved_bytes, row.reserved_expandable_bytes]
        figures += [line.allocators[0].reserved_bytes] if asked else []
        cells = [row.variant, f"{row.network} {row.network_size}", str(row.batch_size), *map(self._size, figures)]
        at_least = "≥ " if text.is_lower_bound(row.uncounted_ops) else ""
        cells.append(text.MISSING if row.flops_step is None else f"{at_least}{row.flops_step / 1e12:,.4g}")
        cells += _bound(line.bound) if budget and budget.device_model else []
        cells += [_fits(line, line.allocators[-1])] if budget else []
        return cells

    @property
    def unit(self) -> str:
        """GiB, or MiB where no peak reaches one."""
        return "GiB" if max((row.peak_bytes or 0 for _, row in self.pairs), default=0) >= GIB else "MiB"

    def _size(self, size_bytes: int | None) -> str:
        if size_bytes is None:
            return text.MISSING
        scale = GIB if self.unit == "GiB" else MIB
        return "<0.01" if 0 < size_bytes < 0.005 * scale else f"{size_bytes / scale:,.2f}"

    # -- shown --------------------------------------------------------------------------------------------------

    def rich(self) -> Table:
        """Return what a terminal shows."""
        table = Table(title=f"{self.title}, {self.unit}", title_justify="left", box=None, pad_edge=False)
        header, rows = self.grid()
        for i, name in enumerate(header):
            words = i < 2 or name == "bound by"
            table.add_column(
                SHORT.get(name, name), justify="left" if words else "right", overflow="fold", no_wrap=not words or not i
            )
        for row in rows:
            table.add_row(*map(text.printable, row))
        return table

    def markdown(self) -> str:
        """Return ``estimate.md``."""
        header, rows = self.grid()
        shown = [[text.code(row[0]), *map(text.escaped, row[1:])] for row in rows]
        parts = [f"# {text.escaped(self.title)}", f"Sizes are in {self.unit}."]
        parts += [text.markdown_table(header, shown, left=2)] if rows else []
        notes = [*(f"not estimated: {failure}" for failure in self.failures), *self.notes()]
        parts.append("\n".join(f"- {text.escaped(note)}" for note in notes))
        return "\n\n".join(parts) + "\n"

    @property
    def title(self) -> str:
        """``paper-scale on h100-80gb, estimated``."""
        budget = self.estimates.budget
        where = "" if budget is None else f" on {budget.device_model or f'{budget.memory_bytes / GIB:.4g} GiB'}"
        return f"{self.estimates.suite}{where}, estimated"

    def notes(self) -> list[str]:
        """Return what the table's words mean, a sentence or two each."""
        asked, budget = self.estimates.allocator, self.estimates.budget
        notes = [
            "Estimated: each cell's own measuring steps ran on fake tensors, which have shapes and no memory, on no "
            "device. Not in it: the CUDA context, what libraries take inside an op (cuBLAS, cuDNN), and kernels that "
            "CUDA picks where the CPU has others.",
            "The roles are those at the instant of the peak, and with the rest (weight casts, buffers, inputs, and "
            "what was retained) they sum to it.",
            "allocated and reserved: torch's caching allocator, simulated with its default settings; expandable: what "
            "it reserves with expandable_segments:True" + (f"; reserved, asked: with {asked}." if asked else "."),
        ]
        if budget and budget.device_model:
            notes.append(
                "step takes: at least so long on this device. It is the largest of arithmetic (FLOPs at the peak "
                "rate), optimizer (its bytes at the memory's bandwidth) and transfers (at the host link), and bound "
                "by says which."
            )
        if budget:
            notes.append(
                "fits: in training the simulated allocator never runs out of "
                f"{budget.memory_bytes / GIB:.2f} GiB less "
                f"{budget.headroom_bytes / MIB:,.0f} MiB for context and libraries, which is an allowance and not a "
                "measurement (--headroom). cache: only by giving back its free segments to the device, so many times. "
                "prediction no: training fits, and a prediction on such a batch does not."
            )
            notes += [f"{budget.device_model}: {source}" for source in budget.sources]
        return notes


def _bound(bound: Bound | None) -> list[str]:
    if bound is None:
        return [text.MISSING] * 2
    shown = f"{bound.seconds:.3g} s" if bound.seconds >= 1 else f"{1000 * bound.seconds:.3g} ms"
    return [f"≥ {shown}", bound.binds + (" (arithmetic unknown)" if bound.missing else "")]


def _fits(line: EstimateLine, within: AllocatorFigures) -> str:
    training = f"cache {within.retries}×" if line.fits == "by giving back the cache" else str(line.fits)
    return training + (", prediction no" if within.prediction_fits is False else "")


def write_estimates(path: Path, table: EstimateTable, info: dict[str, Any]) -> None:
    """Write a folder like a run's: ``run.json`` with ``info``, records, tables, ``estimates.json``, ``estimate.md``.

    Records of an earlier estimate that is not repeated here are removed.
    """
    folder = RunFolder(path)
    hashes = [line.config_hash for line in table.estimates.lines]
    labels = {line.config_hash: line.variant for line in table.estimates.lines}
    cells = [{"config_hash": name, "variant": label, "label": label} for name, label in labels.items()]
    folder.write_run(info | {"kind": "estimate", "variants": list(dict.fromkeys(labels.values())), "cells": cells})
    for stale in set((path / "records").glob("*.json")) - {path / "records" / f"{name}.json" for name in hashes}:
        stale.unlink()
    for name in labels:
        folder.write_record(table.records[name])
    folder.write_tables()
    write_atomically(path / ESTIMATES_FILE, to_json(table.estimates))
    write_atomically(path / PAGE_FILE, table.markdown().encode())


def table_of(estimates: Estimates, records: Sequence[Record]) -> EstimateTable:
    """Return the table of ``estimates`` with the ``records`` of its lines."""
    return EstimateTable(estimates, {record.row.config_hash: record for record in records})
