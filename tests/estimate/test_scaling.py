"""Exponents against closed forms and another implementation, and the growth of tiny cells against hand counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import estimate_cells
from scipy import stats
from tiny_cells import make_cell

from dbbench.errors import BadInput
from dbbench.estimate import scaling
from dbbench.estimate.scaling import power_law, scale
from dbbench.results.scaling import QUANTITIES, Scaling
from dbbench.suite.cell import NetworkChoice


@pytest.mark.parametrize("exponent", [1, 2, 0.5, -1])
def test_a_power_is_fitted_exactly(exponent: float) -> None:
    """Broken if the exponent of a pure power is not that power."""
    law = power_law("peak_bytes", [(x, round(2**40 * x**exponent)) for x in (1, 2, 4, 8, 16)], linear=False)
    assert law is not None and law.error is not None
    assert law.exponent == pytest.approx(exponent, abs=1e-9)
    assert law.error < 1e-9
    assert (law.points, law.fixed_bytes) == (5, None)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 10**12), min_size=3, max_size=9).filter(lambda sizes: len(set(sizes)) > 1))
def test_exponent_and_error_are_those_of_a_linear_regression(sizes: list[int]) -> None:
    """Broken if the standard error is of something else than the slope of log bytes on log value."""
    values = [3 * 2**i for i in range(len(sizes))]
    law = power_law("peak_bytes", zip(values, sizes, strict=True), linear=True)
    assert law is not None and law.fixed_bytes is not None and law.error is not None
    theirs = stats.linregress(np.log(values), np.log(np.array(sizes, dtype=float)))
    assert law.exponent == pytest.approx(theirs.slope, abs=1e-6)
    assert law.error == pytest.approx(theirs.stderr, abs=1e-6)
    straight = stats.linregress(values, sizes)
    assert law.bytes_per_unit == pytest.approx(straight.slope, abs=1e-9 * max(sizes))
    assert law.fixed_bytes == pytest.approx(straight.intercept, abs=1e-6 * max(sizes))


def test_an_affine_growth_shows_its_fixed_part() -> None:
    """Broken if a fixed part, which drags the exponent below 1, cannot be told from slower growth."""
    law = power_law("peak_bytes", [(x, 1000 + 7 * x) for x in (10, 20, 40)], linear=True)
    assert law is not None and law.fixed_bytes is not None
    assert law.exponent < 0.3
    assert (law.fixed_bytes, law.bytes_per_unit) == (pytest.approx(1000), pytest.approx(7))
    assert law.off_line == pytest.approx(0, abs=1e-12)
    bent = power_law("peak_bytes", [(1, 100), (2, 200), (3, 240)], linear=True)
    assert bent is not None  # the line is 40 + 70 x, whose distance from 100 is the largest: 10
    assert bent.off_line == pytest.approx(0.1)


def test_what_has_no_slope_has_no_law() -> None:
    """Broken if zeros become minus infinity, or two points claim an error."""
    assert power_law("peak_bytes", [(1, 0), (2, 0), (4, 0)], linear=True) is None
    assert power_law("peak_bytes", [(1, 0), (2, 0), (4, 8)], linear=True) is None
    two = power_law("peak_bytes", [(1, 8), (2, 16)], linear=True)
    assert two is not None
    assert (two.exponent, two.error) == (pytest.approx(1), None)


# ------------------------------------------------------------------------------------------------- cells

NETWORK = NetworkChoice(name="vit", size="micro", depth=4, patch=4)
SUITE = [
    make_cell("backprop", network=NETWORK),
    make_cell("sqrt", "checkpointing", options={"policy": "sqrt"}, network=NETWORK),
    make_cell("blocks", "diffusion_blocks", options={"blocks": 2}, network=NETWORK),
]


def scaled(axis: str, values: list[int], answers: Callable[..., Any] = estimate_cells) -> Scaling:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling, "estimate_cells", answers)
        return scale(SUITE, axis, values, "test")  # type: ignore[arg-type]


def series(found: Scaling, variant: str, quantity: str) -> dict[int, int]:
    return dict(next(line for line in found.lines if line.variant == variant).series(quantity))


def made_up(jobs: Sequence[Any], where: str, processes: int | None) -> Iterator[tuple[int, Any]]:
    """Answer at once, the last job first: activations are 10 a layer, and DiffusionBlocks cannot be estimated."""
    for index, (cell, _) in reversed(list(enumerate(jobs))):
        sizes = dict.fromkeys(QUANTITIES, 7) | {"activations_own_peak_bytes": 10 * cell.network.depth, "status": "ok"}
        if cell.method == "diffusion_blocks":
            sizes |= {"status": "failed", "error": "no data"}
        row = SimpleNamespace(**sizes)
        layers = {"activations": 9 * cell.network.depth}
        yield index, SimpleNamespace(record=SimpleNamespace(row=row), layers_own_peaks=layers)


def test_points_belong_to_their_cells_and_failures_are_told() -> None:
    """Broken if answers that come in another order are booked on another value, or a failure goes without a word."""
    found = scaled("depth", [4, 9, 16], made_up)
    assert [line.variant for line in found.lines] == ["backprop", "sqrt"]
    for variant in ("backprop", "sqrt"):
        assert series(found, variant, "activations_own_peak_bytes") == {4: 40, 9: 90, 16: 160}
        assert series(found, variant, "layers_activations_own_peak_bytes") == {4: 36, 9: 81, 16: 144}
        assert series(found, variant, "state_own_peak_bytes") == {4: 21, 9: 21, 16: 21}
    assert list(found.failed) == ["blocks"]
    assert found.failed["blocks"].startswith("at depth ") and found.failed["blocks"].endswith(": no data")


def test_over_blocks_backprop_is_one_point() -> None:
    """Broken if a method without blocks is repeated at every value, or lost from the comparison."""
    suite = [cell.model_copy(update={"method": "greedy", "options": {"stages": 2}}) for cell in SUITE[2:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling, "estimate_cells", made_up)
        found = scale(SUITE[:1] + suite, "blocks", [1, 2, 4], "test")
    backprop, greedy = found.lines
    assert [point.value for point in backprop.points] == [1]
    assert (backprop.varies, backprop.laws, greedy.varies) == (False, [], True)
    assert [(point.value, point.options) for point in greedy.points] == [(b, {"stages": b}) for b in (1, 2, 4)]


def test_a_growth_needs_two_values_and_something_that_varies() -> None:
    """Broken if a scaling without a slope is estimated before anybody is told."""
    with pytest.raises(BadInput, match="two values or more"):
        scale(SUITE, "depth", [4], "test")
    with pytest.raises(BadInput, match="no variant's method has blocks to choose"):
        scale(SUITE[:2], "blocks", [1, 2], "test")
    with pytest.raises(BadInput, match=r"test at depth 1: methods.blocks.blocks: 2 is more than"):
        scale(SUITE, "depth", [1, 4], "test")


@pytest.fixture(scope="module")
def over_depth() -> Scaling:
    return scaled("depth", [4, 9, 16])


@pytest.mark.slow
def test_backprops_layers_hold_the_same_each(over_depth: Scaling) -> None:
    """Broken if embedding and head are counted into the layers."""
    sizes = series(over_depth, "backprop", "layers_activations_own_peak_bytes")
    assert list(sizes) == [4, 9, 16]
    assert len({size / depth for depth, size in sizes.items()}) == 1
    whole = series(over_depth, "backprop", "activations_own_peak_bytes")
    assert len({whole[depth] - sizes[depth] for depth in sizes}) == 1
    assert whole[4] > sizes[4]


@pytest.mark.slow
def test_checkpointing_leaves_the_state_alone_and_takes_the_root(over_depth: Scaling) -> None:
    """Broken if the claims' own quantities are not what their names say."""
    assert series(over_depth, "sqrt", "state_own_peak_bytes") == series(over_depth, "backprop", "state_own_peak_bytes")
    law = over_depth.lines[1].law("activations_own_peak_bytes")
    assert law is not None and law.exponent == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
def test_parameters_are_a_hand_count(over_depth: Scaling) -> None:
    """Broken if a role's bytes are another's: of width 32 and an MLP of 128, a layer has 12,704 parameters."""
    layer = 32 * 96 + 96 + 32 * 32 + 32 + 32 * 128 + 128 + 128 * 32 + 32 + 2 * 2 * 32
    sizes = series(over_depth, "backprop", "parameters_own_peak_bytes")
    assert sizes[9] - sizes[4] == 5 * 4 * layer
    law = over_depth.lines[0].law("parameters_own_peak_bytes")
    assert law is not None and law.bytes_per_unit == pytest.approx(4 * layer)
