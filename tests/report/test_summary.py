"""The page of a run: built from the folder alone, the same each time, with everything that is missing in sight."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from synthetic import USUAL, build, failed, record_of, trace_of

from dbbench.errors import BadInput
from dbbench.report import summary
from dbbench.report.definitions import DEFINITIONS
from dbbench.report.summary import print_summary, write_report


def built(path: Path, **options: object) -> str:
    build(path, **{"variants": USUAL[:5], "seeds": 2, **options})
    write_report(path)
    return (path / "summary.md").read_text()


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing twenty files takes longer than all else; these tests are of the page."""
    monkeypatch.setattr(summary, "write_figures", lambda figures: {})
    monkeypatch.setattr(summary, "write_page", lambda path, runs, figures: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    built(path, failures=[failed(USUAL[2], 1, "timeout", "no step in 600 s | <i>")])
    return path


@pytest.mark.usefixtures("only_timeline")
def test_rebuilding_gives_the_same_bytes(folder, tmp_path):
    """Of the figures one is drawn again here; two processes draw all of them in ``test_figures``."""
    folder = shutil.copytree(folder, tmp_path / folder.name)
    assert len(list((folder / "figures").iterdir())) == 20
    write_report(folder)
    files = ["summary.md", "summary.csv", "results.parquet", "metrics.parquet", "results.csv"]
    figures = [f"figures/timeline{end}" for end in (".png", ".pdf", "_one_column.png", "_one_column.pdf")]
    before = {name: (folder / name).read_bytes() for name in files + figures}
    for name in before:
        (folder / name).unlink()
    write_report(folder)
    for name, body in before.items():
        assert (folder / name).read_bytes() == body, name


@pytest.mark.parametrize(
    "words",
    [
        *(term.replace("_", "\\_") for term in DEFINITIONS),
        "Made equal: **layer updates**",
        "adamw (fused)",
        "frame train\\_step: logits",
        "embedding, norm, head",
        "suites/tuning/vision.yaml",
        "no NVML",
        "ab" * 32,
        "0123abcd",
        "figures/memory_split.png",
        "**1 of 10 cells did not finish**",
        "no step in 600 s \\| \\<i\\>",
    ],
)
def test_the_page_says(folder, words):
    assert words in (folder / "summary.md").read_text()


def test_the_page_holds_no_path_of_the_machine(folder):
    assert str(folder) not in (folder / "summary.md").read_text()


def test_every_figure_linked_exists(folder):
    page = (folder / "summary.md").read_text()
    links = [part.split(")")[0] for part in page.split("](")[1:] if part.startswith("figures/")]
    assert len(links) == 15
    assert all((folder / link).is_file() for link in links)


def test_other_ways_of_predicting_are_shown_with_their_statistics(folder):
    """The first block alone may score as much as the whole chain; a report of the chain alone would hide it."""
    scores = [score - 0.1 for score in USUAL[3].scores[:2]]
    part = (folder / "summary.md").read_text().split("## Where the figure of merit comes from")[1].split("\n## ")[0]
    header = next(x.split(" | ") for x in part.split("\n") if x.startswith("| variant"))
    line = next(x.split(" | ") for x in part.split("\n") if "b3_all" in x)
    place = header.index("first block alone")
    assert line[place] == f"{np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f} (n = 2)"


def test_retained_and_other_are_itemised_to_the_last_byte(folder):
    page = (folder / "summary.md").read_text()
    part = page.split("## Retained and other")[1].split("\n## ")[0]
    for role in ("retained", "other"):
        lines = [
            line.split(" | ") for line in part.split("\n") if line.startswith("| `backprop`") and f" {role} " in line
        ]
        total = sum(int(cells[5].replace(",", "")) for cells in lines)
        assert total == getattr(record_of(USUAL[0], 0).row, f"{role}_bytes")


@pytest.mark.usefixtures("no_figures")
def test_a_torn_record_is_named_and_the_report_goes_on(tmp_path):
    build(tmp_path, variants=USUAL[:2], seeds=2)
    torn = tmp_path / "records" / f"{record_of(USUAL[0], 1).row.config_hash}.json"
    torn.write_text(torn.read_text()[:500])
    (problem,) = write_report(tmp_path)
    assert problem.startswith(f"records/{torn.name}: truncated")
    page = (tmp_path / "summary.md").read_text()
    assert torn.name in page
    assert "(n = 1)" in page
    assert len(pd.read_parquet(tmp_path / "results.parquet")) == 3


@pytest.mark.usefixtures("only_timeline")
def test_torn_traces_and_curves_are_named_and_the_report_goes_on(tmp_path):
    build(tmp_path, variants=USUAL[:2], seeds=1)
    name = record_of(USUAL[0], 0).row.config_hash
    for room in ("traces", "curves"):
        (tmp_path / room / f"{name}.parquet").write_bytes(b"PAR1")
    problems = write_report(tmp_path)
    assert [problem.split(":")[0] for problem in problems] == [f"curves/{name}.parquet", f"traces/{name}.parquet"]
    assert (tmp_path / "figures" / "timeline.png").exists(), "the other variant's trace is intact"


@pytest.mark.usefixtures("no_figures")
def test_a_trace_that_does_not_rise_to_its_records_peak_is_named(tmp_path):
    folder = build(tmp_path, variants=USUAL[:1], seeds=1)
    record = record_of(USUAL[0], 0)
    trace = trace_of(record)
    folder.write_trace(record.row.config_hash, trace[trace["role"] != "other"])
    (problem,) = write_report(tmp_path)
    assert f"its record's peak is {record.row.peak_bytes}" in problem


@pytest.mark.usefixtures("no_figures")
def test_a_trace_of_the_right_height_with_other_roles_is_named(tmp_path):
    folder = build(tmp_path, variants=USUAL[:1], seeds=1)
    record = record_of(USUAL[0], 0)
    trace = trace_of(record).replace({"role": {"retained": "temporaries"}})
    folder.write_trace(record.row.config_hash, trace)
    (problem,) = write_report(tmp_path)
    assert "other bytes of temporaries, retained at the peak" in problem


@pytest.mark.usefixtures("no_figures")
def test_cells_that_never_left_a_record_are_counted_and_named(tmp_path):
    folder = build(tmp_path, variants=USUAL[:1], seeds=1)
    here = record_of(USUAL[0], 0).row.config_hash
    cells = [{"config_hash": here, "label": "here"}, {"config_hash": "f" * 16, "label": "backprop · seed 9"}]
    folder.write_run(folder.read_run() | {"cells": cells})
    write_report(tmp_path)
    page = (tmp_path / "summary.md").read_text()
    assert "**0 of 2 cells did not finish**, and 1 left no record: `backprop · seed 9`" in page


@pytest.mark.usefixtures("only_timeline")
def test_a_run_in_which_everything_failed_still_has_its_page(tmp_path):
    lost = [failed(variant, 0, "out_of_memory", "12 GiB asked") for variant in USUAL[:2]]
    page = built(tmp_path, variants=USUAL[:2], seeds=1, failures=lost)
    assert "12 GiB asked" in page
    assert "not drawn" in page
    assert "0.00" not in page.split("## Definitions")[0], "nothing was measured, so nothing is zero"


def test_an_empty_or_missing_folder_is_one_clear_line(tmp_path):
    with pytest.raises(BadInput, match="no such folder"):
        write_report(tmp_path / "none")
    with pytest.raises(BadInput, match="holds no readable record"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == [], "a refused report leaves nothing behind"


@pytest.mark.usefixtures("no_figures")
def test_a_run_json_that_is_missing_changes_the_order_and_nothing_else(tmp_path):
    build(tmp_path, variants=USUAL[:3], seeds=1)
    (tmp_path / "run.json").write_text("{")
    (problem,) = write_report(tmp_path)
    assert problem.startswith("run.json: truncated")
    assert str(tmp_path) not in problem
    assert pd.read_csv(tmp_path / "summary.csv")["variant"].tolist() == ["backprop", "checkpointing", "greedy"]


def test_the_terminal_ends_with_the_verdict_in_plain_words(folder):
    console = Console(width=120, file=io.StringIO(), record=True)
    print_summary(folder, console)
    shown = console.export_text()
    assert "backprop peaks at 133.00 MiB" in " ".join(shown.split())
    assert "fashion_mnist_10k" in shown, "no Markdown escapes in a terminal"
