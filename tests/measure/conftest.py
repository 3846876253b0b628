"""What every test of a measurement needs: a group of one process for the distributed wrappers."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from benchmarks.ledger_steps.wrappers import one_process


@pytest.fixture(scope="session")
def group_of_one_process() -> None:
    """Join a group of one process; it lasts as long as the test run, as kinds of step share it."""
    one_process()


@pytest.fixture(scope="module", autouse=True)
def _what_others_left_at_rest() -> Iterator[None]:
    """Keep Python's collector from all that was there before: thousands of tests' objects make each ledger slow."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
