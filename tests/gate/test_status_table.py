"""The README's table of exit statuses: what the gate can end with, each with a test that gets there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import test_statuses

from dbbench.cli.app import INTERRUPTED
from dbbench.gate.result import STATUSES

README = Path(__file__).parents[2] / "README.md"
ROWS = {int(number): words for number, words in re.findall(r"^\| (\d+) \| (.*) \|$", README.read_text("utf-8"), re.M)}


def test_the_table_has_every_status_and_no_other() -> None:
    """Broken if a status is added and nobody who reads the README can know what it says."""
    assert list(ROWS) == [*STATUSES, INTERRUPTED]
    for status, words in STATUSES.items():
        assert ROWS[status].startswith(words)


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_has_a_test_that_reaches_it(status: int) -> None:
    """Broken if a status is promised that nothing shows to be reachable."""
    assert [name for name in vars(test_statuses) if name.startswith(f"test_{status}_")]
