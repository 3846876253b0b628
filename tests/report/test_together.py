"""Several runs as one: whose label, whose reference, whose files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import USUAL, build, record_of

from dbbench.report import tables
from dbbench.report.figure_style import page
from dbbench.report.figures import FIGURES
from dbbench.report.run import Run, load
from dbbench.report.summary import summary_markdown
from dbbench.report.together import together

#: The same cells as `USUAL`, which hold half of the activations: as after an improvement.
BETTER = [replace(v, activations_mib=v.activations_mib / 2, step_seconds=v.step_seconds * 3) for v in USUAL[:3]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    path = tmp_path_factory.mktemp("runs")
    build(path / "old", variants=USUAL[:3], seeds=2)
    build(path / "new", variants=BETTER, seeds=2)
    return [load(path / name) for name in ("old", "new")]


def test_one_run_is_itself(both: list[Run]) -> None:
    assert together(both[:1]) is both[0]
    with pytest.raises(ValueError):
        together([])


def test_references_and_ratios_stay_inside_each_run(both: list[Run]) -> None:
    """Broken if a run is measured against another's backprop, or reads another's timing: hashes are equal in both."""
    table = tables.comparison(together(both)).set_index("variant")
    assert list(table.index)[:3] == ["old: backprop", "old: checkpointing", "old: greedy"]
    for name, run in zip(("old", "new"), both, strict=True):
        alone = tables.comparison(run).set_index("variant")
        for label in alone.index:
            mine, theirs = table.loc[f"{name}: {label}"], alone.loc[label]
            for column in ("peak_bytes", "peak_ratio", "speed_ratio", "samples_per_second", "metric_mean"):
                assert mine[column] == theirs[column], (label, column)


def test_traces_and_curves_come_from_the_folder_of_their_record(both: list[Run]) -> None:
    """Broken if a figure looks a hash up in the first folder: the second run's timeline would rise to the first's."""
    run = together(both)
    with page():
        timeline = FIGURES["timeline"][0](run, tables.comparison(run))
    words = [text.get_text() for axes in timeline.axes for text in axes.texts]
    peaks = [record_of(v, 0).row.peak_bytes / 2**20 for v in (*USUAL[:3], *BETTER)]
    assert words == [f"{peak:.2f} MiB, backward" for peak in peaks]
    with pytest.raises(ValueError, match="no one folder"):
        _ = run.folder


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_shows_all_runs(both: list[Run], name: str) -> None:
    """Broken if a figure drops a run; a figure names its variants in one way or another."""
    run = together(both)
    with page():
        figure = FIGURES[name][0](run, tables.comparison(run))
        figure.canvas.draw()
        words = " ".join(t.get_text().replace("\n", "") for t in figure.findobj(lambda a: hasattr(a, "get_text")))
    for label in ("old: backprop", "new: backprop", "new: greedy"):
        assert label in words


def test_the_page_of_two_runs_is_complete(both: list[Run]) -> None:
    """Broken if a section of the summary asks for the one folder of a run."""
    run = together(both)
    said = summary_markdown(run, tables.comparison(run), {})
    assert "`new: checkpointing`" in said and "suites/tuning/vision.yaml" in said


def test_folders_of_one_name_are_told_apart_by_those_above(tmp_path: Path) -> None:
    """Broken if two runs share their labels, so that one hides the other."""
    for above in ("march", "april"):
        build(tmp_path / above / "vision", variants=USUAL[:1], seeds=1, traces=False, curves=False)
    runs = [load(tmp_path / above / "vision") for above in ("march", "april", "april")]
    labels = [c.label for c in together(runs).configurations]
    assert labels == ["march/vision: backprop", "april/vision (1): backprop", "april/vision (2): backprop"]
