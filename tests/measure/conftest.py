"""What every test of a measurement needs: a group of one process for the distributed wrappers."""

from __future__ import annotations

import pytest

from benchmarks.ledger_steps.wrappers import one_process


@pytest.fixture(scope="session")
def group_of_one_process() -> None:
    """Join a group of one process; it lasts as long as the test run, as kinds of step share it."""
    one_process()
