"""claims.md: verdicts from measured figures under the stated rule, and from nothing else."""

from __future__ import annotations

import dataclasses

import pytest
from synthetic import USUAL, Variant, blocks, build

from dbbench.report.claims import FAILS, HOLDS, IDENTITY, OPEN, claims, write_claims

BACKPROP, CHECKPOINTING = USUAL[:2]
ACTIVE = Variant("db", "diffusion_blocks", (0.8, 0.81), blocks(3, "active"), activations_mib=40.0, state_mib=1.0)


def table(path, *titles: str) -> list[list[str]]:
    """The rows of the tables under ``titles``, without their headers."""
    found, inside = [], False
    for line in path.read_text().split("\n"):
        inside = line[3:] in titles if line.startswith("## ") else inside
        if inside and line.startswith("| ") and not line.startswith(("| claim |", "| suite |", "| --- |")):
            found.append([cell.strip() for cell in line.replace("\\|", "/").strip("|").split(" | ")])
    return found


def rows(path) -> dict[str, list[str]]:
    """The row of each claim, by its id."""
    sections = ("Decided", "Not decided, with the nearest figure", "Not measured, and nothing near")
    return {cells[0].split("`")[1]: cells for cells in table(path, *sections)}


def figures(path) -> dict[str, list[list[str]]]:
    """The rows of every figure, by the claim that it is of."""
    found: dict[str, list[list[str]]] = {}
    for cells in table(path, "Figures"):
        for name in cells[-1].split(", "):
            found.setdefault(name, []).append(cells)
    return found


def claimed(tmp_path, variants) -> dict[str, list[str]]:
    build(tmp_path / "run", variants=variants, seeds=2, traces=False, curves=False)
    assert write_claims([tmp_path / "run"], tmp_path / "claims.md") == []
    return rows(tmp_path / "claims.md")


def test_every_claim_has_one_row_and_a_known_verdict_and_stands_where_that_says(tmp_path):
    found = claimed(tmp_path, USUAL)
    assert sorted(found) == sorted(claim.id for claim in claims())
    assert len(table(tmp_path / "claims.md", "Decided")) + len(
        table(tmp_path / "claims.md", "Not decided, with the nearest figure", "Not measured, and nothing near")
    ) == len(claims())
    for cells in table(tmp_path / "claims.md", "Decided"):
        assert cells[-1] in (HOLDS, FAILS)
    for cells in found.values():
        assert len(cells) == 5
        assert cells[-1] in (HOLDS, FAILS, OPEN, IDENTITY)


PUBLISHED = [
    "59.30",
    "36.16",
    "37.20",
    "10.63",
    "1.45",
    ".71",
    ".82",
    "42.43",
    "46.88",
    "53.32",
    "14.43",
    "0.0181",
    "7.85",
    "38.03",
    "41.64",
    "45.42",
    "40.40",
    "(4P+A)·L/B",
    "4P·L+A",
    ".50504",
    "10×",
]


@pytest.mark.parametrize("published", PUBLISHED)
def test_every_published_figure_is_listed(published):
    assert any(published in claim.published.replace(" ", "") for claim in claims())


def test_memory_holds_just_below_the_bound_and_fails_just_above(tmp_path):
    """The rule is peak ≤ 1.5/B of backprop's: with B = 3, half of 133.0 MiB."""
    small = claimed(tmp_path / "a", [BACKPROP, ACTIVE])["memory-active"]
    assert small[-1] == HOLDS
    assert "at most 0.5" in small[3]
    large = dataclasses.replace(ACTIVE, activations_mib=61.0)
    assert claimed(tmp_path / "b", [BACKPROP, large])["memory-active"][-1] == FAILS


def test_one_variant_above_the_bound_fails_the_claim(tmp_path):
    large = dataclasses.replace(ACTIVE, label="db_large", activations_mib=90.0)
    cells = claimed(tmp_path, [BACKPROP, ACTIVE, large])["memory-active"]
    assert cells[-1] == FAILS
    # MiB: (46.6, 96.6) / 133.0
    assert "2 figures: 0.350 to 0.726 of backprop's peak, at most 0.5 (1 of 2 hold)" in cells[3]
    by_variant = {cells[1]: cells[5] for cells in figures(tmp_path / "claims.md")["memory-active"]}
    assert by_variant == {"`db`": HOLDS, "`db_large`": FAILS}


def test_the_bound_follows_the_number_of_blocks(tmp_path):
    two = dataclasses.replace(ACTIVE, options=blocks(2, "active"), activations_mib=61.0)
    assert claimed(tmp_path, [BACKPROP, two])["memory-active"][-1] == HOLDS


def test_accuracy_on_another_data_set_decides_nothing(tmp_path):
    cells = claimed(tmp_path, [BACKPROP, dataclasses.replace(ACTIVE, options=blocks(3, "all"))])["vit-cifar100"]
    assert cells[-1] == OPEN
    assert cells[3].startswith("*nearest*")
    assert "fashion\\_mnist\\_10k" in cells[3]


def test_without_backprop_a_ratio_is_not_measured(tmp_path):
    assert claimed(tmp_path, [ACTIVE])["memory-active"][-1] == OPEN


def test_four_times_the_parameters(tmp_path):
    found = claimed(tmp_path, [BACKPROP, CHECKPOINTING])
    assert found["memory-standard"][-1] == HOLDS
    assert "4.000 × parameters" in found["memory-standard"][3]
    assert found["memory-checkpointing-state"][-1] == HOLDS


def test_budget_and_residency_of_the_measured_variant_are_shown(tmp_path):
    claimed(tmp_path, [BACKPROP, ACTIVE])
    (cells,) = figures(tmp_path / "claims.md")["memory-active"]
    assert cells[:2] == ["`vision`", "`db`"]
    assert cells[3:6] == ["layer updates 4,800", "active", HOLDS]


def test_the_euler_step_is_an_identity(tmp_path):
    """One Euler step d = (z − D)/σ, z + (σ' − σ)·d is z + (Δσ/σ)(z − D): true of any numbers, so no run decides it."""
    z, denoised, sigma, following = 0.7, -0.2, 3.0, 1.1
    step = z + (following - sigma) * (z - denoised) / sigma
    assert step == pytest.approx(z + (following - sigma) / sigma * (z - denoised))
    assert claimed(tmp_path, [BACKPROP])["euler-step"][-1] == IDENTITY


def test_the_rule_of_every_claim_is_printed(tmp_path):
    found = claimed(tmp_path, USUAL)
    rules = (tmp_path / "claims.md").read_text().split("## Rules")[1]
    nothing_near = table(tmp_path / "claims.md", "Not measured, and nothing near")
    for claim in claims():
        assert claim.rule.text
        assert (f"- `{claim.id}`: " in rules) != (found[claim.id] in nothing_near)
    assert "image generation is not among the tasks" in found["dit-cifar10"][3]
    assert found["scaling-blocks-depth"][3].startswith("no run or scaling given has it; it takes: exponent")
