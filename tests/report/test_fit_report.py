"""What a fit's tables, page and figure say, from made-up searches whose edges are known."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up import GIB, made_fit
from matplotlib.text import Text
from pydantic import ValidationError

from dbbench.errors import BadInput
from dbbench.report.figure_fit import draw
from dbbench.report.figure_style import WIDTHS, NothingToDraw, page
from dbbench.report.fit_table import edges, markdown, overview, techniques, write_fit
from dbbench.results.fit import Fit, read_fit


def test_a_technique_has_one_name_in_every_row() -> None:
    """Broken if labels of a grid, or options that do not differ, give one technique several colours."""
    names = techniques(made_fit())
    four = ["backprop", "checkpointing", "diffusion_blocks, residency all", "diffusion_blocks, residency active"]
    assert names == four * 3
    twins = made_fit()
    twins.lines[1] = twins.lines[0].model_copy(update={"variant": "other"})
    assert techniques(twins)[:2] == ["backprop.network.size-base", "other"]


def test_the_overview_has_a_row_a_network_and_ratios_to_its_backprop() -> None:
    """Broken if a number stands in another network's row, or a ratio is to another network's backprop."""
    header, rows = overview(made_fit(), 0)
    assert header[:3] == ["network", "backprop", "checkpointing"]
    assert [row[0] for row in rows] == ["vit base", "vit huge", "llama 7b"]
    # (24 - 2) / 0.08 samples of backprop; (24 - 2) / 0.0064 of checkpointing
    assert rows[0][1:3] == ["275", "3,437 (12.5×)"]
    assert rows[2][1:3] == ["does not fit", "does not fit"]
    assert rows[2][4] == "1"


def test_both_sides_of_an_edge_and_what_is_not_monotone_are_told() -> None:
    """Broken if the page leaves out what the next value takes, or that a smaller value does not fit."""
    fit = made_fit(gaps=[270])
    _, rows = edges(fit)
    assert rows[0][3:9] == ["275", "1.00×", "24.00", "24.00", "24.08", "24.08"]
    assert "270 do not fit" in rows[0]
    assert "`backprop.network.size-base` fits at 275 but not at 270" in markdown(fit)
    assert "Everything probed is monotone" in markdown(made_fit())


def test_what_a_prediction_needs_stands_beside_the_edge() -> None:
    """Broken if an edge of training alone is read as one of prediction too, or an earlier file's as training alone."""
    earlier = made_fit()
    assert "and then a prediction on a batch as large, fit" in markdown(earlier)
    fit = earlier.model_copy(update={"prediction": "beside"}, deep=True)
    for line in fit.lines:
        for probe in line.probes:
            probe.prediction_fits = list(probe.fits)
    assert "it fits too at every edge." in markdown(fit)
    line = fit.lines[1]
    largest = line.probe(line.edges[0].largest)
    assert largest is not None
    largest.prediction_fits = [False, True]
    assert f"every edge but those of `{line.variant}` in 24 GiB;" in markdown(fit)
    header, rows = edges(fit)
    place = header.index("prediction there")
    assert [row[place] for row in rows[:4]] == ["fits too", "fits too", "does not fit", "fits too"]
    assert "prediction there" not in edges(earlier)[0]


def test_a_cap_is_a_lower_bound() -> None:
    """Broken if a search that was stopped is shown as one that found its edge."""
    _, rows = overview(made_fit(highest=300), 1)
    assert rows[0][1] == "at least 300"


def test_the_folder_is_whole_and_read_back_as_it_was(tmp_path: Path) -> None:
    """Broken if what is committed cannot be rebuilt, a figure is too large, or two builds differ."""
    fit = made_fit()
    write_fit(tmp_path, fit)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == [
        *(f"figures/fit{ending}" for ending in (".pdf", ".png", "_one_column.pdf", "_one_column.png")),
        *("fit.csv", "fit.json", "fit.md"),
    ]
    assert read_fit(tmp_path) == fit
    assert (tmp_path / "figures/fit.png").stat().st_size < 300_000
    before = {name: (tmp_path / name).read_bytes() for name in files}
    write_fit(tmp_path, read_fit(tmp_path))
    assert before == {name: (tmp_path / name).read_bytes() for name in files}
    assert "](figures/fit.png)" in (tmp_path / "fit.md").read_text()


@pytest.mark.parametrize("width_inches", WIDTHS.values())
def test_the_figure_names_what_it_shows_and_nothing_overlaps(width_inches: float) -> None:
    """Broken if a network, a memory or "does not fit" is missing, or two texts lie over each other."""
    with page():
        figure = draw(made_fit(), width_inches)
        figure.canvas.draw()
        texts = [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible()]
        words = [t.get_text() for t in texts]
        boxes = [t.get_window_extent() for t in texts]
    for expected in (
        "24 GiB",
        "80 GiB",
        "base",
        "huge",
        "7b",
        "does\nnot fit",
        "12.5×" if width_inches < 4 else "3,437 (12.5×)",
    ):
        assert expected in words
    assert figure.get_size_inches()[1] < 9.5, "taller than a page"
    width, height = figure.get_size_inches() * figure.dpi
    for i, one in enumerate(boxes):
        assert one.x0 >= -1 and one.y0 >= -1 and one.x1 <= width + 1 and one.y1 <= height + 1, words[i]
        for j, other in enumerate(boxes[:i]):
            apart = one.x1 <= other.x0 or other.x1 <= one.x0 or one.y1 <= other.y0 + 1 or other.y1 <= one.y0 + 1
            assert apart, (words[i], words[j])


def test_without_a_line_there_is_no_figure() -> None:
    """Broken if a search in which every variant failed ends in a traceback."""
    empty = made_fit().model_copy(update={"lines": [], "failed": {"backprop": "at batch 1: no data"}})
    with pytest.raises(NothingToDraw):
        draw(empty)
    assert "not estimated: `backprop` at batch 1: no data" in markdown(empty)


def test_an_edge_without_its_probes_is_no_fit(tmp_path: Path) -> None:
    """Broken if a file edited by hand is believed: both sides of every edge must have been probed."""
    raw = made_fit().model_dump()
    raw["lines"][0]["edges"][0]["largest"] = 1
    with pytest.raises(ValidationError, match="no probe says that 1 fits"):
        Fit.model_validate(raw)
    write_fit(tmp_path, made_fit())
    path = tmp_path / "fit.json"
    path.write_text(path.read_text().replace('"fit_version": 1', '"fit_version": 99'))
    with pytest.raises(BadInput, match="fit version 99 is newer than the 1"):
        read_fit(tmp_path)
    with pytest.raises(BadInput, match="no such file; dbbench fit --out writes it"):
        read_fit(tmp_path / "none")
    assert GIB == 2**30
