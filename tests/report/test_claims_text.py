"""Claims about text, and claims over several suites: what decides, what is only near, and under which budget."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from synthetic import Variant, blocks, build, record_of, trace_of
from test_claims import ACTIVE, BACKPROP, figures, rows, table

from dbbench.report.claims import FAILS, HOLDS, IDENTITY, OPEN, write_claims
from dbbench.report.claims_rules import expected
from dbbench.report.claims_unrolled import SIZES, Shape
from dbbench.results.store import RunFolder

FLOPS = 9 * 10**8  # a step of the denoiser
UPDATES, SAMPLES = 4800, 102_400


def write(
    path: Path,
    suite: str,
    cells: Sequence[tuple[Variant, dict[str, Any]]],
    network: dict[str, Any] | None = None,
    traces: bool = False,
) -> Path:
    """Write a run of ``suite`` with one seed a cell; a cell's changes are of its row, ``network`` of every cell's."""
    folder = RunFolder(path)
    folder.write_run({"suite": suite, "variants": [variant.label for variant, _ in cells]})
    for variant, changes in cells:
        row = {"suite": suite, "metric": "test_bits_per_character", "layer_updates": UPDATES, "samples": SAMPLES}
        record = record_of(variant, 0, **(row | changes))
        cell = record.cell | {"network": record.cell["network"] | (network or {})}
        folder.write_record(record.model_copy(update={"cell": cell}))
        if traces:
            folder.write_trace(record.row.config_hash, trace_of(record))
    return path


def claimed(tmp_path: Path, *folders: Path) -> dict[str, list[str]]:
    assert write_claims(folders, tmp_path / "claims.md") == []
    return rows(tmp_path / "claims.md")


def under(tmp_path: Path, claim: str) -> dict[str, list[str]]:
    """Return {variant: [at equal layer updates, at equal samples]} of a claim."""
    found = table(tmp_path / "claims.md", "By budget")
    return {cells[2].strip("`"): cells[4:] for cells in found if f"`{claim}`" in cells[0]}


# ---------------------------------------------------------------------------------------------- recurrent depth

UNROLLED = Variant("backprop", "backprop", (2.5,), {"truncate": None}, 120.0, flops=(0, 0, 0), network="recurrent")
DENOISER = Variant("denoiser", "diffusion_blocks", (2.9,), blocks(1, "all"), 20.0, network="recurrent")


def recurrent(
    path: Path,
    size: str = "tiny",
    depth: int = 2,
    kept: int | None = None,
    times: float = 4.5,
    denoiser: Variant = DENOISER,
    network: dict[str, Any] | None = None,
    traces: bool = False,
) -> Path:
    """A run whose backprop through ``kept`` applications takes ``times`` the FLOPs of the denoiser."""
    row = {"task": "plays", "network_size": size, "depth": depth}
    backprop = dataclasses.replace(UNROLLED, options={"truncate": kept})
    cells = [
        (backprop, row | {"flops_step": int(times * FLOPS)}),
        (denoiser, row | {"flops_step": FLOPS}),
    ]
    return write(path, "recurrent", cells, network, traces)


def test_the_shapes_are_those_of_the_networks() -> None:
    """Broken if the report reckons with another K, prelude or coda than the network of that size has."""
    from dbbench.networks import recurrent as networks

    at = [networks.FIELDS.index(name) for name in ("recurrences", "prelude", "coda")]
    assert {size: tuple(values[i] for i in at) for size, values in networks.SIZES.items()} == SIZES


@pytest.mark.parametrize(
    ("shape", "kept", "times"),
    [
        (Shape(8, 1, 1, 2), 8, 4.5),  # 18 layers forward, 18 back, over 4 and 4
        (Shape(8, 1, 1, 2), 4, 38 / 12),  # 18 forward, 10 back
        (Shape(32, 2, 2, 4), 8, 8.5),  # Huginn: 132 forward, 36 back, over 8 and 8
        (Shape(1, 1, 1, 2), 1, 1.0),
    ],
)
def test_theory_counts_a_backward_as_two_forwards(shape: Shape, kept: int, times: float) -> None:
    """Broken if the ratio beside the measured one is not that of the layers that run."""
    assert shape.theory(kept) == pytest.approx(times)


@pytest.mark.parametrize(("times", "verdict"), [(4.3, HOLDS), (4.7, HOLDS), (4.2, FAILS), (4.8, FAILS)])
def test_flops_of_one_pass_are_held_against_the_theory(tmp_path: Path, times: float, verdict: str) -> None:
    """Broken if a factor other than the layer count's passes, 4.50 ± 5 % at K = K′ = 8."""
    cells = claimed(tmp_path, recurrent(tmp_path / "run", times=times))["recurrent-flops"]
    assert cells[-1] == verdict
    assert f"({times:.2f} against 4.50) at K = 8, K′ = 8" in cells[3]


