"""Data frames: statistics against numpy, timings merged where they belong, and no mean over two experiments."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbbench.results.frames import final_metric, labels, mean_sd, paired_ratio, results_frame
from dbbench.results.record import MetricValue, Timing


def timing(name: str, seconds: list[float], **changes: object) -> Timing:
    fields = {"config_hash": name, "variant": "backprop", "steps_per_round": 5, "samples_per_step": 8.0}
    return Timing(**(fields | {"seconds_per_step": seconds} | changes))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_mean_and_sd_are_those_of_the_standard_library(values):
    mean, sd, n = mean_sd(values)
    assert mean == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert sd == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-6)
    assert n == len(values)


def test_one_seed_has_no_deviation_and_none_has_no_mean():
    assert mean_sd([0.5, None]) == (0.5, None, 1)
    assert mean_sd([None, np.nan]) == (None, None, 0)


def test_a_timing_fills_every_seed_of_its_configuration_and_no_other(make_record):
    records = [
        make_record("a" * 16, seed=0),
        make_record("b" * 16, seed=1),
        make_record("c" * 16, seed=0, variant="greedy", method="greedy"),
        make_record("d" * 16, seed=2, status="failed"),
    ]
    passed = timing("a" * 16, [0.1, 0.4, 0.2], swap_share=0.25, energy_joules_per_step=3.0)
    frame = results_frame(records, [passed]).set_index("config_hash")
    for name in ("a" * 16, "b" * 16):
        assert frame["samples_per_second"][name] == pytest.approx(8 / 0.2)
        assert frame["swap_share"][name] == 0.25
        assert frame["energy_joules"][name] == pytest.approx(3.0 * 800 / 8)
    for name in ("c" * 16, "d" * 16):
        assert frame["samples_per_second"].isna()[name]


def test_a_timing_does_not_spill_over_a_grid(make_record):
    records = [make_record("a" * 16, depth=6), make_record("b" * 16, depth=12)]
    frame = results_frame(records, [timing("b" * 16, [0.1])]).set_index("config_hash")
    assert frame["samples_per_second"].isna()["a" * 16]
    assert frame["samples_per_second"]["b" * 16] == pytest.approx(80)


def test_the_paired_ratio_is_taken_round_by_round():
    """The ratio of medians would be 1 here: a neighbour slowed both members of the third round tenfold."""
    ratio, rounds = paired_ratio(timing("a", [0.1, 0.2, 3.0]), timing("b", [0.2, 0.2, 6.0]))
    assert ratio == pytest.approx(2.0)
    assert rounds == 3
    ratio, _ = paired_ratio(timing("a", [0.1], samples_per_step=4.0), timing("b", [0.1]))
    assert ratio == pytest.approx(0.5), "it compares samples, not steps"


def test_seeds_share_a_label_and_a_grid_splits_it(make_record):
    records = [make_record(f"{i:016x}", seed=i % 2, depth=6 if i < 2 else 12) for i in range(4)]
    assert [labels(records)[r.row.config_hash] for r in records] == [
        "backprop [network.depth=6]",
        "backprop [network.depth=6]",
        "backprop [network.depth=12]",
        "backprop [network.depth=12]",
    ]
    assert set(labels(records[:2]).values()) == {"backprop"}


def test_records_of_another_torch_or_data_set_are_not_averaged_with_ours(make_record):
    records = [
        make_record("a" * 16, dataset_sha256="1" * 64),
        make_record("b" * 16, dataset_sha256="2" * 64),
        make_record("c" * 16, dataset_sha256="1" * 64, torch_version="2.12.1"),
    ]
    assert len(set(labels(records).values())) == 3


def test_a_failed_seed_is_of_its_brothers_configuration(make_record):
    """It may not have read the data or seen the device; if it got a label of its own, its variant would look whole."""
    records = [
        make_record("a" * 16, dataset_sha256="1" * 64, device="NVIDIA H200"),
        make_record("b" * 16, seed=1, status="killed", device="cuda", dataset_sha256=None, torch_version="2.14.0"),
    ]
    assert set(labels(records).values()) == {"backprop"}


def test_the_final_metric_is_the_test_split_of_the_methods_own_prediction(make_record):
    record = make_record()
    common = {"name": "accuracy", "unit": "fraction", "step": 100}
    record.metrics += [
        MetricValue(split="test", variant="ensemble", value=0.9, direction="higher", **common),
        MetricValue(split="validation", value=0.7, direction="higher", **common),
    ]
    assert final_metric(record).value == 0.5
    record.row.metric = "test_accuracy"
    assert final_metric(record).value == 0.5
    assert final_metric(record.model_copy(update={"metrics": []})) is None


def test_rows_are_sorted_by_variant_seed_size_depth_and_hash(make_record):
    keys = [("b", 1, 6), ("b", 0, 12), ("b", 0, 6), ("a", 0, 6), ("z", 0, 6)]
    records = [make_record(f"{i:016x}", variant=v, seed=s, depth=d) for i, (v, s, d) in enumerate(keys)]
    frame = results_frame(records, variants=["b", "a"])
    assert list(zip(frame["variant"], frame["seed"], frame["depth"], strict=True)) == [
        ("b", 0, 6),
        ("b", 0, 12),
        ("b", 1, 6),
        ("a", 0, 6),
        ("z", 0, 6),
    ]
