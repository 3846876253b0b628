"""``dbbench estimate``: what it prints, keeps and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from estimates import GIB, estimate, figures
from typer.testing import CliRunner

from dbbench.cli import app
from dbbench.estimate.bound import lower_bound
from dbbench.estimate.devices import device_model
from dbbench.report.estimate_table import EstimateTable, table_of
from dbbench.results.estimate import Budget, EstimateLine, Estimates
from dbbench.results.record import Record, Row

SMOKE = """
suite: made-up
task: {name: digits}
network: {name: vit, size: micro, depth: 2}
budget: {kind: samples, value: 320}
batch_size: 8
seeds: [0, 1]
methods:
  backprop: {}
  greedy: {stages: 2}
  lost: {method: backprop, task: {name: cifar10, folder: nowhere}}
"""


def test_asking_for_estimates_imports_neither_torch_nor_pandas() -> None:
    """The process that waits would hold 200 MiB of its own."""
    code = "import sys, dbbench.estimate.suite; print(sorted({'torch', 'pandas', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_suite_is_estimated_kept_and_not_mixed_with_a_run(tmp_path: Path) -> None:
    """Estimates would be trained runs' records to whoever reads the folder, or one lost data set end them all."""
    (tmp_path / "made-up.yaml").write_text(SMOKE)
    out = tmp_path / "out"
    order = ["estimate", str(tmp_path / "made-up.yaml"), "--memory", "1GiB", "--processes", "1", "--out", str(out)]
    result = CliRunner().invoke(app, order)
    assert result.exit_code == 1, result.output
    assert "not estimated: lost" in result.output
    frame = pd.read_parquet(out / "results.parquet")
    assert frame["variant"].tolist() == ["backprop", "greedy", "lost"]  # the first seed alone
    assert frame["source"].tolist() == ["fake"] * 3
    assert frame["status"].tolist() == ["ok", "ok", "failed"]
    ok = frame[frame["status"] == "ok"]
    assert (ok["peak_bytes"] <= ok["allocated_bytes"]).all()
    assert (ok["allocated_bytes"] <= ok["reserved_bytes"]).all()
    estimates = Estimates.model_validate(json.loads((out / "estimates.json").read_bytes()))
    assert [line.fits for line in estimates.lines] == ["yes", "yes", None]
    assert (out / "estimate.md").read_text().startswith("# made-up on 1 GiB, estimated")
    mixed = CliRunner().invoke(app, ["run", "smoke", "--out", str(out)])
    assert mixed.exit_code == 2
    assert "holds an estimate" in mixed.output


def test_an_estimate_does_not_touch_a_trained_run(tmp_path: Path) -> None:
    """A run's records would be joined by others that nothing was trained for."""
    (tmp_path / "run.json").write_text('{"suite": "vision"}')
    result = CliRunner().invoke(app, ["estimate", "smoke", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds a trained run" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device-model", "h100-80"], "did you mean 'h100-80gb'?"),
        (["--memory", "12 parsecs"], "--memory: unknown unit 'parsecs'"),
        (["--memory", "256MiB"], "no more than the headroom"),
        (["--alloc-conf", "expandable_segment:True"], "did you mean 'expandable_segments'?"),
        (["--only", "method=backprp"], "did you mean 'backprop'?"),
    ],
)
def test_a_slip_is_one_line_and_status_two(options: list[str], message: str) -> None:
    """A user's mistake would be a traceback, or be found after a minute."""
    result = CliRunner().invoke(app, ["estimate", "smoke", *options])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def table() -> EstimateTable:
    """Return a made-up table: one variant that fits by giving back the cache, one that failed."""
    model, good, bad = device_model("h100-80gb"), estimate(), estimate("lost", status="failed", error="no data")
    budget = Budget(memory_bytes=80 * GIB, headroom_bytes=GIB // 2, device_model=model.name, sources=["memory: here"])
    fits = [figures(), figures(capacity_bytes=79 * GIB, retries=3, prediction_fits=False)]
    lines = [
        EstimateLine(
            config_hash=one.record.row.config_hash,
            variant=one.record.row.variant,
            bound=lower_bound(one, model),
            fits="by giving back the cache" if one is good else None,
            **one.model_dump(exclude={"record", "allocators"}),
            allocators=fits if one is good else [],
        )
        for one in (good, bad)
    ]
    estimates = Estimates(
        suite="made-up",
        allocator="",
        budget=budget,
        torch_version="2.13.0",
        dbbench_version="0.1.0",
        lines=lines,
    )
    records: list[Record] = [good.record, bad.record]
    return table_of(estimates, records)


def test_a_rows_roles_sum_to_its_peak_as_shown() -> None:
    """The reader adds the columns up and gets another peak."""
    header, rows = table().grid()
    (row,) = rows
    named = dict(zip(header, row, strict=True))
    roles = ("parameters", "gradients", "optimizer", "activations", "temporaries", "rest")
    assert sum(float(named[role]) for role in roles) == float(named["peak"]) == 5.0
    assert (named["bound by"], named["step takes"]) == ("arithmetic", "≥ 14.9 ms")
    assert named["fits"] == "cache 3×, prediction no"


def test_the_page_says_what_is_not_in_it_and_where_figures_come_from() -> None:
    """A reader would take an estimate for a measurement, or a failed cell for one that was never asked for."""
    page = table().markdown()
    for words in ("CUDA context", "an allowance", "not estimated: lost: no data", "memory: here", "default settings"):
        assert words in page
    assert Row.model_fields["reserved_expandable_bytes"].default is None  # older records have none
