"""The suites of masked diffusion and recurrent depth: every cell can be built, and is the set-up that it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbbench.estimate.fake_cell import estimate_or_failure
from dbbench.harness.resolve import describe, resolve_cell
from dbbench.suite.cell import Cell
from dbbench.suite.expand import expand
from dbbench.suite.load import load_suite
from dbbench.suite.schema import Suite, check

SUITES = Path(__file__).parents[2] / "suites"


def cells(name: str) -> dict[str, Cell]:
    raw, file = load_suite(str(SUITES / f"{name}.yaml"))
    return {cell.variant: cell for cell in expand(check(Suite, raw, file), "cpu", file)}


def rows(name: str) -> dict[str, dict[str, Any]]:
    return {variant: describe(cell, name) for variant, cell in cells(name).items()}


def test_masked_cells_are_equal_in_layer_updates_or_in_samples() -> None:
    """The comparison would be of unequal training."""
    found = rows("masked")
    equal_samples = found.pop("diffusion_blocks_b3_equal_samples")
    assert {row["layer_updates"] for row in found.values()} == {cells("masked")["backprop"].budget.value}
    assert equal_samples["samples"] == found["backprop"]["samples"]
    assert found["diffusion_blocks_b3"]["samples"] == found["backprop_two_layers"]["samples"]
    assert found["diffusion_blocks_b3"]["layers_trained_per_step"] == [2, 2, 2]


def test_recurrent_cells_see_equal_samples_but_for_the_one_with_equal_flops() -> None:
    """The comparison would be of unequal training; an application more would count as an update more."""
    found = rows("recurrent")
    longer = found.pop("diffusion_blocks_equal_flops")
    assert len({(row["samples"], row["layer_updates"]) for row in found.values()}) == 1
    assert longer["samples"] == 3.2 * found["backprop_truncated"]["samples"]  # what K' = 4 costs, measured
    assert found["diffusion_blocks"]["blocks"] == 1


def test_text8_is_set_up_as_published() -> None:
    """`masked-text8` would be another experiment than MD4's: 12 layers of 768, 256 characters, batch 512, 1 M steps."""
    found, cell = rows("masked-text8"), cells("masked-text8")["backprop"]
    resolved = resolve_cell(cell, "test")
    shape = resolved.task.input_shape(resolved.task_options)
    numbers = resolved.network.preset(cell.network.size)
    assert (shape.kind, shape.sequence_length, cell.batch_size) == ("masked_tokens", 256, 512)
    assert (numbers["depth"], numbers["width"], numbers["heads"]) == (12, 768, 12)
    assert found["backprop"]["steps"] == 1_000_000
    assert found["diffusion_blocks_b3"]["steps"] == 3_000_000
    assert found["diffusion_blocks_b3_equal_samples"]["samples"] == found["backprop"]["samples"]


def test_lm1b_is_set_up_as_published() -> None:
    """`recurrent-lm1b` would be another experiment than Huginn's: 2 + 4 + 2 layers, K = 32 and K' = 8."""
    found, cell = rows("recurrent-lm1b"), cells("recurrent-lm1b")["backprop_truncated"]
    resolved = resolve_cell(cell, "test")
    numbers = resolved.network.numbers(cell.network.size, resolved.network_options)
    assert [numbers[key] for key in ("prelude", "depth", "coda", "recurrences")] == [2, 4, 2, 32]
    assert cell.options == {"truncate": 8}
    assert len({row["samples"] for row in found.values()}) == 1


@pytest.mark.parametrize("name", ["masked", "masked-text8", "recurrent", "recurrent-lm1b"])
def test_a_suite_has_one_seed_and_says_so(name: str) -> None:
    """A reader would take a single run for several."""
    assert {cell.seed for cell in cells(name).values()} == {0}
    assert "One seed" in (SUITES / f"{name}.yaml").read_text()


#: What a variant without the corpus stands for, where the two have not one name but for ``tokens_``.
TWINS = {
    "masked-text8": {"b3": "diffusion_blocks_b3", "b3_active": "diffusion_blocks_b3"},
    "recurrent-lm1b": {},
    "language-lm1b": {f"b4{way}": f"diffusion_blocks_b4{way}" for way in ("", "_two_pass", "_active", "_clean")},
}
#: What a step's shapes do not depend on.
UNSEEN = ("residency", "shown_draws")


@pytest.mark.parametrize("name", TWINS)
def test_a_variant_without_the_corpus_is_the_cell_that_it_stands_for(name: str) -> None:
    """What an estimate says without the data would be of another network, batch or training."""
    every, found = cells(name), rows(name)
    twins = {variant: variant.removeprefix("tokens_") for variant in found if variant.startswith("tokens_")}
    assert len(twins) >= 4
    for variant, short in twins.items():
        own, other = every[variant], every.get(TWINS[name].get(short, short))
        assert own.task.name in ("tokens", "masked_tokens")
        if other is None:  # what the corpus is too long for
            assert (name, variant) == ("recurrent-lm1b", "tokens_backprop")
            continue
        shapes = [(r := resolve_cell(one, name)).task.input_shape(r.task_options) for one in (own, other)]
        assert shapes[0] == shapes[1]
        options = [{k: v for k, v in one.options.items() if k not in UNSEEN} for one in (own, other)]
        assert options[0] == options[1]
        same = ("method", "network", "parameters_count", "layers_trained_per_step", "steps")
        assert [found[variant][key] for key in same] == [found[other.variant][key] for key in same]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), [("masked-text8", "masked_tokens"), ("recurrent-lm1b", "tokens")])
def test_it_can_be_estimated_at_its_whole_size(name: str, task: str) -> None:
    """The command in the suite's head would fail, or take longer than anybody waits."""
    chosen = [cell for cell in cells(name).values() if cell.task.name == task]
    assert len(chosen) == 4
    for cell in chosen:
        row = estimate_or_failure(cell, name).record.row
        assert (row.status, row.error) == ("ok", None)
        assert row.peak_bytes is not None and row.peak_bytes > 2**33
