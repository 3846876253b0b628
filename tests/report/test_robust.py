"""Folders that a crash, a hand, another version or an enemy left: said in a line each, and the report goes on."""

from __future__ import annotations

import ast
import contextlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import USUAL, build, record_of, timing_of, trace_of

from dbbench.errors import BadInput
from dbbench.report import latex, tables
from dbbench.report.figure_style import NothingToDraw, page
from dbbench.report.figures import FIGURES
from dbbench.report.run import load
from dbbench.report.summary import summary_markdown, write_report
from dbbench.results.record import Record
from dbbench.results.store import RunFolder, from_parquet, to_json

PACKAGE = Path(__file__).parents[2] / "dbbench"
#: Modules that run what they read.
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    """Every call in a module by its dotted name."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [(ast.unparse(node.func), node) for node in found]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_of_the_package_unpickles(path: Path) -> None:
    """Broken if reading a folder that somebody sent can run their code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    modules = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level]
    imported |= {module.split(".")[0] for module in modules}
    assert not imported & UNSAFE
    for name, call in calls(tree):
        last = name.rpartition(".")[2]
        assert last not in ("read_pickle", "to_pickle", "unsafe_load", "full_load"), name
        options = {key.arg: ast.unparse(key.value) for key in call.keywords}
        if name in ("np.load", "numpy.load"):
            assert options.get("allow_pickle") == "False"
        if name in ("torch.load", "yaml.load"):
            assert options.get("weights_only") == "True" or "Loader" in options, name


class Trap:
    """Unpickled, it leaves a file: an enemy's trace would do worse."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_parquet_file_with_a_pickle_in_it_is_read_as_bytes_or_not_at_all(tmp_path: Path) -> None:
    """Broken if an extension type of Arrow, or pandas' own metadata, is unpickled on the way to a trace."""
    sprung = tmp_path / "sprung"
    trap = pickle.dumps(Trap(sprung))
    folder = build(tmp_path / "run", USUAL[:1], seeds=1)
    name = record_of(USUAL[0], 0).row.config_hash
    table = pa.Table.from_pandas(trace_of(record_of(USUAL[0], 0)), preserve_index=False)
    extension = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": trap}
    fields = [field.with_metadata(extension) for field in table.schema]
    schema = pa.schema(fields, metadata={b"pandas": trap, b"ARROW:pickle": trap})
    path = tmp_path / "run" / "traces" / f"{name}.parquet"
    pq.write_table(table.cast(schema), path)
    with contextlib.suppress(BadInput):
        folder.read_trace(name)
    assert load(tmp_path / "run").records
    assert not sprung.exists()
    pickle.loads(trap)
    assert sprung.exists(), "the trap works, so that it was not sprung means something"


@pytest.mark.parametrize(
    ("version", "words"),
    [(0, "schema version 0 is older than the 1 this dbbench reads; left out"), (99, "schema version 99 is newer")],
)
def test_a_record_of_another_schema_is_refused_by_name(tmp_path: Path, version: int, words: str) -> None:
    """Broken if its unknown fields are called a hand's work, or it is read as what it is not."""
    build(tmp_path, USUAL[:2], seeds=1)
    name = record_of(USUAL[0], 0).row.config_hash
    path = tmp_path / "records" / f"{name}.json"
    raw = json.loads(path.read_text())
    for extra in ({}, {"a_column_of_another_time": 1}):
        raw["row"] |= {"schema_version": version} | extra
        path.write_text(json.dumps(raw))
        (problem,) = load(tmp_path).problems
        assert problem.startswith(f"records/{name}.json: {words}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peak_bytes": 10**30}, "row.peak_bytes is 1000000000000000000000000000000"),
        ({"flops_step": -5}, "row.flops_step is -5"),
        ({"reserved_bytes": -1}, "row.reserved_bytes is -1"),
        ({"peak_bytes": 7}, "roles sum to"),
        ({"status": "fine"}, "does not fit the schema at 'row.status'"),
        ({"unknown": 1}, "does not fit the schema at 'row.unknown'"),
        ({"config_hash": "../../x"}, "holds the hash ../../x"),
    ],
)
def test_an_edited_record_is_left_out_and_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    build(tmp_path, USUAL[:2], seeds=1, traces=False, curves=False)
    name = record_of(USUAL[0], 0).row.config_hash
    path = tmp_path / "records" / f"{name}.json"
    raw = json.loads(path.read_text())
    raw["row"] |= change
    path.write_text(json.dumps(raw))
    run = load(tmp_path)
    (problem,) = run.problems
    assert problem.startswith(f"records/{name}.json: ") and words in problem
    assert [c.label for c in run.configurations] == ["checkpointing"]


TIMES = ("seconds_per_step", [[], [0.0], [float("nan")], [float("inf")], [1, -1]])


