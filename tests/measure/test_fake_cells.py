"""The same cells on real and on fake tensors: what is estimated without memory must be what is measured with it."""

from __future__ import annotations

from itertools import filterfalse
from pathlib import Path

import pytest
import torch

from dbbench.harness.resolve import resolve_cell
from dbbench.harness.tracing import ledger_pass, memory_columns
from dbbench.suite.cell import Cell
from dbbench.suite.expand import expand
from dbbench.suite.load import load_suite
from dbbench.suite.schema import Suite, check

SUITE = Path(__file__).parents[2] / "suites" / "vision.yaml"


def cells() -> list[Cell]:
    raw, file = load_suite(str(SUITE))
    return expand(check(Suite, raw, file), "cpu", file)


#: One of each way of training; the other cells of the suite are slow tests.
QUICK = ("backprop", "checkpointing", "greedy", "diffusion_blocks_b3_active")


def is_quick(cell: Cell) -> bool:
    return cell.seed == 0 and cell.variant in QUICK


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def require_same(cell: Cell) -> None:
    resolved = resolve_cell(cell, "test")
    task = resolved.load_task()
    real, fake = ledger_pass(resolved, task), ledger_pass(resolved, task, fake=True)
    assert memory_columns(real) == memory_columns(fake)
    assert real.account.held == fake.account.held
    assert real.flops_by_block == fake.flops_by_block
    assert real.timeline.drop(columns="storage").equals(fake.timeline.drop(columns="storage"))


@pytest.mark.parametrize("cell", filter(is_quick, cells()), ids=lambda cell: cell.variant)
def test_real_and_fake_tensors_cost_the_same_bytes_and_flops(cell: Cell) -> None:
    """An estimate without a device would be of another step than the one that is measured."""
    require_same(cell)


@pytest.mark.slow
@pytest.mark.parametrize("cell", filterfalse(is_quick, cells()), ids=lambda cell: f"{cell.variant}-{cell.seed}")
def test_every_other_cell_does_too(cell: Cell) -> None:
    """The suite's remaining cells: bytes might depend on what is drawn."""
    require_same(cell)
