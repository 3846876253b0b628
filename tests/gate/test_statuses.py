"""``dbbench check`` from the command line: every exit status, what is said with it, and what is left unwritten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from report.synthetic import USUAL, Variant, build, failed
from typer.testing import CliRunner

from dbbench.cli import app
from dbbench.results.store import RunFolder

BACKPROP, CHECKPOINTING = USUAL[0], USUAL[1]


def dbbench(*arguments: str | Path) -> Result:
    """Run the command where GitHub does not listen."""
    environment = {"GITHUB_ACTIONS": "", "GITHUB_STEP_SUMMARY": ""}
    return CliRunner().invoke(app, ["check", *map(str, arguments)], env=environment)


def changed(variant: Variant, **knobs: float) -> Variant:
    return Variant(**(vars(variant) | knobs))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, and its baseline as ``--update`` writes it."""
    folder = tmp_path_factory.mktemp("made")
    build(folder / "run", [BACKPROP, CHECKPOINTING], curves=False)
    done = dbbench(folder / "run", "--baseline", folder / "baseline.txt", "--update")
    assert done.exit_code == 0, done.output
    assert "created, 2 cells measured" in done.stdout
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """The run, for the test to change."""
    return shutil.copytree(made / "run", tmp_path / "run")


@pytest.fixture
def baseline(made: Path, tmp_path: Path) -> Path:
    """Its baseline, for the test to change."""
    return shutil.copy(made / "baseline.txt", tmp_path / "baseline.txt")


def test_0_the_same_run_changes_nothing(run: Path, baseline: Path) -> None:
    """Broken if the gate is not quiet on what it has written itself, or a second --update writes something else."""
    done = dbbench(run, "--baseline", baseline)
    assert (done.exit_code, "2 cells, 2 of them the same" in done.stdout) == (0, True), done.output
    before = baseline.read_bytes()
    again = dbbench(run, "--baseline", baseline, "--update")
    assert (again.exit_code, "nothing changed" in again.stdout) == (0, True)
    assert baseline.read_bytes() == before


@pytest.mark.parametrize(("activations_mib", "sign"), [(121.0, "+1.00 MiB"), (119.0, "−1.00 MiB")])
def test_1_a_change_either_way_is_named_with_the_line_to_commit(
    activations_mib: float, sign: str, baseline: Path, tmp_path: Path
) -> None:
    """Broken if an improvement passes, or the lines that the message gives do not mend the baseline."""
    build(tmp_path / "other", [changed(BACKPROP, activations_mib=activations_mib), CHECKPOINTING], curves=False)
    done = dbbench(tmp_path / "other", "--baseline", baseline)
    assert done.exit_code == 1, done.output
    assert f"activations {sign} at its own peak" in done.stdout
    assert "in layers." in done.stdout
    assert f"dbbench check {tmp_path}/other --baseline {baseline} --update" in done.stdout
    said = done.stdout.partition("To accept it")[2].splitlines()
    old = [line[1:] for line in said if line.startswith("-vision/")]
    new = [line[1:] for line in said if line.startswith("+vision/")]
    lines = baseline.read_text().splitlines()
    assert old and set(old) <= set(lines)
    baseline.write_text("\n".join([lines[0], *sorted({*lines[1:]} - {*old} | {*new})]) + "\n")
    assert dbbench(tmp_path / "other", "--baseline", baseline).exit_code == 0


def test_1_less_accurate_than_the_noise_allows(baseline: Path, tmp_path: Path) -> None:
    """Broken if a method that learns less passes, or one that only had other luck fails."""
    lucky = changed(BACKPROP, scores=(0.859, 0.863, 0.865))
    worse = changed(BACKPROP, scores=(0.811, 0.808, 0.816))
    for name, variant, status in (("lucky", lucky, 0), ("worse", worse, 1)):
        build(tmp_path / name, [variant, CHECKPOINTING], curves=False)
        done = dbbench(tmp_path / name, "--baseline", baseline)
        assert done.exit_code == status, done.output
    assert "test_accuracy" in done.stdout
    assert "Welch's t-test" in done.stdout


def test_one_seed_is_not_compared_and_the_green_check_says_so(baseline: Path, tmp_path: Path) -> None:
    """Broken if a run of one seed passes for one whose accuracy was held against the baseline's."""
    build(tmp_path / "one", [BACKPROP, CHECKPOINTING], seeds=1, curves=False)
    done = dbbench(tmp_path / "one", "--baseline", baseline)
    assert done.exit_code == 0, done.output
    assert "not compared in 2 cells: test_accuracy, since the run has one seed" in done.stdout


