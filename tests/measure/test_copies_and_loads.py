"""Memory that torch takes without an op: what ``copy.deepcopy`` makes of a tensor, and what ``torch.load`` reads."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

import dbbench

SIZE = 1000


def reader() -> io.BytesIO:
    file = io.BytesIO()
    torch.save({"w": torch.ones(SIZE)}, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("census", ["variables", True])
@pytest.mark.parametrize("how", ["deepcopy", "load"])
def test_it_is_made_in_the_step_and_was_not_there_before(how: str, census: bool | str) -> None:
    """A copy of the weights that every step keeps counts as having been there before the first."""
    model = nn.Linear(SIZE, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    kept, file = [], reader()
    with dbbench.Ledger(model, optimizer, census=census) as ledger:  # type: ignore[arg-type]
        model(torch.ones(1, SIZE)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        resident = ledger.account().resident_bytes
        kept.append(copy.deepcopy(model.state_dict()) if how == "deepcopy" else torch.load(file))
    assert ledger.kept_bytes == 4 * SIZE
    assert ledger.account().resident_bytes == resident
    (held,) = ledger.kept
    assert held.op == {"deepcopy": "UntypedStorage.clone", "load": "torch.load"}[how]
    assert "kept[0]" in (held.holder or "")


def test_a_copy_that_is_let_go_is_gone() -> None:
    model = nn.Linear(SIZE, 1, bias=False)
    with dbbench.Ledger(model) as ledger:
        copied = copy.deepcopy(model.state_dict())
        peak = ledger.live_bytes
        del copied
        assert peak - ledger.live_bytes == 4 * SIZE
    assert ledger.kept_bytes == 0


def test_the_copy_is_right() -> None:
    given = torch.arange(SIZE, dtype=torch.float64)
    with dbbench.Ledger(nn.Linear(2, 2)):
        copied, read = copy.deepcopy(given), torch.load(reader())["w"]
    assert torch.equal(copied, given)
    assert copied.untyped_storage().data_ptr() != given.untyped_storage().data_ptr()
    assert torch.equal(read, torch.ones(SIZE))
