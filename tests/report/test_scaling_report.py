"""Verdicts on exponents, and the tables, page and figure of a scaling, from made-up growth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import MIB, made_scaling
from matplotlib.text import Text
from synthetic import USUAL, build
from test_claims import figures, rows

from dbbench.report.claims import FAILS, HOLDS, OPEN, write_claims
from dbbench.report.claims_rules import SCALING_KINDS, claims
from dbbench.report.claims_scalings import claims_tested
from dbbench.report.figure_scaling import draw
from dbbench.report.figure_style import WIDTHS, page
from dbbench.report.scaling_table import exponents, markdown, write_scaling
from dbbench.results.scaling import QUANTITIES, Scaling, read_scaling

IN, OUT, STATE = "activations_own_peak_bytes", "layers_activations_own_peak_bytes", "state_own_peak_bytes"


def grows(power: float, fixed: float = 0) -> dict[str, Callable[[int], float]]:
    """Return activations of MiB · value^power and a fixed part outside the layers, and a state linear in the value."""
    return {
        "peak_bytes": lambda v: MIB * (v**power + fixed + 4 * v),
        IN: lambda v: MIB * (v**power + fixed),
        OUT: lambda v: MIB * v**power,
        STATE: lambda v: 4 * MIB * v,
    }


def over_depth(**changes: Any) -> Scaling:
    lines = {
        "backprop": ("backprop", {}, grows(1)),
        "sqrt": ("checkpointing", {"policy": "sqrt"}, grows(0.5)),
        "blocks": ("diffusion_blocks", {"blocks": 4, "residency": "active"}, grows(1)),
    }
    return made_scaling("depth", lines | changes)


def verdicts(scaling: Scaling) -> dict[str, str]:
    return {tested.claim.id: tested.verdict for tested in claims_tested(scaling)}


def test_pure_powers_hold_every_claim_over_depth() -> None:
    """Broken if a growth exactly as claimed fails, or a claim over another axis is given a verdict."""
    assert verdicts(over_depth()) == {
        "scaling-backprop-depth": HOLDS,
        "scaling-backprop-depth-layers-only": HOLDS,
        "scaling-checkpointing-sqrt": HOLDS,
        "scaling-checkpointing-sqrt-layers-only": HOLDS,
        "scaling-checkpointing-state": HOLDS,
        "scaling-blocks-depth": HOLDS,
        "scaling-blocks-depth-layers-only": HOLDS,
    }


def test_a_fixed_part_fails_with_the_head_in_and_holds_with_it_out() -> None:
    """Broken if embedding and head in and out are one figure."""
    found = verdicts(over_depth(backprop=("backprop", {}, grows(1, fixed=4))))
    assert found["scaling-backprop-depth"] == FAILS
    assert found["scaling-backprop-depth-layers-only"] == HOLDS


def test_growth_otherwise_than_claimed_fails() -> None:
    """Broken if the bounds let pass what the claim denies, or a byte of state is not noticed."""
    state = grows(0.5) | {STATE: lambda v: 4 * MIB * v + (v == 16)}
    found = verdicts(over_depth(sqrt=("checkpointing", {"policy": "sqrt"}, state)))
    assert found["scaling-checkpointing-state"] == FAILS
    assert found["scaling-checkpointing-sqrt"] == HOLDS
    linear = verdicts(over_depth(sqrt=("checkpointing", {"policy": "sqrt"}, grows(1))))
    assert linear["scaling-checkpointing-sqrt"] == FAILS


def test_over_blocks_the_activations_fall_as_one_over_b() -> None:
    """Broken if the sign is lost, or backprop's line is measured over blocks that it does not have."""
    lines = {"blocks": ("diffusion_blocks", {"blocks": 1, "residency": "all"}, grows(-1))}
    assert verdicts(made_scaling("blocks", lines)) == {
        "scaling-blocks-count": HOLDS,
        "scaling-blocks-count-layers-only": HOLDS,
    }


