"""Estimates against a CUDA device, each cell in a process of its own. Needs a GPU (marker ``gpu``)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_cells import make_cell
from typer.testing import CliRunner

from dbbench.cli import app
from dbbench.estimate.calibrate import calibrate
from dbbench.results.calibration import Calibration, errors_of
from dbbench.suite.cell import NetworkChoice

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

MIB = 2**20
NETWORK = NetworkChoice(name="vit", size="base", depth=6, patch=4)  # type: ignore[call-arg]
VARIANTS = {
    "backprop": ("backprop", {}),
    "checkpointing": ("checkpointing", {}),
    "greedy": ("greedy", {"stages": 2}),
    "blocks_active": ("diffusion_blocks", {"blocks": 2, "residency": "active"}),
}


@pytest.fixture(scope="module")
def found() -> Calibration:
    cells = [
        make_cell(name, method, options=options, device="cuda", network=NETWORK, batch_size=2048)
        for name, (method, options) in VARIANTS.items()
    ]
    return calibrate(cells, "test", seconds=600)


def test_every_cell_was_measured_with_the_time_of_its_step(found: Calibration) -> None:
    """A worker that dies, or a device that is too small, would leave a table of nothing."""
    assert [cell.measured.error for cell in found.cells] == [None] * len(VARIANTS)
    for cell in found.cells:
        assert cell.measured.step_seconds is not None
        if cell.bound_seconds is not None:
            assert cell.measured.step_seconds > cell.bound_seconds


def test_the_ledgers_peak_is_estimated_within_one_per_cent(found: Calibration) -> None:
    """What a fake CPU keeps for a backward would not be what CUDA keeps."""
    for cell in found.cells:
        assert abs({error.figure: error.percent for error in errors_of(cell)}["peak"]) < 1


def test_the_allocator_is_estimated_up_to_the_libraries_workspaces(found: Calibration) -> None:
    """The simulated allocator would not be the device's: cuBLAS alone may take 32 MiB of it, and a segment around."""
    for cell in found.cells:
        errors = {error.figure: error for error in errors_of(cell)}
        for figure in ("requested", "allocated", "reserved"):
            assert abs(errors[figure].error_bytes) < 0.02 * errors[figure].measured_bytes + 64 * MIB


def test_the_verb_writes_its_folder(tmp_path: Path) -> None:
    """The one command of a lease would end without its results."""
    out = tmp_path / "out"
    order = ["calibrate", "--suite", "smoke", "--only", "variant=backprop", "--out", str(out)]
    result = CliRunner().invoke(app, order)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == [f"calibration.{end}" for end in ("csv", "json", "md")]