def test_1_time_where_it_is_asked_for(run: Path, baseline: Path, tmp_path: Path) -> None:
    """Broken if time fails a check that nobody asked for time, or passes one that somebody did."""
    slow = tmp_path / "slow"
    build(slow, [changed(BACKPROP, step_seconds=0.13), CHECKPOINTING], curves=False)
    assert dbbench(run, "--baseline", baseline, "--update", "--time", "20%").exit_code == 0
    assert dbbench(slow, "--baseline", baseline).exit_code == 0
    assert dbbench(slow, "--baseline", baseline, "--time", "50%").exit_code == 0
    done = dbbench(slow, "--baseline", baseline, "--time", "20%")
    assert (done.exit_code, "seconds_per_step" in done.stdout) == (1, True), done.output
    kept = baseline.read_bytes()
    assert dbbench(run, "--baseline", baseline, "--update").exit_code == 0
    assert baseline.read_bytes() == kept, "an update without --time threw the times away"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give a run's folder, a step of your own"),
        (["RUN", "--fake", "smoke"], "give one of a run's folder"),
        (["RUN", "--only", "seed=0"], "--only choose the cells of --fake"),
        (["RUN", "--update", "--json", "-"], "--update compares nothing"),
        (["RUN", "--prune"], "--prune is a part of --update"),
        (["--fake", "smoke", "--time", "20%"], "a step on fake tensors takes none"),
        (["RUN", "--time", "soon"], "--time: 'soon' is no tolerance"),
        (["no-such-folder"], "no-such-folder: no such folder"),
        (["--fake", "smok"], "did you mean 'smoke'"),
    ],
)
def test_2_bad_input_is_one_line(arguments: list[str], says: str, run: Path, baseline: Path) -> None:
    """Broken if a mistake shows a traceback, or a status that means something else."""
    done = dbbench(*(run if word == "RUN" else word for word in arguments), "--baseline", baseline)
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), done.output
    assert says in done.stderr


def test_2_a_bad_baseline_is_named_and_left_alone(run: Path, baseline: Path) -> None:
    """Broken if --update writes over a file that somebody was in the middle of merging."""
    body = baseline.read_text() + "<<<<<<< HEAD\n"
    baseline.write_text(body)
    for more in ([], ["--update"]):
        done = dbbench(run, "--baseline", baseline, *more)
        assert done.exit_code == 2
        assert f"{baseline}:{body.count(chr(10))}: a merge conflict" in done.stderr
    assert baseline.read_text() == body


def test_3_no_baseline_says_how_to_make_one(run: Path, tmp_path: Path) -> None:
    """Broken if a check against a file that is not there passes, or makes it."""
    path = tmp_path / "none.txt"
    done = dbbench(run, "--baseline", path, "--junit", tmp_path / "junit.xml", "--json", tmp_path / "out.json")
    assert (done.exit_code, path.exists()) == (3, False)
    assert f"dbbench check {run} --baseline {path} --update" in " ".join(done.stdout.split())
    assert b"<failure" in (tmp_path / "junit.xml").read_bytes()
    assert json.loads((tmp_path / "out.json").read_bytes())["statuses"] == [3]


def test_4_a_cell_that_failed_or_is_gone(run: Path, baseline: Path, tmp_path: Path) -> None:
    """Broken if a cell that was not measured counts as one that did not change."""
    lost = failed(CHECKPOINTING, 1, "timeout", "stopped after 60 s")
    build(tmp_path / "timed-out", [BACKPROP, CHECKPOINTING], failures=[lost], curves=False)
    done = dbbench(tmp_path / "timed-out", "--baseline", baseline)
    assert done.exit_code == 4, done.output
    assert "vision/checkpointing (cpu): failed" in done.stdout
    assert "seed 1 timeout: stopped after 60 s" in done.stdout
    build(tmp_path / "fewer", [BACKPROP], curves=False)
    done = dbbench(tmp_path / "fewer", "--baseline", baseline)
    assert (done.exit_code, "vision/checkpointing (cpu): missing from the run" in done.stdout) == (4, True)


