"""A whole run over real processes: faults become rows, and what is finished stays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tiny_cells import make_cell, run_tiny

from dbbench.results.record import Record
from dbbench.results.store import RunFolder

#: The one that hangs stands first, so that the others run while it does.
FAULTS = {
    "hangs": ("Hangs", "timeout", "not finished after 20 s"),
    "raises": ("Raises", "failed", "ValueError: the toy broke [red]on purpose[/red]!!!"),
    "eats_tensors": ("EatsTensorMemory", "out_of_memory", "can't allocate memory"),
    "kills_itself": ("KillsItself", "killed", "killed by SIGKILL"),
    "leaves_nan": ("LeavesNan", "diverged", "is not finite, first seen after step 5"),
    "loses_its_loss": ("LosesItsLoss", "diverged", "the training loss is not finite, first at step 7"),
    "exits": ("Exits", "failed", "ended with exit status 7"),
}
PRINTS = make_cell("prints", "toy_methods.faulty:Prints")


def records(folder: Path) -> dict[tuple[str, int], Record]:
    found, problems = RunFolder(folder).read_records()
    assert not problems
    return {(record.row.variant, record.row.seed): record for record in found}


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what tells whether a record was written again, even with the same bytes."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in (folder / "records").glob("*.json")}


@pytest.fixture(scope="module")
def faulty_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """One run of every fault, with a sound cell behind them."""
    out = tmp_path_factory.mktemp("faulty") / "run"
    cells = []
    for variant, (method, *_) in FAULTS.items():
        limit = 20.0 if variant == "hangs" else 120.0
        cells.append(make_cell(variant, f"toy_methods.faulty:{method}", timeout_seconds=limit))
    cells.append(PRINTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1]))
        patch.setenv("DBBENCH_TEST_MARK", "faulty-run")
        status, shown = run_tiny(cells, out)
    return out, status, shown


@pytest.mark.parametrize("variant", FAULTS)
def test_a_fault_is_a_row_with_its_status_and_error(faulty_run: tuple[Path, int, str], variant: str) -> None:
    """A fault that leaves no row is a variant that silently drops out of a paper's table."""
    out, _, shown = faulty_run
    row = records(out)[variant, 0].row
    _, status, error = FAULTS[variant]
    assert row.status == status
    assert row.error is not None
    assert error in row.error
    assert "\n" not in row.error
    assert len(row.error) <= 300
    assert any(f"{variant} · seed 0: {status}" in line and error in line for line in shown.splitlines())


def test_the_others_go_on_and_the_status_says_that_one_failed(faulty_run: tuple[Path, int, str]) -> None:
    out, status, _ = faulty_run
    found = records(out)
    assert status == 1
    assert found["prints", 0].row.status == "ok", "printing, or reading standard input, disturbed the harness"
    assert set(RunFolder(out).read_run()["variants"]) == {variant for variant, _ in found}


def test_what_a_method_prints_and_raises_is_in_its_log(faulty_run: tuple[Path, int, str]) -> None:
    """One line of error is too little to mend a method by."""
    out, _, shown = faulty_run
    found = records(out)
    logs = {variant: (out / "logs" / f"{r.row.config_hash}.log").read_text() for (variant, _), r in found.items()}
    assert "a shout taken for a report" in logs["prints"]
    assert "a shout" not in shown
    assert "Traceback" in logs["raises"] and "faulty.py" in logs["raises"]
    assert 'faulty.py", line' in logs["hangs"], "a hung cell does not say where it hung"


def test_what_a_hung_cell_started_is_ended_with_it(faulty_run: tuple[Path, int, str]) -> None:
    """A data loader's processes would go on and take the cores of the cells that follow."""
    left = [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/environ")
        if int(path.parent.name) != os.getpid() and b"DBBENCH_TEST_MARK=faulty-run" in _bytes(path)
    ]
    assert left == []


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_rerun_takes_only_what_is_missing_and_fresh_redoes_all(
    faulty_run: tuple[Path, int, str], tmp_path: Path
) -> None:
    """Hours of finished cells must survive the rerun for one; and --fresh must not believe old records.

    Rows of two versions of the code in one table, without a word, would be compared as equals.
    """
    out = tmp_path / "run"
    shutil.copytree(faulty_run[0], out)
    store = RunFolder(out)
    assert [timing.variant for timing in store.read_timings()[0]] == ["prints"]
    finished = records(out)["prints", 0]
    finished.row.git_commit = "f" * 40
    store.write_record(finished)
    before = identities(out)

    mine = make_cell("mine", "toy_methods.accumulation:Accumulation")
    status, shown = run_tiny([PRINTS, mine], out)
    after = identities(out)
    assert status == 0, "cells of other commands count"
    assert "1 of 2 cells are finished already" in shown
    assert "warning" in shown and "f" * 40 in shown and "--fresh" in shown
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1
    assert len(store.read_timings()[0]) == 2, "a new variant was not timed against the old one"

    _, shown = run_tiny([PRINTS, mine], out)
    assert identities(out) == after
    assert "started" not in shown, "with nothing missing, something ran"

    status, shown = run_tiny([PRINTS], out, fresh=True, timing=False)
    assert [timing.variant for timing in store.read_timings()[0]] == ["mine"], "asked not to be timed, it was"
    redone = identities(out)
    assert status == 0
    assert [name for name in after if redone.get(name) != after[name]] == [f"{finished.row.config_hash}.json"]
    assert "warning" not in shown, "the cells of another commit are gone, and the run still warns of them"
