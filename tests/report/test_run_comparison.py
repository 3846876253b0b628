"""Two runs compared: what counts as the same, what as noise, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import MIB, USUAL, Variant, build, failed, record_of, timing_of

from dbbench.errors import BadInput
from dbbench.report.run import load
from dbbench.report.run_comparison import Compared, RunComparison, compare_runs
from dbbench.report.run_comparison_table import count_of_rest, markdown, shown_rows

BASE = USUAL[:2]


def made(path: Path, variants: Any = BASE, **options: Any) -> Any:
    build(path, variants=variants, **({"traces": False, "curves": False} | options))
    return load(path)


def found(comparison: RunComparison, label: str, metric: str) -> Compared:
    (row,) = [row for row in comparison.rows if (row.label, row.metric) == (label, metric)]
    return row


def changed(tmp_path: Path, variant: Variant, **options: Any) -> RunComparison:
    return compare_runs(made(tmp_path / "a"), made(tmp_path / "b", [variant, BASE[1]], **options))


def test_a_run_is_the_same_as_itself(tmp_path: Path) -> None:
    """Broken if equal figures are anything but the same."""
    comparison = compare_runs(made(tmp_path / "a"), made(tmp_path / "b"))
    assert {row.verdict for row in comparison.rows} == {"same"}
    assert (comparison.before, comparison.after, comparison.notes) == ("a", "b", [])
    assert shown_rows(comparison, every=False) == []
    assert len(shown_rows(comparison, every=True)) == len(comparison.rows)
    metrics = {row.metric for row in comparison.rows}
    assert {"peak", "activations at the peak", "activations, own peak", "FLOPs, recompute", "samples/s"} <= metrics
    assert {"test accuracy", "FLOPs of the training"} <= metrics


def test_one_byte_is_a_difference(tmp_path: Path) -> None:
    """Broken if bytes of the ledger have a tolerance; the roles move with the peak."""
    grown = replace(BASE[0], activations_mib=BASE[0].activations_mib + 1 / MIB)
    comparison = changed(tmp_path, grown)
    peak = found(comparison, "backprop", "peak")
    assert (peak.difference, peak.verdict, peak.unit) == (1, "higher", "bytes")
    assert {row.metric for row in comparison.changed} == {"peak", "activations at the peak", "activations, own peak"}
    assert "| `backprop` | peak | 133.00 MiB | 133.00 MiB | +1 bytes | +<0.1 | higher |" in markdown(comparison)
    assert count_of_rest(comparison).startswith("3 of ")


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        ((0.861, 0.858, 0.866), "same"),
        ((0.866, 0.861, 0.858), "within noise"),  # the same mean on other seeds
        ((0.860, 0.859, 0.865), "within noise"),
        ((0.761, 0.758, 0.766), "lower"),
        ((0.961, 0.958, 0.966), "higher"),
    ],
)
def test_a_metric_differs_where_welchs_test_says_so(tmp_path: Path, scores: tuple[float, ...], verdict: str) -> None:
    assert found(changed(tmp_path, replace(BASE[0], scores=scores)), "backprop", "test accuracy").verdict == verdict


def test_one_seed_tells_nothing_of_a_metric_and_the_notes_say_so(tmp_path: Path) -> None:
    """Broken if two single values are called different: without a spread there is no noise to hold them against."""
    other = replace(BASE[0], scores=(0.5,))
    comparison = compare_runs(made(tmp_path / "a", seeds=1), made(tmp_path / "b", [other, BASE[1]], seeds=1))
    assert found(comparison, "backprop", "test accuracy").verdict == "within noise"
    assert "backprop: one seed, so no test can tell a difference of the metric from noise" in comparison.notes


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, "same"), (1.02, "within noise"), (3.0, "slower"), (0.3, "faster")]
)
def test_speed_differs_where_the_rounds_do(tmp_path: Path, factor: float, verdict: str) -> None:
    slower = replace(BASE[0], step_seconds=BASE[0].step_seconds * factor)
    row = found(changed(tmp_path, slower), "backprop", "samples/s")
    assert row.verdict == verdict
    assert row.before == pytest.approx(timing_of(BASE[0]).samples_per_step / 0.1)


def test_other_configurations_are_refused_by_cell_key_and_both_values(tmp_path: Path) -> None:
    """Broken if runs of two batch sizes are compared in silence, or cannot be when that is asked for."""
    folder = build(tmp_path / "b", variants=BASE, traces=False, curves=False)
    for seed in range(3):
        record = record_of(BASE[0], seed)
        record.cell["batch_size"] = 64
        folder.write_record(record)
    one, two = made(tmp_path / "a"), load(tmp_path / "b")
    with pytest.raises(BadInput, match="backprop: batch_size 128 and 64 "):
        compare_runs(one, two)
    comparison = compare_runs(one, two, mismatched=True)
    assert "not the same configuration: backprop: batch_size 128 and 64" in comparison.notes
    assert found(comparison, "backprop", "peak").verdict == "same"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"torch_version": "2.14.0"}, "torch 2.13 and 2.14"),
        ({"device": "NVIDIA H100"}, "device cpu and NVIDIA H100"),
        ({"dataset_sha256": "cd" * 32}, "dataset_sha256 abababababab and cdcdcdcdcdcd"),
    ],
)
def test_torch_device_and_data_are_of_the_configuration(tmp_path: Path, change: dict[str, str], words: str) -> None:
    folder = build(tmp_path / "b", variants=BASE, seeds=1, traces=False, curves=False)
    folder.write_record(record_of(BASE[0], 0, **change))
    with pytest.raises(BadInput, match=f"backprop: {words}"):
        compare_runs(made(tmp_path / "a", seeds=1), load(tmp_path / "b"))


def test_another_patch_of_torch_or_commit_is_compared_and_said(tmp_path: Path) -> None:
    folder = build(tmp_path / "b", variants=BASE, seeds=1, traces=False, curves=False)
    for variant in BASE:
        folder.write_record(record_of(variant, 0, torch_version="2.13.1+cpu", git_commit="fedcba98"))
    notes = compare_runs(made(tmp_path / "a", seeds=1), load(tmp_path / "b")).notes
    assert notes == ["git commit: 0123abcd and fedcba98", "torch: 2.13.0+cpu and 2.13.1+cpu"]


def test_what_only_one_run_has_or_finished_is_named(tmp_path: Path) -> None:
    """Broken if a variant that was dropped, or ran out of memory, vanishes from the comparison."""
    lost = failed(BASE[1], 0, "out_of_memory", "12 GiB asked")
    one = made(tmp_path / "a", seeds=1)
    two = made(tmp_path / "b", [*BASE, USUAL[2]], seeds=1, failures=[lost])
    comparison = compare_runs(one, two)
    assert found(comparison, "greedy", "peak").verdict == "only after"
    assert found(comparison, "checkpointing", "peak").verdict == "not measured"
    assert "greedy: only in b" in comparison.notes
    assert "checkpointing: no cell finished after (out_of_memory)" in comparison.notes
    back = compare_runs(two, one)
    assert found(back, "greedy", "peak").verdict == "only before"
    with pytest.raises(BadInput, match="no configuration in common"):
        compare_runs(one, made(tmp_path / "c", [USUAL[3]]))


def test_a_point_of_a_grid_is_found_in_a_run_without_the_grid(tmp_path: Path) -> None:
    """Broken if cells are matched by label alone: a label names only what varies inside its own run."""
    folder = build(tmp_path / "b", variants=BASE[:1], seeds=1, traces=False, curves=False)
    deeper = record_of(BASE[0], 0, config_hash="f" * 16, depth=12)
    deeper.cell["network"] = deeper.cell["network"] | {"depth": 12}
    folder.write_record(deeper)
    comparison = compare_runs(made(tmp_path / "a", BASE[:1], seeds=1), load(tmp_path / "b"))
    assert found(comparison, "backprop → backprop [network.depth=6]", "peak").verdict == "same"
    assert found(comparison, "backprop [network.depth=12]", "peak").verdict == "only after"


@pytest.mark.parametrize(("grown", "verdict"), [(0, "same"), (1, "within noise"), (40, "higher")])
def test_a_devices_own_peaks_have_a_tolerance(tmp_path: Path, grown: int, verdict: str) -> None:
    for name, more in (("a", 0), ("b", grown)):
        folder = build(tmp_path / name, variants=BASE[:1], seeds=1, traces=False, curves=False)
        figures = {"source": "cuda", "device": "cuda", "reserved_bytes": (200 + more) * MIB}
        folder.write_record(record_of(BASE[0], 0, **figures))
    comparison = compare_runs(load(tmp_path / "a"), load(tmp_path / "b"))
    assert found(comparison, "backprop", "reserved").verdict == verdict
