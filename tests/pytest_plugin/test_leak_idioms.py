"""Every idiom of a leak test that the README shows, on every planted leak."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import leak_idioms
from benchmarks.leaks.planted import LEAKS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_idiom_catches_every_leak_or_the_table_says_why_not() -> None:
    """The README's own test passes a real leak."""
    assert len(LEAKS) >= 22
    found = leak_idioms.outcomes()
    assert len(found) == len(leak_idioms.IDIOMS) * (len(LEAKS) + 1)
    assert leak_idioms.unexplained(found) == []
    committed = (ROOT / "reports" / "ledger" / "leak_idioms.md").read_text()
    table = leak_idioms.report(found)
    assert committed.splitlines()[5:] == table.splitlines()[5:], "run python -m benchmarks.leak_idioms"


def test_the_readme_shows_these_idioms() -> None:
    """The table is of tests that nobody writes."""
    readme = (ROOT / "README.md").read_text()
    for words in ('memory_leaks("0 B", warmup=1)', "found.kept_bytes == 0"):
        assert words in readme
