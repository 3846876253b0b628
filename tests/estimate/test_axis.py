"""The axes of a cell: the dial that each turns, what has no such dial, and where a value can start."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_cells import make_cell

from dbbench.errors import BadInput
from dbbench.estimate.axis import check, default_values, dial, labelled, lowest, parse_values
from dbbench.suite.cell import Cell, NetworkChoice, TaskChoice

TEXT = {
    "task": TaskChoice(name="tokens", vocabulary=50, sequence_length=16),
    "network": NetworkChoice(name="llama", size="micro"),
}
LONG = TaskChoice(name="tokens")
LINEAR = NetworkChoice(name="linear")
BLOCKS = make_cell(
    "blocks", "diffusion_blocks", options={"blocks": 2}, network=NetworkChoice(name="vit", depth=4, patch=4)
)


def body(cell: Cell) -> dict[str, Any]:
    return cell.model_dump(mode="json")


@pytest.mark.parametrize(
    ("axis", "cell", "own", "place"),
    [
        ("batch", make_cell("backprop"), 32, ("batch_size",)),
        ("depth", make_cell("backprop"), 2, ("network", "depth")),
        ("depth", make_cell("backprop", network=NetworkChoice(name="vit", size="tiny")), 6, ("network", "depth")),
        ("width", make_cell("backprop"), 64, ("network", "width")),
        ("width", make_cell("backprop", network=NetworkChoice(name="vit", width=32)), 32, ("network", "width")),
        ("sequence", make_cell("backprop", **TEXT), 16, ("task", "sequence_length")),
        ("sequence", make_cell("text", **TEXT | {"task": LONG}), 2048, ("task", "sequence_length")),
        ("blocks", BLOCKS, 2, ("options", "blocks")),
        ("blocks", make_cell("greedy", "greedy", options={"stages": 2}), 2, ("options", "stages")),
    ],
)  # fmt: skip
def test_an_axis_turns_one_dial_and_nothing_else(axis: str, cell: Cell, own: int, place: tuple[str, ...]) -> None:
    """Broken if a point of an axis differs from the suite's cell in more than its value, or starts elsewhere."""
    turning = dial(axis, cell, "test")
    assert turning.own == own
    before, after = body(cell), body(turning.at(8))
    *path, key = place
    for part in path:
        before, after = before[part], after[part]
    assert after[key] == 8
    before[key] = after[key] = None
    expected, changed = body(cell), body(turning.at(8))
    for whole in (expected, changed):
        inner = whole
        for part in path:
            inner = inner[part]
        inner[key] = None
    assert changed == expected


def test_a_method_without_blocks_stays_as_it_is() -> None:
    """Broken if backprop beside DiffusionBlocks makes the axis of blocks an error, or is varied over it."""
    turning = dial("blocks", make_cell("backprop"), "test")
    assert (turning.own, turning.turn) == (1, None)


@pytest.mark.parametrize(
    ("axis", "cell", "words"),
    [
        ("sequence", make_cell("backprop"), "task.name: 'digits' has no option 'sequence_length'"),
        ("depth", make_cell("line", network=LINEAR), "network.name: 'linear' has no layers"),
        ("width", make_cell("line", network=LINEAR), "network.name: 'linear' has no option 'width'"),
        ("widht", make_cell("backprop"), "--over widht: is no axis (did you mean 'width'?)"),
        ("batch", make_cell("backprop", options={"blocks": 2}), "methods.backprop.blocks: unknown key"),
    ],
)  # fmt: skip
def test_what_has_no_such_dial_is_told_in_one_line(axis: str, cell: Cell, words: str) -> None:
    """Broken if an axis that the suite does not have ends in a traceback, or is searched all the same."""
    with pytest.raises(BadInput) as error:
        dial(axis, cell, "suite.yaml")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_depth_begins_where_every_block_has_a_layer() -> None:
    """Broken if a search over depth asks for fewer layers than blocks, which no method can build."""
    assert lowest(dial("depth", BLOCKS, "test"), "test") == 2
    assert lowest(dial("depth", make_cell("backprop"), "test"), "test") == 1
    assert lowest(dial("batch", BLOCKS, "test"), "test") == 1


def test_default_values_lie_around_the_suites_own_and_suit_every_variant() -> None:
    """Broken if defaults leave out the suite's own value, or hold one at which some variant cannot be built."""

    def defaults(axis: str, *cells: Cell) -> list[int]:
        return default_values(axis, [dial(axis, cell, "test") for cell in cells], "test")

    backprop = make_cell("backprop", network=NetworkChoice(name="vit", depth=4, patch=4))
    assert defaults("batch", backprop) == [8, 16, 32, 64, 128]
    assert defaults("depth", backprop) == [2, 4, 8, 16]
    four = BLOCKS.model_copy(update={"options": {"blocks": 4}})
    assert defaults("depth", backprop, four) == [4, 8, 16]
    assert defaults("blocks", backprop, BLOCKS) == [1, 2, 4]
    assert defaults("width", backprop) == [32, 64, 96, 128]
    assert defaults("sequence", make_cell("backprop", **TEXT)) == [4, 8, 16, 32, 64]
    pinned = make_cell("blocks", "diffusion_blocks", options={"blocks": 2, "layers_per_block": [1, 1]})
    with pytest.raises(BadInput, match="--over blocks finds fewer than two values"):
        defaults("blocks", pinned)


def test_a_width_that_heads_do_not_divide_is_refused_before_anything_runs() -> None:
    """Broken if a value that cannot be built costs the estimates before it."""
    with pytest.raises(BadInput, match=r"suite.yaml: network.width: 17 is no multiple of"):
        check(dial("width", make_cell("backprop"), "suite.yaml").at(17), "suite.yaml")


@pytest.mark.parametrize("text", ["", "4,x", "0,4", "-4", "4,4", "4;8", "1.5"])
def test_values_that_are_no_numbers_are_bad_input(text: str) -> None:
    """Broken if a slip of the keyboard is read as other values than were meant."""
    with pytest.raises(BadInput, match="--values"):
        parse_values(text)


def test_values_are_ascending_and_seeds_are_one() -> None:
    """Broken if memory, which no seed changes, is estimated once a seed, or depths of a grid share a label."""
    assert parse_values("16, 4,8") == [4, 8, 16]
    cells = [make_cell("backprop", seed=seed) for seed in (3, 1)]
    assert labelled(cells) == [("backprop", cells[0])]
    grid = [make_cell("backprop", network=NetworkChoice(name="vit", depth=depth)) for depth in (2, 4)]
    assert [label for label, _ in labelled(grid)] == ["backprop.depth-2", "backprop.depth-4"]
