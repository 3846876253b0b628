"""The suites on text: every cell can be built, and what is called equal is equal."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbbench.harness.resolve import describe, resolve_cell
from dbbench.suite.cell import Cell
from dbbench.suite.expand import expand
from dbbench.suite.load import load_suite
from dbbench.suite.schema import Suite, check

TUNING = sorted((Path(__file__).parents[2] / "suites" / "tuning").glob("*-*.yaml"))


def cells_of(suite: str) -> dict[str, Cell]:
    """Return the first seed's cell of every variant."""
    raw, file = load_suite(suite)
    return {cell.variant: cell for cell in reversed(expand(check(Suite, raw, file), "cpu", file))}


@pytest.mark.parametrize("suite", ["language", "language-long", "language-lm1b", *map(str, TUNING)])
def test_every_cell_can_be_built_without_its_data(suite: str) -> None:
    """A run of an hour would end at the first cell whose options do not fit."""
    for cell in cells_of(suite).values():
        described = describe(cell, suite)
        assert described["steps"] > 0


@pytest.mark.parametrize("suite", ["language", "language-long", "language-lm1b"])
def test_what_is_called_equal_is_equal(suite: str) -> None:
    """A method would see more text, or make more updates, than the one it is compared with."""
    found = {variant: describe(cell, suite) for variant, cell in cells_of(suite).items()}
    reference = found["backprop"]
    for variant, described in found.items():
        if variant.endswith("_equal_samples"):
            stages = described["blocks"]  # a stage's share may leave less than a batch
            assert 0 <= reference["samples"] - described["samples"] < stages * cells_of(suite)[variant].batch_size
        elif not variant.startswith("ngram"):
            assert described["layer_updates"] == reference["layer_updates"]


@pytest.mark.parametrize("suite", ["language", "language-long"])
def test_n_grams_count_the_whole_training_part_once(suite: str) -> None:
    """The rows to beat would have seen a part of the text, or pay for a second reading that teaches them nothing."""
    for variant, cell in cells_of(suite).items():
        if variant.startswith("ngram"):
            task = resolve_cell(cell, suite).load_task()
            assert describe(cell, suite)["steps"] == task.batches_per_epoch


def test_tuning_reads_no_test_part_and_every_method_has_as_many_trials() -> None:
    """A method would be tuned harder than another, or on what is reported."""
    for suite in ("language", "masked", "recurrent"):
        reported = next(iter(cells_of(suite).values()))
        trials: dict[tuple[str, int], int] = {}
        for path in TUNING:
            if path.stem.startswith(suite):
                for cell in cells_of(str(path)).values():
                    assert (cell.final_split, cell.seed) == ("validation", 100)
                    same = {"name", "sequence_length", "validation_fraction"}
                    assert cell.task.model_dump(include=same) == reported.task.model_dump(include=same)
                    key = cell.method, cell.budget.value
                    trials[key] = trials.get(key, 0) + 1
        budgets = {budget for _, budget in trials}
        methods = {method for method, _ in trials}
        assert trials == {(m, b): next(n for (_, at), n in trials.items() if at == b) for m in methods for b in budgets}
        assert max(budgets) <= reported.budget.value
