"""The twelve regressions of ``tests/regressions.yaml``, each against the baseline of the project as it was."""

from __future__ import annotations

import fnmatch
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from researcher_project import HERE, Regression, baseline_of, copy_project, forget, measured, regressions

from dbbench.gate.baseline import Baseline
from dbbench.gate.check import check
from dbbench.gate.result import CHANGED, FINE, CellResult

Copy = Callable[[Regression | None], Path]
ALL = regressions()
#: A step as a whole causes it: `retained`, `temporaries` and the like of no module.
NO_MODULE = "*"


def baseline(folder: Path, fake: bool) -> Baseline:
    """The baseline of the project without a regression, from the file."""
    sys.path.insert(0, str(folder))
    try:
        return baseline_of(measured(copy_project(folder), fake), folder / "baseline.txt")
    finally:
        sys.path.remove(str(folder))
        forget()


@pytest.fixture(scope="module")
def fake_baseline(tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    return baseline(tmp_path_factory.mktemp("fake"), fake=True)


@pytest.fixture(scope="module")
def cpu_baseline(tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    return baseline(tmp_path_factory.mktemp("cpu"), fake=False)


def verdict(regression: Regression, expected: Baseline, suite: Path, fake: bool) -> CellResult:
    result = check(expected, measured(suite, fake, cell=regression.cell))
    assert str(importlib.import_module("researcher").__file__).startswith(str(suite.parent)), "the wrong copy ran"
    (cell,) = result.cells
    assert (result.status, cell.outcome) == (CHANGED, "changed")
    return cell


def module_is_right(regression: Regression, cell: CellResult) -> bool:
    named = cell.causes[0].culprits[0].modules
    return bool(named) and all(fnmatch.fnmatchcase(module, regression.module) for module in named)


def assert_named(regression: Regression, cell: CellResult) -> None:
    root = cell.causes[0]
    assert root.role == regression.role, f"{root.sentence}, not {regression.role}"
    assert ("+" if root.difference_bytes > 0 else "-") == regression.sign
    assert root.culprits, "nothing below the role is named"
    assert sum(culprit.difference_bytes > 0 for culprit in root.culprits) == len(root.culprits)
    assert module_is_right(regression, cell), f"{root.culprits[0].modules} is not {regression.module}"


@pytest.mark.parametrize("regression", ALL, ids=lambda regression: regression.name)
def test_the_culprit_is_named_on_fake_tensors(regression: Regression, fake_baseline: Baseline, copy: Copy) -> None:
    """Broken if the gate misses a regression, or blames a consequence of it: another role, another module."""
    assert_named(regression, verdict(regression, fake_baseline, copy(regression), fake=True))


@pytest.mark.slow
@pytest.mark.parametrize("regression", ALL, ids=lambda regression: regression.name)
def test_the_culprit_is_named_on_the_cpu(regression: Regression, cpu_baseline: Baseline, copy: Copy) -> None:
    """Broken if the gate can only tell on fake tensors, and not from a run's own trace."""
    assert_named(regression, verdict(regression, cpu_baseline, copy(regression), fake=False))


def test_taking_a_regression_back_fails_too(fake_baseline: Baseline, copy: Copy) -> None:
    """Broken if an improvement passes: the next change could then cost as much unseen."""
    dropped = next(regression for regression in ALL if regression.name == "a checkpoint dropped")
    worse = baseline_of(measured(copy(dropped), cell=dropped.cell), copy(None).parent / "worse.txt")
    result = check(worse, measured(copy(None), cell=dropped.cell))
    (cell,) = result.cells
    assert (result.status, cell.causes[0].role, cell.causes[0].difference_bytes < 0) == (CHANGED, "activations", True)
    assert cell.causes[0].culprits[0].modules == ["layers.2"]
    peak = next(finding for finding in cell.changed if finding.metric == "peak_bytes")
    assert peak.commit is not None
    assert peak.commit.split("\t")[-2:] == [
        str(fake_baseline.cells[cell.cell, "fake", result.torch[0]].bytes("peak_bytes")),
        "exact",
    ]


def test_an_unchanged_project_raises_no_alarm(fake_baseline: Baseline, copy: Copy) -> None:
    """Broken if a figure depends on the seed, or on what this process did before."""
    result = check(fake_baseline, measured(copy(None), seed=11))
    assert (result.status, {cell.outcome for cell in result.cells}) == (FINE, {"same"})


#: Each takes some four seconds; all fifty are asked for with ``DBBENCH_EVERY_CASE=1``.
REPEATS = 50 if os.environ.get("DBBENCH_EVERY_CASE") else 12


@pytest.mark.slow
def test_unchanged_repeats_raise_no_alarm(fake_baseline: Baseline, copy: Copy) -> None:
    """Broken if one run in fifty differs: a gate that cries wolf is switched off. Fresh modules and a seed each."""
    alarms = []
    for seed in range(1, REPEATS + 1):
        result = check(fake_baseline, measured(copy(None), seed=seed))
        assert result.compared > 100
        alarms += [(seed, result.statuses)] if result.status != FINE else []
    assert alarms == []


@pytest.mark.slow
def test_a_repeat_from_the_command_line_raises_no_alarm(fake_baseline: Baseline, tmp_path: Path) -> None:
    """Broken if another process, hash seed and working folder measure something else."""
    suite = copy_project(tmp_path)
    command = [sys.executable, "-m", "dbbench", "check", "--fake", str(suite.relative_to(tmp_path))]
    environment = os.environ | {"PYTHONHASHSEED": "4711", "PYTHONPATH": str(HERE.parent.parent)}
    command += ["--baseline", str(fake_baseline.path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == FINE, done.stdout + done.stderr
    assert "2 cells, 2 of them the same" in done.stdout