def test_4_the_seeds_that_finished_are_compared_all_the_same(baseline: Path, tmp_path: Path) -> None:
    """Broken if one seed's time-out hides what the others show."""
    worse = changed(CHECKPOINTING, activations_mib=30.0)
    lost = failed(CHECKPOINTING, 1, "timeout", "stopped after 60 s")
    build(tmp_path / "run2", [BACKPROP, worse], failures=[lost], curves=False)
    done = dbbench(tmp_path / "run2", "--baseline", baseline, "--json", "-")
    assert json.loads(done.stdout)["statuses"] == [1, 4]
    assert "activations +8.00 MiB" in done.stderr


def test_4_a_torn_trace_costs_its_own_cell(run: Path, baseline: Path) -> None:
    """Broken if one damaged file keeps every other cell from being compared."""
    records, _ = RunFolder(run).read_records()
    first = next(r for r in records if r.row.variant == "checkpointing" and r.row.seed == 0)
    path = run / "traces" / f"{first.row.config_hash}.parquet"
    path.write_bytes(path.read_bytes()[:200])
    done = dbbench(run, "--baseline", baseline)
    assert done.exit_code == 4, done.output
    assert f"traces/{path.name}: torn or no parquet" in " ".join(done.stdout.split())
    assert "2 cells, 1 of them the same" in done.stdout


def test_4_a_torn_record_is_a_cell_that_is_gone(run: Path, baseline: Path) -> None:
    """Broken if half a record costs the report, or passes for a run with fewer seeds."""
    records, _ = RunFolder(run).read_records()
    cells = [{"config_hash": r.row.config_hash, "label": f"{r.row.variant} · seed {r.row.seed}"} for r in records]
    RunFolder(run).write_run({"suite": "vision", "variants": ["backprop", "checkpointing"], "cells": cells})
    torn = next(r for r in records if r.row.variant == "backprop")
    path = run / "records" / f"{torn.row.config_hash}.json"
    path.write_bytes(path.read_bytes()[:300])
    done = dbbench(run, "--baseline", baseline)
    assert done.exit_code == 4, done.output
    assert f"backprop · seed {torn.row.seed} left no record that can be read" in done.stdout
    assert f"records/{path.name}: truncated or not JSON" in done.stdout


def test_4_an_update_keeps_what_could_not_be_measured(run: Path, baseline: Path, tmp_path: Path) -> None:
    """Broken if a cell that fails while the baseline is rewritten drops out of it unseen."""
    before = [line for line in baseline.read_text().splitlines() if line.startswith("vision/checkpointing")]
    lost = [failed(CHECKPOINTING, seed, "failed", "no") for seed in range(3)]
    build(tmp_path / "broken", [changed(BACKPROP, activations_mib=100.0), CHECKPOINTING], failures=lost, curves=False)
    done = dbbench(tmp_path / "broken", "--baseline", baseline, "--update", "--prune")
    assert (done.exit_code, "the baseline keeps what it had" in done.stderr) == (4, True), done.output
    assert [line for line in baseline.read_text().splitlines() if line.startswith("vision/checkpointing")] == before
    assert "rewritten, 1 cells measured" in done.stdout


def test_5_a_cell_that_the_baseline_does_not_know(run: Path, tmp_path: Path) -> None:
    """Broken if a new method goes unguarded, and nobody is told."""
    build(tmp_path / "few", [BACKPROP], curves=False)
    path = tmp_path / "few.txt"
    assert dbbench(tmp_path / "few", "--baseline", path, "--update").exit_code == 0
    done = dbbench(run, "--baseline", path)
    assert (done.exit_code, "vision/checkpointing (cpu): missing from the baseline" in done.stdout) == (5, True)


def test_6_another_torch_compares_nothing_and_says_which(run: Path, baseline: Path) -> None:
    """Broken if figures of two versions are held against one another, or the version is called a change."""
    baseline.write_text(baseline.read_text().replace("\t2.13.0\t", "\t2.12.1\t"))
    done = dbbench(run, "--baseline", baseline)
    assert done.exit_code == 6, done.output
    assert "the baseline is of torch 2.12.1, this is 2.13.0" in done.stdout
    assert "nothing was compared (status 7)" in done.stdout, "all that applies is said"


def test_7_nothing_compared_is_no_success(run: Path, baseline: Path) -> None:
    """Broken if a baseline whose every tolerance is off, or that has no figure, stays green for ever."""
    body = baseline.read_text()
    off = "\n".join(line.rpartition("\t")[0] + "\toff" if line.count("\t") == 5 else line for line in body.splitlines())
    baseline.write_text(off + "\n")
    done = dbbench(run, "--baseline", baseline)
    assert done.exit_code == 7, done.output
    assert "nothing was compared" in done.stdout


