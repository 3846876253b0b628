"""Results in the trackers that people use, against the real packages where they are installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from tiny_cells import make_cell, run_tiny
from typer.testing import CliRunner

from dbbench import loggers
from dbbench.cli import app
from dbbench.errors import BadInput


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("logged") / "run"
    status, shown = run_tiny([make_cell("backprop"), make_cell("greedy", "greedy")], out)
    assert status == 0, shown
    return out


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", loggers.PACKAGES)
def test_every_finished_cell_is_sent_once(name: str, run_folder: Path, offline: None) -> None:
    """A second report doubles every run in the tracker."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    (said,) = loggers.log_run(run_folder, [name])
    assert said.startswith(f"{name}: 2 cells sent, 0 were there")
    written = [path for path in (run_folder / "loggers" / name).rglob("*") if path.is_file()]
    assert len(written) >= 2
    (said,) = loggers.log_run(run_folder, [name])
    assert said.startswith(f"{name}: 0 cells sent, 2 were there")
    assert [path for path in (run_folder / "loggers" / name).rglob("*") if path.is_file()] == written


def test_a_cell_is_sent_with_its_configuration_its_curves_and_its_figures(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    got: list[loggers.Entry] = []
    monkeypatch.setitem(loggers._WRITERS, "tensorboard", lambda entry, place: got.append(entry))
    (run_folder / "loggers" / "tensorboard.sent").unlink(missing_ok=True)
    loggers.log_run(run_folder, ["tensorboard"])
    (run_folder / "loggers" / "tensorboard.sent").unlink()
    assert {entry.config["variant"] for entry in got} == {"backprop", "greedy"}
    first = next(entry for entry in got if entry.config["variant"] == "backprop")
    assert first.config["network.depth"] == 2
    assert {name for name, _, _ in first.curve} == {"validation/accuracy", "validation/cross_entropy", "train/loss"}
    assert [step for name, _, step in first.curve if name == "validation/accuracy"] == [0, 5, 10]
    assert first.figures["peak_bytes"] > 0 and 0 <= first.figures["metric_value"] <= 1


def test_a_tracker_that_is_none_or_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="no such tracker \\(did you mean 'wandb'\\?\\)"):
        loggers.check_loggers(["wandbb"])
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(BadInput, match=r"pip install 'dbbench\[mlflow\]'"):
        loggers.check_loggers(["mlflow"])


def test_it_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", "smoke", "--log", "nothing", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert not (tmp_path / "out").exists()
