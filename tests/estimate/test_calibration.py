"""Calibrations: errors, tables and the folder, from made-up measurements; and the verb on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from estimates import calibration, side
from typer.testing import CliRunner

from dbbench.cli import app
from dbbench.report.calibration_table import large_errors, markdown, summary, write_calibration
from dbbench.results.calibration import Calibration, Measurement, Side, errors_of

MEASURED = side(1000, activations=400)


def measurement(theirs: Side | None = MEASURED, **changes: object) -> Measurement:
    body = {"side": theirs, "step_seconds": 0.025, "rounds": 7}
    return Measurement.model_validate(body | changes)


def test_errors_are_signed_and_in_per_cent_of_the_measured_total() -> None:
    """An estimate that is too low would look too high, or a small role's error be blown up by its own size."""
    found = calibration((side(980, activations=370), measurement())).cells[0]
    errors = {error.figure: error for error in errors_of(found)}
    assert {name: (e.error_bytes, round(e.percent, 4)) for name, e in errors.items()} == {
        "peak": (-20, -2.0),
        "requested": (-20, round(100 * -20 / 1010, 4)),
        "allocated": (-20, round(100 * -20 / 1020, 4)),
        "reserved": (-20, round(100 * -20 / 1100, 4)),
        "parameters": (10, 1.0),
        "activations": (-30, -3.0),  # of the measured peak of 1,000, not of 400
    }
    assert errors["activations"].where == "activations of made_here: 278 bytes estimated, 300 measured"
    assert errors["requested"].where == "outside the ledger: 10 bytes estimated, 10 measured"


def test_the_median_is_over_cells_and_large_errors_are_listed_with_their_place() -> None:
    """One bad cell would decide the headline, or hide in it."""
    found = calibration(
        (side(1000, activations=400), measurement()),
        (side(1001, activations=401), measurement()),
        (side(1100, activations=500), measurement()),
    )
    assert found.median_percent("peak") == pytest.approx(0.1)
    listed = large_errors(found)
    assert [line.split(":")[0] for line in listed] == [
        "cell_2, peak of the ledger",
        "cell_2, requested of the allocator",
        "cell_2, allocated",
        "cell_2, reserved",
        "cell_2, activations at the peak",
    ]
    assert "+100 bytes (+10.00 %): activations of made_here" in listed[0]


def test_a_cell_that_was_not_measured_is_named_and_does_not_count() -> None:
    """A device that ran out of memory would vanish from the page, or count as an error of nothing."""
    found = calibration(
        (side(1000), measurement(side(1000))), (side(1000), measurement(None, error="CUDA out of memory"))
    )
    assert "cell_1: not measured (CUDA out of memory)." in summary(found)
    assert {error.variant for error in found.errors()} == {"cell_0"}
    assert "1 of 2 cells compared" in summary(found)[0]


def test_the_folder_is_small_and_reads_back(tmp_path: Path) -> None:
    """A calibration could not be looked at again, or its table and its data would differ."""
    found = calibration((side(980, activations=370), measurement()), (None, measurement(None, error="no")))
    write_calibration(tmp_path, found)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"calibration.{end}" for end in ("csv", "json", "md")]
    assert Calibration.model_validate_json((tmp_path / "calibration.json").read_bytes()) == found
    frame = pd.read_csv(tmp_path / "calibration.csv")
    assert (frame["estimated_bytes"] - frame["measured_bytes"]).tolist() == frame["error_bytes"].tolist()
    page = markdown(found)
    for expected in ("| `cell_0` |", "-2.000 %", "25 ms", "10 ms arithmetic", "2.50×", "-30 (-3.000 %)"):
        assert expected in page


def test_without_a_gpu_there_is_one_line(tmp_path: Path) -> None:
    """A traceback of CUDA would be all that a laptop sees."""
    result = CliRunner().invoke(app, ["calibrate", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "sees none here; --device cpu" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_whole_way_on_the_cpu(tmp_path: Path) -> None:
    """The part that needs no GPU would be untried until one is lent: on the CPU an estimate is exact, op for op."""
    out = tmp_path / "out"
    chosen = ["--suite", "smoke", "--device", "cpu", "--only", "variant=backprop,greedy", "--processes", "1"]
    result = CliRunner().invoke(app, ["calibrate", *chosen, "--set", "threads=1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    found = Calibration.model_validate(json.loads((out / "calibration.json").read_bytes()))
    assert [cell.variant for cell in found.cells] == ["backprop", "greedy"]
    assert found.median_percent("peak") == 0
    assert {error.figure for error in found.errors() if error.error_bytes} <= {"requested"}  # workspaces of kernels
    for cell in found.cells:
        assert cell.measured.step_seconds is not None
        assert cell.measured.rounds >= 3
    assert set(found.unavailable) == {"allocated", "reserved"}
    again = CliRunner().invoke(app, ["calibrate", "--device", "cpu", "--out", str(tmp_path)])
    assert again.exit_code == 2
    assert "other things in it ('out')" in again.output