def test_several_at_once_are_all_said(baseline: Path, tmp_path: Path) -> None:
    """Broken if a change hides that a cell is gone, or the order of precedence is another than the numbers'."""
    build(tmp_path / "other", [changed(BACKPROP, activations_mib=121.0), USUAL[2]], curves=False)
    done = dbbench(tmp_path / "other", "--baseline", baseline)
    assert done.exit_code == 1
    for words in ("a change was found (status 1)", "not measured (status 4)", "not in the baseline (status 5)"):
        assert words in done.stdout
    done = dbbench(tmp_path / "other", "--baseline", baseline, "--json", "-")
    assert json.loads(done.stdout)["statuses"] == [1, 4, 5]


def test_a_tolerance_set_by_hand_is_respected(baseline: Path, tmp_path: Path) -> None:
    """Broken if the file's tolerance is a decoration, or an update puts its own in its place."""
    build(tmp_path / "other", [changed(BACKPROP, activations_mib=120.75), CHECKPOINTING], curves=False)
    lines = baseline.read_text().splitlines()
    wide = [
        line.removesuffix("exact") + "1%" if "_bytes\t" in line and line.count("\t") == 5 else line for line in lines
    ]
    baseline.write_text("\n".join(wide) + "\n")
    assert dbbench(tmp_path / "other", "--baseline", baseline).exit_code == 0
    build(tmp_path / "more", [changed(BACKPROP, activations_mib=124.0), CHECKPOINTING], curves=False)
    assert dbbench(tmp_path / "more", "--baseline", baseline).exit_code == 1
    assert dbbench(tmp_path / "more", "--baseline", baseline, "--update").exit_code == 0
    assert dbbench(tmp_path / "other", "--baseline", baseline).exit_code == 1
    assert "\texact" not in baseline.read_text().replace("flops", "").partition("_bytes\t")[2].splitlines()[0]


def test_a_run_without_traces_is_compared_as_far_as_it_goes(run: Path, baseline: Path, tmp_path: Path) -> None:
    """Broken if a run that was copied without its traces fails for that, or passes with a changed peak."""
    for path in (run / "traces").iterdir():
        path.unlink()
    done = dbbench(run, "--baseline", baseline)
    assert done.exit_code == 0, done.output
    assert "not compared in 2 cells: phases, since the run has no trace of it" in done.stdout
    build(tmp_path / "other", [changed(BACKPROP, activations_mib=121.0), CHECKPOINTING], curves=False, traces=False)
    done = dbbench(tmp_path / "other", "--baseline", baseline, "--json", "-")
    (cell,) = (cell for cell in json.loads(done.stdout)["cells"] if cell["outcome"] != "same")
    assert [cause["role"] for cause in cell["causes"]] == ["activations"], "what is not known is not a change"
    assert "has no trace of it" in cell["notes"][0]


def test_fake_suites_are_measured_in_this_process(tmp_path: Path) -> None:
    """Broken if --fake trains, starts processes, or takes another cell than --only asked for; a part misses nothing."""
    path = tmp_path / "smoke.txt"
    arguments = ["--fake", "smoke", "--baseline", path]
    done = dbbench(*arguments, "--only", "variant=linear", "--update")
    assert (done.exit_code, "smoke/linear (fake" in done.stdout) == (0, True), done.output
    assert dbbench(*arguments, "--only", "variant=linear").exit_code == 0
    wider = dbbench(*arguments, "--only", "variant=linear", "--set", "batch_size=64")
    assert (wider.exit_code, "inputs" in wider.stdout) == (1, True), wider.output
    assert "--set batch_size=64 --only variant=linear --baseline" in wider.stdout


def test_a_fake_cell_that_cannot_be_estimated_is_named(tmp_path: Path) -> None:
    """Broken if a cell whose data are missing ends the check of the others, or passes for one that is fine."""
    path = tmp_path / "b.txt"
    arguments = ["--fake", "vision-cifar100", "--only", "seed=0", "--baseline", path]
    done = dbbench(*arguments, "--set", "task.folder=/no/such/folder", "--update")
    assert (done.exit_code, path.exists()) == (4, False), done.output
    assert "vision-cifar100/backprop: cannot be estimated: " in done.stderr
