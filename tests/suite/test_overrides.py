"""``--set`` and ``--only``: what they change, what they leave, and what they refuse."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dbbench.errors import BadInput
from dbbench.suite.expand import expand
from dbbench.suite.overrides import select, with_settings
from dbbench.suite.schema import Suite, check

RAW: dict[str, Any] = {
    "suite": "mine",
    "task": {"name": "digits"},
    "network": {"name": "vit"},
    "budget": {"kind": "samples", "value": 100},
    "batch_size": 10,
    "seeds": [0, 1],
    "methods": {"backprop": {}, "b2": {"method": "diffusion_blocks", "blocks": 2}},
    "grid": {"network.depth": [2, 4]},
}


def cells(*settings: str) -> list[Any]:
    return expand(check(Suite, with_settings(RAW, settings), "f"), "cpu")


def test_a_setting_changes_its_key_alone_and_not_the_original() -> None:
    """Broken if --set leaks into another key, another variant, or the mapping it was given."""
    before = copy.deepcopy(RAW)
    changed = with_settings(RAW, ["methods.b2.blocks=4", "optimizer.lr=1e-4", "seeds=[3]"])
    assert before == RAW
    assert changed["methods"] == {"backprop": {}, "b2": {"method": "diffusion_blocks", "blocks": 4}}
    assert changed["optimizer"] == {"lr": 0.0001}
    assert changed["seeds"] == [3]
    assert {k for k in RAW if changed[k] != RAW[k]} == {"methods", "seeds"}


def test_a_setting_may_add_an_option_a_network_key_and_a_grid_key() -> None:
    """Broken if only keys that the file happens to spell out can be set."""
    changed = with_settings(RAW, ["methods.backprop.k=2", "network.dropout=0.1", "grid.batch_size=[1, 2]"])
    assert changed["methods"]["backprop"] == {"k": 2}
    assert changed["network"] == {"name": "vit", "dropout": 0.1}
    assert changed["grid"] == {"network.depth": [2, 4], "batch_size": [1, 2]}


def test_the_last_of_two_settings_of_a_key_wins() -> None:
    """Broken if a repeated --set is applied in another order than it is written in."""
    assert with_settings(RAW, ["batch_size=1", "batch_size=2"])["batch_size"] == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("methods.b3.blocks=4", r"--set methods.b3.blocks: unknown variant 'b3' \(did you mean 'b2'\?\)"),
        ("metods.b2.blocks=4", r"unknown key 'metods' \(did you mean 'methods'\?\)"),
        ("batch_size", "write KEY=VALUE"),
        ("=3", "write KEY=VALUE"),
        ("methods={}", "name a variant"),
        ("optimizer..lr=3", "not a dotted key"),
        ("batch_size.x=3", "batch_size is not a mapping"),
        ("network." + "a." * 3000 + "a=1", "not a dotted key"),
        ("network.depth=3", r"the suite's grid sets this key"),
        ("seeds=[0", r"--set seeds: line 1: "),
        ("seeds=!!python/none", "not allowed"),
        ("task.name=.nan", "not a finite number"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(setting: str, message: str) -> None:
    """Broken if a misspelt --set is silently a no-op, or its line does not say how to write it."""
    with pytest.raises(BadInput, match=message):
        with_settings(RAW, [setting])


@pytest.mark.parametrize("setting", ["grid=5", "grid=", "methods.b2=5", "seeds=", "network=[]", "task=x"])
def test_a_setting_of_a_wrong_type_is_left_to_the_schema(setting: str) -> None:
    """Broken if a value of the wrong type crashes where it is put in, or passes the check that follows."""
    with pytest.raises(BadInput, match=f"^f: {setting.partition('=')[0]}"):
        check(Suite, with_settings(RAW, [setting, "batch_size=3"]), "f")


def chosen(only: str) -> list[tuple[str, int | None, int]]:
    return [(cell.variant, cell.network.depth, cell.seed) for cell in select(cells(), only)]


def test_values_of_a_key_are_alternatives_and_keys_all_hold() -> None:
    """Broken if a comma or a second key is read otherwise than the help says."""
    assert chosen("method=backprop,b2,seed=0") == [("backprop", 2, 0), ("b2", 2, 0), ("backprop", 4, 0), ("b2", 4, 0)]
    assert chosen("method=diffusion_blocks,depth=4") == [("b2", 4, 0), ("b2", 4, 1)]
    assert chosen("variant=backprop,seed=1,depth=2") == [("backprop", 2, 1)]


def test_cells_of_another_task_can_be_chosen() -> None:
    """Broken if the cells of a suite that need no corpus can be had by naming each of them alone."""
    other = cells("methods.b2.task.name=tokens")
    assert {cell.variant for cell in select(other, "task=tokens")} == {"b2"}
    assert {cell.variant for cell in select(other, f"task={RAW['task']['name']}")} == {"backprop"}


def test_a_label_stands_for_all_that_the_grid_made_of_it() -> None:
    """Broken if a variant that a grid key split can no longer be chosen by the name in the file."""
    split = cells("grid.methods.b2.overlap=[0, 0.1]")
    assert {cell.variant for cell in select(split, "variant=b2")} == {"b2.overlap-0", "b2.overlap-0.1"}
    assert {cell.variant for cell in select(split, "method=b2.overlap-0")} == {"b2.overlap-0"}


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("method=bakprop", r"no cell has method 'bakprop' \(did you mean 'backprop'\?\)"),
        ("variant=diffusion_blocks", "no cell has variant 'diffusion_blocks'"),
        ("seed=7", "no cell has seed '7'"),
        ("depth=x", "no cell has depth 'x'"),
        ("sed=0", r"unknown key 'sed' \(did you mean 'seed'\?\)"),
        ("backprop", "unknown key 'backprop'"),
        ("", "unknown key ''"),
        ("method=backprop,", "no cell has method ''"),
        ("variant=backprop,method=diffusion_blocks", "no cell matches all of it"),
    ],
)
def test_a_filter_that_names_nothing_is_refused(only: str, message: str) -> None:
    """Broken if a typing mistake runs nothing, or everything."""
    with pytest.raises(BadInput, match=message):
        select(cells(), only)
