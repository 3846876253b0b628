"""A folder is one run's and one process's: what is refused, and that nothing is written when it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_cells import make_cell, run_tiny

from dbbench.errors import BadInput
from dbbench.harness import provenance
from dbbench.harness.folder import (
    Job,
    check_folder,
    failed_record,
    first_seeds,
    identify,
    locked,
    run_facts,
    with_earlier,
)
from dbbench.results.record import SCHEMA_VERSION
from dbbench.results.store import RunFolder

HOLD = """
import sys, time
from pathlib import Path
from dbbench.harness.folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_an_out_that_is_a_file_is_refused_and_kept(tmp_path: Path) -> None:
    """A run pointed at somebody's file would overwrite it."""
    file = tmp_path / "thesis.txt"
    file.write_text("years of work")
    with pytest.raises(BadInput, match=r"thesis\.txt: --out is a file"):
        run_tiny([make_cell("a")], file)
    assert file.read_text() == "years of work"


def test_a_folder_with_other_things_in_it_is_refused_and_kept(tmp_path: Path) -> None:
    """A run pointed at a home folder would litter it."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match=r"thesis\.txt.*no run\.json"):
        run_tiny([make_cell("a")], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("left", [[], ["run.lock"], ["run.lock", ".run.json.abc.tmp"], ["run.json", "anything"]])
def test_a_new_a_begun_and_a_former_run_folder_are_taken(tmp_path: Path, left: list[str]) -> None:
    """A run killed in its first instant could otherwise never be started again."""
    for name in left:
        (tmp_path / name).write_text("{}")
    check_folder(tmp_path)
    with locked(tmp_path):
        assert (tmp_path / "run.lock").read_text().strip() == str(os.getpid())


def test_a_run_json_that_cannot_be_read_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Somebody else's file of that name gets a lock beside it."""
    (tmp_path / "run.json").write_text("not yours")
    with pytest.raises(BadInput, match="truncated or not JSON"), locked(tmp_path):
        pytest.fail("took somebody else's folder")
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write to --out"), locked(tmp_path / "file" / "run"):
        pytest.fail("entered a folder that cannot exist")


def test_the_second_run_on_a_folder_is_refused_by_name_and_a_killed_holder_lets_go(tmp_path: Path) -> None:
    """Two runs in one folder would both do every cell, and overwrite each other's run.json."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BadInput, match=rf"{tmp_path.name}: another run .*process {holder.pid}"), locked(tmp_path):
            pytest.fail("two processes hold one folder")
        assert (tmp_path / "run.lock").read_text().strip() == str(holder.pid)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with locked(tmp_path):
        assert (tmp_path / "run.lock").read_text().strip() == str(os.getpid())


def test_equal_cells_are_run_once_and_only_other_results_change_the_name() -> None:
    """A time limit is no part of what was measured; a learning rate is."""
    a = make_cell("a")
    others = [
        a.model_copy(update={"timeout_seconds": 5.0, "suite": "other"}),
        a.model_copy(update={"optimizer": a.optimizer.model_copy(update={"lr": 0.5})}),
    ]
    jobs = identify([a, *others], "tiny.yaml")
    assert [job.cell for job in jobs] == [a, others[1]]
    assert len({job.config_hash for job in jobs}) == 2


def test_a_grid_of_depths_is_told_apart_on_the_screen() -> None:
    """Two lines of the display would otherwise be called the same."""
    a = make_cell("a")
    deep = a.model_copy(update={"network": a.network.model_copy(update={"depth": 4})})
    assert [job.label for job in identify([a, deep], "tiny.yaml")] == ["a.depth-2 · seed 0", "a.depth-4 · seed 0"]
    assert [job.label for job in identify([a], "tiny.yaml")] == ["a · seed 0"]


def test_the_first_seed_of_every_variant_and_depth_is_timed() -> None:
    a, b = make_cell("a"), make_cell("b")
    deep = a.model_copy(update={"network": a.network.model_copy(update={"depth": 4})})
    cells = [a, a.model_copy(update={"seed": 1}), b, deep]
    chosen = first_seeds([Job(cell, str(i), "") for i, cell in enumerate(cells)])
    assert [job.config_hash for job in chosen] == ["0", "2", "3"]


def test_a_failed_cell_still_says_what_it_was_and_where_it_came_from(tmp_path: Path) -> None:
    """A row of a failure without its settings or versions could not be acted upon."""
    (job,) = identify([make_cell("a")], "tiny.yaml")
    store = RunFolder(tmp_path)
    store.write_record(failed_record(job, "timeout", "too long"))
    (record,), problems = store.read_records()
    row = record.row
    assert not problems
    assert (row.status, row.error, row.variant, row.seed, row.depth) == ("timeout", "too long", "a", 0, 2)
    assert row.dataset_sha256 == job.dataset_sha256
    assert len(job.dataset_sha256) == 64
    assert row.torch_version.startswith("2.")
    assert row.peak_bytes is None, "what was not measured is null, never 0"
    assert store.finished() == set()


def test_run_json_holds_no_path_of_the_machine(tmp_path: Path) -> None:
    """A published folder would tell where its author keeps things."""
    facts = run_facts([Job(make_cell("a"), "0" * 16, "")], "tiny", str(tmp_path / "tiny.yaml"))
    assert str(tmp_path) not in json.dumps(facts)
    assert facts["suite_file"] == "tiny.yaml"
    assert facts["schema_version"] == SCHEMA_VERSION
    assert (
        run_facts([Job(make_cell("a"), "0" * 16, "")], "tiny", "suites/tiny.yaml")["suite_file"] == "suites/tiny.yaml"
    )


def test_a_part_of_a_suite_keeps_the_order_and_the_cells_of_the_parts_before() -> None:
    """``--only b`` after a whole run would otherwise hide a, or put b first in every table."""
    whole = run_facts([Job(make_cell(v), v * 16, "") for v in "abc"], "tiny", "tiny.yaml")
    part = run_facts([Job(make_cell("b"), "b" * 16, "")], "tiny", "tiny.yaml")
    merged = with_earlier(part, whole)
    assert merged["variants"] == ["a", "b", "c"]
    assert sorted(cell["variant"] for cell in merged["cells"]) == ["a", "b", "c"]
    assert with_earlier(whole, part)["variants"] == ["a", "b", "c"]
    assert with_earlier(part, {})["variants"] == ["b"]


def test_the_commit_is_that_of_our_checkout_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An installed copy inside somebody's repository would put that repository's commit into every row."""
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-mx"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    package = tmp_path / "site-packages" / "dbbench"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(provenance.dbbench, "__file__", str(package / "__init__.py"))
    assert provenance.git_commit.__wrapped__() is None
    subprocess.run(["git", "-C", str(tmp_path), "add", "."], check=True)
    assert str(provenance.git_commit.__wrapped__()).endswith("-dirty")
