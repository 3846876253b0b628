"""The store: nothing is lost, torn, silently trimmed or silently skipped."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbbench.errors import BadInput
from dbbench.results.record import COLUMNS, Held, MetricValue, Timing, column_type
from dbbench.results.roles import ROLES
from dbbench.results.store import RECORD_LIMIT_BYTES, RunFolder

TRACE = pd.DataFrame(
    {
        "step": [1, 1, 1],
        "block": [0, 0, 0],
        "phase": ["resident", "forward", "backward"],
        "role": ["parameters", "activations", "activations"],
        "module": ["", "layers.0", "layers.0"],
        "op": ["(resident)", "aten.mm", "aten.mm"],
        "storage": [0, 1, 1],
        "bytes": [2**40, 512, -512],
        "made_by": ["weight", "aten.mm", "aten.mm"],
        "holder": ["", "input of relu in layers.1", "input of relu in layers.1"],
    }
)


def test_a_record_reads_back_equal(tmp_path, make_record):
    folder = RunFolder(tmp_path)
    record = make_record(error="naïve ✓ \n second line", metric_value=0.1 + 0.2)
    folder.write_record(record)
    (read,), problems = folder.read_records()
    assert read == record
    assert problems == []


def test_a_diverged_metric_stays_a_nan_and_the_record_readable(tmp_path, make_record):
    folder = RunFolder(tmp_path)
    record = make_record(metric_value=math.nan)
    record.metrics[0].value = math.nan
    folder.write_record(record)
    (read,), problems = folder.read_records()
    assert math.isnan(read.metrics[0].value)
    assert problems == []


def test_an_error_that_is_not_unicode_does_not_lose_the_cell(tmp_path, make_record):
    folder = RunFolder(tmp_path)
    folder.write_record(make_record(status="failed", error="cannot open 'caf\udce9'"))
    assert folder.read_records()[0][0].row.error.startswith("cannot open 'caf")


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(
        st.tuples(st.sampled_from(ROLES), st.integers(1, 10**12), st.integers(1, 50)), min_size=150, max_size=400
    )
)
def test_trimming_keeps_the_bytes_of_every_role_and_the_largest_holders(tmp_path_factory, make_record, sizes):
    """A record above 20 KiB must lose detail, never bytes, and must say so."""
    held = [
        Held(role=role, module=f"layers.{i}.attention", op="aten.bmm", bytes=size, storages=count)
        for i, (role, size, count) in enumerate(sizes)
    ]
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    record = make_record(held=held)
    folder.write_record(record)
    path = folder.path / "records" / f"{record.row.config_hash}.json"
    (read,), _ = folder.read_records()
    assert path.stat().st_size <= RECORD_LIMIT_BYTES
    for role in ROLES:
        for what in ("bytes", "storages"):
            before = sum(getattr(h, what) for h in held if h.role == role)
            assert sum(getattr(h, what) for h in read.held_at_peak if h.role == role) == before
    kept = [h for h in read.held_at_peak if not h.module.endswith("(everything else)")]
    folded = len(held) - len(kept)
    if folded:
        first = sorted(held, key=lambda h: (h.role not in ("retained", "other"), -h.bytes))
        assert [h.bytes for h in first[: len(kept)]] == [h.bytes for h in kept]
        assert "summed by role" in read.unavailable["held_at_peak"]
    else:
        assert "held_at_peak" not in read.unavailable


def test_trimming_spares_what_a_report_itemises(tmp_path, make_record):
    """Retained and other are small, so keeping the largest alone would hide exactly what must be listed."""
    held = [Held(role="activations", module=f"m{i}", op="o" * 50, bytes=10**6, storages=1) for i in range(500)]
    held += [Held(role="retained", module="", op="mm", holder=f"local {i}", bytes=4, storages=1) for i in range(20)]
    record = make_record(held=held)
    RunFolder(tmp_path).write_record(record)
    (read,), _ = RunFolder(tmp_path).read_records()
    assert {h.holder for h in read.held_at_peak if h.role == "retained"} == {f"local {i}" for i in range(20)}


def test_trimming_keeps_as_many_lines_as_fit(tmp_path, make_record):
    """If it kept fewer, holders would be hidden without need."""
    held = [Held(role="activations", module=f"m{i}", op="o" * 50, bytes=i, storages=1) for i in range(1, 1000)]
    record = make_record(held=held)
    RunFolder(tmp_path).write_record(record)
    size = (tmp_path / "records" / f"{record.row.config_hash}.json").stat().st_size
    assert RECORD_LIMIT_BYTES - 200 < size <= RECORD_LIMIT_BYTES


@pytest.mark.parametrize("letter", ["x", "é", "✓", '"', "\x01"])
def test_a_runaway_error_is_cut_visibly(tmp_path, make_record, letter):
    folder = RunFolder(tmp_path)
    record = make_record(status="failed", error="start " + letter * 40_000)
    folder.write_record(record)
    (read,), problems = folder.read_records()
    assert problems == []
    assert read.row.error.startswith("start " + letter * 1000)
    assert read.row.error.endswith("20 KiB]")
    assert record.row.error.endswith(letter), "the caller's record must not change"


def test_a_record_that_cannot_be_trimmed_is_refused(tmp_path, make_record):
    record = make_record(options_json="x" * 30_000)
    with pytest.raises(ValueError, match="over 20 KiB"):
        RunFolder(tmp_path).write_record(record)
    assert not list(tmp_path.rglob("*.json"))


def test_roles_that_do_not_sum_to_the_peak_are_refused_on_writing(tmp_path, make_record):
    with pytest.raises(ValueError, match="roles sum to 78000 bytes, the peak is 78001"):
        RunFolder(tmp_path).write_record(make_record(peak_bytes=78_001))


def test_every_damaged_record_is_one_line_and_the_others_are_read(tmp_path, make_record):
    folder = RunFolder(tmp_path)
    for digit in "0123456":
        folder.write_record(make_record(digit * 16, seed=int(digit)))
    records = tmp_path / "records"
    raw = {digit: (records / f"{digit * 16}.json").read_text() for digit in "0123456"}
    (records / f"{'1' * 16}.json").write_text(raw["1"][: len(raw["1"]) // 2])
    (records / f"{'2' * 16}.json").write_text(raw["2"].replace('"seed": 2', '"seed": "two"'))
    (records / f"{'3' * 16}.json").write_text(raw["4"])
    (records / f"{'4' * 16}.json").write_text(raw["4"].replace('"schema_version": 1', '"schema_version": 99'))
    (records / f"{'5' * 16}.json").write_text(raw["5"].replace('"peak_bytes": 78000', '"peak_bytes": 60000'))
    (records / f"{'6' * 16}.json").write_text("[" * 100_000)
    read, problems = folder.read_records()
    assert [record.row.seed for record in read] == [0]
    said = ["truncated", "'row.seed'", "not that of its name", "99 is newer", "the peak is 60000", "truncated"]
    assert len(problems) == len(said)
    for digit, words, problem in zip("123456", said, problems, strict=True):
        assert problem.startswith(f"records/{digit * 16}.json: ")
        assert words in problem
        assert "\n" not in problem
    assert folder.finished() == {"0" * 16}


@pytest.mark.parametrize(
    ("name", "value", "bounds", "words"),
    [
        ("accuracy", 1.2, {}, "above 1"),
        ("accuracy", -0.1, {}, "below 0"),
        ("bits_per_character", -9.4, {}, "below 0"),
        ("perplexity", 0.5, {}, "below 1"),
        ("shots", 7.0, {"lowest": 0.0, "highest": 5.0}, "above 5"),
    ],
)
def test_a_record_with_a_figure_of_merit_that_cannot_be_is_left_out(tmp_path, make_record, name, value, bounds, words):
    """An impossible score stands in the table as any other."""
    record = make_record(metric=f"test_{name}", metric_value=value)
    kind = {"unit": "of something", "direction": "higher"}
    record.metrics = [MetricValue(split="test", step=1, name=name, value=value, **kind, **bounds)]
    folder = RunFolder(tmp_path)
    folder.write_record(record)
    read, (problem,) = folder.read_records()
    assert not read
    assert f"its test {name} is {value:g}, which is {words}; left out" in problem


def test_a_row_says_what_its_metrics_say(tmp_path, make_record):
    """A figure edited by hand goes into the table."""
    record = make_record(metric_value=0.5)
    record.row.metric_value = 0.9
    folder = RunFolder(tmp_path)
    folder.write_record(record)
    assert folder.read_records()[0] == []
    assert "row.metric_value is not the test_accuracy among its metrics" in folder.read_records()[1][0]


def test_only_finished_cells_count_as_finished(tmp_path, make_record):
    folder = RunFolder(tmp_path)
    for i, status in enumerate(("ok", "failed", "out_of_memory", "timeout", "killed", "interrupted")):
        folder.write_record(make_record(f"{i:016x}", status=status))
    assert folder.finished() == {f"{0:016x}"}


def test_a_crash_while_writing_leaves_the_old_record(tmp_path, make_record, monkeypatch):
    """SIGKILL between write and rename, as an exception at the same place."""
    folder = RunFolder(tmp_path)
    folder.write_record(make_record(metric_value=0.25))

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        folder.write_record(make_record(metric_value=0.75))
    monkeypatch.undo()
    (read,), problems = folder.read_records()
    assert read.row.metric_value == 0.25
    assert problems == []
    assert [p.suffix for p in (tmp_path / "records").iterdir()] == [".json"]


def test_a_leftover_of_a_kill_is_not_taken_for_a_record(tmp_path, make_record):
    folder = RunFolder(tmp_path)
    folder.write_record(make_record())
    (tmp_path / "records" / ".0123456789abcdef.json.x1y2.tmp").write_text('{"row": ')
    assert len(folder.read_records()[0]) == 1
    assert folder.read_records()[1] == []


def test_a_trace_reads_back_with_its_types(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_trace("a", TRACE)
    read = folder.read_trace("a")
    words = dict.fromkeys(("phase", "role", "module", "op", "made_by", "holder"), "str")
    assert read.astype(words).to_dict("list") == TRACE.to_dict("list")
    types = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "traces" / "a.parquet")}
    assert types["bytes"] == "int64"
    assert types["step"] == "int32"
    assert types["role"].startswith("dictionary")


def test_a_missing_trace_is_none_and_a_torn_one_is_one_line(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read_trace("a") is None
    folder.write_trace("a", TRACE)
    path = tmp_path / "traces" / "a.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadInput, match=r"^traces/a\.parquet: torn"):
        folder.read_trace("a")


def test_curves_lacking_a_column_are_refused_by_name(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "curves").mkdir()
    pd.DataFrame({"step": [1]}).to_parquet(tmp_path / "curves" / "a.parquet")
    with pytest.raises(BadInput, match="lacks the column 'samples'"):
        folder.read_curves("a")


def test_a_torn_run_json_is_one_line_and_the_tables_are_still_written(tmp_path, make_record):
    folder = RunFolder(tmp_path)
    folder.write_run({"variants": ["b", "a"]})
    assert folder.variants() == ["b", "a"]
    (tmp_path / "run.json").write_text('{"variants": [')
    with pytest.raises(BadInput, match=r"run\.json: truncated"):
        folder.read_run()
    folder.write_record(make_record())
    folder.write_tables()
    assert len(pd.read_parquet(tmp_path / "results.parquet")) == 1


def test_a_timing_without_positive_times_is_left_out_with_a_reason(tmp_path):
    folder = RunFolder(tmp_path)
    good = Timing(config_hash="a", variant="v", steps_per_round=2, seconds_per_step=[0.1], samples_per_step=8)
    folder.write_timing(good)
    folder.write_timing(good.model_copy(update={"config_hash": "b", "seconds_per_step": [0.0]}))
    read, problems = folder.read_timings()
    assert read == [good]
    assert problems == ["timing/b.json: holds no positive times; left out"]


def test_tables_have_the_columns_and_types_of_the_schema(tmp_path, make_record):
    folder = RunFolder(tmp_path)
    folder.write_record(make_record(flops_train_total=2**62 + 1))
    folder.write_tables()
    frame = pd.read_parquet(tmp_path / "results.parquet", dtype_backend="numpy_nullable")
    assert tuple(frame.columns) == COLUMNS
    kinds = {"Int64": "int64", "Float64": "double", "string": "string"}
    for field in pq.read_schema(tmp_path / "results.parquet"):
        assert str(field.type).removeprefix("large_") == kinds[column_type(field.name)], field.name
    assert frame["flops_train_total"][0] == 2**62 + 1, "an integer must not pass through a float"
    assert frame["energy_joules"].isna().all(), "what was not measured is null, not zero"
    again = pd.read_csv(tmp_path / "results.csv", dtype={name: column_type(name) for name in COLUMNS})
    for name in COLUMNS:
        assert again[name].dropna().tolist() == frame[name].dropna().tolist(), name


def test_tables_are_the_same_bytes_whatever_the_order_of_writing(tmp_path, make_record):
    records = [make_record(f"{i:016x}", seed=i % 3, variant=v) for i, v in enumerate(("b", "a", "c") * 3)]
    bodies = []
    for place, order in (("one", records), ("two", records[::-1])):
        folder = RunFolder(tmp_path / place)
        folder.write_run({"variants": ["c", "a"]})
        for record in order:
            folder.write_record(record)
        folder.write_tables()
        bodies.append(
            [Path(folder.path / f"{n}").read_bytes() for n in ("results.parquet", "metrics.parquet", "results.csv")]
        )
    assert bodies[0] == bodies[1]
    frame = pd.read_parquet(tmp_path / "one" / "results.parquet")
    assert frame["variant"].tolist() == ["c"] * 3 + ["a"] * 3 + ["b"] * 3, "suite order first, then the unlisted"


def test_metrics_parquet_is_long_and_ordered(tmp_path, make_record):
    folder = RunFolder(tmp_path)
    folder.write_record(make_record())
    folder.write_tables()
    frame = pd.read_parquet(tmp_path / "metrics.parquet")
    assert list(frame.columns) == ["config_hash", "split", "step", "name", "variant", "value", "unit", "direction"]
    assert frame.iloc[0].to_dict() == {
        "config_hash": "0123456789abcdef",
        "split": "test",
        "step": 100,
        "name": "accuracy",
        "variant": "",
        "value": 0.5,
        "unit": "fraction",
        "direction": "higher",
    }


def test_opening_a_folder_creates_nothing(tmp_path):
    folder = RunFolder(tmp_path / "new")
    assert folder.read_records() == ([], [])
    assert folder.read_run() == {}
    assert not (tmp_path / "new").exists()


def test_files_are_readable_json_for_others(tmp_path, make_record):
    folder = RunFolder(tmp_path)
    record = make_record()
    folder.write_record(record)
    path = tmp_path / "records" / f"{record.row.config_hash}.json"
    assert json.loads(path.read_text())["row"]["peak_bytes"] == 78_000
    assert path.stat().st_mode & 0o444 == 0o444
