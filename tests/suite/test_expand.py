"""A suite's expansion: which cells, in which order, with which of the suite's values."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dbbench.suite.cell import Cell
from dbbench.suite.expand import expand
from dbbench.suite.load import load_suite, shipped_suites
from dbbench.suite.schema import Suite, check

RAW: dict[str, Any] = {
    "suite": "mine",
    "task": {"name": "digits"},
    "network": {"name": "vit", "size": "small", "depth": 6, "dropout": 0.1},
    "optimizer": {"lr": 0.01, "schedule": "constant"},
    "budget": {"kind": "layer_updates", "value": 100},
    "batch_size": 10,
    "seeds": [2, 0],
    "methods": {"backprop": {}, "blocks": {"method": "diffusion_blocks", "blocks": 3}},
}


def cells(**changes: Any) -> list[Cell]:
    return expand(check(Suite, RAW | changes, "f"), "cpu")


def variant(**options: Any) -> Cell:
    return cells(methods={"one": {"method": "backprop"} | options})[0]


def test_order_is_grid_then_variants_then_seeds_as_written() -> None:
    """Broken if two machines would run one suite in different orders."""
    made = cells(grid={"network.depth": [6, 2]})
    expected = [(depth, label, seed) for depth in (6, 2) for label in ("backprop", "blocks") for seed in (2, 0)]
    assert [(c.network.depth, c.variant, c.seed) for c in made] == expected


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 99), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(1, 99), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
)
def test_every_combination_is_there_once(depths: list[int], batches: list[int], seeds: list[int]) -> None:
    """Broken if a grid of two keys is zipped, or a combination is lost or doubled."""
    made = cells(seeds=seeds, grid={"network.depth": depths, "batch_size": batches})
    found = [(c.network.depth, c.batch_size, c.method, c.seed) for c in made]
    wanted = {(d, b, m, s) for d in depths for b in batches for m in ("backprop", "diffusion_blocks") for s in seeds}
    assert len(found) == len(wanted)
    assert set(found) == wanted


def test_a_list_outside_the_grid_is_a_value() -> None:
    """Broken if ``layers_per_block: [2, 4]`` makes two cells."""
    made = cells(seeds=[0], methods={"blocks": {"method": "diffusion_blocks", "layers_per_block": [2, 4]}})
    assert [c.options for c in made] == [{"layers_per_block": [2, 4]}]


def test_overrides_leave_the_options_and_are_merged_key_by_key() -> None:
    """Broken if an override replaces what it does not name, or reaches the method as an option."""
    cell = variant(k=3, network={"depth": 2}, optimizer={"lr": 1}, batch_size=5, precision="bf16")
    assert cell.options == {"k": 3}
    assert cell.network.model_dump() == {"name": "vit", "size": "small", "depth": 2, "dropout": 0.1}
    assert (cell.optimizer.lr, cell.optimizer.schedule) == (1, "constant")
    assert (cell.batch_size, cell.precision) == (5, "bf16")


def test_another_network_or_kind_of_budget_replaces_the_suites_whole() -> None:
    """Broken if a linear network inherits a depth, or a budget in samples a value in layer updates."""
    cell = variant(network={"name": "linear"}, budget={"kind": "samples", "value": 7})
    assert cell.network.model_dump() == {"name": "linear", "size": "tiny", "depth": None}
    assert (cell.budget.kind, cell.budget.value) == ("samples", 7)
    assert variant(budget={"value": 7}).budget.kind == "layer_updates"


def test_a_grid_key_with_no_column_is_part_of_the_variants_name() -> None:
    """Broken if a table could average over two learning rates; depth has its column, and keeps the name."""
    made = cells(seeds=[0], grid={"network.depth": [2, 4], "optimizer.lr": [0.1, 0.001]})
    assert {c.variant for c in made if c.method == "backprop"} == {
        "backprop.optimizer.lr-0.1",
        "backprop.optimizer.lr-0.001",
    }
    assert len({(c.variant, c.network.depth, c.optimizer.lr) for c in made}) == len(made) == 8


def test_a_grid_key_of_one_variant_leaves_the_others_alone() -> None:
    """Broken if backprop is trained once for every number of blocks of another method."""
    made = cells(seeds=[0], grid={"methods.blocks.blocks": [2, 3]})
    assert [c.variant for c in made] == ["backprop", "blocks.blocks-2", "blocks.blocks-3"]
    assert [c.options.get("blocks") for c in made] == [None, 2, 3]


def test_a_grid_key_that_a_variant_overrides_does_not_repeat_it() -> None:
    """Broken if a variant with a batch size of its own runs once for every batch size of the grid."""
    methods = {"backprop": {}, "fixed": {"method": "backprop", "batch_size": 3}}
    made = cells(seeds=[0], methods=methods, grid={"batch_size": [1, 2]})
    assert [(c.variant, c.batch_size) for c in made] == [
        ("backprop.batch_size-1", 1),
        ("fixed", 3),
        ("backprop.batch_size-2", 2),
    ]


def test_every_shipped_suite_expands_and_the_default_has_its_variants() -> None:
    """Broken if a suite that dbbench ships is not valid by its own schema, or the default lost a variant."""
    suites = {name: check(Suite, load_suite(name)[0], name) for name in shipped_suites()}
    assert set(suites) >= {"vision", "smoke", "vision-cifar100"}
    for name, suite in suites.items():
        assert suite.suite == name
        assert expand(suite, "cpu")
    assert {"backprop", "checkpointing", "greedy", "linear"} <= set(suites["vision"].methods)
    assert len(suites["vision"].seeds) == 3
    methods = {cell.method for cell in expand(suites["smoke"], "cpu")}
    assert methods >= {"backprop", "checkpointing", "greedy", "diffusion_blocks"}