def test_scalings_stand_beside_runs_in_claims_and_change_no_verdict_of_theirs(tmp_path: Path) -> None:
    """Broken if a folder with a scaling is read as a run, or moves what runs decide."""
    build(tmp_path / "run", variants=USUAL, seeds=2, traces=False, curves=False)
    assert write_claims([tmp_path / "run"], tmp_path / "alone.md") == []
    write_scaling(tmp_path / "depth", over_depth())
    assert write_claims([tmp_path / "run", tmp_path / "depth"], tmp_path / "both.md") == []
    alone, both = rows(tmp_path / "alone.md"), rows(tmp_path / "both.md")
    ours = {claim.id for claim in claims() if claim.rule.kind in SCALING_KINDS}
    assert {name: cells for name, cells in alone.items() if name not in ours} == {
        name: cells for name, cells in both.items() if name not in ours
    }
    assert {alone[name][-1] for name in ours} == {OPEN}
    cells = both["scaling-checkpointing-sqrt"]
    assert cells[-1] == HOLDS
    assert (
        cells[3]
        == "`sqrt` of `made over depth`: exponent 0.500 ± 0.010 (4 values, 4 to 32), at least 0.45, at most 0.55"
    )
    assert both["scaling-checkpointing-state"][3].endswith("backprop's bytes at each of 4 values, 128.00 MiB at 32")
    assert [cells[4] for cells in figures(tmp_path / "both.md")["scaling-blocks-depth"]] == ["active"]
    assert both["scaling-blocks-count"][-1] == OPEN
    assert "`made over depth`" in (tmp_path / "both.md").read_text()


def test_tables_show_what_is_held_and_the_folder_is_read_back(tmp_path: Path) -> None:
    """Broken if a role that nothing holds fills a row, or what is committed cannot be rebuilt."""
    scaling = over_depth()
    header, table = exponents(scaling)
    assert header == ["exponent over depth", "backprop", "sqrt", "blocks"]
    assert {row[0] for row in table} == {
        "peak", "activations", "activations, layers only", "parameters + gradients + optimizer",
    }  # fmt: skip
    assert {row[0]: row[2] for row in table}["activations"] == "0.500 ± 0.010"
    write_scaling(tmp_path, scaling)
    assert read_scaling(tmp_path) == scaling
    names = ("scaling.json", "points.csv", "exponents.csv", "scaling.md", "figures/scaling.png", "figures/scaling.pdf")
    assert all((tmp_path / name).is_file() for name in names)
    assert (tmp_path / "figures/scaling.png").stat().st_size < 300_000
    points = (tmp_path / "points.csv").read_text().splitlines()
    assert points[0].split(",") == ["variant", "method", "depth", *QUANTITIES]
    assert len(points) == 1 + 3 * 4
    assert "## Claims tested" in markdown(scaling)


@pytest.mark.parametrize("width_inches", WIDTHS.values())
@pytest.mark.parametrize("axis", ["depth", "blocks"])
def test_the_figures_numbers_are_the_exponents_and_do_not_touch(axis: Any, width_inches: float) -> None:
    """Broken if lines that end together have their numbers over each other, or one outside the figure."""
    lines = {f"v{i}": ("backprop", {}, grows(power)) for i, power in enumerate((1, 0.99, 0.98, 0.5, -1))}
    with page():
        figure = draw(made_scaling(axis, lines), width_inches)
        figure.canvas.draw()
        for axes in figure.axes:
            texts = [t for t in axes.findobj(Text) if t in axes.texts]
            boxes = [t.get_window_extent() for t in texts]
            for i, one in enumerate(boxes):
                assert one.x1 <= figure.get_size_inches()[0] * figure.dpi
                assert all(one.y1 <= b.y0 + 2 or b.y1 <= one.y0 + 2 for b in boxes[:i]), texts[i].get_text()
        activations = next(a for a in figure.axes if a.get_title(loc="left") == "activations")
        assert {"0.50", "−1.00"} <= {t.get_text() for t in activations.texts}
