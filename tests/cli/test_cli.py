"""The verbs: what they import, print and return."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from dbbench import doctor
from dbbench.cli import app
from dbbench.errors import BadInput

HEAVY = ("torch", "pandas", "numpy", "matplotlib", "pyarrow", "pydantic")


def test_help_imports_nothing_heavy() -> None:
    """Broken if asking for help imports torch, pandas or matplotlib."""
    code = (
        "import sys\nfrom dbbench.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    verbs = "run report figure compare check estimate fit scaling calibrate profile diff list doctor".split()
    for verb in verbs:
        assert f"  {verb} " in done.stdout


def test_help_answers_in_half_a_second() -> None:
    """Broken if start-up does real work; the best of five, since other processes may hold the machine."""

    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "dbbench", "--help"], capture_output=True, timeout=60, check=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.5


def test_a_dry_run_of_the_papers_suite_needs_no_data_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken if --dry-run reads the data folder, starts a cell or makes the run's folder."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["run", "vision-cifar100", "--dry-run", "--only", "seed=0,1", "--device", "cuda"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("vision-cifar100.yaml: 4 cells")
    # 500 epochs x 391 steps of backprop; three blocks take three times as many steps for the same layer updates
    for expected in ("backprop", "diffusion_blocks_b3", "195500", "586500", "2346000", "[4, 4, 4]", "0, 1"):
        assert expected in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stand in for the scheduler, and keep what it is asked to run."""
    asked: list[dict[str, Any]] = []

    def run_suite(cells: list[Any], **options: Any) -> int:
        asked.append({"cells": cells, **options})
        return 1 if options["suite_name"] == "smoke" else 0

    module = ModuleType("dbbench.harness.scheduler")
    module.run_suite = run_suite  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dbbench.harness.scheduler", module)
    return asked


