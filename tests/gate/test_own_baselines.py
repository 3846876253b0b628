"""The baselines of this repository's own suites, which CI holds the code against."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbbench.cli.app import make_plan
from dbbench.estimate.suite import merged_seeds
from dbbench.gate.baseline import read
from dbbench.gate.measure import fake_names

ROOT = Path(__file__).parent.parent.parent
BASELINES = sorted((ROOT / "baselines").glob("*.txt"))
#: Baselines of a part of their suite: the whole would take CI too long.
PARTS = {"paper-scale": {"paper-scale/dit_blocks_active", "paper-scale/llama_blocks_active"}}


@pytest.mark.parametrize("path", BASELINES, ids=lambda path: path.stem)
def test_a_baseline_knows_its_suites_cells(path: Path) -> None:
    """Broken if a variant is added to a suite, or taken out, and nobody guards it, or a file is edited out of form."""
    baseline = read(path)
    assert baseline is not None
    cells = merged_seeds(make_plan(path.stem, [], None, "cpu").cells)
    names = set(fake_names(path.stem, [(cell.variant, cell.network.depth) for cell in cells]))
    assert PARTS.get(path.stem, names) <= names
    assert {name for name, _ in baseline.present} == PARTS.get(path.stem, names)
    assert {source for _, source in baseline.present} == {"fake"}
    assert path.read_text() == baseline.text(), "not what an update would write"


def test_ci_checks_every_baseline() -> None:
    """Broken if a baseline lies there and nothing is held against it."""
    script = (ROOT / ".ci" / "run").read_text()
    assert len(BASELINES) >= 4
    for path in BASELINES:
        assert path.stem in script