@pytest.mark.parametrize("value", TIMES[1], ids=str)
def test_a_timing_without_positive_times_is_left_out(tmp_path: Path, value: list[float]) -> None:
    folder = build(tmp_path, USUAL[:2], seeds=1, traces=False, curves=False)
    folder.write_timing(timing_of(USUAL[0]).model_copy(update={TIMES[0]: value}))
    (problem,) = load(tmp_path).problems
    assert problem.endswith("holds no positive times; left out")


@pytest.mark.usefixtures("only_timeline")
def test_a_trace_of_other_types_is_one_line(tmp_path: Path) -> None:
    """Broken if a hand-made parquet file ends a report in a traceback."""
    folder = build(tmp_path, USUAL[:2], seeds=1)
    good = trace_of(record_of(USUAL[0], 0))
    name = record_of(USUAL[0], 0).row.config_hash
    path = tmp_path / "traces" / f"{name}.parquet"
    bad = {
        "is no int64": good.assign(bytes="many"),
        "has a row without a value": good.assign(bytes=pd.array([None] * len(good), dtype="Int64")),
        "is no int32": good.assign(step=2**40),
        "lacks the column 'phase'": good.drop(columns="phase"),
    }
    for words, frame in bad.items():
        frame.to_parquet(path)
        with pytest.raises(BadInput, match=f"traces/{name}.parquet: .*{words}"):
            folder.read_trace(name)
    (problem,) = write_report(tmp_path)
    assert problem.endswith("lacks the column 'phase'")
    assert (tmp_path / "figures" / "timeline.pdf").exists(), "the other variant's trace is intact"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzzed")
    build(path, USUAL[:2], seeds=1, traces=False, curves=False)
    return path


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a JSON value."""
    if isinstance(value, dict):
        return [at, *(place for key in value for place in places(value[key], (*at, key)))]
    if isinstance(value, list):
        return [at, *(place for i, item in enumerate(value[:3]) for place in places(item, (*at, i)))]
    return [at]


ORIGINAL = json.loads(to_json(record_of(USUAL[0], 0)))
PLACES = [place for place in places(ORIGINAL) if place]
STRANGE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just([]), st.just({}),
    st.just(10**400), st.just("9" * 5000), st.just({"a": {"b": [1, None, "c"]}}),
)  # fmt: skip


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=STRANGE, drop=st.booleans())
def test_whatever_stands_anywhere_in_a_record_the_report_goes_on(
    base: Path, place: tuple[Any, ...], value: Any, drop: bool
) -> None:
    """Broken if one edited value ends everything else in a traceback."""
    raw = json.loads(json.dumps(ORIGINAL))
    inside = raw
    for key in place[:-1]:
        inside = inside[key]
    if drop:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    name = ORIGINAL["row"]["config_hash"]
    (base / "records" / f"{name}.json").write_text(json.dumps(raw), encoding="utf-8")
    run = load(base)
    assert len(run.records) + len(run.problems) == 2
    table = tables.comparison(run)
    assert summary_markdown(run, table, {}).startswith("# ")
    latex.write_tables(base, run, table)


def test_a_figure_of_values_that_are_no_numbers_is_drawn_or_says_why(tmp_path: Path) -> None:
    """Broken if a run that diverged, whose metric is not a number, has no report."""
    folder = build(tmp_path, USUAL[:2], seeds=1, traces=False, curves=False)
    for value in (float("nan"), float("inf")):
        folder.write_record(record_of(USUAL[0], 0, metric_value=value))
        run = load(tmp_path)
        with page():
            for name, (draw, _) in FIGURES.items():
                try:
                    draw(run, tables.comparison(run)).canvas.draw()
                except NothingToDraw:
                    assert name in ("timeline", "learning")


@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_no_record_and_no_parquet(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Broken if what is not UTF-8, not JSON or not parquet ends in another exception than the one that is caught."""
    path = tmp_path_factory.mktemp("bytes")
    (path / "records").mkdir()
    (path / "records" / "x.json").write_bytes(data)
    records, problems = RunFolder(path).read_records()
    assert (records, len(problems)) == ([], 1)
    (path / "x.parquet").write_bytes(data)
    with pytest.raises(BadInput):
        from_parquet(path / "x.parquet", pa.schema([("a", pa.int64())]))


def test_both_ways_of_reading_a_record_agree() -> None:
    """Broken if the fast reader takes a value for another than the slow one, which is asked where it refuses."""
    body = to_json(record_of(USUAL[3], 1, metric_value=0.1 + 0.2))
    fast, slow = Record.model_validate_json(body), Record.model_validate(json.loads(body))
    assert fast == slow
    assert fast.held_at_peak == slow.held_at_peak
    assert np.isclose(fast.row.metric_value or 0, 0.3)