def test_run_hands_over_what_the_options_say(scheduler: list[dict[str, Any]], tmp_path: Path) -> None:
    """Broken if an option of ``run`` is dropped on its way to the scheduler."""
    arguments = ["run", "vision", "--out", str(tmp_path), "--device", "cpu", "--jobs", "3", "--fresh", "--trace"]
    arguments += ["--no-timing", "--set", "methods.greedy.layers_per_stage=3", "--only", "method=greedy,seed=0"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    (asked,) = scheduler
    assert [(cell.variant, cell.seed, cell.options, cell.device) for cell in asked["cells"]] == [
        ("greedy", 0, {"layers_per_stage": 3}, "cpu")
    ]
    assert (asked["jobs"], asked["fresh"], asked["trace"], asked["timing"]) == (3, True, True, False)
    assert (asked["out"], asked["suite_name"], asked["suite_file"]) == (tmp_path, "vision", "vision.yaml")


def test_several_suites_have_a_folder_each_and_the_worst_status(
    scheduler: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Broken if two suites write into one folder, or a failure in one is forgotten."""
    runner = CliRunner()
    result = runner.invoke(app, ["run", "smoke", "vision", "--device", "cpu", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert [asked["out"] for asked in scheduler] == [tmp_path / "smoke", tmp_path / "vision"]
    assert runner.invoke(app, ["run", "vision", "--device", "cpu"]).exit_code == 0
    assert scheduler[-1]["out"] == Path("runs/vision")
    same = runner.invoke(app, ["run", "vision", "vision", "--device", "cpu"])
    assert (same.exit_code, "same name" in same.stderr) == (2, True)


def test_ctrl_c_is_status_130(scheduler: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken if an interrupted command shows a traceback or claims to have failed otherwise."""

    def interrupted(*_: Any, **__: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["dbbench.harness.scheduler"], "run_suite", interrupted)
    result = CliRunner().invoke(app, ["run", "vision", "--device", "cpu"])
    assert (result.exit_code, result.stderr) == (130, "dbbench: interrupted\n")


def test_an_interrupted_suite_is_the_last(scheduler: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken if Ctrl-C in one suite, which the scheduler turns into a status, starts the next."""
    started = []

    def interrupted(*_: Any, suite_name: str, **__: Any) -> int:
        started.append(suite_name)
        return 130

    monkeypatch.setattr(sys.modules["dbbench.harness.scheduler"], "run_suite", interrupted)
    assert CliRunner().invoke(app, ["run", "vision", "smoke", "--device", "cpu"]).exit_code == 130
    assert started == ["vision"]


def test_cuda_without_a_device_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken if a run that asked for CUDA trains on the CPU, or every one of its cells fails by itself."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(app, ["run", "vision", "--device", "cuda"])
    assert result.exit_code == 2
    assert result.stderr.startswith("dbbench: --device cuda: torch ")


def test_list_has_a_line_for_everything_that_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken if something is missing from the list, has no summary, or one broken plugin hides the others."""
    from dbbench import plugins

    broken = {"broken_method": "no_such_module:M"}
    monkeypatch.setitem(plugins.BUILT_IN, "methods", plugins.BUILT_IN["methods"] | broken)
    result = CliRunner().invoke(app, ["list"])
    assert result.exit_code == 0, result.output
    lines = {tuple(line.split()[:2]): line.split(maxsplit=2)[2:] for line in result.stdout.splitlines()}
    for group in ("methods", "tasks", "networks"):
        for name in plugins.known(group):
            assert lines[(group[:-1], name)], f"{name} has no summary"
    assert "cannot import" in lines[("method", "broken_method")][0]
    assert {("suite", "vision"), ("suite", "smoke"), ("suite", "vision-cifar100")} <= set(lines)


def test_doctor_finds_this_machine_able_to_run_the_default_suite() -> None:
    """Broken if doctor misses a part of the machine, or calls a working installation broken."""
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    for part in ("torch", "CUDA", "NVML", "cores", "memory", "embedded data", "scikit-learn", "torch-tb-profiler"):
        assert part in result.stdout


def test_doctor_says_what_is_broken_and_how_to_mend_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken if damaged data, a lost symbol of torch or a missing library goes unnoticed, or has no remedy."""
    from dbbench import data
    from dbbench.measure import self_test

    def damaged(*_: Any, **__: Any) -> None:
        raise BadInput("embedded data: damaged")

    monkeypatch.setattr(data, "load_images", damaged)
    monkeypatch.setattr(self_test, "self_test", lambda: [("torch._C.gone", False, "reads storages")])
    monkeypatch.setattr(doctor, "NEEDED", {"no_such_library": "no-such-library"})
    broken = {finding.what: finding for finding in doctor.examine() if finding.state == "broken"}
    assert set(broken) == {"embedded data", "torch._C.gone", "no-such-library"}
    assert all(finding.remedy for finding in broken.values())
    assert broken["no-such-library"].remedy == "pip install no-such-library"
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 1


@pytest.mark.parametrize(
    ("installed", "state"),
    [("2.10.1", "note"), ("2.11.0", "ok"), ("2.13.0+cpu", "ok"), ("2.13.9+cu130", "ok"), ("2.14.0", "note")],
)
def test_doctor_knows_the_tested_range_of_torch(installed: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken if a version outside the range that the package declares passes for tested, or the reverse."""
    monkeypatch.setattr(doctor, "requires", lambda _: ["numpy>=1.26", "torch<2.14,>=2.11", "torch-tb-profiler>=0.4"])
    finding = doctor._torch_range(installed)
    assert (finding.state, ">=2.11, <2.14" in finding.found) == (state, True)


def test_report_rebuilds_each_run_and_the_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken if a run among several is skipped, or the claims are held against other runs than those named."""
    from rich.console import Console

    from dbbench.report import claims, page, summary

    written: list[Path] = []
    pages: list[tuple[Path, list[Path]]] = []
    held: list[tuple[list[Path], Path]] = []

    def write_report(folder: Path, console: Console) -> None:
        assert isinstance(console, Console), "without one the tables are not printed"
        written.append(folder)

    monkeypatch.setattr(summary, "write_report", write_report)

    def write_claims(folders: list[Path], path: Path) -> list[str]:
        held.append((folders, path))
        return ["one: a record is torn"]

    monkeypatch.setattr(claims, "write_claims", write_claims)
    monkeypatch.setattr(summary, "load_checked", lambda folder: folder)
    monkeypatch.setattr(page, "write_page", lambda path, together: pages.append((path, together)))
    runs = [tmp_path / "one", tmp_path / "two"]
    out = tmp_path / "both"
    arguments = ["report", *map(str, runs), "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert (written, held, pages) == (runs, [], [(out / "report.html", runs)])
    assert str(out / "report.html") in result.output.replace("\n", "")
    result = CliRunner().invoke(app, [*arguments, "--claims", str(tmp_path / "claims.md")])
    assert (result.exit_code, "claims: one: a record is torn" in result.output) == (0, True)
    assert held == [(runs, tmp_path / "claims.md")]


def test_the_page_of_several_runs_replaces_no_runs_own_page_and_no_file(tmp_path: Path) -> None:
    """Broken if --out naming one of the runs loses that run's page, or a file of that name is no clear refusal."""
    runs = [tmp_path / "one", tmp_path / "two"]
    for folder in runs:
        folder.mkdir()
    taken = tmp_path / "taken"
    taken.write_text("a note")
    for out in (runs[1], taken):
        result = CliRunner().invoke(app, ["report", *map(str, runs), "--out", str(out)])
        assert result.exit_code == 2 and f"--out {out}: is " in result.stderr
    assert taken.read_text() == "a note" and list(runs[1].iterdir()) == []


def test_report_on_what_is_no_run_is_one_line_and_status_2(tmp_path: Path) -> None:
    """Broken if a mistyped folder shows a traceback, or is made."""
    result = CliRunner().invoke(app, ["report", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert result.stderr.startswith("dbbench: ")
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "none").exists()
