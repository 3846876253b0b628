"""``%%memory_ledger`` in a notebook, and the ledger without an optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import dbbench

ipython = pytest.importorskip("IPython.core.interactiveshell")
START = (
    "import torch; from torch import nn; model = nn.Linear(8, 4); optimizer = torch.optim.SGD(model.parameters(), 0.1)"
)


@pytest.fixture
def shell() -> Any:
    made = ipython.InteractiveShell()
    made.run_line_magic("load_ext", "dbbench")
    made.run_cell(START)
    return made


def test_a_cell_shows_its_table(shell: Any) -> None:
    table = shell.run_cell_magic(
        "memory_ledger", "model optimizer", "loss = model(torch.ones(2, 8)).sum()\nloss.backward()\noptimizer.step()"
    )
    assert table.profile.split["parameters"] == (8 * 4 + 4) * 4
    assert "<table" in table._repr_html_()
    assert "loss" in shell.user_ns  # the cell ran where the notebook's cells run


def test_a_slip_is_one_line(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run_cell_magic("memory_ledger", "modle", "x = 1") is None
    assert "no variable 'modle' (did you mean 'model'?)" in capsys.readouterr().out
    assert "x" not in shell.user_ns
    assert shell.run_cell_magic("memory_ledger", "torch", "x = 1") is None
    assert "neither a model nor an optimizer" in capsys.readouterr().out


def test_a_cell_that_fails_shows_its_own_error(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run_cell_magic("memory_ledger", "model", "raise ValueError('mine')") is None
    assert "mine" in capsys.readouterr().out


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_prediction_needs_no_optimizer(mode: Any) -> None:
    model, x = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)), torch.ones(16, 8)
    with dbbench.Ledger(model, inputs=x) as ledger, mode():
        out = model(x)
    held = sum(p.nbytes for p in model.parameters()) + x.nbytes
    others = ledger.account().undeclared_bytes  # what other tests have left in variables
    assert ledger.peak.bytes - others == held + 2 * 16 * 32 * 4  # the first map's output and the activation's beside it
    assert ledger.kept_bytes == out.nbytes
    assert sum(ledger.flops[0][1].values()) == 2 * 16 * (8 * 32 + 32 * 4)


def test_the_package_shows_what_it_has() -> None:
    assert "Ledger" in dir(dbbench)
