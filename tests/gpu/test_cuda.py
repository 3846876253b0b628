"""The same cells on a CUDA device: bytes against the caching allocator's own. Needs a GPU (marker ``gpu``)."""

from __future__ import annotations

import pytest
import torch
from tiny_cells import make_cell

from dbbench.harness.cell import run_cell
from dbbench.harness.resolve import resolve_cell
from dbbench.harness.tracing import measure, memory_columns
from dbbench.results.roles import ROLES
from dbbench.suite.cell import NetworkChoice

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

VARIANTS = {
    "backprop": ("backprop", {}),
    "checkpointing": ("checkpointing", {}),
    "greedy": ("greedy", {}),
    "blocks": ("diffusion_blocks", {"blocks": 2}),
    "blocks_active": ("diffusion_blocks", {"blocks": 2, "residency": "active"}),
}
NETWORK = NetworkChoice(name="vit", size="small", depth=6)


@pytest.mark.parametrize("name", VARIANTS)
def test_ledger_agrees_with_the_bytes_asked_of_the_device(name: str) -> None:
    """The ledger's CUDA peak is not the device's: what is left over must be the libraries' workspaces alone."""
    method, options = VARIANTS[name]
    cell = make_cell(name, method, options=options, device="cuda", network=NETWORK, batch_size=64)
    resolved = resolve_cell(cell, "test")
    columns = memory_columns(measure(resolved, resolved.load_task()))
    assert sum(columns[f"{role}_bytes"] for role in ROLES) == columns["peak_bytes"]
    assert 0 <= columns["kernel_workspace_bytes"] <= 64 << 20
    assert columns["device_peak_bytes"] <= columns["allocated_bytes"] <= columns["reserved_bytes"]


def test_active_residency_frees_device_memory() -> None:
    """Parked blocks would still be on the device."""
    peaks = {}
    for name in ("blocks", "blocks_active"):
        method, options = VARIANTS[name]
        cell = make_cell(name, method, options=options, device="cuda", network=NETWORK, batch_size=8)
        resolved = resolve_cell(cell, "test")
        peaks[name] = memory_columns(measure(resolved, resolved.load_task()))
    ledger = peaks["blocks"]["peak_bytes"] - peaks["blocks_active"]["peak_bytes"]
    device = peaks["blocks"]["device_peak_bytes"] - peaks["blocks_active"]["device_peak_bytes"]
    assert ledger > 0
    assert device == ledger


@pytest.mark.parametrize("name", VARIANTS)
def test_a_cell_ends_with_a_record(name: str) -> None:
    """A method breaks on a device that is not the CPU."""
    method, options = VARIANTS[name]
    cell = make_cell(name, method, options=options, device="cuda")
    row = run_cell(cell, "0" * 16, lambda progress: None).record.row
    assert row.status == "ok"
    assert row.source == "cuda"
    assert row.metric_value is not None
