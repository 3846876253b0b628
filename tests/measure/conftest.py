"""What every test of a measurement needs: a group of one process for the distributed wrappers."""

from __future__ import annotations

import pytest
from torch import nn

from benchmarks.ledger_steps.wrappers import one_process
from dbbench import Ledger


@pytest.fixture(scope="session")
def group_of_one_process() -> None:
    """Join a group of one process; it lasts as long as the test run, as kinds of step share it."""
    one_process()


@pytest.fixture
def left_by_others_bytes() -> int:
    """What variables of other tests hold, which is retained in every ledger."""
    model = nn.Linear(1, 1)
    with Ledger(model) as ledger:
        model.zero_grad()
    return ledger.account().undeclared_bytes