def test_the_published_factor_of_ten_is_decided_at_its_own_shape_alone(tmp_path: Path) -> None:
    """Broken if a core of two layers applied 8 times says something of one of four applied 32 times."""
    small = claimed(tmp_path, recurrent(tmp_path / "small"))["huginn-compute"]
    assert small[-1] == OPEN
    assert small[3] == (
        "*nearest*, `denoiser` of `recurrent`: 4.50 times fewer FLOPs a sample at K = 8, K′ = 8; 4.50 in theory"
    )
    shape = {"size": "124m", "depth": 4, "kept": 8}
    assert claimed(tmp_path, recurrent(tmp_path / "a", times=8.4, **shape))["huginn-compute"][-1] == HOLDS
    assert claimed(tmp_path, recurrent(tmp_path / "b", times=7.4, **shape))["huginn-compute"][-1] == FAILS
    # the same size with K = 16 is another shape
    other = recurrent(tmp_path / "c", times=8.4, network={"recurrences": 16}, **shape)
    assert claimed(tmp_path, other)["huginn-compute"][-1] == OPEN


def test_a_network_with_another_k_is_no_baseline(tmp_path: Path) -> None:
    """Broken if the one-pass network that a suite trains end to end is taken for backprop through time."""
    folder = recurrent(tmp_path / "run")
    record = record_of(
        dataclasses.replace(UNROLLED, label="backprop_one_pass"), 0,
        suite="recurrent", task="plays", network_size="tiny", depth=2, flops_step=FLOPS,
        metric="test_bits_per_character",
    )  # fmt: skip
    network = record.cell["network"] | {"recurrences": 1}
    RunFolder(folder).write_record(record.model_copy(update={"cell": record.cell | {"network": network}}))
    claimed(tmp_path, folder)
    assert [cells[1] for cells in figures(tmp_path / "claims.md")["recurrent-flops"]] == ["`denoiser`"]


def test_core_activations_hold_just_below_the_bound_and_fail_just_above(tmp_path: Path) -> None:
    """Broken if the bound is not 1.4/K′, at K′ = 4 of backprop's 120 MiB 42, or if without a trace it is guessed."""
    verdicts = {}
    for size in (41.9, 42.1):
        denoiser = dataclasses.replace(DENOISER, activations_mib=size)
        folder = recurrent(tmp_path / f"{size}", kept=4, denoiser=denoiser, traces=True)
        verdicts[size] = claimed(tmp_path, folder)["recurrent-activations"]
    assert verdicts[41.9][-1] == HOLDS and "at most 0.35" in verdicts[41.9][3]
    assert verdicts[42.1][-1] == FAILS
    assert "(the whole network 0.349, its peak" in verdicts[41.9][3]
    assert claimed(tmp_path, recurrent(tmp_path / "untraced"))["recurrent-activations"][-1] == OPEN


# ------------------------------------------------------------------------------------------------ budgets

TEXT = {"task": "plays", "network_size": "micro"}
ENDS = Variant("backprop", "backprop", (2.5,), {}, network="llama")


def llama(label: str, score: float, clean: float = 0.0, streams: str = "concatenated", mib: float = 90.0) -> Variant:
    options = blocks(3, "all") | {"clean_weight": clean, "streams": streams}
    return Variant(label, "diffusion_blocks", (score,), options, mib, network="llama")


MORE_SEEN = TEXT | {"samples": 3 * SAMPLES}  # B = 3 at equal layer updates
SAME_SEEN = TEXT | {"budget": "samples", "budget_value": SAMPLES, "layer_updates": UPDATES // 3}


def test_a_figure_stands_under_the_budget_that_was_equal_and_decides_no_claim(tmp_path: Path) -> None:
    """Broken if bits per character at equal samples speak for equal layer updates, or for LM1B."""
    cells = [(ENDS, TEXT), (llama("more", 2.4), MORE_SEEN), (llama("same", 2.6), SAME_SEEN)]
    found = claimed(tmp_path, write(tmp_path / "run", "language", cells))
    assert under(tmp_path, "ar-lm1b") == {"more": [HOLDS, "–"], "same": ["–", FAILS]}
    for name in ("ar-lm1b", "ar-openwebtext", "vit-cifar100", "huginn-lm1b"):
        assert found[name][-1] == OPEN
    assert found["ar-lm1b"][3].startswith("*nearest*, `language`, 2 figures: −0.100 to +0.100")
    assert "language" not in found["vit-cifar100"][3]


def test_what_was_equal_is_measured_and_not_read_off_the_budget(tmp_path: Path) -> None:
    """Broken if one block, which sees as much in as many updates, is under one budget only, or half counts as equal."""
    half = TEXT | {"layer_updates": UPDATES // 2, "samples": SAMPLES // 2}
    cells = [(ENDS, TEXT), (llama("both", 2.4), TEXT), (llama("neither", 2.4), half)]
    claimed(tmp_path, write(tmp_path / "run", "language", cells))
    assert under(tmp_path, "ar-lm1b") == {"both": [HOLDS, HOLDS], "neither": ["–", "–"]}


def test_a_run_under_the_other_budget_never_decides(tmp_path: Path) -> None:
    """Broken if MD4 on text8, claimed at equal layer updates, falls or stands by what saw equal samples."""
    row = {"task": "masked_text_folder", "network_size": "text8", "depth": 12}
    ends = dataclasses.replace(ENDS, network="masked")
    bad = Variant("same", "masked_blocks", (2.6,), blocks(3, "active"), network="masked")
    good = dataclasses.replace(bad, label="more", scores=(2.4,))
    alone = write(tmp_path / "a", "masked-text8", [(ends, row), (bad, SAME_SEEN | row)])
    assert claimed(tmp_path, alone)["md4-text8"][-1] == OPEN
    both = write(tmp_path / "b", "masked-text8", [(ends, row), (bad, SAME_SEEN | row), (good, MORE_SEEN | row)])
    assert claimed(tmp_path, both)["md4-text8"][-1] == HOLDS
    assert [cells[1] for cells in figures(tmp_path / "claims.md")["md4-text8"]] == ["`more`"]


def test_a_missing_suite_is_named_and_leaves_its_claims_open(tmp_path: Path) -> None:
    """Broken if a reader cannot tell what was not measured from what failed."""
    found = claimed(tmp_path, write(tmp_path / "run", "language", [(ENDS, TEXT), (llama("db", 2.6), SAME_SEEN)]))
    page = (tmp_path / "claims.md").read_text()
    assert "Not given: `vision`, `masked`, `recurrent`, a scaling over depth, a scaling over blocks." in page
    for name in ("md4-text8", "huginn-lm1b", "huginn-compute", "recurrent-activations", "clean-loss"):
        assert found[name][-1] == OPEN
    assert under(tmp_path, "md4-text8") == {"–": [OPEN, OPEN]}
    for suite in expected().suites[1:]:
        write(tmp_path / suite, suite, [(ENDS, TEXT)])
    build(tmp_path / "vision", [BACKPROP], seeds=1, traces=False, curves=False)
    claimed(tmp_path, *(tmp_path / suite for suite in expected().suites))
    assert "Not given: a scaling over depth, a scaling over blocks." in (tmp_path / "claims.md").read_text()


def test_a_clean_loss_is_held_against_its_twin_without_at_the_same_budget(tmp_path: Path) -> None:
    """Broken if "with" and "without" are of two budgets, or a gap half closed counts as closed."""
    cells = [(ENDS, TEXT), (llama("plain", 3.5), SAME_SEEN), (llama("clean", 3.0, clean=1.0), SAME_SEEN)]
    found = claimed(tmp_path, write(tmp_path / "a", "language", cells))["clean-loss"]
    assert found[-1] == FAILS
    assert "3.500 (n = 1) without it, 3.000 (n = 1) against 2.500 (n = 1)" in found[3]
    assert "50.0 % of the gap" in found[3]
    assert under(tmp_path, "clean-loss") == {"clean": ["–", FAILS]}
    assert "not the paper's" in found[1]
    closed = [*cells[:2], (llama("clean", 2.4, clean=1.0), SAME_SEEN)]
    assert claimed(tmp_path, write(tmp_path / "b", "language", closed))["clean-loss"][-1] == HOLDS
    two_budgets = [cells[0], (llama("plain", 3.5), MORE_SEEN), cells[2]]
    assert claimed(tmp_path, write(tmp_path / "c", "language", two_budgets))["clean-loss"][-1] == OPEN


# ----------------------------------------------------------------------------------- memory, over several suites


def test_the_doubled_sequence_is_decided_by_the_concatenated_pass(tmp_path: Path) -> None:
    """Broken if the two passes, shown beside, decide: a third of backprop's 120 MiB, twice, is 80."""
    cells = [
        (ENDS, TEXT),
        (llama("one", 2.6, mib=81.0), SAME_SEEN),
        (llama("two", 2.6, streams="two_pass", mib=60.0), SAME_SEEN),
    ]
    found = claimed(tmp_path, write(tmp_path / "a", "language", cells, traces=True))["ar-doubling"]
    assert found[-1] == HOLDS
    assert found[3].startswith("`one` of `language`: 0.675 of backprop's activations in the layers, at least 0.667")
    assert "*beside*, two passes: `two` of `language`: 0.500 of backprop's activations in the layers" in found[3]
    less = [cells[0], (llama("one", 2.6, mib=79.0), SAME_SEEN), cells[2]]
    assert claimed(tmp_path, write(tmp_path / "b", "language", less, traces=True))["ar-doubling"][-1] == FAILS


def test_suites_that_disagree_each_have_their_verdict(tmp_path: Path) -> None:
    """Broken if images hide text, or the blocks of masked diffusion are not among those that are held to 1/B."""
    build(tmp_path / "vision", [BACKPROP, ACTIVE], seeds=1, traces=False, curves=False)
    masked = Variant("masked_b3", "masked_blocks", (2.6,), blocks(3, "active"), 90.0, network="masked")
    ends = dataclasses.replace(ENDS, network="masked")
    write(tmp_path / "masked", "masked", [(ends, TEXT), (masked, SAME_SEEN)])
    everything = claimed(tmp_path, tmp_path / "vision", tmp_path / "masked")
    found = everything["memory-active"]
    assert found[-1] == "fails: `masked`; holds: `vision`"
    # MiB: (1 + .2 + 2 + 40 + 3.4) / 133.0 and (3 + .6 + 6 + 90 + 3.4) / 133.0
    assert found[3] == (
        "`db` of `vision`: 0.350 of backprop's peak, at most 0.5 (holds)<br>"
        "`masked_b3` of `masked`: 0.774 of backprop's peak, at most 0.5 (fails)"
    )
    failed = sum(cells[-1].startswith(FAILS) for cells in everything.values())
    assert f"; fails: {failed}; " in (tmp_path / "claims.md").read_text()


def test_the_partition_of_masked_diffusion_is_algebra(tmp_path: Path) -> None:
    """With α = 1 − t equal decrements of α are equal parts of t: true of any B, so that no run decides it."""
    count = 5
    alphas = [1 - b / count for b in range(count + 1)]
    assert [a - b for a, b in itertools.pairwise(alphas)] == pytest.approx([1 / count] * count)
    found = claimed(tmp_path, write(tmp_path / "run", "masked", [(ENDS, TEXT)]))
    assert found["md4-partition"][-1] == IDENTITY


def test_names_break_no_table_and_the_page_is_the_same_twice(tmp_path: Path) -> None:
    """Broken if a label's bar makes a column, or the order of anything is left to chance."""
    odd = llama("a|b`*<br>", 2.6)
    folder = write(tmp_path / "run", "language", [(ENDS, TEXT), (odd, SAME_SEEN)], traces=True)
    claimed(tmp_path, folder)
    page = (tmp_path / "claims.md").read_bytes()
    widths = set()
    for line in page.decode().replace("\\|", "").split("\n"):
        if line.startswith("| "):
            widths.add(line.count("|") - 1)
    assert widths == {5, 6, 7}
    claimed(tmp_path, folder)
    assert (tmp_path / "claims.md").read_bytes() == page
